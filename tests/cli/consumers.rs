//! `tollgate consumers` and `tollgate dead-letters` as a person or a script runs them: what they
//! print, what they change, how they fail.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{App, event};
use crate::{done, failed};

fn json(app: &App, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(app, arguments)).unwrap()
}

async fn run(app: &App, sql: &str) {
    app.pool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

async fn ask(app: &App, sql: &str) -> String {
    let sql = format!("SELECT ({sql})::text");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&app.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_made_changed_paused_rewound_and_dropped() {
    let app = App::spawn().await;
    for n in 1..=3 {
        app.deliver(event(&format!("evt_{n}"))).await;
    }
    let create = "consumers create mailer --type invoice.* --type charge.failed --start 1 --ordering object \
                  --max-attempts 7 --lease 45s --retry-first 1s --retry-most 2m";
    let made = done(&app, &create.split_whitespace().collect::<Vec<_>>());
    assert_eq!(made, "made mailer, which begins after position 1\n");
    let row = "SELECT (types, ordering, max_attempts, lease, retry_first, retry_most) FROM tollgate.consumers WHERE name = 'mailer'";
    assert_eq!(
        ask(&app, row).await,
        r#"("{invoice.*,charge.failed}",object,7,00:00:45,00:00:01,00:02:00)"#
    );
    done(&app, &["consumers", "create", "other"]);

    let text = done(&app, &["consumers", "list"]);
    let mut lines = text.lines();
    assert!(lines.next().unwrap().trim_start().starts_with("name"), "{text}");
    let line: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        line[..6],
        ["mailer", "sql", "running", "invoice.*", "charge.failed", "2"],
        "{text}"
    );
    let listed = json(&app, &["consumers", "list", "mailer", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!((&listed[0]["name"], &listed[0]["lag_events"]), (&"mailer".into(), &2.into()));

    assert_eq!(
        done(&app, &["consumers", "pause", "mailer", "--because", "the move"]),
        "paused mailer\n"
    );
    let text = done(&app, &["consumers", "list"]);
    assert!(text.contains("mailer is paused: the move"), "{text}");
    assert_eq!(done(&app, &["consumers", "resume", "mailer"]), "resumed mailer\n");
    assert_eq!(
        done(&app, &["consumers", "alter", "mailer", "--max-attempts", "3"]),
        "changed mailer\n"
    );
    assert_eq!(
        ask(&app, row).await,
        r#"("{invoice.*,charge.failed}",object,3,00:00:45,00:00:01,00:02:00)"#
    );
    assert_eq!(
        done(&app, &["consumers", "reset", "mailer", "--to", "earliest"]),
        "mailer goes on after position 0\n"
    );
    assert_eq!(done(&app, &["consumers", "drop", "mailer"]), "dropped mailer\n");
    assert_eq!(json(&app, &["consumers", "list", "--json"]).as_array().unwrap().len(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_set_changed_and_taken_away() {
    let app = App::spawn().await;
    let made = done(&app, &["consumers", "create", "app", "--url", "http://127.0.0.1:9/hook"]);
    done(&app, &["consumers", "create", "bus", "--url", "nats://user:hunter2@127.0.0.1:9"]);
    let shown = done(&app, &["consumers", "list", "bus", "--json"]);
    assert!(shown.contains("nats://…@127.0.0.1:9") && !shown.contains("hunter2"), "{shown}");
    done(&app, &["consumers", "drop", "bus"]);
    let secret =
        made.lines().find_map(|line| line.strip_prefix("it is signed with ")).unwrap().to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() > 60, "{made}");
    assert_eq!(done(&app, &["consumers", "secret", "app"]), format!("{secret}\n"));

    // Its secret stays, and is not shown again unasked.
    let changed = done(
        &app,
        &[
            "consumers",
            "alter",
            "app",
            "--concurrency",
            "4",
            "--rate",
            "50",
            "--url",
            "http://127.0.0.1:9/new",
        ],
    );
    assert_eq!(changed, "changed app\n");
    let row = "SELECT (url, concurrency, rate, burst, timeout) FROM tollgate.targets";
    assert_eq!(ask(&app, row).await, "(http://127.0.0.1:9/new,4,50,50,00:00:10)");
    assert_eq!(done(&app, &["consumers", "secret", "app"]), format!("{secret}\n"));
    done(&app, &["consumers", "alter", "app", "--secret", "whsec_new", "--secret", &secret]);
    assert_eq!(done(&app, &["consumers", "secret", "app"]), format!("whsec_new\n{secret}\n"));

    // Both at once, though each alone would break the rule that the lease be twice the timeout.
    for (lease, timeout) in [("2m", "1m"), ("4s", "2s")] {
        done(&app, &["consumers", "alter", "app", "--lease", lease, "--timeout", timeout]);
    }
    let row = "SELECT (c.lease, t.timeout) FROM tollgate.consumers c JOIN tollgate.targets t ON t.consumer = c.name";
    assert_eq!(ask(&app, row).await, "(00:00:04,00:00:02)");
    // All or nothing.
    let (code, why) =
        failed(&app, &["consumers", "alter", "app", "--max-attempts", "9", "--timeout", "3s"]);
    assert_eq!(code, 2);
    assert!(
        why.contains(
            "the lease of consumer 'app' must be at least twice its target's timeout (Or an attempt"
        ),
        "{why}"
    );
    assert_eq!(ask(&app, "SELECT max_attempts FROM tollgate.consumers").await, "20");

    assert_eq!(done(&app, &["consumers", "untarget", "app"]), "app is claimed from in SQL now\n");
    let (code, why) = failed(&app, &["consumers", "secret", "app"]);
    assert!(code == 1 && why.contains("not pushed to"), "{why}");
    // NATS has no secret to show.
    let made = done(
        &app,
        &["consumers", "create", "bus", "--url", "nats://127.0.0.1:9", "--subject", "shop.stripe"],
    );
    assert_eq!(made.lines().count(), 1, "{made}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_named_with_what_to_do() {
    let app = App::spawn().await;
    done(&app, &["consumers", "create", "app"]);
    let unknown = "there is no consumer 'nobody' (tollgate.create_consumer makes one; the view tollgate.consumer_status lists them)";
    for arguments in [
        &["consumers", "pause", "nobody"] as &[_],
        &["consumers", "resume", "nobody"],
        &["consumers", "drop", "nobody"],
        &["consumers", "alter", "nobody", "--max-attempts", "3"],
        &["consumers", "alter", "nobody", "--url", "http://localhost/"],
        &["consumers", "untarget", "nobody"],
        &["consumers", "reset", "nobody", "--to", "latest"],
        &["dead-letters", "retry", "nobody", "--all"],
        &["dead-letters", "discard", "nobody", "--all"],
    ] {
        let (code, why) = failed(&app, arguments);
        assert_eq!(code, 1, "{arguments:?}: {why}");
        assert!(why.contains(unknown), "{arguments:?}: {why}");
        assert_eq!(why.lines().count(), 1, "{why}");
    }
    for (arguments, code, says) in [
        (
            &["consumers", "list", "nobody"] as &[_],
            1,
            "there is no consumer \"nobody\": see tollgate consumers list",
        ),
        (&["consumers", "secret", "nobody"], 1, "there is no consumer \"nobody\""),
        (&["dead-letters", "list", "--consumer", "nobody"], 1, "there is no consumer \"nobody\""),
        (&["dead-letters", "show", "nobody", "1"], 1, "there is no consumer \"nobody\""),
        (
            &["consumers", "create", "app"] as &[_],
            1,
            "there is a consumer 'app' already (tollgate.alter_consumer",
        ),
        (&["consumers", "create", "a b"], 2, "is no name for a consumer (Use letters"),
        (&["consumers", "create", "x", "--type", "inv*"], 2, "inv*"),
        (
            &["consumers", "create", "x", "--start", "soon"],
            2,
            "'soon' is no place to start at (Use latest, earliest",
        ),
        (&["consumers", "create", "x", "--ordering", "strict"], 2, "object"),
        (&["consumers", "create", "x", "--lease", "fast"], 2, "--lease"),
        (&["consumers", "create", "x", "--max-attempts", "0"], 2, "consumers_attempts"),
        (&["consumers", "create", "x", "--url", "ftp://example.com"], 2, "is no URL to deliver to"),
        (
            &["consumers", "create", "x", "--url", "http://a/", "--timeout", "20s"],
            2,
            "twice its target's timeout",
        ),
        (&["consumers", "alter", "app", "--timeout", "3s"], 2, "url"),
        (&["consumers", "reset", "app"], 2, "--to"),
        (&["dead-letters", "retry", "app"], 2, "--all"),
        (&["dead-letters", "retry", "app", "1", "--all"], 2, "cannot be used"),
        (&["dead-letters", "retry", "app", "--since", "noon"], 2, "2026-01-31T12:00:00Z"),
        (&["dead-letters", "retry", "app", "17"], 1, "no dead letter of app at position 17"),
        (&["dead-letters", "show", "app", "17"], 1, "app has no dead letter at position 17"),
    ] {
        let (was, why) = failed(&app, arguments);
        assert!(was == code && why.contains(says), "{arguments:?}: {was}, {why}");
    }
    assert_eq!(
        ask(&app, "SELECT count(*) FROM tollgate.consumers").await,
        "1",
        "nothing was half made"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_retried_and_discarded() {
    let app = App::spawn().await;
    done(&app, &["consumers", "create", "app"]);
    for n in 1..=4 {
        app.deliver(event(&format!("evt_{n}"))).await;
    }
    run(&app, "SELECT tollgate.nack(claim, position, 'no such customer', permanent => true) FROM tollgate.claim('app', 4);
               INSERT INTO tollgate.attempts (consumer, position, attempt, verdict, status, error, answer, took)
               VALUES ('app', 1, 1, 'retry', 500, 'the target answered 500', E'one\\ntwo', '0.25 seconds')").await;
    let text = done(&app, &["dead-letters", "list", "--consumer", "app"]);
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(
        text.contains("evt_4")
            && text.contains("non_retryable")
            && text.contains("no such customer"),
        "{text}"
    );
    assert_eq!(done(&app, &["dead-letters", "list", "--limit", "2"]).lines().count(), 3);
    let listed = json(&app, &["dead-letters", "list", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 4);

    let text = done(&app, &["dead-letters", "show", "app", "1"]);
    for part in [
        "event id   evt_1",
        "attempt 1 at",
        "retry 500",
        "  the target answered 500\n  | one\n  | two\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let shown = json(&app, &["dead-letters", "show", "app", "1", "--json"]);
    assert_eq!((&shown["event_id"], &shown["history"][0]["took"]), (&"evt_1".into(), &0.25.into()));

    assert_eq!(done(&app, &["dead-letters", "retry", "app", "2"]), "1 will be tried again now\n");
    assert_eq!(done(&app, &["dead-letters", "discard", "app", "3"]), "1 discarded\n");
    assert_eq!(
        done(&app, &["dead-letters", "retry", "app", "--since", "2999-01-01T00:00:00Z"]),
        "0 will be tried again now\n"
    );
    assert_eq!(
        done(&app, &["dead-letters", "retry", "app", "--all"]),
        "2 will be tried again now\n"
    );
    assert_eq!(ask(&app, "SELECT string_agg(event_id || ' ' || state || ' ' || attempts, ',' ORDER BY position) FROM tollgate.deliveries").await, "evt_1 waiting 0,evt_2 waiting 0,evt_4 waiting 0");
    assert_eq!(app.events().await, 4, "the log keeps them");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wrote_gives_the_terminal_no_orders() {
    let app = App::spawn().await;
    done(&app, &["consumers", "create", "app"]);
    let body = r#"{"id":"evt_\u001b[31m","object":"event","type":"a\u001b]0;x\u0007\nfake\u202eb","data":{"object":{"id":"x","object":"y"}}}"#;
    assert_eq!(app.deliver(body).await.status, 200);
    run(&app, "SELECT tollgate.nack(claim, position, E'oops\\u001b[2J\\nreason     none\\u009b31m', permanent => true) FROM tollgate.claim('app');
               INSERT INTO tollgate.attempts (consumer, position, attempt, verdict, status, error, answer, took)
               VALUES ('app', 1, 1, 'retry', 500, E'e\\u001b[1m\\nattempt 2', E'a\\u001b[31m\\r\\u202e\\nattempt 3', '1 second');
               SELECT tollgate.pause_consumer('app', E'x\\u001b[5m\\nother is paused: y')").await;
    for arguments in [
        &["dead-letters", "list"] as &[_],
        &["dead-letters", "show", "app", "1"],
        &["consumers", "list"],
        &["dead-letters", "show", "app", "1", "--json"],
        &["dead-letters", "list", "--json"],
        &["consumers", "list", "--json"],
    ] {
        let text = done(&app, arguments);
        let for_people = !arguments.contains(&"--json");
        let bad = text.chars().find(|c| {
            c.is_ascii_control() && *c != '\n' || for_people && matches!(c, '\u{9b}' | '\u{202e}')
        });
        assert!(bad.is_none(), "{bad:?} in {arguments:?}: {text:?}");
        for line in text.lines() {
            let forged = ["fake", "reason     none", "  attempt 2", "attempt 3", "other is"]
                .iter()
                .any(|start| line.starts_with(start));
            assert!(!forged, "{arguments:?}: {text}");
        }
    }
    let text = done(&app, &["dead-letters", "show", "app", "1"]);
    assert!(text.contains(r"\u{1b}[31m"), "{text}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_sees_a_part_of_the_log() {
    let app = App::spawn().await;
    let create = "consumers create shop --metadata app=shop --metadata plan=a=b --livemode test --account platform \
                  --account acct_1 --endpoint default --endpoint connect";
    done(&app, &create.split_whitespace().collect::<Vec<_>>());
    done(&app, &["consumers", "create", "all"]);
    let row = "SELECT concat_ws(' ', endpoints, accounts, livemode, metadata) FROM tollgate.consumers WHERE name = 'shop'";
    let all = r#"{default,connect} {"",acct_1} f {"app": "shop", "plan": "a=b"}"#;
    assert_eq!(ask(&app, row).await, all);
    let text = done(&app, &["consumers", "list"]);
    assert!(
        text.contains("default, connect, platform, acct_1, test, app=shop, plan=a=b"),
        "{text}"
    );
    let listed = json(&app, &["consumers", "list", "shop", "--json"]);
    assert_eq!(listed[0]["metadata"]["app"], "shop");
    done(&app, &["consumers", "alter", "shop", "--max-attempts", "3"]);
    assert_eq!(ask(&app, row).await, all, "the rest stays");
    let alter =
        "consumers alter shop --livemode live --unset metadata --unset endpoint --account acct_2";
    done(&app, &alter.split_whitespace().collect::<Vec<_>>());
    assert_eq!(ask(&app, row).await, "{acct_2} t");
    for (arguments, code, says) in [
        (&["consumers", "alter", "shop", "--metadata", "app"] as &[_], 2, "KEY=VALUE"),
        (&["consumers", "alter", "shop", "--metadata", "a=b", "--metadata", "a=c"], 2, "twice"),
        (&["consumers", "alter", "shop", "--livemode", "true"], 2, "live, test"),
        (&["consumers", "alter", "shop", "--unset", "type"], 2, "endpoint, account"),
        (&["consumers", "create", "x", "--unset", "metadata"], 2, "--unset"),
        (
            &["consumers", "alter", "shop", "--account", "acct"],
            2,
            "'acct' is no account (An account is",
        ),
        (
            &["consumers", "create", "x", "--endpoint", "A"],
            2,
            "is no name of an endpoint (A name is",
        ),
        (&["consumers", "create", "x", "--metadata", "app="], 2, "A key has 1 to 40 characters"),
        (
            &["consumers", "alter", "shop", "--livemode", "test", "--unset", "livemode"],
            2,
            "livemode cannot be set and unset at once",
        ),
    ] {
        let (was, why) = failed(&app, arguments);
        assert!(was == code && why.contains(says), "{arguments:?}: {was}, {why}");
    }
    assert_eq!(ask(&app, "SELECT count(*) FROM tollgate.consumers").await, "2");
    app.stop().await;
}
