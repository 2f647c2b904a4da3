//! A morning with the dashboard, in a real browser against a real gateway: find an event, follow it,
//! watch a target fail, mend it, and send again what was given up.

use crate::browser::Browser;
use crate::receiver::{Receiver, Reply};
use crate::scene::{TOKEN, deliver_the_demo, guarded, push_to, until};
use crate::support::{App, event};

const ENTER: &str = "\u{e007}";

#[tokio::test(flavor = "multi_thread")]
async fn a_target_breaks_is_mended_and_gets_what_was_given_up() {
    let Some(browser) = Browser::start().await else { return };
    let app = guarded().await;
    let receiver = Receiver::start().await;
    deliver_the_demo(&app).await;
    push_to(&app, &receiver, "app", "*").await;
    until(&app, "SELECT lag_events = 0 FROM tollgate.consumer_status").await;

    browser.dress(1280, false).await;
    log_in(&browser, &app).await;
    find_an_event(&browser).await;
    let lost = break_the_target(&browser, &app, &receiver).await;
    mend_it(&browser, &app, &receiver, lost).await;
    pause_and_resume(&browser, &app).await;
    watch_the_tail(&browser, &app).await;
    look_back(&browser, &app).await;

    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
    app.stop().await;
}

async fn log_in(browser: &Browser, app: &App) {
    browser.go(&app.admin_url("/events?type=invoice.*")).await;
    assert_eq!(browser.place().await, "/login?next=%2Fevents%3Ftype%3Dinvoice.%2A");
    browser.write("input[name=token]", "not a token").await;
    browser.follow("button.primary").await;
    browser.until_text("This token is not known").await;
    // The browser remarks on the 401, as it should.
    browser.complaints().await;
    browser.write("input[name=token]", TOKEN).await;
    browser.follow("button.primary").await;
    assert_eq!(browser.place().await, "/events?type=invoice.*");
    browser.go(&app.admin_url("/")).await;
    browser.until_text("All is well.").await;
}

/// With keys alone, but for the filter's words.
async fn find_an_event(browser: &Browser) {
    browser.press("ge").await;
    browser.until("location.pathname === '/events' && document.querySelectorAll('#events tbody tr').length === 50").await;
    browser.write("input[name=type]", "invoice.paid").await;
    browser.follow("form.filters button").await;
    let types =
        "[...document.querySelectorAll('#events tbody tr')].map(row => row.cells[0].textContent)";
    browser
        .until(&format!("{types}.length > 3 && {types}.every(type => type === 'invoice.paid')"))
        .await;
    browser.press("jjk").await;
    browser.until("document.querySelector('tbody tr').classList.contains('cursor')").await;
    let id =
        browser.js("return document.querySelector('tr.cursor .id[title^=evt_]').textContent").await;
    browser.press(ENTER).await;
    browser.until("location.pathname.startsWith('/events/evt_')").await;
    browser.until_text(id.as_str().unwrap()).await;
    for step in ["created", "received", "committed", "projected", "delivery"] {
        browser.until(&format!("document.querySelector('[data-step={step}]')")).await;
    }
    let key = "[...document.querySelectorAll('.json .k')].map(key => key.textContent)";
    browser.until(&format!("{key}.includes('\"amount_paid\"')")).await;
    // By its id, from anywhere.
    browser.press("?").await;
    browser.until("document.querySelector('#keys').open").await;
    browser.press("\u{e00c}").await;
    browser.until("!document.querySelector('#keys').open").await;
    browser.press("/").await;
    browser.until("document.activeElement.id === 'find'").await;
    browser.js("window.left = true").await;
    browser.press(&format!("{}{ENTER}", id.as_str().unwrap())).await;
    browser.until("!window.left && document.querySelector('#timeline')").await;
}

/// Watches the consumer fail without touching the page; how many events are given up.
async fn break_the_target(browser: &Browser, app: &App, receiver: &Receiver) -> i64 {
    receiver.answer(|_| Reply::status(500).body(b"<script>window.harmed=1</script>"));
    browser.go(&app.admin_url("/consumers/app")).await;
    browser.until("document.querySelector('#dead').textContent === '0'").await;
    for n in 0..4 {
        assert_eq!(app.deliver(event(&format!("evt_lost_{n}"))).await.word(), "recorded");
    }
    // The page renews itself.
    browser.until("document.querySelector('#breaker')").await;
    browser.until_text("the target answered 500").await;
    until(app, "SELECT dead = 4 FROM tollgate.consumer_status").await;
    browser.until("document.querySelector('#dead').textContent === '4'").await;
    assert_eq!(browser.js("return window.harmed === undefined").await, true);
    browser.go(&app.admin_url("/")).await;
    browser.until_text("4 events were given up by consumers").await;
    browser.follow("a[href='/dead-letters']").await;
    browser
        .until("document.querySelectorAll('tr[data-href^=\"/events/evt_lost\"]').length === 4")
        .await;
    browser.go(&app.admin_url("/events/evt_lost_0")).await;
    for step in ["attempt", "dead_letter"] {
        browser.until(&format!("document.querySelector('[data-step={step}]')")).await;
    }
    4
}

async fn mend_it(browser: &Browser, app: &App, receiver: &Receiver, lost: i64) {
    receiver.answer(|_| Reply::status(200));
    browser.go(&app.admin_url("/dead-letters")).await;
    browser.click("[data-retry-all]").await;
    browser.until("document.querySelector('#confirm').open").await;
    // Who says no is asked again the next time.
    browser.click("#confirm button[value=no]").await;
    browser.until("!document.querySelector('#confirm').open").await;
    assert_eq!(app.count("SELECT count(*) FROM tollgate.dead_letters").await, lost);
    browser.click("[data-retry-all]").await;
    browser.follow("#confirm button[value=yes]").await;
    browser.until_text("Handed out again: 4 dead letters").await;
    assert_eq!(browser.place().await, "/consumers/app");
    browser.until("document.querySelector('#dead').textContent === '0'").await;
    until(app, "SELECT lag_events = 0 AND state = 'running' FROM tollgate.consumer_status").await;
    browser.until("document.querySelector('#breaker-state').textContent === 'closed'").await;
    browser.go(&app.admin_url("/events/evt_lost_0")).await;
    browser.until_text("taken").await;
    let delivered = receiver.delivered();
    assert!((0..4).all(|n| delivered.contains_key(&format!("evt_lost_{n}"))), "{delivered:?}");
    // Once more, because somebody asks.
    browser.click("form[action$='/replay'] button").await;
    browser.follow("#confirm button[value=yes]").await;
    browser.until_text("Handed out to app again").await;
    until(app, "SELECT lag_events = 0 FROM tollgate.consumer_status").await;
    let again =
        receiver.requests().iter().filter(|it| it.event == "evt_lost_0" && it.delivered()).count();
    assert_eq!(again, 2);
}

async fn pause_and_resume(browser: &Browser, app: &App) {
    browser.go(&app.admin_url("/consumers/app")).await;
    browser.click("form[action$='/pause'] button").await;
    browser.follow("#confirm button[value=yes]").await;
    browser.until_text("Paused: nothing is handed out any more").await;
    until(app, "SELECT state = 'paused' FROM tollgate.consumer_status").await;
    browser.follow("form[action$='/resume'] button").await;
    browser.until_text("Resumed").await;
    // Said once.
    browser.go(&app.admin_url("/consumers/app")).await;
    browser.until("!document.querySelector('.flash')").await;
    until(app, "SELECT state = 'running' FROM tollgate.consumer_status").await;
}

async fn watch_the_tail(browser: &Browser, app: &App) {
    browser.go(&app.admin_url("/live?type=invoice.*")).await;
    browser.until("document.querySelector('#live-state').classList.contains('on')").await;
    assert_eq!(app.deliver(event("evt_seen_1")).await.word(), "recorded");
    browser
        .until("document.querySelector('tr.fresh a').getAttribute('href') === '/events/evt_seen_1'")
        .await;
    browser.click("#live-pause").await;
    assert_eq!(app.deliver(event("evt_seen_2")).await.word(), "recorded");
    browser.until_text("paused, 1 waiting").await;
    browser.click("#live-pause").await;
    browser
        .until("document.querySelector('tr.fresh a').getAttribute('href') === '/events/evt_seen_2'")
        .await;
}

async fn look_back(browser: &Browser, app: &App) {
    browser.go(&app.admin_url("/audit")).await;
    for action in ["dead_letters.retry", "events.replay", "consumer.pause", "consumer.resume"] {
        browser.until_text(action).await;
    }
    until(app, "SELECT lag_events = 0 FROM tollgate.consumer_status").await;
    browser.go(&app.admin_url("/")).await;
    browser.until_text("All is well.").await;
    // Dark or light, as somebody chose, also on the next page.
    browser.press("t").await;
    let theme = browser.js("return document.documentElement.dataset.theme").await;
    browser.go(&app.admin_url("/events")).await;
    assert_eq!(browser.js("return document.documentElement.dataset.theme").await, theme);
    browser.follow("form[action='/logout'] button").await;
    assert_eq!(browser.place().await, "/login");
    browser.go(&app.admin_url("/audit")).await;
    assert_eq!(browser.place().await, "/login?next=%2Faudit");
}
