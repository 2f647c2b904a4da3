//! Signed bodies that are strange inside: kept, never a 5xx.

use crate::support::{App, sign};

/// An event with one strange member.
fn with(id: usize, member: &str) -> String {
    format!(r#"{{"id":"evt_{id}",{member}}}"#)
}

/// Deeper than Postgres' stack: what fails is not the value, but the statement with all that is in it.
#[tokio::test]
async fn nesting_beyond_the_servers_stack_costs_no_neighbour() {
    let app = App::spawn_with(&[("http_workers", "1")]).await;
    let deep = format!(r#""x":{}{}"#, "[".repeat(20_000), "]".repeat(20_000));
    let charge = |id: usize| {
        let more = if id == 30 { &deep } else { r#""x":0"# };
        format!(
            r#"{{"id":"evt_{id}","type":"charge.updated","created":1700000000,
                "data":{{"object":{{"id":"ch_{id}","object":"charge",{more}}}}}}}"#
        )
    };
    let deliveries = (0..60).map(|id| app.deliver(charge(id)));
    let answers = futures_util::future::join_all(deliveries).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(app.count("SELECT count(*) FROM stripe.charges").await, 59);
    assert_eq!(
        app.count("SELECT count(*) FROM tollgate.failures WHERE event_id = 'evt_30'").await,
        1
    );
    app.stop().await;
}

#[tokio::test]
async fn strange_members_cost_no_event() {
    let app = App::spawn().await;
    let deep = format!(r#""data":{}{}"#, "[".repeat(10_000), "]".repeat(10_000));
    let long_type = format!(r#""type":"{}""#, "t".repeat(9000));
    let long_id = format!(r#""data":{{"object":{{"id":"{}"}}}}"#, "o".repeat(3000));
    let digits = format!(r#""created":{}"#, "9".repeat(5000));
    let worst = format!(
        r#""type":"{0}","account":"{0}","api_version":"{0}","data":{{"object":{{"id":"{0}","object":"{0}"}}}}"#,
        "\\u0001".repeat(255)
    );
    let mut members: Vec<String> =
        [&deep, &long_type, &long_id, &digits, &worst].map(Clone::clone).into();
    for key in [
        "type",
        "created",
        "livemode",
        "api_version",
        "account",
        "context",
        "object",
        "data",
        "related_object",
    ] {
        for value in [
            "null",
            "true",
            "-1",
            "1e400",
            "\"\"",
            "\"\\u0000\"",
            "\"\\ud800\"",
            "[]",
            "{}",
            "[{}]",
            "{\"object\":7}",
        ] {
            members.push(format!(r#""{key}":{value}"#));
        }
    }
    for created in [
        "1326853478",
        "\"1326853478\"",
        "0",
        "-62135596800",
        "253402300799",
        "253402300800",
        "99999999999999",
    ] {
        members.push(format!(r#""created":{created}"#));
    }
    members.push(r#""created":"2025-01-01T00:00:00.123456789+05:30""#.into());
    members.push(
        r#""type":"a","type":"b","data":{"object":{"id":"x"}},"data":{"object":{"id":"y"}}"#.into(),
    );
    let total = members.len();
    for (number, member) in members.into_iter().enumerate() {
        let answer = app.deliver(with(number, &member)).await;
        let shown: String = member.chars().take(60).collect();
        assert_eq!((answer.status, answer.word().as_str()), (200, "recorded"), "{shown}");
        assert_eq!(app.deliver(with(number, &member)).await.word(), "duplicate", "{shown}");
    }
    assert_eq!(app.events().await, i64::try_from(total).unwrap());
    assert_eq!(app.quarantined().await, 0);
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    let app = App::spawn_with(&[("max_body", "400KiB")]).await;
    let padded = |id: &str, size: usize| {
        let mut body = format!(r#"{{"id":"{id}"}}"#);
        body.push_str(&" ".repeat(size - body.len()));
        body
    };
    assert_eq!(app.deliver(padded("evt_1", 400 * 1024)).await.word(), "recorded");
    let answer = app.deliver(padded("evt_2", 400 * 1024 + 1)).await;
    assert_eq!((answer.status, answer.word().as_str()), (413, "body_too_large"));
    assert_eq!(answer.header("connection"), Some("close"));
    // A sender that is far over still gets to read its answer.
    assert_eq!(app.deliver(padded("evt_3", 5 << 20)).await.status, 413);
    assert_eq!((app.events().await, app.quarantined().await), (1, 0));
}

#[tokio::test]
async fn the_largest_default_body_is_a_mebibyte() {
    let app = App::spawn().await;
    let body = format!(r#"{{"id":"evt_1","x":"{}"}}"#, "x".repeat((1 << 20) - 21));
    assert_eq!(body.len(), 1 << 20);
    assert_eq!(app.deliver(body).await.word(), "recorded");
}

#[tokio::test]
async fn real_events_of_others_are_recorded() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/stripe_events/events");
    if !folder.is_dir() {
        eprintln!("SKIPPED: no sample events at {}", folder.display());
        return;
    }
    let app = App::spawn().await;
    let mut sent = 0;
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let body = std::fs::read_to_string(&path).unwrap();
            // Many of them share an id: each gets one of its own, in the place of the first.
            let fresh = fresh_id(&body, sent);
            let signature = sign(fresh.as_bytes());
            let answer = app.deliver_signed(fresh.into_bytes(), &signature).await;
            assert_eq!(answer.status, 200, "{}", path.display());
            sent += 1;
        }
    }
    assert!(sent > 100);
    assert_eq!(app.events().await + app.quarantined().await, sent);
    // The pages of a list hold an event, but are none.
    assert!(app.quarantined().await <= 2);
}

fn fresh_id(body: &str, number: i64) -> String {
    let Some(start) = body.find("evt_") else {
        return body.to_owned();
    };
    let end = start + body[start..].find('"').unwrap();
    format!("{}evt_sample_{number}{}", &body[..start], &body[end..])
}
