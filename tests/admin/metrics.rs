//! What /metrics says after deliveries that are known, under load, and when the database is down.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::{Instant, sleep};

use crate::scrape::{Page, parse, scrape};
use crate::support::load::Load;
use crate::support::process::free_address;
use crate::support::{App, event, now};

/// Longest that a test waits for anything.
const SOON: Duration = Duration::from_mins(1);

/// Scrapes until it is so: figures of the database may be some seconds old.
async fn until(app: &App, what: &str, so: impl Fn(&Page) -> bool) -> Page {
    let deadline = Instant::now() + SOON;
    loop {
        let page = scrape(app).await;
        if so(&page) {
            return page;
        }
        assert!(Instant::now() < deadline, "still not: {what}: {:#?}", page.samples);
        sleep(Duration::from_millis(200)).await;
    }
}

fn assert_values(page: &Page, expected: &[(&str, f64)]) {
    let found: Vec<_> = expected.iter().map(|(sample, _)| (*sample, page.value(sample))).collect();
    assert_eq!(found, expected);
}

async fn run(app: &App, sql: &str) {
    app.pool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

#[tokio::test]
async fn deliveries_are_counted_by_outcome_code_and_type() {
    let app = App::spawn().await;
    let fresh = scrape(&app).await;
    assert_eq!(fresh.sum("tollgate_deliveries_total"), 0.0);
    assert_eq!(fresh.value("tollgate_database_up"), 1.0);
    for id in ["evt_1", "evt_2", "evt_2"] {
        assert_eq!(app.deliver(event(id)).await.status, 200);
    }
    let unknown = r#"{"id":"evt_3","object":"event","type":"no.such_type","created":1}"#;
    assert_eq!(app.deliver(unknown).await.word(), "recorded");
    assert_eq!(app.deliver("no JSON").await.word(), "quarantined");
    assert_eq!(app.deliver_signed(b"{}".to_vec(), "nonsense").await.status, 400);
    let forged = format!("t={},v1={}", now(), "00".repeat(32));
    assert_eq!(app.deliver_signed(b"{}".to_vec(), &forged).await.status, 400);
    let nowhere = app.request("POST", "/webhooks/stripe/nobody", |request| request).await;
    assert_eq!(nowhere.status, 404);

    let page =
        until(&app, "the log is read", |page| page.value("tollgate_log_position") > 2.0).await;
    let count = |outcome, code| {
        page.value(&format!(r#"tollgate_deliveries_total{{code="{code}",outcome="{outcome}"}}"#))
    };
    assert_eq!(count("recorded", "recorded"), 3.0);
    assert_eq!(count("duplicate", "duplicate"), 1.0);
    assert_eq!(count("quarantined", "quarantined"), 1.0);
    assert_eq!(count("refused", "signature_malformed"), 1.0);
    assert_eq!(count("refused", "signature_mismatch"), 1.0);
    assert_eq!(count("refused", "endpoint_unknown"), 1.0);
    assert_eq!(page.sum("tollgate_deliveries_total"), 8.0);
    let bytes = u32::try_from(2 * event("evt_1").len() + unknown.len()).unwrap();
    assert_values(
        &page,
        &[
            (r#"tollgate_events_total{type="invoice.paid"}"#, 2.0),
            (r#"tollgate_events_total{type="other"}"#, 1.0),
            (r#"tollgate_delivery_duration_seconds_count{outcome="recorded"}"#, 3.0),
            (r#"tollgate_delivery_duration_seconds_count{outcome="refused"}"#, 3.0),
            (r#"tollgate_delivery_bytes_total{outcome="recorded"}"#, f64::from(bytes)),
            ("tollgate_commit_events_sum", 5.0),
            ("tollgate_log_position", 3.0),
            (r#"tollgate_quarantine_kept{reason="not_json"}"#, 1.0),
            ("tollgate_queue_events", 0.0),
            ("tollgate_embedded_database", 0.0),
            ("tollgate_shutting_down", 0.0),
            (r#"tollgate_pool_connections_limit{pool="admin"}"#, 4.0),
            (r#"tollgate_database_part_up{part="consumers"}"#, 1.0),
        ],
    );
    assert!(page.value("tollgate_commits_total") >= 1.0);
    assert!(page.value("tollgate_log_partitions") >= 4.0);
    assert!(page.value("tollgate_database_size_bytes") > 1e6);
    let seconds = f64::from(i32::try_from(now() - 1_700_000_000).unwrap()) + 1.7e9;
    for stamp in ["process_start_time_seconds", "tollgate_log_newest_event_timestamp_seconds"] {
        assert!((page.value(stamp) - seconds).abs() < 300.0, "{stamp}");
    }
}

#[tokio::test]
async fn what_fails_after_the_log_is_counted_and_what_is_kept_shown() {
    let app = App::spawn().await;
    run(
        &app,
        "CREATE SCHEMA app; CREATE FUNCTION app.fail(e jsonb) RETURNS void LANGUAGE plpgsql AS
         $$ BEGIN RAISE 'no' ; END $$;
         SELECT tollgate.register_handler('invoice.*', 'app.fail(jsonb)'::regprocedure, 'failing', max_attempts => 1);
         SELECT tollgate.register_handler('price.*', 'app.fail(jsonb)'::regprocedure, 'strict', policy => 'reject')",
    )
    .await;
    assert_eq!(app.deliver(event("evt_1")).await.word(), "recorded");
    let created = now();
    let price = format!(
        r#"{{"id":"evt_2","object":"event","type":"price.created","created":{created},"data":{{"object":{{"id":"price_1","object":"price"}}}}}}"#
    );
    assert_eq!(app.deliver(price).await.word(), "handler_rejected");
    // One second, nothing said of before and after: only the ids are left.
    for (id, name) in [("evt_3", "Ann"), ("evt_4", "Bea")] {
        let customer = format!(
            r#"{{"id":"{id}","object":"event","type":"customer.updated","created":{created},
            "data":{{"object":{{"id":"cus_1","object":"customer","name":"{name}"}}}}}}"#
        );
        assert_eq!(app.deliver(customer).await.word(), "recorded");
    }
    let basis: String = sqlx::query_scalar("SELECT order_basis FROM stripe.customers")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    let kept = r#"tollgate_failures_kept{handler="failing",stage="handler",state="given_up"}"#;
    let page = until(&app, "the failure is read", |page| page.samples.contains_key(kept)).await;
    assert_values(
        &page,
        &[
            (kept, 1.0),
            (r#"tollgate_failures_total{stage="handler"}"#, 1.0),
            (r#"tollgate_failures_total{stage="projection"}"#, 0.0),
            (&format!(r#"tollgate_ties_total{{basis="{basis}"}}"#), 1.0),
            (r#"tollgate_deliveries_total{code="handler_rejected",outcome="failed"}"#, 1.0),
        ],
    );
    assert_eq!(page.sum("tollgate_ties_total"), 1.0);
}

#[tokio::test]
async fn deliveries_to_consumers_are_counted_and_their_state_shown() {
    let app = App::spawn().await;
    let nobody = free_address();
    run(
        &app,
        &format!(
            "SELECT tollgate.create_consumer('app', start => 'earliest', max_attempts => 2,
                                             retry_first => '0.01 seconds', retry_most => '0.01 seconds');
             SELECT tollgate.set_target('app', 'http://{nobody}', secrets => '{{whsec_of_the_app}}',
                                        concurrency => 1, breaker_after => 3, breaker_wait => '5 minutes');
             SELECT tollgate.create_consumer('idle');
             SELECT tollgate.create_consumer('other', types => '{{invoice.*}}', start => 'earliest');
             SELECT tollgate.pause_consumer('other', 'a test')"
        ),
    )
    .await;
    for number in 0..3 {
        assert_eq!(app.deliver(event(&format!("evt_{number}"))).await.word(), "recorded");
    }
    let open = r#"tollgate_consumer_breaker{consumer="app"}"#;
    let page =
        until(&app, "the breaker is open", |page| page.samples.get(open) == Some(&2.0)).await;
    let attempts = page.value(r#"tollgate_attempts_total{consumer="app",outcome="retry"}"#);
    assert_eq!(attempts, 3.0);
    assert_values(
        &page,
        &[
            (r#"tollgate_attempts_total{consumer="app",outcome="delivered"}"#, 0.0),
            (r#"tollgate_breaker_turns_total{consumer="app",state="open"}"#, 1.0),
            ("tollgate_attempt_duration_seconds_count", 3.0),
            (r#"tollgate_dead_letters{consumer="app"}"#, 1.0),
            (r#"tollgate_consumer_lag_events{consumer="app"}"#, 2.0),
            (r#"tollgate_consumer_lag_events{consumer="other"}"#, 3.0),
            (r#"tollgate_consumer_paused{consumer="other"}"#, 1.0),
            (r#"tollgate_consumer_paused{consumer="app"}"#, 0.0),
            (r#"tollgate_consumer_breaker{consumer="idle"}"#, 0.0),
            ("tollgate_consumers", 3.0),
        ],
    );
    assert!(page.value(r#"tollgate_consumer_lag_seconds{consumer="other"}"#) > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn series_stay_bounded_and_every_scrape_under_load_parses() {
    let app = std::sync::Arc::new(App::spawn().await);
    assert_eq!(app.deliver(event("evt_first")).await.word(), "recorded");
    let unknown = |number: usize| {
        format!(
            r#"{{"id":"evt_{number}","object":"event","type":"new.type_{number}","created":1}}"#
        )
    };
    app.deliver("{}").await;
    let before =
        until(&app, "all is read", |page| page.sum("tollgate_quarantine_kept") > 0.0).await;
    let load = Load::start(app.address, 4, "scraped");
    let lanes: Vec<_> = (0..25)
        .map(|lane| {
            let app = app.clone();
            tokio::spawn(async move {
                for number in 0..400 {
                    let answer = app.deliver(unknown(lane * 400 + number)).await;
                    assert_eq!(answer.word(), "recorded");
                }
            })
        })
        .collect();
    let mut scrapes = 0;
    while !lanes.iter().all(tokio::task::JoinHandle::is_finished) {
        scrape(&app).await;
        scrapes += 1;
    }
    for lane in lanes {
        lane.await.unwrap();
    }
    let tally = load.finish().await;
    let after = scrape(&app).await;
    assert!(scrapes > 3, "{scrapes}");
    assert_eq!(after.value(r#"tollgate_events_total{type="other"}"#), 10_000.0);
    assert!(!tally.acknowledged.is_empty());
    let keys = |page: &Page| page.samples.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&after), keys(&before));
}

#[tokio::test]
async fn a_database_that_is_down_leaves_what_the_process_knows() {
    let app = App::spawn().await;
    assert_eq!(app.deliver(event("evt_1")).await.word(), "recorded");
    let before = until(&app, "figures", |page| page.value("tollgate_database_up") > 0.0).await;
    assert!(before.samples.contains_key("tollgate_log_position"));
    let (server, name) = app.database_url.rsplit_once('/').unwrap();
    let name = name.split('?').next().unwrap();
    let mut other = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
    let allow = |yes| format!(r#"ALTER DATABASE "{name}" ALLOW_CONNECTIONS {yes}"#);
    other.execute(AssertSqlSafe(allow(false))).await.unwrap();
    let end =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    other.execute(AssertSqlSafe(end)).await.unwrap();

    let down = until(&app, "it is down", |page| page.value("tollgate_database_up") < 1.0).await;
    assert!(!down.samples.contains_key("tollgate_log_position"));
    assert_eq!(down.value(r#"tollgate_deliveries_total{code="recorded",outcome="recorded"}"#), 1.0);
    // Somebody whom the database never let in stays outside.
    let stranger = app.ask("GET", "/metrics", |request| request.bearer_auth("guessed")).await;
    assert!(stranger.status >= 400, "{}", stranger.body);

    other.execute(AssertSqlSafe(allow(true))).await.unwrap();
    let up = until(&app, "it is up", |page| page.value("tollgate_database_up") > 0.0).await;
    assert_eq!(up.value("tollgate_log_position"), 1.0);
}

#[tokio::test]
async fn metrics_need_a_token_and_come_in_both_formats() {
    let app = App::spawn_with(&[("admin_token", "of-the-tests-0123456789abcdef0123456789")]).await;
    assert_eq!(app.ask("GET", "/metrics", |request| request).await.status, 401);
    let token = "of-the-tests-0123456789abcdef0123456789";
    let answer = app
        .ask("GET", "/metrics", |request| {
            request
                .bearer_auth(token)
                .header("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        })
        .await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(answer.body.ends_with("# EOF\n"));
    let plain = app.ask("GET", "/metrics", |request| request.bearer_auth(token)).await;
    assert!(parse(&plain.body).families.len() > 30);
    // Not on the listener that is open to the world.
    assert_eq!(app.request("GET", "/metrics", |request| request).await.status, 404);
}
