//! Lists and figures give all of what they speak of, and acts on "all" take what was seen.

use serde_json::{Value, json};

use crate::api::Api;

#[tokio::test]
async fn revenue_counts_every_day_of_every_currency() {
    let api = Api::spawn().await;
    // More days than any page had room for: seven currencies over 400 days.
    api.sql(
        "INSERT INTO stripe.charges (account, livemode, id, incarnation, phase, as_of, as_of_event, order_basis,
                                     rests_on_base, deleted, links, object, status, currency, amount, created)
         SELECT '', true, 'ch_' || c || '_' || d, 0, 1, now(), 'evt_1', 'unique', false, false, '{}', '{}',
                'succeeded', c, 1000, date_trunc('day', now(), 'UTC') - d * interval '1 day'
         FROM unnest('{aud,cad,chf,eur,gbp,jpy,usd}'::text[]) c, generate_series(0, 399) d",
    )
    .await;
    let figures = api.json("/api/v1/billing?livemode=true").await;
    assert_eq!(figures["unfinished"], json!([]));
    let days = figures["revenue"].as_array().unwrap();
    let of = |day: &&Value| day["currency"] == "aud";
    let sum: i64 = days.iter().filter(of).map(|day| day["gross"].as_i64().unwrap()).sum();
    assert_eq!((days.len(), sum), (7 * 400, 400_000));
    assert!(days.is_sorted_by_key(|day| day["day"].as_str()), "the oldest first");
    let page = api.get("/billing?livemode=true&period=1y").await.body;
    let row = page.split("<tr>").find(|row| row.contains(">AUD<")).unwrap();
    assert!(row.contains(">365<") && row.contains("3,650.00"), "{row}");
}

#[tokio::test]
async fn an_object_is_found_after_the_log_has_dropped_its_events() {
    let api = Api::spawn().await;
    let invoice = |id: &str, account: &str| {
        format!(
            r#"{{"id":"evt_{id}","type":"invoice.paid","created":1790000000,"livemode":true,"account":"{account}",
            "data":{{"object":{{"id":"{id}","object":"invoice","status":"paid"}}}}}}"#
        )
    };
    for (id, account) in [("in_a", "acct_1"), ("in_b", "acct_2"), ("in_old", "acct_3")] {
        assert_eq!(api.app.deliver(invoice(id, account)).await.status, 200);
    }
    api.sql("DELETE FROM tollgate.positions WHERE id = 'evt_in_old'; DELETE FROM tollgate.event_log WHERE id = 'evt_in_old'")
        .await;
    let story = api.json("/api/v1/objects/invoices/in_old").await;
    assert_eq!(story["objects"][0]["account"], "acct_3", "{story}");
    assert_eq!(story["events"], json!([]));
    let page = api.get("/billing/objects/in_old").await;
    assert!(page.status == 200 && page.body.contains("acct_3"), "{}", page.body);
    assert_eq!(api.get("/billing/objects/in_none").await.status, 404);
}

#[tokio::test]
async fn events_are_counted_before_the_planner_knows_how_many() {
    let api = Api::spawn().await;
    api.deliver(&["evt_1", "evt_2", "evt_3"]).await;
    assert_eq!(api.json("/api/v1/totals").await["events"], 3);
}

#[tokio::test]
async fn what_died_after_somebody_looked_is_not_discarded() {
    let api = Api::spawn().await;
    api.sql("SELECT tollgate.create_consumer('mailer')").await;
    let die = "DO $$ BEGIN PERFORM tollgate.nack(claim, position, 'no', permanent => true) FROM tollgate.claim('mailer', 9); END $$";
    api.deliver(&["evt_1", "evt_2"]).await;
    api.sql(die).await;
    let page = api.get("/dead-letters").await.body;
    let seen = page.split(r#"name="seen" value=""#).nth(1).unwrap().split('"').next().unwrap();
    let until: String = sqlx::query_scalar(
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    )
    .fetch_one(&api.app.pool)
    .await
    .unwrap();
    api.deliver(&["evt_3"]).await;
    api.sql(die).await;
    let pressed = api
        .app
        .ask("POST", "/dead-letters/discard", |request| {
            let form = crate::support::form(request, &[("consumer", "mailer"), ("seen", seen)]);
            form.bearer_auth("a-token-of-the-settings")
        })
        .await;
    assert_eq!(pressed.status, 303, "{}", pressed.body);
    let left = "SELECT count(*) FROM tollgate.dead_letters WHERE event_id = 'evt_3'";
    assert_eq!(api.app.count(left).await, 1);
    assert_eq!(api.app.count("SELECT count(*) FROM tollgate.dead_letters").await, 1);
    let which = json!({"consumer": "mailer", "until": until});
    assert_eq!(api.post("/api/v1/dead-letters/discard", &which).await, json!({"count": 0}));
    assert_eq!(api.post("/api/v1/dead-letters/retry", &which).await, json!({"count": 0}));
}

#[tokio::test]
async fn failures_of_a_handler_that_is_gone_can_be_forgotten() {
    let api = Api::spawn().await;
    api.sql(
        "CREATE FUNCTION public.boom(jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'boom'; END $$;
         SELECT tollgate.register_handler('*', 'public.boom(jsonb)', name => 'boom')",
    )
    .await;
    api.deliver(&["evt_1", "evt_2", "evt_3"]).await;
    api.sql("SELECT tollgate.drop_handler('boom')").await;
    let all = api.json("/api/v1/failures?handler=boom").await;
    let first = all["items"][0]["failure"].as_i64().unwrap();
    let one = format!("/api/v1/failures/{first}/discard");
    assert_eq!(api.post(&one, &json!({})).await, json!({"count": 1}));
    assert_eq!(api.call("POST", &one, &json!({})).await.status, 404);
    let rest = json!({"handler": "boom"});
    assert_eq!(api.post("/api/v1/failures/discard", &rest).await, json!({"count": 2}));
    assert_eq!(api.post("/api/v1/failures/discard", &rest).await, json!({"count": 0}));
    assert_eq!(api.app.count("SELECT count(*) FROM tollgate.failures").await, 0);
}
