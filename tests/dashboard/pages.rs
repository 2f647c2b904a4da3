//! Pages over HTTP: who sees them, what they are made of, and what strangers' texts do to them.

use reqwest::RequestBuilder;
use tollgate::store::tokens::{self, Hashed, Holder, Scope};

use crate::scene::{Session, TOKEN, guarded, hostile_event, run};
use crate::support::{App, event};

const PAGES: [&str; 13] = [
    "/",
    "/events",
    "/live",
    "/consumers",
    "/dead-letters",
    "/billing",
    "/ties",
    "/handlers",
    "/failures",
    "/quarantine",
    "/audit",
    "/tokens",
    "/events/evt_1",
];

async fn token(app: &App, name: &str, scope: Scope) -> String {
    let text = format!("the-token-of-{name}");
    let holder = Holder { name: name.to_owned(), scope };
    let mut connection = app.pool.acquire().await.unwrap();
    tokens::create(&mut connection, &holder, &Hashed::of(&text), "a test", None).await.unwrap();
    text
}

#[tokio::test]
async fn who_is_not_logged_in_is_asked_to_and_comes_back() {
    let app = guarded().await;
    for page in PAGES.into_iter().chain(["/nothing", "/live/stream", "/events/evt_1/raw"]) {
        let answer = app.ask("GET", page, |request| request).await;
        // What is not there is told to anybody.
        if page == "/nothing" {
            assert_eq!(answer.status, 404, "{page}");
            continue;
        }
        let next = page.replace('/', "%2F");
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some(&*format!("/login?next={next}")))
        );
    }
    let posted = app.ask("POST", "/dead-letters/retry", |request| request).await;
    assert!([303, 400].contains(&posted.status), "{}", posted.status);
    let login = app.ask("GET", "/login", |request| request).await.body;
    let style = login.split('"').find(|part| part.ends_with("style.css")).unwrap();
    let style = app.ask("GET", style, |request| request).await;
    assert_eq!(
        (style.status, style.header("content-type")),
        (200, Some("text/css; charset=utf-8"))
    );
    assert!(style.header("cache-control").unwrap().contains("immutable"));
}

#[tokio::test]
async fn pages_hold_nothing_that_their_policy_forbids_and_nothing_from_elsewhere() {
    let app = guarded().await;
    app.deliver(event("evt_1")).await;
    let session = Session::begin(&app, TOKEN).await;
    for page in PAGES {
        let answer = session.get(page).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("text/html; charset=utf-8")),
            "{page}"
        );
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        for forbidden in [
            " style=",
            " onclick=",
            " onload=",
            "<style",
            "<script>",
            "javascript:",
            "=\"http",
            "=\"//",
        ] {
            assert!(!answer.body.contains(forbidden), "{page}: {forbidden}");
        }
    }
}

#[tokio::test]
async fn buttons_are_shown_to_those_who_may_press_them() {
    let app = guarded().await;
    app.deliver(event("evt_1")).await;
    run(&app, "SELECT tollgate.create_consumer('app', start => 'earliest', accounts => '{\"\"}')")
        .await;
    let reader = Session::begin(&app, &token(&app, "reader", Scope::Read).await).await;
    let operator = Session::begin(&app, &token(&app, "operator", Scope::Operate).await).await;
    for page in ["/consumers/app", "/events/evt_1"] {
        assert_eq!(
            reader.get(page).await.body.matches("method=\"post\"").count(),
            1,
            "only to log out"
        );
        assert!(operator.get(page).await.body.matches("method=\"post\"").count() >= 2);
    }
    let shown = reader.get("/consumers/app").await.body;
    assert!(shown.contains("<dt>Accounts</dt>") && shown.contains(">platform</"), "{shown}");
    let refused = reader.post("/consumers/app/pause", &[]).await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.body.starts_with("<!doctype html>") && refused.body.contains("scope operate"),
        "{}",
        refused.body
    );
    assert_eq!(operator.get("/tokens").await.status, 403);
    assert!(!operator.get("/").await.body.contains("href=\"/tokens\""));
    // And with a token of somebody else's form.
    let stolen = Session { csrf: reader.csrf.clone(), ..operator.clone() };
    assert_eq!(stolen.post("/consumers/app/pause", &[]).await.status, 403);
    assert_eq!(app.count("SELECT count(*) FROM tollgate.audit_log").await, 0);
    let done = operator.post("/consumers/app/pause", &[("because", "lunch")]).await;
    assert_eq!((done.status, done.header("location")), (303, Some("/consumers/app")));
    assert_eq!(app.count("SELECT count(*) FROM tollgate.audit_log WHERE actor = 'operator' AND action = 'consumer.pause' AND subject = 'app'").await, 1);
}

#[tokio::test]
async fn what_cannot_be_done_is_said_on_the_page() {
    let app = guarded().await;
    run(&app, "SELECT tollgate.create_consumer('app', start => 'earliest')").await;
    let session = Session::begin(&app, TOKEN).await;
    let answer = session.post("/consumers/app/rewind", &[("to", "the day before yesterday")]).await;
    assert_eq!(answer.status, 303);
    let flash = answer.header("set-cookie").unwrap();
    assert!(
        flash.starts_with("tollgate_flash=-")
            && flash.contains("is%20no%20place%20to%20start%20at"),
        "{flash}"
    );
    let shown = session.get_with("/consumers/app", flash.split(';').next().unwrap()).await;
    assert!(
        shown.body.contains("class=\"flash bad\"")
            && shown.body.contains("is no place to start at")
    );
    assert!(shown.header("set-cookie").unwrap().contains("Max-Age=0"), "shown once");
    let missing = session.post("/consumers/nobody/pause", &[]).await;
    assert!(missing.header("set-cookie").unwrap().contains("nobody"));
    for (page, status) in [
        ("/events/evt_none", 404),
        ("/consumers/none", 404),
        ("/quarantine/zz", 404),
        ("/billing/objects/in_none", 404),
        ("/audit?before=x", 400),
    ] {
        let answer = session.get(page).await;
        assert_eq!(answer.status, status, "{page}");
        assert!(answer.body.starts_with("<!doctype html>"), "{page}");
    }
}

#[tokio::test]
async fn filters_take_anything_and_say_what_is_wrong_with_it() {
    let app = guarded().await;
    app.deliver(event("evt_1")).await;
    let session = Session::begin(&app, TOKEN).await;
    for (query, says) in [
        ("object=%27%3B%20DROP%20TABLE%20tollgate.events%3B--", "Nothing fits"),
        ("customer=%25%22%5C", "Nothing fits"),
        ("type=%5Einvoice.*%24", "expected a type"),
        ("type=%3Cscript%3Ealert(1)%3C%2Fscript%3E%20x", "expected a type"),
        ("since=yesterday", "expected a time"),
        ("cursor=0000", "cursor"),
        ("colour=red", "cannot be filtered by"),
        ("object=a%00b", "NUL"),
        ("since=2026-01-01T00:00&until=2026-01-02T00:00", "Nothing fits"),
        ("object=in_evt_1&type=invoice.*", "evt_1"),
    ] {
        let answer = session.get(&format!("/events?{query}")).await;
        assert_eq!(answer.status, 200, "{query}");
        assert!(answer.body.contains(says), "{query}: {says}");
        assert!(!answer.body.contains("<script>alert"), "{query}");
    }
    assert_eq!(app.events().await, 1);
    let csv = session.get("/events.csv?type=invoice.*").await;
    assert_eq!((csv.status, csv.header("content-type")), (200, Some("text/csv; charset=utf-8")));
    assert_eq!(csv.body.lines().count(), 2);
    assert!(
        csv.body.lines().nth(1).unwrap().starts_with("evt_1,invoice.paid,ok,invoice,in_evt_1,"),
        "{}",
        csv.body
    );
    assert_eq!(session.get("/events.csv?type=in*ice").await.status, 400);
}

#[tokio::test]
async fn hostile_texts_are_texts() {
    let app = guarded().await;
    let body = hostile_event();
    assert_eq!(app.deliver(&body).await.status, 200);
    let session = Session::begin(&app, TOKEN).await;
    let list = session.get("/events").await.body;
    let link = list.split('"').find(|part| part.starts_with("/events/evt")).unwrap();
    let page = session.get(link).await;
    assert_eq!(page.status, 200, "{link}");
    let live = session.get("/live").await;
    for body in [&list, &page.body, &live.body] {
        assert!(!body.contains("<img src=x") && !body.contains("<script>window"), "markup");
        assert!(
            !body.contains('\u{202e}') && !body.contains('\u{1b}') && !body.contains('\u{7}'),
            "marks"
        );
        assert!(body.contains("&#60;img src=x"), "it is shown");
        assert!(body.len() < 300_000, "a megabyte is cut: {}", body.len());
    }
    let raw = session.get(&format!("{link}/raw")).await;
    assert_eq!(
        (raw.body, raw.headers["content-type"].to_str().unwrap()),
        (body, "text/plain; charset=utf-8")
    );
}

#[tokio::test]
async fn a_token_made_on_the_page_is_shown_once_works_and_ends() {
    let app = guarded().await;
    let session = Session::begin(&app, TOKEN).await;
    let made = session.post("/tokens", &[("name", "ci"), ("scope", "read"), ("days", "30")]).await;
    assert_eq!((made.status, made.header("set-cookie")), (200, None));
    let at = made.body.find("tollgate_").unwrap();
    let token = &made.body[at..at + "tollgate_".len() + 64];
    let works = |request: RequestBuilder| request.bearer_auth(token);
    assert_eq!(app.ask("GET", "/api/v1/whoami", works).await.status, 200);
    assert!(!session.get("/tokens").await.body.contains(token));
    for (fields, says) in [
        ([("name", "ci"), ("scope", "read"), ("days", "")], "already"),
        ([("name", "No Name"), ("scope", "read"), ("days", "")], "ame"),
        ([("name", "x"), ("scope", "all"), ("days", "")], "expected%20read"),
        ([("name", "x"), ("scope", "read"), ("days", "-1")], "days"),
    ] {
        let answer = session.post("/tokens", &fields).await;
        assert!(answer.header("set-cookie").unwrap().contains(says), "{says}");
    }
    session.post("/tokens/revoke", &[("name", "ci")]).await;
    let works = |request: RequestBuilder| request.bearer_auth(token);
    assert_eq!(app.ask("GET", "/api/v1/whoami", works).await.status, 401);
    assert_eq!(app.count("SELECT count(*) FROM tollgate.audit_log WHERE action LIKE 'token.%' AND detail::text NOT LIKE '%tg!_%' ESCAPE '!'").await, 2);
}
