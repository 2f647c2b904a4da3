//! `tollgate tail` as a person or a script runs it: what it prints, that it prints each event once,
//! and how it ends.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use sqlx::Executor;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::{App, event, postgres};
use crate::{stderr, stdout, tollgate};

const SOON: Duration = Duration::from_secs(30);

/// A running `tollgate tail`.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(app: &App, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .arg("tail")
            .args(arguments)
            .env("DATABASE_URL", &app.database_url)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Starts at the end of the log, and is there when this returns.
    async fn live(app: &App, arguments: &[&str]) -> Self {
        let tail = Self::start(app, arguments);
        let looked = async {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                       AND query LIKE '%bytes_before%' AND query NOT LIKE '%pg_stat_activity%'";
            while app.count(sql).await == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, looked).await.expect("it looks at the log");
        tail
    }

    async fn line(&mut self) -> String {
        timeout(SOON, self.lines.next_line()).await.expect("a line").unwrap().expect("no end")
    }

    /// The last word in brackets of the next lines: the ids of their events.
    async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let line = self.line().await;
            let (_, rest) = line.split_once('[').unwrap();
            ids.push(rest.split_once(']').unwrap().0.to_owned());
        }
        ids
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    async fn ends_well(mut self) {
        let ended = timeout(SOON, self.child.wait()).await.expect("an end").unwrap();
        assert_eq!(ended.code(), Some(0));
    }
}

/// Runs to the end of the log.
fn once(app: &App, arguments: &[&str]) -> String {
    let all = [&["tail", "--once"], arguments].concat();
    let output = tollgate(&all, &[("DATABASE_URL", &app.database_url)]);
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

fn of_type(id: &str, event_type: &str) -> String {
    format!(
        r#"{{"id":{},"object":"event","type":{},"created":1700000000,"livemode":true,
            "account":"acct_1","data":{{"object":{{"id":"x_1","object":"thing"}}}}}}"#,
        Value::from(id),
        Value::from(event_type)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn live_events_of_the_types_asked_for_are_printed_as_they_come() {
    let app = App::spawn().await;
    app.deliver(event("evt_before")).await;
    // Longer than the test may take: what wakes it is the notification.
    let arguments = ["--type", "invoice.*", "--type", "customer.created", "--poll-interval", "1h"];
    let mut tail = Tail::live(&app, &arguments).await;
    // The listening connection may come after the first look; only then does the clock not matter.
    let listens = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND query LIKE 'LISTEN %'";
    while app.count(listens).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (id, event_type) in [
        ("evt_1", "invoice.paid"),
        ("evt_2", "invoiceitem.created"),
        ("evt_3", "customer.updated"),
        ("evt_4", "customer.created"),
    ] {
        app.deliver(of_type(id, event_type)).await;
    }
    let line = tail.line().await;
    let (time, rest) = line.split_at(19);
    assert_eq!(rest, "   --> invoice.paid [evt_1] x_1 acct_1 (live)");
    let received: String = sqlx::query_scalar(
        "SELECT to_char(received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
         FROM tollgate.events WHERE id = 'evt_1'",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!(time, received);
    assert!(tail.line().await.contains("customer.created [evt_4]"));
    tail.signal(nix::sys::signal::Signal::SIGINT);
    tail.ends_well().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn since_shows_what_was_received_from_then_on_and_nothing_before() {
    let app = App::spawn().await;
    for n in 0..40 {
        app.deliver(event(&format!("evt_{n:02}"))).await;
    }
    // One every ten minutes up to now; but around the hour's beginning their order is not that of
    // the positions: 32 and 34 belong to it, 33 and 36 do not.
    app.pool
        .execute(
            "UPDATE tollgate.event_log l SET received_at = now() - (40 - p.position) * interval '10 minutes'
             FROM tollgate.positions p WHERE p.id = l.id;
             UPDATE tollgate.event_log SET received_at = now() - interval '60 minutes 30 seconds' WHERE id = 'evt_36';
             UPDATE tollgate.event_log SET received_at = now() - interval '59 minutes 30 seconds' WHERE id = 'evt_32';
             UPDATE tollgate.event_log SET received_at = now() - interval '60 minutes 20 seconds' WHERE id = 'evt_33';
             UPDATE tollgate.event_log SET received_at = now() - interval '59 minutes' WHERE id = 'evt_34';",
        )
        .await
        .unwrap();
    let ids = |text: &str| -> Vec<String> {
        let id = |line: &str| line.split(['[', ']']).nth(1).unwrap().to_owned();
        text.lines().map(id).collect()
    };
    let text = once(&app, &["--since", "1h"]);
    let expected = [32, 34, 35, 37, 38, 39].map(|n| format!("evt_{n}"));
    assert_eq!(ids(&text), expected);
    assert_eq!(ids(&once(&app, &["--since", "earliest"])).len(), 40);
    assert_eq!(ids(&once(&app, &["--since", "1970-01-01T00:00:00Z"])).len(), 40);
    assert_eq!(ids(&once(&app, &["--since", "2000-01-01T00:00:00Z"])).len(), 40);
    assert_eq!(once(&app, &["--since", "2999-01-01T00:00:00Z"]), "");
    assert_eq!(once(&app, &[]), "", "from now on there is nothing yet");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_many_pages_with_holes_is_read_to_its_end() {
    let app = App::spawn().await;
    app.pool
        .execute(
            "INSERT INTO tollgate.event_log (created, id, endpoint, account, livemode, type, source, raw)
             SELECT to_timestamp(n), 'evt_' || n, 'default', '', false,
                    CASE WHEN n % 1500 = 7 THEN 'rare.one' ELSE 'common.one' END, 'webhook',
                    convert_to('{\"n\": ' || n || ', \"fill\": \"' || repeat('x', 5000) || '\"}', 'UTF8')
             FROM generate_series(1, 6000) n;
             INSERT INTO tollgate.positions SELECT n * 3, to_timestamp(n), 'evt_' || n
             FROM generate_series(1, 6000) n WHERE n NOT BETWEEN 1000 AND 2500;",
        )
        .await
        .unwrap();
    let rare = once(&app, &["--since", "earliest", "--type", "rare.one"]);
    let rare: Vec<_> = rare.lines().map(|line| line.split(['[', ']']).nth(1).unwrap()).collect();
    assert_eq!(rare, ["evt_7", "evt_3007", "evt_4507"]);
    let text = once(&app, &["--since", "earliest", "--json"]);
    let numbers = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["position"], line["event"]["n"].as_i64().unwrap() * 3);
        line["event"]["n"].as_i64().unwrap()
    });
    assert!(numbers.eq((1..1000).chain(2501..=6000)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_printed_once_and_in_order_whatever_connections_are_cut() {
    let app = App::spawn().await;
    let mut tail = Tail::live(&app, &[]).await;
    let expected: Vec<String> = (0..200).map(|n| format!("evt_{n:03}")).collect();
    for (n, id) in expected.iter().enumerate() {
        // Those of the gateway, too: it has the same name.
        if n % 20 == 10 {
            let cut = app.count(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'tollgate'",
            );
            assert!(cut.await > 0);
        }
        assert_eq!(app.deliver(event(id)).await.status, 200);
    }
    assert_eq!(tail.ids(200).await, expected);
    tail.signal(nix::sys::signal::Signal::SIGTERM);
    tail.ends_well().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_notifications_polling_shows_the_events() {
    let app = App::spawn_with(&[("notify", "off")]).await;
    let mut tail = Tail::live(&app, &["--poll-interval", "100ms"]).await;
    app.deliver(event("evt_1")).await;
    assert_eq!(tail.ids(1).await, ["evt_1"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_hold_the_event_as_it_came() {
    let app = App::spawn().await;
    let numbers = r#"[ 123456789012345678901234567890, 1.10, 1e400 ,"a  \" \u0000 b" ]"#;
    app.deliver(format!(
        r#"{{ "id": "evt_1", "object": "event", "type": "invoice.paid", "created": 1700000000,
             "livemode": true, "api_version": "2025-03-31.basil",
             "data": {{ "object": {{ "id": "in_1", "object": "invoice", "n": {numbers} }} }} }}"#
    ))
    .await;
    app.deliver(r#"{"id":"evt_2","account":"acct_1"}"#).await;
    let text = once(&app, &["--json", "--since", "earliest"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    let compact = r#"[123456789012345678901234567890,1.10,1e400,"a  \" \u0000 b"]"#;
    assert!(lines[0].contains(&format!(r#""n":{compact}}}"#)), "{text}");
    let head = lines[0].split_once(r#","event":"#).unwrap().0;
    let head: Value = serde_json::from_str(&format!("{head}}}")).unwrap();
    let received = head["received_at"].as_str().unwrap();
    assert!(received.starts_with("20") && received.ends_with('Z'), "{received}");
    let expected = serde_json::json!({
        "position": 1, "id": "evt_1", "type": "invoice.paid", "object": "in_1",
        "object_type": "invoice", "account": null, "livemode": true, "created": 1_700_000_000,
        "api_version": "2025-03-31.basil", "received_at": received,
    });
    assert_eq!(head, expected);
    let second: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(second["event"], serde_json::json!({"id": "evt_2", "account": "acct_1"}));
    assert_eq!((&second["account"], &second["object"]), (&"acct_1".into(), &Value::Null));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hostile_in_an_event_reaches_the_terminal_spelt_out() {
    let app = App::spawn().await;
    app.deliver(of_type("evt_\u{1b}[2J\u{202e}", "in\r\n\u{9b}31m\u{7}voice\u{2066}")).await;
    let text = once(&app, &["--since", "earliest"]);
    assert!(text.contains(r"in\r\n\u{9b}31m\u{7}voice\u{2066} [evt_\u{1b}[2J\u{202e}]"), "{text}");
    assert_eq!(text.lines().count(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_it_quietly() {
    let app = App::spawn().await;
    let mut tail = Tail::live(&app, &[]).await;
    app.deliver(event("evt_1")).await;
    tail.line().await;
    let Tail { child, lines } = tail;
    drop(lines);
    app.deliver(event("evt_2")).await;
    let ended = timeout(SOON, child.wait_with_output()).await.expect("an end").unwrap();
    assert_eq!(ended.status.code(), Some(0));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_and_a_wrong_database_are_told() {
    for arguments in [["--type", "in*ce"], ["--type", ""], ["--since", "yesterday"]] {
        let output = tollgate(&["tail", arguments[0], arguments[1]], &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("expected a"), "{}", stderr(&output));
    }
    let empty = postgres::fresh_database().await;
    let output = tollgate(&["tail"], &[("DATABASE_URL", &empty)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("tollgate.positions"), "{}", stderr(&output));
}
