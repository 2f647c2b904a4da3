//! The cases that sync engines get wrong, one by one, each in every order of delivery.

use serde_json::{Value, json};

use crate::support::App;
use crate::{Key, TableRow, assert_equal, gateway, rebuild, rebuilt, rows};

/// An event about an object.
pub fn event(
    id: &str,
    event_type: &str,
    created: i64,
    object: &Value,
    previous: Option<Value>,
) -> String {
    let mut data = json!({"object": object});
    if let Some(previous) = previous {
        data["previous_attributes"] = previous;
    }
    json!({"id": id, "object": "event", "type": event_type, "created": created, "livemode": false,
           "api_version": "2024-06-20", "data": data})
    .to_string()
}

/// Delivers the bodies in every order, each to a gateway of its own; the one row that is left must
/// be the same in all.
async fn in_every_order(bodies: &[String]) -> TableRow {
    in_every_order_with(bodies, "SELECT").await
}

/// As `in_every_order`, after some SQL.
async fn in_every_order_with(bodies: &[String], before: &'static str) -> TableRow {
    let mut found: Option<(Key, TableRow)> = None;
    for order in permutations(bodies.len()) {
        let app = gateway().await;
        sqlx::raw_sql(before).execute(&app.pool).await.unwrap();
        for at in &order {
            assert_eq!(app.deliver(&bodies[*at]).await.status, 200);
        }
        let row = only_row(&app).await;
        assert_eq!(rebuild(&app).await, 0, "{order:?}");
        match &found {
            Some(found) => assert_eq!(found, &row, "{order:?}"),
            None => found = Some(row),
        }
        app.stop().await;
    }
    found.unwrap().1
}

pub async fn only_row(app: &App) -> (Key, TableRow) {
    let all = rows(&app.pool).await;
    assert_eq!(all.len(), 1, "{all:#?}");
    all.into_iter().next().unwrap()
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    let Some(last) = n.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let insert = |order: Vec<usize>| {
        (0..=order.len()).map(move |at| {
            let mut order = order.clone();
            order.insert(at, last);
            order
        })
    };
    permutations(last).into_iter().flat_map(insert).collect()
}

fn subscription(status: &str) -> Value {
    json!({"id": "sub_1", "object": "subscription", "status": status, "customer": "cus_1"})
}

#[tokio::test]
async fn created_and_updated_in_one_second() {
    let row = in_every_order(&[
        event("evt_b", "customer.subscription.created", 100, &subscription("incomplete"), None),
        event(
            "evt_a",
            "customer.subscription.updated",
            100,
            &subscription("active"),
            Some(json!({"status": "incomplete"})),
        ),
    ])
    .await;
    assert_eq!(row.object["status"], "active");
    assert_eq!((row.order_basis.as_str(), row.phase), ("unique", 1));
}

/// With a handler an event takes several steps, without one a single one.
const WITH_A_HANDLER: &str = "
    CREATE SCHEMA app; CREATE FUNCTION app.see(e jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
    SELECT tollgate.register_handler('*', 'app.see(jsonb)'::regprocedure)";

#[tokio::test]
async fn several_events_of_one_second_show_one_state() {
    let charge = json!({"id": "ch_1", "object": "charge", "status": "succeeded", "amount": 5, "invoice": "in_1"});
    let succeeded = event("evt_b", "charge.succeeded", 100, &charge, None);
    let updated = event("evt_c", "charge.updated", 100, &charge, Some(json!({"amount": 4})));
    let same = [
        succeeded.clone(),
        updated.replace("2024-06-20", "2024-06-21"),
        event("evt_a", "charge.updated", 100, &charge, None),
    ];
    for before in ["SELECT", WITH_A_HANDLER] {
        let row = in_every_order_with(&same, before).await;
        assert_eq!((row.as_of_event.as_str(), row.order_basis.as_str()), ("evt_c", "same"));
        assert_eq!(row.api_version.as_deref(), Some("2024-06-21"));
        assert_eq!(row.links["invoice"], "in_1");

        let other = charge.to_string().replace("succeeded", "failed");
        let other =
            event("evt_d", "charge.failed", 100, &serde_json::from_str(&other).unwrap(), None);
        let row = in_every_order_with(&[succeeded.clone(), updated.clone(), other], before).await;
        assert_eq!((row.as_of_event.as_str(), row.order_basis.as_str()), ("evt_d", "tiebreak"));

        let later = succeeded.replace("evt_b", "evt_0").replace("100", "101");
        let row = in_every_order_with(&[succeeded.clone(), updated.clone(), later], before).await;
        assert_eq!((row.as_of_event.as_str(), row.order_basis.as_str()), ("evt_0", "unique"));
    }
}

#[tokio::test]
async fn what_jsonb_cannot_tell_apart_is_one_state() {
    let named = |id: &str, name: &str| {
        let customer = json!({"id": "cus_1", "object": "customer", "name": name});
        event(id, "customer.updated", 100, &customer, None)
    };
    for before in ["SELECT", WITH_A_HANDLER] {
        let bodies = [named("evt_1", "x\u{0}"), named("evt_2", "x\u{fffd}")];
        let row = in_every_order_with(&bodies, before).await;
        assert_eq!((row.as_of_event.as_str(), row.order_basis.as_str()), ("evt_2", "same"));
    }
}

#[tokio::test]
async fn a_late_update_does_not_bring_back_what_was_deleted() {
    let customer =
        |name: &str| json!({"id": "cus_1", "object": "customer", "created": 50, "name": name});
    let row = in_every_order(&[
        event("evt_1", "customer.created", 50, &customer("a"), None),
        event("evt_3", "customer.deleted", 100, &customer("b"), None),
        event("evt_2", "customer.updated", 101, &customer("b"), Some(json!({"name": "a"}))),
    ])
    .await;
    assert!(row.deleted);
    assert_eq!(row.as_of_event, "evt_3");
}

#[tokio::test]
async fn deleted_then_made_again_under_the_same_id() {
    let coupon = |created: i64, off: i64| json!({"id": "SUMMER", "object": "coupon", "created": created, "percent_off": off});
    let row = in_every_order(&[
        event("evt_1", "coupon.created", 50, &coupon(50, 10), None),
        event("evt_2", "coupon.deleted", 60, &coupon(50, 10), None),
        event("evt_3", "coupon.created", 60, &coupon(60, 20), None),
    ])
    .await;
    assert!(!row.deleted);
    assert_eq!((row.incarnation, &row.object["percent_off"]), (60, &json!(20)));
}

#[tokio::test]
async fn one_event_in_two_api_versions() {
    let old = json!({"id": "in_1", "object": "invoice", "status": "paid", "payment_intent": "pi_1", "subscription": "sub_1"});
    let new = json!({"id": "in_1", "object": "invoice", "status": "paid",
                     "parent": {"subscription_details": {"subscription": "sub_1"}}});
    let old = event("evt_1", "invoice.paid", 100, &old, None);
    let new =
        event("evt_1", "invoice.paid", 100, &new, None).replace("2024-06-20", "2025-03-31.basil");
    for bodies in [[&old, &new], [&new, &old]] {
        let app = gateway().await;
        let words = [app.deliver(bodies[0]).await.word(), app.deliver(bodies[1]).await.word()];
        assert_eq!(words, ["recorded", "duplicate"], "effects are once");
        let (_, row) = only_row(&app).await;
        assert_eq!(row.api_version.as_deref(), Some("2025-03-31.basil"));
        assert_eq!(row.object["parent"]["subscription_details"]["subscription"], "sub_1");
        let logged = "SELECT count(*) FROM tollgate.events WHERE api_version = '2025-03-31.basil'";
        assert_eq!(app.count(logged).await, 1);
        assert_eq!(app.events().await, 1);
        assert_eq!(rebuild(&app).await, 0);
        app.stop().await;
    }
}

#[tokio::test]
async fn a_stale_subscription_after_a_newer_one() {
    let row = in_every_order(&[
        event("evt_1", "customer.subscription.updated", 100, &subscription("past_due"), None),
        event("evt_2", "customer.subscription.updated", 200, &subscription("active"), None),
    ])
    .await;
    assert_eq!(row.object["status"], "active");
}

#[tokio::test]
async fn three_events_of_an_invoice_in_one_second() {
    let invoice = |status: &str, paid: i64| json!({"id": "in_1", "object": "invoice", "status": status, "amount_paid": paid});
    let row = in_every_order(&[
        event("evt_3", "invoice.created", 100, &invoice("draft", 0), None),
        event("evt_2", "invoice.finalized", 100, &invoice("open", 0), None),
        event("evt_1", "invoice.paid", 100, &invoice("paid", 500), None),
    ])
    .await;
    assert_eq!((row.object["status"].as_str(), row.order_basis.as_str()), (Some("paid"), "rank"));
}

/// Delivers two bodies so that one batch takes both, to a gateway with one writer.
async fn deliver_together(app: &App, twins: &[String; 2]) {
    let mut lock = app.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE tollgate.event_log IN EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let other = r#"{"id":"evt_0","object":"event","type":"x","created":1}"#;
    let release = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        lock.rollback().await.unwrap();
    };
    let later = async {
        // The writer is waiting with the other one: these two wait for it together.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        tokio::join!(app.deliver(&twins[0]), app.deliver(&twins[1]))
    };
    let (first, (one, two), ()) = tokio::join!(app.deliver(other), later, release);
    assert_eq!([first.status, one.status, two.status], [200; 3]);
}

/// Two that tie, in one batch, after newer ones; the row that is left. `rebuild` must agree.
async fn twins_after(newer: &[String], twins: &[String; 2]) -> TableRow {
    let app = App::spawn_with(&[("http_workers", "1")]).await;
    for body in newer {
        assert_eq!(app.deliver(body).await.status, 200);
    }
    deliver_together(&app, twins).await;
    let (_, row) = only_row(&app).await;
    assert_eq!(rebuild(&app).await, 0);
    app.stop().await;
    row
}

/// They are settled between themselves, and must not displace it.
#[tokio::test]
async fn twins_that_arrive_together_do_not_displace_a_newer_event() {
    let newer = event("evt_9", "customer.subscription.updated", 200, &subscription("active"), None);
    let twins = [("evt_1", "incomplete"), ("evt_2", "past_due")].map(|(id, status)| {
        event(id, "customer.subscription.updated", 100, &subscription(status), None)
    });
    let row = twins_after(&[newer], &twins).await;
    assert_eq!((row.as_of_event.as_str(), row.order_basis.as_str()), ("evt_9", "unique"));
}

/// Nor may they be left out where they have a say in it.
#[tokio::test]
async fn twins_that_arrive_together_lend_their_links_to_a_newer_event() {
    let old = |status: &str| json!({"id": "in_1", "object": "invoice", "status": status, "payment_intent": "pi_9", "charge": "ch_9"});
    let new = json!({"id": "in_1", "object": "invoice", "status": "paid"});
    let newer = event("evt_9", "invoice.updated", 200, &new, None)
        .replace("2024-06-20", "2025-03-31.basil");
    let twins = [("evt_1", "invoice.finalized"), ("evt_2", "invoice.payment_failed")]
        .map(|(id, kind)| event(id, kind, 100, &old(kind), None));
    let row = twins_after(&[newer], &twins).await;
    assert_eq!(row.as_of_event, "evt_9");
    assert_eq!(row.links, json!({"payment_intent": "pi_9", "charge": "ch_9"}));
}

#[tokio::test]
async fn twins_that_arrive_together_are_the_base_of_a_newer_circuit() {
    let plan = |nickname: &str| json!({"id": "gold", "object": "plan", "created": 50, "nickname": nickname});
    let updated = |id: &str, created: i64, to: &str, from: &str| {
        let from = Some(json!({"nickname": from}));
        event(id, "plan.updated", created, &plan(to), from)
    };
    let newer = [updated("evt_8", 200, "b", "a"), updated("evt_7", 200, "a", "b")];
    let twins = [updated("evt_1", 100, "z", "y"), updated("evt_2", 100, "a", "z")];
    let row = twins_after(&newer, &twins).await;
    assert_eq!((row.as_of_event.as_str(), row.order_basis.as_str()), ("evt_7", "chain"));
}

#[tokio::test]
async fn there_and_back_in_one_second() {
    let plan = |nickname: &str| json!({"id": "gold", "object": "plan", "created": 50, "nickname": nickname});
    let row = in_every_order(&[
        event("evt_1", "plan.updated", 90, &plan("a"), Some(json!({"nickname": "z"}))),
        event("evt_3", "plan.updated", 100, &plan("b"), Some(json!({"nickname": "a"}))),
        event("evt_2", "plan.updated", 100, &plan("a"), Some(json!({"nickname": "b"}))),
    ])
    .await;
    assert_eq!((&row.object["nickname"], row.order_basis.as_str()), (&json!("a"), "chain"));
    assert!(row.rests_on_base);
}

#[tokio::test]
async fn a_link_that_a_later_version_drops_is_kept() {
    let old = json!({"id": "in_1", "object": "invoice", "status": "open", "payment_intent": "pi_1", "charge": null});
    let new = json!({"id": "in_1", "object": "invoice", "status": "paid"});
    let row = in_every_order(&[
        event("evt_1", "invoice.finalized", 100, &old, None),
        event("evt_2", "invoice.paid", 200, &new, None).replace("2024-06-20", "2025-03-31.basil"),
        event("evt_3", "invoice.updated", 150, &old, None),
    ])
    .await;
    assert_eq!(row.object["status"], "paid");
    assert_eq!(row.links, json!({"payment_intent": "pi_1", "charge": null}));
    assert!(row.text.contains("pi_1"), "a column says it");
}

#[tokio::test]
async fn a_dispute_that_a_later_version_drops_is_kept() {
    let charge = |more: Value| {
        let mut charge = json!({"id": "ch_1", "object": "charge", "amount": 5});
        charge.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        charge
    };
    let row = in_every_order(&[
        event("evt_1", "charge.updated", 100, &charge(json!({"dispute": "dp_1"})), None),
        event("evt_2", "charge.updated", 200, &charge(json!({"disputed": true})), None),
    ])
    .await;
    assert_eq!((row.as_of_event.as_str(), row.links), ("evt_2", json!({"dispute": "dp_1"})));
    assert_eq!(row.text.matches("dp_1").count(), 2, "a column says it, too");
}

#[tokio::test]
async fn what_is_gone_need_not_say_when_it_was_made() {
    let plan = |name: &str, created: i64| json!({"id": "gold", "object": "plan", "created": created, "name": name});
    let gone = json!({"id": "gold", "object": "plan", "deleted": true});
    let created = event("evt_1", "plan.created", 100, &plan("a", 100), None);
    let deleted = event("evt_2", "plan.deleted", 200, &gone, None);
    let updated = event("evt_3", "plan.updated", 150, &plan("b", 100), None);
    let row = in_every_order(&[created.clone(), deleted.clone(), updated]).await;
    assert_eq!((row.as_of_event.as_str(), row.phase), ("evt_2", 3));
    let again = event("evt_4", "plan.created", 300, &plan("c", 300), None);
    let row = in_every_order(&[created, deleted, again]).await;
    assert_eq!((row.as_of_event.as_str(), &row.object["name"]), ("evt_4", &json!("c")));
}

#[tokio::test]
async fn a_state_that_no_table_can_hold_stops_no_rebuild() {
    let app = gateway().await;
    let charge = |id: &str, x: &str| {
        let charge = json!({"id": id, "object": "charge", "amount": 5, "x": "@"});
        event(&format!("evt_{id}_{}", x.len()), "charge.updated", 100, &charge, None)
            .replace(r#""@""#, x)
    };
    let deep = "[".repeat(20_000) + &"]".repeat(20_000);
    let bodies = [
        charge("ch_1", "1"),
        charge("ch_2", "1e200000"),
        charge("ch_3", &deep),
        // Which of them is the newer one only the big number would tell.
        charge("ch_4", "12"),
        charge("ch_4", "1e200000"),
        charge("ch_5", "3"),
    ];
    for body in bodies {
        assert_eq!(app.deliver(body).await.status, 200);
    }
    let before = rows(&app.pool).await;
    let ids: Vec<_> = before.keys().map(|(_, _, _, _, id)| id.as_str()).collect();
    assert_eq!(ids, ["ch_1", "ch_4", "ch_5"]);
    sqlx::query("UPDATE stripe.charges SET object = '{}' WHERE id = 'ch_5'")
        .execute(&app.pool)
        .await
        .unwrap();
    let done = rebuilt(&app).await;
    let left_out: Vec<_> = done.left_out.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(left_out, ["ch_2", "ch_3", "ch_4"]);
    assert_eq!(done.changed.iter().map(|(_, rows)| rows).sum::<i64>(), 1);
    assert_equal(&rows(&app.pool).await, &before, "rebuilt");
    app.stop().await;
}
