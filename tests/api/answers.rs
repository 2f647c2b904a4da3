//! The table of answers, line by line.

use sqlx::Row;
use tollgate::stripe::signature::SigningSecret;

use crate::support::{self, App, event, now, sign};

#[tokio::test]
async fn a_new_event_is_recorded() {
    let app = App::spawn().await;
    let answer = app.deliver(event("evt_1")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, r#"{"received":true,"status":"recorded","event":"evt_1"}"#);
    assert_eq!(answer.header("x-event-status"), Some("RECORDED"));
    assert_eq!(app.events().await, 1);
}

#[tokio::test]
async fn the_row_holds_what_was_sent() {
    let app = App::spawn().await;
    // Bytes that no parser would write again: spacing, escapes, numbers, repeated keys.
    let body = "{ \"id\" : \"evt_1\",\n\t\"n\": 1e400, \"n\": 01.50 }".replace("01.50", "1.50")
        + " \n"
        + &" ".repeat(3);
    let body = body.replace(
        "\"n\": 1e400",
        r#""type":"invoice.paid","created":1700000000,"livemode":true,"account":"acct_1","api_version":"2020-08-27",
        "data":{"object":{"id":"in_1","object":"invoice","x":"\u0000\ud800"}}, "n": 1e400"#,
    );
    assert_eq!(app.deliver(&body).await.word(), "recorded");
    let row = sqlx::query(
        "SELECT raw, endpoint, account, type, object_type, object_id, api_version, source, id,
                livemode, extract(epoch FROM created)::bigint FROM tollgate.events",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!(row.get::<Vec<u8>, _>(0), body.as_bytes());
    let texts: Vec<String> = (1..=8).map(|column| row.get(column)).collect();
    assert_eq!(
        texts,
        ["default", "acct_1", "invoice.paid", "invoice", "in_1", "2020-08-27", "webhook", "evt_1"]
    );
    assert_eq!((row.get::<bool, _>(9), row.get::<i64, _>(10)), (true, 1_700_000_000));
}

#[tokio::test]
async fn a_repeated_event_is_a_duplicate() {
    let app = App::spawn().await;
    app.deliver(event("evt_1")).await;
    let answer = app.deliver(event("evt_1")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, r#"{"received":true,"status":"duplicate","event":"evt_1"}"#);
    assert_eq!(answer.header("x-event-status"), Some("DUPLICATE"));
    assert_eq!(app.events().await, 1);
}

#[tokio::test]
async fn what_is_signed_but_no_event_is_quarantined() {
    let app = App::spawn().await;
    let long = format!(r#"{{"id":"{}"}}"#, "e".repeat(256));
    let bodies: [(&[u8], &str); 7] = [
        (b"", "not_json"),
        (b"hello", "not_json"),
        (b"[]", "not_json"),
        (b"\xff\xfe", "not_utf8"),
        (b"{}", "no_id"),
        (b"{\"id\":7}", "no_id"),
        (long.as_bytes(), "id_too_long"),
    ];
    for (body, reason) in bodies {
        let answer = app.deliver(body).await;
        assert_eq!((answer.status, answer.word().as_str()), (200, "quarantined"), "{reason}");
        assert_eq!(answer.header("x-event-status"), Some("QUARANTINED"));
        let kept: (String, Vec<u8>) =
            sqlx::query_as("SELECT reason, raw FROM tollgate.quarantine WHERE sha256 = sha256($1)")
                .bind(body)
                .fetch_one(&app.pool)
                .await
                .unwrap();
        assert_eq!(kept, (reason.to_owned(), body.to_vec()));
    }
    // Sent again, nothing is added.
    assert_eq!(app.deliver(b"{}").await.word(), "quarantined");
    assert_eq!(app.quarantined().await, 7);
    assert_eq!(app.events().await, 0);
}

#[tokio::test]
async fn a_bad_signature_is_told_apart_and_leaves_no_row() {
    let app = App::spawn().await;
    let secret: SigningSecret = support::SECRET.parse().unwrap();
    let other: SigningSecret = "whsec_other".parse().unwrap();
    let body = event("evt_1").into_bytes();
    let right = sign(&body);
    let altered = [&body[..], b"\n"].concat();
    let cases: Vec<(Vec<u8>, String, &str)> = vec![
        (body.clone(), String::new(), "signature_malformed"),
        (body.clone(), "nonsense".into(), "signature_malformed"),
        (body.clone(), right.replace("t=", "t=x"), "signature_malformed"),
        (body.clone(), format!("t={}", now()), "signature_no_v1"),
        (body.clone(), right.replace("v1=", "v0="), "signature_no_v1"),
        (body.clone(), format!("t={},v1=abc", now()), "signature_no_v1"),
        (body.clone(), secret.sign(now() - 302, &body), "timestamp_too_old"),
        (body.clone(), secret.sign(now() + 302, &body), "timestamp_in_future"),
        (body.clone(), other.sign(now(), &body), "signature_mismatch"),
        (event("evt_2").into_bytes(), right.clone(), "signature_mismatch"),
        (altered, right, "body_altered"),
    ];
    for (body, header, code) in cases {
        let answer = app.deliver_signed(body, &header).await;
        assert_eq!((answer.status, answer.word().as_str()), (400, code), "{header}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(answer.json()["detail"].as_str().unwrap().len() > 20);
    }
    let answer = app.request("POST", "/webhooks/stripe", |request| request.body(body)).await;
    assert_eq!((answer.status, answer.word().as_str()), (400, "signature_missing"));
    assert_eq!((app.events().await, app.quarantined().await), (0, 0));
}

#[tokio::test]
async fn each_endpoint_has_secrets_and_rules_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "whsec_from_file\n").unwrap();
    let config = folder.path().join("tollgate.toml");
    std::fs::write(
        &config,
        format!(
            "[endpoints.connect]\nsecrets = [\"whsec_old\", \"file:{}\"]\nlivemode = \"live\"\naccount = \"acct_1\"\n",
            file.display()
        ),
    )
    .unwrap();
    let app = App::spawn_configured(&config).await;
    let deliver = async |path: &str, secret: &str, body: &str| {
        let header = secret.parse::<SigningSecret>().unwrap().sign(now(), body.as_bytes());
        let body = body.to_owned();
        app.request("POST", path, |request| request.header("stripe-signature", header).body(body))
            .await
    };
    let live = |id: &str| format!(r#"{{"id":"{id}","livemode":true,"account":"acct_1"}}"#);
    for (id, secret) in [("evt_1", "whsec_old"), ("evt_2", "whsec_from_file")] {
        assert_eq!(deliver("/webhooks/stripe/connect", secret, &live(id)).await.word(), "recorded");
    }
    let foreign = deliver("/webhooks/stripe/connect", support::SECRET, &live("evt_3")).await;
    assert_eq!(foreign.word(), "signature_mismatch");
    for (body, reason) in [
        (r#"{"id":"evt_4","livemode":false,"account":"acct_1"}"#, "wrong_livemode"),
        (r#"{"id":"evt_5","livemode":true}"#, "wrong_account"),
    ] {
        let answer = deliver("/webhooks/stripe/connect", "whsec_old", body).await;
        assert_eq!(answer.word(), "quarantined");
        assert_eq!(answer.json()["reason"], reason);
    }
    for path in [
        "/webhooks/stripe/other",
        "/webhooks/stripe/CONNECT",
        "/webhooks/stripe/%00",
        "/webhooks/stripe/a/b",
    ] {
        assert_eq!(deliver(path, "whsec_old", "{}").await.status, 404, "{path}");
    }
    assert_eq!(
        app.count("SELECT count(*) FROM tollgate.events WHERE endpoint = 'connect'").await,
        2
    );
}

#[tokio::test]
async fn nothing_else_is_served_and_nothing_redirects() {
    let app = App::spawn().await;
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
        ("POST", "/webhooks", 404),
        ("POST", "/webhooks/stripe/", 404),
        ("POST", "//webhooks/stripe", 404),
        ("GET", "/webhooks/stripe", 405),
        ("PUT", "/webhooks/stripe", 405),
        ("OPTIONS", "/webhooks/stripe/default", 405),
        ("POST", "/healthz", 405),
        ("BREW", "/readyz", 405),
    ] {
        let answer = app.request(method, path, |request| request).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {path}");
    }
}

#[tokio::test]
async fn headers_that_describe_the_body_are_ignored() {
    let app = App::spawn().await;
    for (name, value) in [
        ("Content-Encoding", "gzip"),
        ("Content-Type", "text/plain; charset=latin1"),
        ("Content-Type", "nonsense"),
        ("Accept", "image/png"),
        ("Accept-Encoding", "identity;q=0"),
    ] {
        let body = event(&format!("evt_{name}_{}", value.len()));
        let signature = sign(body.as_bytes());
        let answer = app
            .request("POST", "/webhooks/stripe", |request| {
                request.header("stripe-signature", signature).header(name, value).body(body)
            })
            .await;
        assert_eq!(answer.word(), "recorded", "{name}: {value}");
    }
}

#[tokio::test]
async fn a_request_id_is_kept_if_it_is_sane_and_made_if_not() {
    let app = App::spawn().await;
    let id_for = async |given: &[u8]| {
        let given = reqwest::header::HeaderValue::from_bytes(given).unwrap();
        let answer =
            app.request("GET", "/healthz", |request| request.header("x-request-id", given)).await;
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id_for(b"req-42").await, "req-42");
    let long = "x".repeat(129);
    for bad in [&b""[..], b"a b", "ü".as_bytes(), long.as_bytes()] {
        let made = id_for(bad).await;
        assert_eq!(made.len(), 36, "{made}");
    }
}
