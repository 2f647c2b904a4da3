//! Doing it again: handlers and billing tables for events, and deliveries to consumers; one by one and
//! many at once, with a dry run.

use serde_json::{Value, json};
use sqlx::Row;

use crate::api::{Api, eventually};

/// A handler that notes what it sees.
const SEES: &str = "CREATE SCHEMA app; CREATE TABLE app.seen (id text);
    CREATE FUNCTION app.sees(jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO app.seen VALUES ($1->>'id') $$;
    SELECT tollgate.register_handler('invoice.*', 'app.sees(jsonb)', name => 'sees'),
           tollgate.register_handler('charge.*', 'app.sees(jsonb)', name => 'other')";

const SEEN: &str = "SELECT count(*) FROM app.seen";

/// Positions and attempts of what a claim hands out.
async fn claim(api: &Api, consumer: &str, most: i32) -> (Option<i64>, Vec<i64>) {
    let rows = sqlx::query("SELECT claim, position FROM tollgate.claim($1, $2)")
        .bind(consumer)
        .bind(most)
        .fetch_all(&api.app.pool)
        .await
        .unwrap();
    (rows.first().map(|row| row.get(0)), rows.iter().map(|row| row.get(1)).collect())
}

async fn ack(api: &Api, claim: Option<i64>) {
    sqlx::query("SELECT tollgate.ack($1)").bind(claim).execute(&api.app.pool).await.unwrap();
}

#[tokio::test]
async fn handlers_and_tables_take_an_event_again() {
    let api = Api::spawn().await;
    api.sql(SEES).await;
    api.deliver(&["evt_1"]).await;
    assert_eq!(api.app.count(SEEN).await, 1);
    api.sql("DELETE FROM stripe.invoices").await;
    let asked = api.post("/api/v1/events/evt_1/reprocess", &json!({})).await;
    assert_eq!(asked, json!({"events": 1, "asked": 2}), "the table, and the one handler that fits");
    eventually(async || api.app.count(SEEN).await == 2).await;
    eventually(async || api.app.count("SELECT count(*) FROM tollgate.failures").await == 0).await;
    let healed = "SELECT count(*) FROM stripe.invoices WHERE object->>'id' = 'in_evt_1'";
    assert_eq!(api.app.count(healed).await, 1);
    let named = json!({"projection": false, "handlers": ["other"]});
    assert_eq!(api.post("/api/v1/events/evt_1/reprocess", &named).await["asked"], 1);
    eventually(async || api.app.count(SEEN).await == 3).await;
    for (id, body) in [("evt_1", json!({"handlers": ["nobody"]})), ("evt_none", json!({}))] {
        let answer = api.call("POST", &format!("/api/v1/events/{id}/reprocess"), &body).await;
        assert_eq!(answer.status, 404, "{}", answer.body);
    }
    let noted: Vec<_> =
        api.audit().await.into_iter().map(|(_, action, what)| (action, what)).collect();
    assert_eq!(noted.len(), 2, "{noted:?}");
    assert_eq!(noted[0], ("events.reprocess".to_owned(), "evt_1".to_owned()));
}

#[tokio::test]
async fn who_asked_stands_with_what_is_to_be_done() {
    let api = Api::spawn().await;
    api.sql(SEES).await;
    api.deliver(&["evt_1"]).await;
    // Within a transaction, where the gateway does not see it and cannot do it.
    let mut holding = api.app.pool.begin().await.unwrap();
    let asked: i32 = sqlx::query_scalar(
        "SELECT tollgate.reprocess(ARRAY[created], ARRAY[id], true, '{}', 'asked for by a test')
         FROM tollgate.event_log",
    )
    .fetch_one(&mut *holding)
    .await
    .unwrap();
    let told = "SELECT error || ' ' || attempts || ' ' || (next_attempt <= clock_timestamp()) FROM tollgate.failures";
    let told: String = sqlx::query_scalar(told).fetch_one(&mut *holding).await.unwrap();
    assert_eq!((asked, told.as_str()), (1, "asked for by a test 0 true"));
    holding.rollback().await.unwrap();
}

#[tokio::test]
async fn an_event_is_given_to_a_consumer_again() {
    let api = Api::spawn().await;
    api.sql("SELECT tollgate.create_consumer('mailer', types => '{invoice.*}'), tollgate.create_consumer('cashier', types => '{charge.*}')")
        .await;
    api.deliver(&["evt_1", "evt_2"]).await;
    let replay = async |id: &str, consumer: &str| {
        api.post(&format!("/api/v1/events/{id}/replay"), &json!({"consumer": consumer})).await
    };
    let open = json!({"due": 0, "open": 1, "gone": 0, "excluded": 0});
    let due = json!({"due": 1, "open": 0, "gone": 0, "excluded": 0});
    assert_eq!(replay("evt_1", "mailer").await, open, "it comes by itself");
    let (batch, positions) = claim(&api, "mailer", 10).await;
    assert_eq!(positions, [1, 2]);
    assert_eq!(replay("evt_1", "mailer").await, open, "it is with a worker");
    ack(&api, batch).await;
    assert_eq!(replay("evt_1", "mailer").await, due);
    assert_eq!(replay("evt_1", "mailer").await, due, "it is due, and once only");
    let (batch, positions) = claim(&api, "mailer", 10).await;
    assert_eq!(positions, [1]);
    assert_eq!(replay("evt_1", "mailer").await, open, "it is with a worker again");
    ack(&api, batch).await;
    assert_eq!(claim(&api, "mailer", 10).await.1, Vec::<i64>::new());
    assert_eq!(replay("evt_1", "cashier").await, due, "though it is of another type");
    assert_eq!(claim(&api, "cashier", 10).await.1, [1]);
    let answer =
        api.call("POST", "/api/v1/events/evt_1/replay", &json!({"consumer": "nobody"})).await;
    assert_eq!(answer.status, 404, "{}", answer.body);
    assert_eq!(
        api.app.count("SELECT count(*) FROM tollgate.deliveries WHERE consumer = 'mailer'").await,
        0
    );
}

/// What is given again goes into line with what is not settled of its object.
#[tokio::test]
async fn order_per_object_is_kept_among_what_is_not_settled() {
    let api = Api::spawn().await;
    api.sql("SELECT tollgate.create_consumer('mailer', ordering => 'object')").await;
    let of = |id: &str| {
        json!({"id": id, "type": "invoice.paid", "created": 1_790_000_000, "livemode": false,
               "data": {"object": {"id": "in_1", "object": "invoice"}}})
        .to_string()
    };
    for id in ["evt_1", "evt_2", "evt_3"] {
        api.app.deliver(of(id)).await;
    }
    let (first, positions) = claim(&api, "mailer", 10).await;
    assert_eq!(positions, [1]);
    ack(&api, first).await;
    let (second, positions) = claim(&api, "mailer", 10).await;
    assert_eq!(positions, [2]);
    // While the second is with a worker, and the third waits for it.
    let replay = json!({"consumer": "mailer"});
    assert_eq!(api.post("/api/v1/events/evt_1/replay", &replay).await["due"], 1);
    assert_eq!(api.post("/api/v1/events/evt_3/replay", &replay).await["open"], 1);
    assert_eq!(claim(&api, "mailer", 10).await.1, Vec::<i64>::new(), "the object is busy");
    ack(&api, second).await;
    let mut order = Vec::new();
    loop {
        let (batch, positions) = claim(&api, "mailer", 10).await;
        assert!(positions.len() <= 1, "{positions:?}");
        if batch.is_none() {
            break;
        }
        ack(&api, batch).await;
        order.extend(positions);
    }
    assert_eq!(order, [1, 3]);
    assert_eq!(api.app.count("SELECT count(*) FROM tollgate.deliveries").await, 0);
}

#[tokio::test]
async fn a_dead_letter_that_is_given_again_is_none_any_more() {
    let api = Api::spawn().await;
    api.sql("SELECT tollgate.create_consumer('mailer')").await;
    api.deliver(&["evt_1"]).await;
    api.sql("DO $$ BEGIN PERFORM tollgate.nack(claim, position, 'no', permanent => true) FROM tollgate.claim('mailer', 9); END $$")
        .await;
    let done = api.post("/api/v1/events/evt_1/replay", &json!({"consumer": "mailer"})).await;
    assert_eq!(done["due"], 1);
    assert_eq!(api.json("/api/v1/dead-letters").await["items"], json!([]));
    assert_eq!(claim(&api, "mailer", 10).await.1, [1]);
}

#[tokio::test]
async fn many_are_done_again_after_a_dry_run_and_only_as_confirmed() {
    let api = Api::spawn().await;
    api.sql("SELECT tollgate.create_consumer('mailer')").await;
    api.deliver(&["evt_1", "evt_2", "evt_3"]).await;
    let (batch, _) = claim(&api, "mailer", 10).await;
    ack(&api, batch).await;
    let call = |confirm: Option<&Value>, dry: bool, id: &str| {
        json!({"consumer": "mailer", "filter": {"type": ["invoice.*"], "id": id}, "limit": 100,
               "dry_run": dry, "confirm": confirm})
    };
    let dry = api.post("/api/v1/replay", &call(None, true, "evt_*")).await;
    assert_eq!((&dry["events"], &dry["complete"]), (&json!(3), &json!(true)));
    assert_eq!(api.app.count("SELECT count(*) FROM tollgate.deliveries").await, 0, "it was dry");
    let confirm = &dry["confirm"];
    let other = api.call("POST", "/api/v1/replay", &call(Some(confirm), false, "evt_1*")).await;
    assert_eq!((other.status, other.word().as_str()), (400, "invalid"), "{}", other.body);
    let both = api.call("POST", "/api/v1/replay", &call(Some(confirm), true, "evt_*")).await;
    assert_eq!(both.status, 400, "{}", both.body);
    api.sql("DELETE FROM tollgate.event_log WHERE id = 'evt_3'").await;
    let fewer = api.call("POST", "/api/v1/replay", &call(Some(confirm), false, "evt_*")).await;
    assert_eq!((fewer.status, fewer.word().as_str()), (409, "conflict"), "{}", fewer.body);
    let dry = api.post("/api/v1/replay", &call(None, true, "evt_*")).await;
    let done = api.post("/api/v1/replay", &call(Some(&dry["confirm"]), false, "evt_*")).await;
    assert_eq!(done, json!({"events": 2, "due": 2, "open": 0, "gone": 0, "excluded": 0}));
    assert_eq!(claim(&api, "mailer", 10).await.1, [1, 2]);
    let noted = api.audit().await;
    let expected =
        ("admin".to_owned(), "events.replay".to_owned(), "type=invoice.* id=evt_*".to_owned());
    assert_eq!(noted, [expected]);
    let old = json!({"consumer": "mailer", "confirm": "0123456789abcdef-1-1"});
    assert_eq!(api.call("POST", "/api/v1/replay", &old).await.status, 400);
    let print = dry["confirm"].as_str().unwrap().split('-').next().unwrap();
    let late = json!(format!("{print}-253402300799-2"));
    let late = api.call("POST", "/api/v1/replay", &call(Some(&late), false, "evt_*")).await;
    assert_eq!((late.status, late.word().as_str()), (409, "conflict"), "{}", late.body);
}

#[tokio::test]
async fn many_are_reprocessed_the_newest_first_up_to_a_limit() {
    let api = Api::spawn().await;
    api.sql(SEES).await;
    api.deliver(&["evt_1", "evt_2", "evt_3"]).await;
    let call = |confirm: Option<&Value>| json!({"handlers": ["sees"], "projection": false, "limit": 2, "dry_run": confirm.is_none(), "confirm": confirm});
    let dry = api.post("/api/v1/reprocess", &call(None)).await;
    assert_eq!((&dry["events"], &dry["complete"]), (&json!(2), &json!(false)));
    let done = api.post("/api/v1/reprocess", &call(Some(&dry["confirm"]))).await;
    assert_eq!(done, json!({"events": 2, "asked": 2}));
    eventually(async || api.app.count(SEEN).await == 5).await;
    let again = "SELECT count(*) FROM (SELECT id FROM app.seen GROUP BY id HAVING count(*) = 2) n WHERE id IN ('evt_2', 'evt_3')";
    assert_eq!(api.app.count(again).await, 2);
}
