//! How every page looks: light and dark, on a desktop and on a phone. Nothing on it scrolls sideways,
//! nothing of a hostile payload does anything, and the browser has nothing to complain of.

use std::path::PathBuf;

use crate::browser::Browser;
use crate::receiver::Receiver;
use crate::scene::{TOKEN, guarded, populate, run, until};
use crate::support::App;

/// An hour with its ups and downs, for the charts: a gateway of a test has none behind it.
const THE_LAST_HOUR: &str = "
    INSERT INTO tollgate.traffic_minutes (minute, outcome, deliveries, bytes, seconds, latency)
    SELECT date_trunc('minute', now()) - make_interval(mins => m), outcome, n, n * 3000, n * 0.004,
           array_fill(0::bigint, ARRAY[4]) || (n * 6 / 10) || (n * 3 / 10) || array_fill(0::bigint, ARRAY[1])
           || (n * (5 + m % 4) / 100) || array_fill(0::bigint, ARRAY[1 + m % 3]) || (n * 3 / 100 + 1)
           || array_fill(0::bigint, ARRAY[15 - m % 3])
    FROM generate_series(2, 59) m
    CROSS JOIN LATERAL (VALUES ('recorded', 1.0), ('duplicate', 0.08), ('refused', CASE WHEN m BETWEEN 21 AND 24 THEN 0.22 END),
                               ('failed', CASE WHEN m IN (40, 41) THEN 0.1 END)) AS o (outcome, share)
    CROSS JOIN LATERAL (SELECT round(o.share * (420 + 180 * sin(m / 7.0) + 60 * cos(m * 1.7)))::bigint AS n) c
    WHERE n > 0
    ON CONFLICT DO NOTHING";

/// Names of pictures, and where the pages are.
async fn pages(app: &App) -> Vec<(&'static str, String)> {
    let one = |sql: &'static str| async move {
        sqlx::query_scalar::<_, String>(sql).fetch_one(&app.pool).await.unwrap()
    };
    let encoded = |text: String| {
        percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let hostile = encoded(one("SELECT id FROM tollgate.events WHERE id LIKE 'evt_<%'").await);
    let failed = encoded(one("SELECT event_id FROM tollgate.failures LIMIT 1").await);
    let object =
        encoded(one("SELECT id FROM stripe.subscriptions ORDER BY as_of DESC LIMIT 1").await);
    let odd = encoded(one("SELECT object_id FROM tollgate.events WHERE id LIKE 'evt_<%'").await);
    let body =
        one("SELECT encode(sha256, 'hex') FROM tollgate.quarantine ORDER BY received_at LIMIT 1")
            .await;
    vec![
        ("overview", "/".to_owned()),
        ("events", "/events".to_owned()),
        (
            "events-filtered",
            "/events?type=invoice.*&livemode=false&since=2026-01-05T00:00".to_owned(),
        ),
        ("events-refused", "/events?type=in*ice".to_owned()),
        ("event", format!("/events/{failed}")),
        ("event-hostile", format!("/events/{hostile}")),
        ("live", "/live".to_owned()),
        ("consumers", "/consumers".to_owned()),
        ("consumer", "/consumers/app".to_owned()),
        ("consumer-paused", "/consumers/warehouse".to_owned()),
        ("dead-letters", "/dead-letters".to_owned()),
        ("billing", "/billing?period=1y".to_owned()),
        ("object", format!("/billing/objects/{object}")),
        ("object-hostile", format!("/billing/objects/{odd}")),
        ("ties", "/ties".to_owned()),
        ("handlers", "/handlers".to_owned()),
        ("failures", "/failures".to_owned()),
        ("quarantine", "/quarantine".to_owned()),
        ("quarantined", format!("/quarantine/{body}")),
        ("audit", "/audit".to_owned()),
        ("tokens", "/tokens".to_owned()),
        ("not-found", "/nothing/here".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_in_light_and_dark_wide_and_narrow() {
    let Some(browser) = Browser::start().await else { return };
    let app = guarded().await;
    let receiver = Receiver::start().await;
    populate(&app, &receiver).await;
    run(&app, THE_LAST_HOUR).await;
    // Counted by the minute, and written down every few seconds.
    until(&app, "SELECT sum(deliveries) > 660 FROM tollgate.traffic_minutes WHERE minute > now() - interval '2 minutes'").await;
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    browser.go(&app.admin_url("/tokens")).await;
    for (width, dark) in [(1280, false), (390, true)] {
        browser.dress(width, dark).await;
        let theme = if dark { "dark" } else { "light" };
        browser.picture(&folder.join(format!("login-{width}-{theme}.png")), width).await;
    }
    browser.write("input[name=token]", TOKEN).await;
    browser.follow("button.primary").await;
    assert_eq!(browser.place().await, "/tokens");
    browser.write("input[name=name]", "grafana").await;
    browser.follow(".form button.primary").await;
    browser.until_text("Token grafana is made").await;
    let pages = pages(&app).await;
    // The narrowest is only measured.
    for (width, dark) in [(1280, false), (1280, true), (390, false), (390, true), (360, false)] {
        browser.dress(width, dark).await;
        for (name, path) in &pages {
            browser.go(&app.admin_url(path)).await;
            let over = browser.js("return document.documentElement.scrollWidth - innerWidth").await;
            assert!(over.as_i64().unwrap() <= 0, "{name} scrolls sideways by {over} at {width}");
            let harm = browser.js("return [window.harmed === undefined, document.querySelectorAll('img:not([alt=\"\"])').length]").await;
            assert_eq!(
                harm,
                serde_json::json!([true, 0]),
                "{name}: markup of a payload came to life"
            );
            if width < 390 {
                continue;
            }
            let theme = if dark { "dark" } else { "light" };
            browser.picture(&folder.join(format!("{name}-{width}-{theme}.png")), width).await;
        }
    }
    let complaints = browser.complaints().await;
    // The browser remarks on the page that is not there, as it should.
    let others: Vec<_> = complaints.iter().filter(|line| !line.contains("/nothing/here")).collect();
    assert_eq!(others, Vec::<&String>::new());
    browser.close().await;
    app.stop().await;
}
