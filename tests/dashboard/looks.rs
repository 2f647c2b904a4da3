//! How every page looks: light and dark, on a desktop and on a phone.

use std::path::PathBuf;

use crate::browser::Browser;
use crate::scene::{TOKEN, deliver_the_demo, guarded, hostile_event};

const PAGES: [(&str, &str); 5] = [
    ("overview", "/"),
    ("live", "/live"),
    ("consumers", "/consumers"),
    ("audit", "/audit"),
    ("tokens", "/tokens"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_page_in_light_and_dark_wide_and_narrow() {
    let Some(browser) = Browser::start().await else { return };
    let app = guarded().await;
    deliver_the_demo(&app).await;
    assert_eq!(app.deliver(hostile_event()).await.status, 200);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    browser.go(&app.admin_url("/tokens")).await;
    browser.write("input[name=token]", TOKEN).await;
    browser.follow("button.primary").await;
    assert_eq!(browser.place().await, "/tokens");
    for (width, dark) in [(1280, false), (1280, true), (390, false), (390, true)] {
        browser.dress(width, dark).await;
        for (name, path) in PAGES {
            browser.go(&app.admin_url(path)).await;
            let over = browser.js("return document.documentElement.scrollWidth - innerWidth").await;
            assert!(over.as_i64().unwrap() <= 0, "{name} scrolls sideways by {over} at {width}");
            let theme = if dark { "dark" } else { "light" };
            browser.picture(&folder.join(format!("{name}-{width}-{theme}.png")), width).await;
        }
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
    app.stop().await;
}
