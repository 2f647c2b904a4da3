//! Who is let in to the admin listener: tokens and scopes, sessions, pages of strangers.

use reqwest::RequestBuilder;
use sqlx::Row;
use tollgate::store::tokens::{self, Hashed, Holder, Scope};

use crate::support::{Answer, App, form};

const TOKEN: &str = "a-token-of-the-settings";

/// A gateway that needs a token, with another one of each lesser scope.
async fn guarded() -> App {
    let app = App::spawn_with(&[("admin_token", TOKEN)]).await;
    for scope in [Scope::Read, Scope::Operate] {
        create(&app, scope.as_str(), scope).await;
    }
    app
}

/// Makes a token whose text is its name, repeated.
async fn create(app: &App, name: &str, scope: Scope) {
    let holder = Holder { name: name.to_owned(), scope };
    let mut connection = app.pool.acquire().await.unwrap();
    let hash = Hashed::of(&text_of(name));
    tokens::create(&mut connection, &holder, &hash, "a test", None).await.unwrap();
}

fn text_of(name: &str) -> String {
    name.repeat(8)
}

/// Logs in as a browser would; the answer, and the cookie if there is one.
async fn log_in(app: &App, token: &str, next: &str) -> (Answer, Option<String>) {
    let answer = app
        .ask("POST", "/login", |request| {
            form(request, &[("token", token), ("next", next)]).header("origin", app.admin_url(""))
        })
        .await;
    let cookie = answer.header("set-cookie").map(|cookie| {
        for needed in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
            assert!(cookie.contains(needed), "{cookie}");
        }
        cookie.split(';').next().unwrap().to_owned()
    });
    (answer, cookie)
}

async fn whoami(app: &App, with: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Answer {
    app.ask("GET", "/api/v1/whoami", with).await
}

#[tokio::test]
async fn a_token_says_who_and_what_is_allowed() {
    let app = guarded().await;
    for (token, name, scope) in [
        (TOKEN.to_owned(), "admin", "admin"),
        (text_of("read"), "read", "read"),
        (text_of("operate"), "operate", "operate"),
    ] {
        let answer = whoami(&app, |request| request.bearer_auth(&token)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json(), serde_json::json!({"name": name, "scope": scope}));
    }
    let used = app.count("SELECT count(*) FROM tollgate.admin_tokens WHERE used_at IS NOT NULL");
    assert_eq!(used.await, 2);
}

#[tokio::test]
async fn nobody_else_is_let_in() {
    let app = guarded().await;
    let wrong = [
        "Bearer wrong-token-of-nobody",
        "Bearer ",
        "Bearer",
        "Basic YWRtaW46YWRtaW4=",
        &format!("Token {TOKEN}"),
        &format!("Bearer {TOKEN}x"),
        "\u{e9}",
    ];
    for header in wrong {
        let answer = whoami(&app, |request| request.header("authorization", header)).await;
        assert_eq!((answer.status, answer.word().as_str()), (401, "unauthorized"), "{header}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"tollgate\""));
    }
    assert_eq!(whoami(&app, |request| request).await.status, 401);
    let cookie = |request: RequestBuilder| request.header("cookie", "tollgate_session=00");
    assert_eq!(whoami(&app, cookie).await.status, 401);
}

#[tokio::test]
async fn a_token_that_is_revoked_or_has_expired_ends_at_once() {
    let app = guarded().await;
    let (_, cookie) = log_in(&app, &text_of("operate"), "").await;
    let cookie = cookie.unwrap();
    let session = |request: RequestBuilder| request.header("cookie", &cookie);
    let bearer = |request: RequestBuilder| request.bearer_auth(text_of("operate"));
    assert_eq!(whoami(&app, session).await.status, 200);
    let mut transaction = app.pool.begin().await.unwrap();
    let gone = tokens::revoke(&mut transaction, "operate").await.unwrap();
    assert_eq!(gone, Some(Scope::Operate));
    assert_eq!(tokens::revoke(&mut transaction, "operate").await.unwrap(), None);
    transaction.commit().await.unwrap();
    assert_eq!(whoami(&app, session).await.status, 401, "the page that was open");
    assert_eq!(whoami(&app, bearer).await.status, 401);

    let expire = "UPDATE tollgate.admin_tokens SET expires_at = now() - interval '1 second'";
    sqlx::query(expire).execute(&app.pool).await.unwrap();
    let read = |request: RequestBuilder| request.bearer_auth(text_of("read"));
    assert_eq!(whoami(&app, read).await.status, 401);
}

#[tokio::test]
async fn a_session_begins_with_a_token_and_ends_when_asked_or_unused() {
    let app = guarded().await;
    let (answer, none) = log_in(&app, "not a token of ours", "/events").await;
    assert_eq!((answer.status, none), (401, None));
    assert!(answer.body.contains("not known"), "{}", answer.body);

    let (answer, cookie) = log_in(&app, TOKEN, "/events?type=invoice.*").await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("location"), Some("/events?type=invoice.*"));
    let cookie = cookie.unwrap();
    let session = |request: RequestBuilder| request.header("cookie", &cookie);
    assert_eq!(whoami(&app, session).await.json()["name"], "admin");

    let kept = sqlx::query("SELECT encode(hash, 'hex') FROM tollgate.admin_sessions");
    let kept: String = kept.fetch_one(&app.pool).await.unwrap().get(0);
    assert!(!cookie.contains(&kept), "the cookie cannot be had from the database");

    let unused = "UPDATE tollgate.admin_sessions SET seen_at = now() - interval '25 hours'";
    sqlx::query(unused).execute(&app.pool).await.unwrap();
    assert_eq!(whoami(&app, session).await.status, 401);

    let (answer, cookie) = log_in(&app, TOKEN, "//evil.example").await;
    assert_eq!(answer.header("location"), Some("/"));
    let cookie = cookie.unwrap();
    assert_eq!(app.count("SELECT count(*) FROM tollgate.admin_sessions").await, 1, "ended ones go");
    let csrf = tollgate::http::admin::access::csrf_of(cookie.split_once('=').unwrap().1);
    let logged_out = app
        .ask("POST", "/logout", |request| {
            form(request, &[("csrf", &csrf)]).header("cookie", &cookie)
        })
        .await;
    assert_eq!(logged_out.status, 303);
    assert_eq!(whoami(&app, |request| request.header("cookie", &cookie)).await.status, 401);
}

#[tokio::test]
async fn what_strangers_pages_send_is_refused() {
    let app = guarded().await;
    let (_, cookie) = log_in(&app, TOKEN, "").await;
    let cookie = cookie.unwrap();
    let csrf = tollgate::http::admin::access::csrf_of(cookie.split_once('=').unwrap().1);
    let here = app.admin_url("");
    let post = async |headers: &[(&str, &str)], fields: &[(&str, &str)]| {
        app.ask("POST", "/logout", |mut request| {
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            form(request, fields).header("cookie", &cookie)
        })
        .await
        .status
    };
    let right: &[(&str, &str)] = &[("csrf", &csrf)];
    assert_eq!(post(&[("origin", "https://evil.example")], right).await, 403);
    assert_eq!(post(&[("origin", "null")], right).await, 403);
    assert_eq!(post(&[("sec-fetch-site", "cross-site")], right).await, 403);
    assert_eq!(post(&[("origin", &here)], &[]).await, 403, "without the form's token");
    assert_eq!(post(&[("origin", &here)], &[("csrf", "00")]).await, 403);
    assert_eq!(post(&[("origin", &here), ("x-csrf-token", "00")], right).await, 403);
    assert_eq!(app.count("SELECT count(*) FROM tollgate.admin_sessions").await, 1);
    assert_eq!(post(&[("origin", &here)], right).await, 303);
}

#[tokio::test]
async fn logins_are_limited() {
    let app = guarded().await;
    for _ in 0..10 {
        assert_eq!(log_in(&app, "guess guess guess guess", "").await.0.status, 401);
    }
    let (answer, cookie) = log_in(&app, TOKEN, "").await;
    assert_eq!((answer.status, cookie), (429, None));
}

#[tokio::test]
async fn on_loopback_no_token_is_needed_until_there_is_one() {
    let app = App::spawn().await;
    assert_eq!(whoami(&app, |request| request).await.json()["name"], "local");
    let named = |host: &'static str| move |request: RequestBuilder| request.header("host", host);
    assert_eq!(whoami(&app, named("localhost:9090")).await.status, 200);
    let rebound = whoami(&app, named("evil.example:9090")).await;
    assert_eq!((rebound.status, rebound.word().as_str()), (403, "cross_site"));

    // A cookie of another gateway on this host, or of a token that is gone: pages work all the same.
    let cookie = "tollgate_session=0123456789abcdef";
    let csrf = tollgate::http::admin::access::csrf_of("0123456789abcdef");
    let page = app.ask("GET", "/tokens", |request| request.header("cookie", cookie)).await;
    assert!(page.body.contains(&csrf), "{}", page.body);
    let pressed = app
        .ask("POST", "/logout", |request| {
            form(request, &[("csrf", &csrf)]).header("cookie", cookie)
        })
        .await;
    assert_eq!(pressed.status, 303, "{}", pressed.body);

    create(&app, "first", Scope::Read).await;
    assert_eq!(whoami(&app, |request| request).await.status, 401);
    let bearer = |request: RequestBuilder| request.bearer_auth(text_of("first"));
    assert_eq!(whoami(&app, bearer).await.json()["scope"], "read");

    // Now that everybody needs one, a name of our own leads here as well, through a proxy say.
    let named = |request: RequestBuilder| bearer(request).header("host", "admin.example.com");
    assert_eq!(whoami(&app, named).await.status, 200);
    let rebound = |request: RequestBuilder| request.header("host", "evil.example:9090");
    assert_eq!(whoami(&app, rebound).await.status, 401);
}

#[tokio::test]
async fn the_first_token_shuts_nobody_out_and_the_last_lets_nobody_in() {
    let app = App::spawn().await;
    let press = async |scope: &str| {
        let fields = [("name", "ada"), ("scope", scope)];
        app.ask("POST", "/tokens", |request| form(request, &fields)).await
    };
    let refused = press("read").await;
    assert!(refused.header("set-cookie").is_some(), "it says why: {}", refused.body);
    assert_eq!(app.count("SELECT count(*) FROM tollgate.admin_tokens").await, 0);
    let made = press("admin").await;
    assert_eq!(made.status, 200, "{} {:?}", made.body, made.header("location"));
    let token = made.body.split(r#"id="new-token">"#).nth(1).unwrap().split('<').next().unwrap();

    let revoke = async || {
        let path = "/api/v1/tokens/ada";
        app.ask("DELETE", path, |request| request.bearer_auth(token)).await
    };
    let kept = revoke().await;
    assert_eq!((kept.status, kept.word().as_str()), (409, "conflict"), "{}", kept.body);
    assert_eq!(whoami(&app, |request| request).await.status, 401, "nobody is let in by that");
    create(&app, "third", Scope::Read).await;
    assert_eq!(revoke().await.word(), "conflict", "who looks only cannot make another");
    create(&app, "second", Scope::Admin).await;
    assert_eq!(revoke().await.status, 200);
    assert_eq!(whoami(&app, |request| request).await.status, 401);
}

#[tokio::test]
async fn no_page_leads_elsewhere() {
    let app = App::spawn().await;
    let page = app.ask("GET", "//evil.example/x", |request| request).await;
    assert!(page.status == 404 && !page.body.contains("\"//evil.example"), "{}", page.body);
}

#[tokio::test]
async fn every_answer_is_kept_to_itself() {
    let app = guarded().await;
    for path in ["/login", "/nowhere", "/api/v1/whoami"] {
        let answer = app.ask("GET", path, |request| request).await;
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.header("x-request-id").is_some());
    }
}

#[tokio::test]
async fn deliveries_and_administration_have_a_port_each() {
    let app = guarded().await;
    assert_eq!(app.ask("POST", "/webhooks/stripe", |request| request).await.status, 404);
    for path in ["/", "/login", "/metrics", "/api/v1/whoami"] {
        assert_eq!(app.request("GET", path, |request| request).await.status, 404, "{path}");
    }
}
