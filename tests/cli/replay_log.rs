//! `tollgate replay --from-log`: what the log holds, sent again by the filters of `tollgate events`.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{App, SECRET, event};
use crate::{done, failed, stdout, tollgate};

/// Events in the order in which they were written.
async fn ids(app: &App) -> Vec<String> {
    let ids = sqlx::query_scalar("SELECT id FROM tollgate.events ORDER BY position");
    ids.fetch_all(&app.pool).await.unwrap()
}

fn dated(id: &str, kind: &str, created: i64, account: &str) -> String {
    format!(
        r#"{{"id":"{id}","object":"event","type":"{kind}","created":{created},"account":"{account}","n":1e400,
  "data":{{"object":{{"id":"in_{id}","object":"invoice"}}}}}}"#
    )
}

/// A snapshot, as Tollgate writes them itself.
async fn snapshot(app: &App) {
    let sql = "INSERT INTO tollgate.event_log (created, id, endpoint, account, livemode, type, source, raw)
               SELECT '2026-02-01Z', 'evt_tollgate_1', 'default', '', false, 'tollgate.snapshot', 'backfill', '{\"id\":\"evt_tollgate_1\"}';
               SELECT tollgate.place_events(ARRAY['2026-02-01Z'::timestamptz], ARRAY['evt_tollgate_1'], NULL, 'off')";
    app.pool.execute(AssertSqlSafe(sql)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_is_sent_byte_for_byte_oldest_first() {
    let (app, other) = (App::spawn().await, App::spawn().await);
    for (id, kind, created, account) in [
        ("evt_c", "invoice.paid", 1_700_000_300, ""),
        ("evt_z", "invoice.paid", 1_700_000_100, ""),
        ("evt_a", "invoice.created", 1_700_000_100, "acct_1"),
        ("evt_x", "charge.failed", 1_700_000_000, ""),
        ("evt_b", "invoice.paid", 1_700_000_200, "acct_1"),
    ] {
        assert_eq!(app.deliver(dated(id, kind, created, account)).await.status, 200);
    }
    snapshot(&app).await;
    let dry = |filter: &[&str]| -> Value {
        let all = [&["replay", "--from-log", "--dry-run", "--json"], filter].concat();
        serde_json::from_str(&done(&app, &all)).unwrap()
    };
    assert_eq!(dry(&[])["events"], 5, "no snapshot");
    assert_eq!(dry(&["--type", "tollgate.*"])["types"]["tollgate.snapshot"], 1);
    assert_eq!(dry(&["--type", "*"])["events"], 5);
    assert_eq!(dry(&["--account", "acct_1"])["events"], 2);
    assert_eq!(dry(&["--object", "in_evt_b"])["oldest"], "2023-11-14T22:16:40Z");
    assert_eq!(dry(&["--until", "2020-01-01"])["events"], 0);
    let text = done(&app, &["replay", "--from-log", "--dry-run", "--type", "invoice.*"]);
    assert!(text.starts_with("4 events fit, from 2023-11-14 22:15:00 to"), "{text}");
    assert!(text.contains("3  invoice.paid"), "{text}");

    let to = other.url("/webhooks/stripe");
    let send = ["replay", "--from-log", "--type", "invoice.*", "--to", &to, "--secret", SECRET];
    let (code, why) = failed(&app, &send);
    assert!(code == 2 && why.contains("--yes"), "{why}");
    assert_eq!(other.events().await, 0);
    let told = done(&app, &[&send[..], &["--yes", "--concurrency", "1", "--json"]].concat());
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["planned"], &told["recorded"]), (&4.into(), &4.into()));
    assert_eq!(ids(&other).await, ["evt_z", "evt_a", "evt_b", "evt_c"]);
    let raw = "SELECT raw FROM tollgate.event_log WHERE id = 'evt_b'";
    let raw: Vec<u8> = sqlx::query_scalar(raw).fetch_one(&other.pool).await.unwrap();
    assert_eq!(raw, dated("evt_b", "invoice.paid", 1_700_000_200, "acct_1").into_bytes());
    app.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_sent_in_pieces_and_the_other_flags_hold() {
    let (app, other) = (App::spawn().await, App::spawn().await);
    let many = "WITH new AS (
            INSERT INTO tollgate.event_log (created, id, endpoint, account, livemode, type, object_type, object_id, source, raw)
            SELECT '2026-01-01Z'::timestamptz + n / 10 * interval '1 second', 'evt_' || n, 'default', '', false, 'invoice.paid', 'invoice', 'in_1', 'webhook',
                   convert_to(format('{\"id\":\"evt_%s\",\"type\":\"invoice.paid\"}', n), 'UTF8')
            FROM generate_series(1, 4500) n RETURNING created, id)
        SELECT tollgate.place_events(array_agg(created), array_agg(id::text), NULL, 'off') FROM new";
    app.pool.execute(AssertSqlSafe(many)).await.unwrap();
    let to = other.url("/webhooks/stripe");
    let send = ["replay", "--from-log", "--to", &to, "--secret", SECRET, "--yes", "--json"];
    let more = ["--duplicates", "10", "--unique-ids", "--shuffle", "1"];
    let told: Value = serde_json::from_str(&done(&app, &[&send[..], &more].concat())).unwrap();
    assert_eq!((&told["recorded"], &told["duplicate"]), (&4500.into(), &450.into()));
    let (code, why) = failed(&app, &["replay", "--from-log", "x.json", "--secret", SECRET]);
    assert!(code == 2 && why.contains("cannot be used"), "{why}");
    let (code, why) = failed(&app, &["replay", "x.json", "--type", "a.b", "--secret", SECRET]);
    assert!(code == 2 && why.contains("--from-log"), "{why}");
    let (code, why) = failed(&app, &[&send[..], &["--since", "soon"]].concat());
    assert!(code == 2 && why.contains("since: expected a time"), "{why}");
    let (code, why) = failed(&app, &[&send[..], &["--type", "payout.paid"]].concat());
    assert!(code == 1 && why.contains("no events in the log that fit"), "{why}");
    let wrong = ["replay", "--from-log", "--to", &to, "--secret", "whsec_wrong", "--yes", "--json"];
    let wrong = tollgate(&wrong, &[("DATABASE_URL", &app.database_url)]);
    assert_eq!(wrong.status.code(), Some(1));
    let wrong: Value = serde_json::from_str(&stdout(&wrong)).unwrap();
    assert_eq!((&wrong["refused"], &wrong["reasons"][0]["count"]), (&4500.into(), &4500.into()));
    app.deliver(event("evt_more")).await;
    app.stop().await;
    other.stop().await;
}
