//! What the admin API refuses: what makes no sense, and who may not.

use serde_json::json;
use tollgate::store::tokens::Scope;

use crate::api::Api;

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_sentence() {
    let api = Api::spawn().await;
    api.deliver(&["evt_1", "evt_2", "evt_3"]).await;
    let page = api.json("/api/v1/events?limit=1").await;
    let cursor = page["next"].as_str().unwrap();
    for (path, says) in [
        (format!("/api/v1/events?type=invoice.*&cursor={cursor}"), "another query"),
        (format!("/api/v1/quarantine?cursor={cursor}"), "another query"),
        ("/api/v1/events?cursor=zzz".to_owned(), "none of ours"),
        ("/api/v1/events?since=yesterday".to_owned(), "expected a time"),
        ("/api/v1/events?until=2026-02-30".to_owned(), "expected a time"),
        ("/api/v1/stats?since=0000-01-01".to_owned(), "expected a time"),
        ("/api/v1/events?limit=201".to_owned(), "1 to 200"),
        ("/api/v1/events?limit=x".to_owned(), "expected a number"),
        ("/api/v1/events?colour=red".to_owned(), "cannot be filtered"),
        ("/api/v1/events?object=a%00b".to_owned(), "NUL"),
        ("/api/v1/events?type=%5Einvoice.*%24".to_owned(), "expected a type"),
        ("/api/v1/quarantine?colour=red".to_owned(), "unknown field"),
        ("/api/v1/stats?since=2026-01-02&until=2026-01-01".to_owned(), "after since"),
        ("/api/v1/events/evt_1?created=never".to_owned(), "expected a time"),
        ("/api/v1/failures?stage=coffee".to_owned(), "projection or handler"),
    ] {
        let answer = api.get(&path).await;
        assert_eq!(
            (answer.status, answer.word().as_str()),
            (400, "invalid"),
            "{path}: {}",
            answer.body
        );
        assert!(answer.body.contains(says), "{path}: {}", answer.body);
    }
    for (path, body, says) in [
        ("/api/v1/consumers/x/pause", json!({"becuase": "typo"}), "unknown field"),
        ("/api/v1/consumers/x/pause", json!({"because": "x".repeat(70_000)}), "larger than"),
        ("/api/v1/consumers", json!({}), "missing field"),
        ("/api/v1/consumers", json!({"name": "no spaces, please"}), "no name for a consumer"),
        ("/api/v1/consumers", json!({"name": "x", "types": ["in*ice"]}), "check constraint"),
        ("/api/v1/tokens", json!({"name": "x", "scope": "god"}), "read, operate or admin"),
        ("/api/v1/tokens", json!({"name": "x", "scope": "read", "days": -1}), "more than 0"),
        ("/api/v1/replay", json!({"consumer": "x"}), "dry_run first"),
        (
            "/api/v1/replay",
            json!({"consumer": "x", "dry_run": true, "filter": {"since": "?"}}),
            "expected a time",
        ),
        ("/api/v1/events/evt_1/reprocess", json!({"projection": false, "handlers": []}), "nothing"),
    ] {
        let answer = api.call("POST", path, &body).await;
        assert_eq!(
            (answer.status, answer.word().as_str()),
            (400, "invalid"),
            "{path}: {}",
            answer.body
        );
        assert!(answer.body.contains(says), "{path} {body}: {}", answer.body);
    }
}

#[tokio::test]
async fn each_call_needs_its_scope() {
    let api = Api::spawn().await;
    let reader = api.token(Scope::Read).await;
    let operator = api.token(Scope::Operate).await;
    let only_admin = [
        ("post", "/api/v1/consumers"),
        ("patch", "/api/v1/consumers/{name}"),
        ("delete", "/api/v1/consumers/{name}"),
        ("post", "/api/v1/consumers/{name}/rewind"),
        ("post", "/api/v1/dead-letters/discard"),
        ("post", "/api/v1/failures/discard"),
        ("post", "/api/v1/failures/{failure}/discard"),
        ("delete", "/api/v1/handlers/{name}"),
        ("get", "/api/v1/tokens"),
        ("post", "/api/v1/tokens"),
        ("delete", "/api/v1/tokens/{name}"),
    ];
    for (method, path) in tollgate::http::admin::api::ROUTES {
        let needed = match *method {
            _ if only_admin.contains(&(method, path)) => Scope::Admin,
            "get" => Scope::Read,
            _ => Scope::Operate,
        };
        let filled = path.replace("{failure}", "1").replace(['{', '}'], "");
        for (token, scope) in [(&reader, Scope::Read), (&operator, Scope::Operate)] {
            let answer = api.call_as(token, &method.to_uppercase(), &filled, &json!({})).await;
            let refused = answer.status == 403;
            assert_eq!(refused, scope < needed, "{scope} {method} {path}: {}", answer.body);
        }
        let nobody = api.call_as("nobody", &method.to_uppercase(), &filled, &json!({})).await;
        assert_eq!(
            (nobody.status, nobody.word().as_str()),
            (401, "unauthorized"),
            "{method} {path}"
        );
    }
    // What is refused, or finds nothing, is no action.
    let noted = ("operate", "failures.retry", "all");
    let noted = (noted.0.to_owned(), noted.1.to_owned(), noted.2.to_owned());
    assert_eq!(api.audit().await, [noted]);
}

#[tokio::test]
async fn what_is_not_served_is_a_problem_too() {
    let api = Api::spawn().await;
    for path in ["/api/v1/", "/api/v2/events", "/api/v1/consumers//attempts", "/api/v1/nothing"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status, answer.word().as_str()), (404, "not_found"), "{path}");
    }
    for (method, path, allowed) in [
        ("PUT", "/api/v1/events", "GET"),
        ("HEAD", "/api/v1/events/evt_1", "GET"),
        ("DELETE", "/api/v1/consumers", "GET, POST"),
        ("GET", "/api/v1/replay", "POST"),
    ] {
        let answer = api.call(method, path, &json!({})).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some(allowed)),
            "{method} {path}"
        );
        if method != "HEAD" {
            assert_eq!(answer.word(), "method_not_allowed");
        }
    }
}
