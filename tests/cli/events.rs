//! `tollgate events`: found by filters, shown with what became of them, exported and sent again.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{App, SECRET, event};
use crate::{command, done, failed, stdout, tollgate};

fn refused(app: &App, expected: i32, arguments: &[&str]) -> String {
    let (code, why) = failed(app, arguments);
    assert_eq!(code, expected, "{arguments:?}");
    why
}

fn ids(app: &App, filter: &[&str]) -> Vec<String> {
    let arguments = [&["events", "list", "--json"], filter].concat();
    let all: Vec<Value> = serde_json::from_str(&done(app, &arguments)).unwrap();
    all.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_found_by_what_they_are_about() {
    let app = App::spawn().await;
    for n in 1..=3 {
        app.deliver(event(&format!("evt_{n}"))).await;
    }
    app.deliver(r#"{"id":"evt_old","type":"charge.failed","created":1600000000,"livemode":true,"account":"acct_1"}"#)
        .await;
    assert_eq!(ids(&app, &[]), ["evt_3", "evt_2", "evt_1", "evt_old"]);
    assert_eq!(ids(&app, &["--limit", "1"]), ["evt_3"]);
    assert_eq!(ids(&app, &["--type", "charge.*", "--type", "payout.paid"]), ["evt_old"]);
    assert_eq!(ids(&app, &["--object", "in_evt_2"]), ["evt_2"]);
    assert_eq!(ids(&app, &["--account", "-", "--id", "evt_*", "--limit", "2"]), ["evt_3", "evt_2"]);
    assert_eq!(ids(&app, &["--livemode", "true"]), ["evt_old"]);
    assert_eq!(ids(&app, &["--until", "30d"]), ["evt_old"]);
    assert_eq!(ids(&app, &["--since", "2001-01-01", "--until", "2021-01-01"]), ["evt_old"]);
    for nothing in [
        ["--object", "'; DROP TABLE tollgate.event_log; --"],
        ["--type", "in%"],
        ["--id", "evt\\_1%"],
    ] {
        let output = tollgate(
            &[&["events", "list", "--json"], &nothing[..]].concat(),
            &[("DATABASE_URL", &app.database_url)],
        );
        assert!(!stdout(&output).contains("evt_"), "{nothing:?}");
    }
    assert_eq!(app.events().await, 4);
    assert!(
        refused(&app, 2, &["events", "list", "--since", "soon"]).contains("since: expected a time")
    );
    assert!(
        refused(&app, 2, &["events", "list", "--status", "odd"]).contains("status: expected ok")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_shown_with_its_story_and_byte_for_byte() {
    let app = App::spawn().await;
    let body = "{\"id\":\"evt_1\",\n \"type\":\"invoice.paid\", \"n\": 1e400, \"x\":\"\u{1b}\"}";
    let body = body.replace('\u{1b}', "\u{202e}<script>");
    app.deliver(&body).await;
    assert_eq!(done(&app, &["events", "show", "evt_1", "--raw"]), body);
    let text = done(&app, &["events", "show", "evt_1"]);
    for part in ["invoice.paid", "received", "committed", "1e400", "\\u{202e}<script>"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\u{202e}'), "the terminal takes no orders");
    let json: Value = serde_json::from_str(&done(&app, &["events", "list", "--json"])).unwrap();
    assert_eq!(json[0]["status"], "ok");
    assert!(refused(&app, 1, &["events", "show", "evt_2"]).contains("there is no event \"evt_2\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_exported_can_be_sent_again() {
    let app = App::spawn().await;
    let dir = tempfile::tempdir().unwrap();
    for n in 0..450 {
        app.deliver(event(&format!("evt_{n}"))).await;
    }
    let exported = done(&app, &["events", "export", "--type", "invoice.*"]);
    assert_eq!(exported.lines().count(), 450, "more than two pages");
    assert_eq!(done(&app, &["events", "export", "--limit", "7"]).lines().count(), 7);
    let file = dir.path().join("events.jsonl");
    fs::write(&file, exported).unwrap();
    let other = App::spawn().await;
    let to = other.url("/webhooks/stripe");
    let file = file.to_str().unwrap();
    done(&other, &["replay", file, "--to", &to, "--secret", SECRET]);
    assert_eq!(other.events().await, 450);
}

/// As behind `head`.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_ends_the_command() {
    let app = App::spawn().await;
    for n in 0..200 {
        app.deliver(event(&format!("evt_{n}"))).await;
    }
    for arguments in ["events list --limit 200", "events list --limit 200 --json", "check"] {
        let mut command = command();
        command.args(arguments.split(' ')).env("DATABASE_URL", &app.database_url);
        command.env("STRIPE_WEBHOOK_SECRET", SECRET).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{arguments}");
    }
    app.stop().await;
}
