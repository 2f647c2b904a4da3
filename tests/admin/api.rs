//! The admin API over HTTP: what it answers to those who may look, and what acting calls do.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::store::tokens::{self, Hashed, Holder, Scope};

use crate::support::{Answer, App, event, now};

/// The token of the settings.
const TOKEN: &str = "a-token-of-the-settings";

/// A gateway that needs a token, and what asks it.
pub struct Api {
    pub app: App,
}

impl Api {
    pub async fn spawn() -> Self {
        Self { app: App::spawn_with(&[("admin_token", TOKEN)]).await }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.app.ask("GET", path, |request| request.bearer_auth(TOKEN)).await
    }

    /// What a GET answers, which must be a 200.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    pub async fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.call_as(TOKEN, method, path, body).await
    }

    pub async fn call_as(&self, token: &str, method: &str, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let with = |request: reqwest::RequestBuilder| {
            request.bearer_auth(token).header("content-type", "application/json").body(body)
        };
        self.app.ask(method, path, with).await
    }

    /// What a POST answers, which must be a 200.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.call("POST", path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// Runs SQL without an answer.
    pub async fn sql(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.app.pool).await.unwrap();
    }

    /// Delivers events of these ids.
    pub async fn deliver(&self, ids: &[&str]) {
        for id in ids {
            assert_eq!(self.app.deliver(event(id)).await.status, 200);
        }
    }

    /// A token of a scope.
    pub async fn token(&self, scope: Scope) -> String {
        let text = scope.as_str().repeat(8);
        let holder = Holder { name: scope.as_str().to_owned(), scope };
        let mut connection = self.app.pool.acquire().await.unwrap();
        tokens::create(&mut connection, &holder, &Hashed::of(&text), "a test", None).await.unwrap();
        text
    }

    /// The audit log, newest first: actor, action, subject.
    pub async fn audit(&self) -> Vec<(String, String, String)> {
        let lines = self.json("/api/v1/audit").await;
        let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
        let line =
            |line: &Value| (text(line, "actor"), text(line, "action"), text(line, "subject"));
        lines.as_array().unwrap().iter().map(line).collect()
    }
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_event_is_found_with_its_payload_and_its_bytes() {
    let api = Api::spawn().await;
    let body = format!(
        r#"{{"id":"evt_1/2?x=&é","type":"invoice.paid","created":{}, "n":1e400,"nul":"\u0000","data":{{"object":{{"id":"in_1","object":"invoice"}}}}}}"#,
        now()
    );
    assert_eq!(api.app.deliver(&body).await.status, 200);
    let page = api.json("/api/v1/events").await;
    assert_eq!(ids(&page), ["evt_1/2?x=&é"]);
    assert_eq!(page["items"][0]["status"], "ok");
    let path = "/api/v1/events/evt_1%2F2%3Fx=&%C3%A9";
    let one = api.get(path).await;
    assert_eq!(one.status, 200, "{}", one.body);
    assert!(one.body.contains("1e400") && one.body.contains(r"\u0000"), "{}", one.body);
    assert!(one.body.contains(r#""position":1"#), "{}", one.body);
    let raw = api.get(&format!("{path}/raw")).await;
    assert_eq!(raw.body, body);
    assert_eq!(raw.header("content-type"), Some("application/octet-stream"));
    assert_eq!(raw.header("content-disposition"), Some("attachment"));
    for path in ["/api/v1/events/evt_none", "/api/v1/events/evt_none/raw", "/api/v1/events/evt%00x"]
    {
        let missing = api.get(path).await;
        assert_eq!((missing.status, missing.word().as_str()), (404, "not_found"), "{path}");
        assert_eq!(missing.header("content-type"), Some("application/problem+json"));
    }
}

#[tokio::test]
async fn a_timeline_tells_of_tables_handlers_and_consumers() {
    let api = Api::spawn().await;
    api.sql(
        "CREATE SCHEMA app;
         CREATE FUNCTION app.fails(jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'out of luck'; END $$;
         SELECT tollgate.register_handler('invoice.*', 'app.fails(jsonb)', name => 'fails');
         SELECT tollgate.create_consumer('mailer'), tollgate.create_consumer('other', types => '{charge.*}')",
    )
    .await;
    api.deliver(&["evt_1"]).await;
    let story = api.json("/api/v1/events/evt_1/timeline").await;
    assert_eq!(story["projection"]["table"], "invoices");
    assert_eq!(story["projection"]["shown"], true);
    assert_eq!(story["projection"]["order_basis"], "unique");
    assert_eq!(story["failures"][0]["handler"], "fails");
    assert_eq!(story["handlers"], json!([{"name": "fails", "state": "failing"}]));
    assert_eq!(story["consumers"][0]["state"], "ahead");
    assert_eq!(story["consumers"][1]["state"], "not_wanted");
    let what: Vec<_> = story["steps"].as_array().unwrap().iter().map(|it| &it["what"]).collect();
    assert_eq!(what[..2], ["created", "received"]);
    assert!(what.contains(&&json!("failed")), "{what:?}");
    api.sql("DO $$ BEGIN PERFORM tollgate.nack(claim, position, 'no luck', permanent => true) FROM tollgate.claim('mailer', 1); END $$")
        .await;
    let story = api.json("/api/v1/events/evt_1/timeline").await;
    assert_eq!(story["consumers"][0]["state"], "dead");
    assert_eq!(story["event"]["status"], "dead");
    let dead = api.json("/api/v1/events?status=dead").await;
    assert_eq!(ids(&dead), ["evt_1"]);
    assert!(ids(&api.json("/api/v1/events?status=ok").await).is_empty());
    assert_eq!(
        api.json("/api/v1/dead-letters?consumer=mailer").await["items"][0]["error"],
        "no luck"
    );
}

#[tokio::test]
async fn consumers_are_managed_and_it_is_noted_by_whom() {
    let api = Api::spawn().await;
    let made = api
        .post(
            "/api/v1/consumers",
            &json!({"name": "mailer", "types": ["invoice.*"], "ordering": "object",
                    "target": {"url": "nats://joe:hunter2@localhost:4222", "timeout": 3}}),
        )
        .await;
    assert_eq!(made["cursor"], 0);
    let one = api.get("/api/v1/consumers/mailer").await;
    assert!(!one.body.contains("hunter2"), "{}", one.body);
    assert_eq!(one.json()["timeout"], 3.0);
    let operator = api.token(Scope::Operate).await;
    let path = "/api/v1/consumers/mailer/pause";
    let paused = api.call_as(&operator, "POST", path, &json!({"because": "it moves"})).await;
    assert_eq!(paused.json(), json!({"done": true}));
    assert_eq!(api.json("/api/v1/consumers").await[0]["paused_because"], "it moves");
    api.post("/api/v1/consumers/mailer/resume", &json!({})).await;
    assert_eq!(
        api.post("/api/v1/consumers/mailer/rewind", &json!({"start": "earliest"})).await,
        json!({"cursor": 0})
    );
    assert_eq!(api.json("/api/v1/consumers/mailer/attempts").await["items"], json!([]));
    assert_eq!(api.call("DELETE", "/api/v1/consumers/mailer", &json!({})).await.status, 200);
    for path in ["pause", "resume", "attempts"] {
        let method = if path == "attempts" { "GET" } else { "POST" };
        let gone = api.call(method, &format!("/api/v1/consumers/mailer/{path}"), &json!({})).await;
        assert_eq!(gone.status, 404, "{path}: {}", gone.body);
    }
    let noted = api.audit().await;
    let actions: Vec<_> =
        noted.iter().map(|(actor, action, _)| (actor.as_str(), action.as_str())).collect();
    assert_eq!(
        actions,
        [
            ("admin", "consumer.drop"),
            ("admin", "consumer.rewind"),
            ("admin", "consumer.resume"),
            ("operate", "consumer.pause"),
            ("admin", "consumer.create"),
        ]
    );
}

#[tokio::test]
async fn a_consumer_for_a_part_of_the_log_is_made_and_changed() {
    let api = Api::spawn().await;
    let path = "/api/v1/consumers/shop";
    let filter = async || {
        let one = api.json(path).await;
        json!([one["endpoints"], one["accounts"], one["livemode"], one["metadata"]])
    };
    let asked = json!({"name": "shop", "accounts": ["platform", "acct_1"], "livemode": true,
                       "endpoints": ["default"], "metadata": {"app": "shop"}});
    api.post("/api/v1/consumers", &asked).await;
    assert_eq!(filter().await, json!([["default"], ["", "acct_1"], true, {"app": "shop"}]));
    let change = async |what: Value| api.call("PATCH", path, &what).await;
    assert_eq!(change(json!({})).await.json(), json!({"done": true}));
    assert_eq!(filter().await, json!([["default"], ["", "acct_1"], true, {"app": "shop"}]));
    let what = json!({"endpoints": null, "accounts": ["platform"], "livemode": false,
                      "metadata": null, "types": ["invoice.*"], "lease": 60});
    assert_eq!(change(what).await.status, 200);
    let noted = "SELECT detail->'options' FROM tollgate.audit_log WHERE subject = 'shop' ORDER BY entry DESC LIMIT 1";
    let noted: Value = sqlx::query_scalar(noted).fetch_one(&api.app.pool).await.unwrap();
    assert_eq!(
        noted,
        json!({"types": ["invoice.*"], "lease": 60.0, "accounts": [""], "livemode": false,
               "unset": ["endpoints", "metadata"]})
    );
    assert_eq!(filter().await, json!([null, [""], false, null]));
    assert_eq!(api.json(path).await["lease"], 60.0);
    for (wrong, says) in [
        (json!({"metadata": {"app": 5}}), "expected a string"),
        (json!({"metadata": {}}), "metadata must be an object with something in it"),
        (json!({"accounts": []}), "a consumer has 1 to 1000 accounts"),
        (json!({"endpoints": ["a\0"]}), "NUL"),
        (json!({"target": {}}), "unknown field"),
    ] {
        let answer = change(wrong).await;
        assert!(answer.status == 400 && answer.body.contains(says), "{}", answer.body);
    }
    let operator = api.token(Scope::Operate).await;
    assert_eq!(api.call_as(&operator, "PATCH", path, &json!({})).await.status, 403);
    let nobody = api.call("PATCH", "/api/v1/consumers/nobody", &json!({})).await;
    assert_eq!(nobody.status, 404, "{}", nobody.body);
}

#[tokio::test]
async fn dead_letters_are_retried_and_discarded() {
    let api = Api::spawn().await;
    api.sql("SELECT tollgate.create_consumer('mailer')").await;
    api.deliver(&["evt_1", "evt_2", "evt_3"]).await;
    api.sql("DO $$ BEGIN PERFORM tollgate.nack(claim, position, 'no', permanent => true) FROM tollgate.claim('mailer', 9); END $$")
        .await;
    let all = api.json("/api/v1/dead-letters?limit=2").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    let next = all["next"].as_str().unwrap();
    let rest = api.json(&format!("/api/v1/dead-letters?limit=2&cursor={next}")).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert_eq!(rest["next"], Value::Null);
    let which = json!({"consumer": "mailer", "position": 2});
    assert_eq!(api.post("/api/v1/dead-letters/retry", &which).await, json!({"count": 1}));
    let again = api.call("POST", "/api/v1/dead-letters/retry", &which).await;
    assert_eq!(again.status, 404, "{}", again.body);
    let all = json!({"consumer": "mailer", "since": "2020-01-01"});
    assert_eq!(api.post("/api/v1/dead-letters/discard", &all).await, json!({"count": 2}));
    assert_eq!(
        api.app.count("SELECT count(*) FROM tollgate.deliveries WHERE state = 'waiting'").await,
        1
    );
    let none = api.call("POST", "/api/v1/dead-letters/retry", &json!({"consumer": "nobody"})).await;
    assert_eq!(none.status, 404);
}

#[tokio::test]
async fn failures_are_retried_now() {
    let api = Api::spawn().await;
    api.sql(
        "CREATE SCHEMA app; CREATE TABLE app.seen (id text);
         CREATE FUNCTION app.sees(jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'out of luck'; END $$;
         SELECT tollgate.register_handler('*', 'app.sees(jsonb)', name => 'sees', max_attempts => 1)",
    )
    .await;
    api.deliver(&["evt_1"]).await;
    let dead = api.json("/api/v1/failures?stage=handler&handler=sees&dead=true").await;
    let failure = dead["items"][0]["failure"].as_i64().unwrap();
    assert_eq!(api.json("/api/v1/handlers").await[0]["dead"], 1);
    api.sql("CREATE OR REPLACE FUNCTION app.sees(jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO app.seen VALUES ($1->>'id') $$")
        .await;
    let path = format!("/api/v1/failures/{failure}/retry");
    assert_eq!(api.post(&path, &json!({})).await, json!({"count": 1}));
    eventually(async || api.app.count("SELECT count(*) FROM app.seen").await == 1).await;
    eventually(async || api.app.count("SELECT count(*) FROM tollgate.failures").await == 0).await;
    assert_eq!(api.call("POST", &path, &json!({})).await.status, 404);
    assert_eq!(
        api.post("/api/v1/failures/retry", &json!({"handler": "sees"})).await,
        json!({"count": 0})
    );
    assert_eq!(api.call("DELETE", "/api/v1/handlers/sees", &json!({})).await.status, 200);
    assert_eq!(api.call("DELETE", "/api/v1/handlers/sees", &json!({})).await.status, 404);
}

#[tokio::test]
async fn quarantine_and_tokens_and_figures_are_shown() {
    let api = Api::spawn().await;
    api.app.deliver("no json at all").await;
    let held = api.json("/api/v1/quarantine?reason=not_json").await;
    let sha256 = held["items"][0]["sha256"].as_str().unwrap().to_owned();
    assert_eq!(api.json("/api/v1/quarantine?reason=no_id").await["items"], json!([]));
    let one = api.json(&format!("/api/v1/quarantine/{sha256}")).await;
    assert_eq!((&one["reason"], &one["parsed"]), (&json!("not_json"), &Value::Null));
    assert_eq!(api.get(&format!("/api/v1/quarantine/{sha256}/raw")).await.body, "no json at all");
    assert_eq!(api.get("/api/v1/quarantine/zz").await.status, 404);
    let made =
        api.post("/api/v1/tokens", &json!({"name": "grafana", "scope": "read", "days": 3})).await;
    let token = made["token"].as_str().unwrap().to_owned();
    let who = api.call_as(&token, "GET", "/api/v1/whoami", &json!({})).await;
    assert_eq!(who.json(), json!({"name": "grafana", "scope": "read"}));
    let twice =
        api.call("POST", "/api/v1/tokens", &json!({"name": "grafana", "scope": "read"})).await;
    assert_eq!(twice.word(), "conflict", "{}", twice.body);
    assert!(!api.get("/api/v1/tokens").await.body.contains(&token));
    assert_eq!(api.call("DELETE", "/api/v1/tokens/grafana", &json!({})).await.status, 200);
    assert_eq!(api.call_as(&token, "GET", "/api/v1/whoami", &json!({})).await.status, 401);
    assert_eq!(api.json("/api/v1/totals").await["quarantined"], 1);
    let points = api.json("/api/v1/stats?step=300").await;
    assert!(points.as_array().unwrap().len() >= 12, "{points}");
}

#[tokio::test]
async fn billing_objects_come_with_their_events() {
    let api = Api::spawn().await;
    let made = |id: &str, status: &str, second: i64| {
        format!(
            r#"{{"id":"{id}","type":"invoice.updated","created":{},"livemode":true,"api_version":"2025-03-31.basil",
            "data":{{"object":{{"id":"in_1","object":"invoice","customer":"cus_1","status":"{status}","currency":"eur","amount_due":5}}}}}}"#,
            now() + second
        )
    };
    for (id, status, second) in [("evt_1", "draft", 0), ("evt_2", "open", 1), ("evt_3", "paid", 1)]
    {
        assert_eq!(api.app.deliver(made(id, status, second)).await.status, 200);
    }
    let story = api.json("/api/v1/objects/invoices/in_1").await;
    assert_eq!(story["objects"][0]["object"]["status"], "paid");
    assert_eq!(story["objects"][0]["columns"]["amount_due"], 5);
    assert_eq!(story["events"].as_array().unwrap().len(), 3);
    assert_eq!(api.get("/api/v1/objects/invoices/in_2").await.status, 404);
    let none = api.get("/api/v1/objects/pg_class/in_1").await;
    assert_eq!((none.status, none.word().as_str()), (400, "invalid"));
    assert_eq!(ids(&api.json("/api/v1/events?customer=cus_1").await).len(), 3);
    assert!(ids(&api.json("/api/v1/events?customer=cus_2").await).is_empty());
    let ties = api.json("/api/v1/ties").await;
    assert_eq!(ties["unfinished"], json!([]));
    api.sql("UPDATE stripe.invoices SET order_basis = 'tiebreak'").await;
    assert_eq!(api.json("/api/v1/ties?table=invoices").await["items"][0]["id"], "in_1");
    let figures = api.json("/api/v1/billing?livemode=true").await;
    assert_eq!((&figures["customers"], &figures["unfinished"]), (&json!(0), &json!([])));
}

/// Waits for something to become true.
pub async fn eventually(condition: impl AsyncFn() -> bool) {
    for _ in 0..1200 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not become true within a minute");
}
