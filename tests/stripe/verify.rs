//! Rows that are not as Stripe has them are found and mended, and no others are touched; guesses are
//! looked up.

use serde_json::{Value, json};
use sqlx::Executor;
use tollgate::sync::heal::Healer;

use crate::scene::{Scene, asking, customer, event_at, printed, spawn, tables, until};
use crate::support::now;
use crate::support::stripe::Fault;

/// Customers and subscriptions, made an hour ago, at Stripe and in the tables.
async fn furnished(scene: &Scene, most: usize) {
    for n in 0..most {
        let buyer = customer(&format!("cus_{n:03}"), &format!("Name {n}"));
        let subscription = json!({
            "id": format!("sub_{n:03}"), "object": "subscription", "customer": format!("cus_{n:03}"),
            "created": 1_700_000_000, "status": "active", "livemode": false, "currency": "usd",
            "items": {"object": "list", "data": [{"id": "si_1", "object": "subscription_item", "quantity": n}]},
        });
        for (kind, object) in
            [("customer.updated", buyer), ("customer.subscription.updated", subscription)]
        {
            scene.stripe.put("", object.clone());
            let event = event_at(kind, &object, now() - 3600);
            assert_eq!(scene.app.deliver(event).await.status, 200);
        }
    }
}

fn verdict(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn drifting(verdict: &Value) -> Vec<&str> {
    let drifts = verdict["drifts"].as_array().unwrap();
    let mut ids: Vec<_> = drifts.iter().map(|drift| drift["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_rows_changed_by_hand_are_found_and_mended() {
    let scene = Scene::new().await;
    furnished(&scene, 40).await;
    let before = tables(&scene.app.pool).await;
    for sql in [
        "UPDATE stripe.customers SET name = 'Mallory' WHERE id IN ('cus_001', 'cus_002')",
        "UPDATE stripe.customers SET object = jsonb_set(object, '{balance}', '-100000') WHERE id = 'cus_003'",
        "UPDATE stripe.customers SET object = object - 'email', email = NULL WHERE id = 'cus_004'",
        "DELETE FROM stripe.customers WHERE id = 'cus_005'",
        "UPDATE stripe.subscriptions SET status = 'unpaid' WHERE id IN ('sub_001', 'sub_002')",
        "UPDATE stripe.subscriptions SET object = jsonb_set(object, '{items,data,0,quantity}', '99') WHERE id = 'sub_003'",
        "DELETE FROM stripe.subscriptions WHERE id IN ('sub_004', 'sub_005')",
    ] {
        scene.app.pool.execute(sql).await.unwrap();
    }
    let wrong = [
        "cus_001", "cus_002", "cus_003", "cus_004", "cus_005", "sub_001", "sub_002", "sub_003",
        "sub_004", "sub_005",
    ];
    let found = scene.tollgate(&["verify", "--json"]).await;
    assert_eq!(found.status.code(), Some(1));
    assert_eq!(drifting(&verdict(&found)), wrong);
    assert_eq!(verdict(&found)["checked"], 80);
    let words: Vec<_> = ["cus_001", "cus_003", "cus_005"]
        .iter()
        .map(|id| {
            let found = verdict(&found);
            let drift = found["drifts"].as_array().unwrap().iter().find(|it| it["id"] == *id);
            drift.unwrap()["what"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(words, ["differs in name", "differs in balance", "has no row"]);

    let fixed = scene.tollgate(&["verify", "--fix", "--json"]).await;
    assert_eq!(fixed.status.code(), Some(0), "{fixed:?}");
    assert_eq!(drifting(&verdict(&fixed)), wrong);
    let after = tables(&scene.app.pool).await;
    let untouched = |rows: &[String]| -> Vec<String> {
        let named =
            |row: &&String| wrong.iter().any(|id| row.contains(&format!("\"id\": \"{id}\"")));
        rows.iter().filter(|row| !named(row)).cloned().collect()
    };
    assert_eq!(untouched(&after), untouched(&before));
    assert_eq!(untouched(&after).len(), 70);
    let right =
        "SELECT (SELECT count(*) FROM stripe.customers WHERE name = 'Name ' || substr(id, 5)::int
                            AND email = id || '@example.com' AND NOT object ? 'balance')
                      + (SELECT count(*) FROM stripe.subscriptions WHERE status = 'active'
                            AND (object #> '{items,data,0,quantity}')::int = substr(id, 5)::int)";
    assert_eq!(scene.app.count(right).await, 80);

    let again = scene.tollgate(&["verify"]).await;
    assert_eq!(printed(&again).trim(), "80 compared, 0 unchecked, 0 differ");
    let rebuilt = printed(&scene.tollgate(&["rebuild"]).await);
    assert!(rebuilt.lines().skip(1).all(|line| line.ends_with(" 0")), "{rebuilt}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_at_stripe_gets_a_tombstone() {
    let scene = Scene::new().await;
    furnished(&scene, 8).await;
    // Most endpoints are pinned to another version than the API is asked in.
    let old = event_at("customer.updated", &customer("cus_001", "Name 1"), now() - 1800);
    let old = old.replace("2025-09-30.clover", "2020-08-27");
    assert_eq!(scene.app.deliver(old).await.status, 200);
    scene.stripe.remove("", "cus_001");
    scene.stripe.remove("", "sub_002");
    let found = scene.tollgate(&["verify", "--fix", "--json"]).await;
    assert_eq!(drifting(&verdict(&found)), ["cus_001", "sub_002"]);
    let gone =
        "SELECT array_agg(id ORDER BY id) FROM (SELECT id FROM stripe.customers WHERE deleted
                UNION ALL SELECT id FROM stripe.subscriptions WHERE deleted) it";
    assert_eq!(scene.value(gone).await, json!(["cus_001", "sub_002"]));
    assert_eq!(drifting(&verdict(&scene.tollgate(&["verify", "--json"]).await)), [""; 0]);
    // A late event does not bring it back, and one that is made anew under the same id does.
    let late = event_at("customer.updated", &customer("cus_001", "Late"), now() - 60);
    assert_eq!(scene.app.deliver(late).await.status, 200);
    assert_eq!(scene.value(gone).await, json!(["cus_001", "sub_002"]));
    let mut anew = customer("cus_001", "Anew");
    anew["created"] = json!(now());
    assert_eq!(scene.app.deliver(event_at("customer.created", &anew, now())).await.status, 200);
    assert_eq!(scene.value(gone).await, json!(["sub_002"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_account_mends_nothing() {
    let scene = Scene::new().await;
    furnished(&scene, 20).await;
    for n in 0..20 {
        scene.stripe.remove("", &format!("cus_{n:03}"));
        scene.stripe.remove("", &format!("sub_{n:03}"));
    }
    let before = (scene.app.events().await, tables(&scene.app.pool).await);
    let refused = scene.tollgate(&["verify", "--fix"]).await;
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("of another account"), "{why}");
    // Nor is what the other account has taken for ours.
    scene.stripe.put("", customer("cus_theirs", "Theirs"));
    for command in [&["verify", "--fix"][..], &["backfill"], &["verify", "--sample", "3", "--fix"]]
    {
        assert_eq!(scene.tollgate(command).await.status.code(), Some(1));
    }
    assert_eq!((scene.app.events().await, tables(&scene.app.pool).await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_looks_rows_up_one_by_one() {
    let scene = Scene::new().await;
    furnished(&scene, 20).await;
    scene.app.pool.execute("UPDATE stripe.customers SET name = 'Mallory'").await.unwrap();
    scene.stripe.forget_requests();
    let found =
        scene.tollgate(&["verify", "--sample", "10", "--table", "customers", "--json"]).await;
    let found = verdict(&found);
    assert_eq!((&found["checked"], drifting(&found).len()), (&json!(10), 10));
    assert_eq!(scene.stripe.requests().len(), 10);
    let wrong = scene.tollgate(&["verify", "--table", "lamps"]).await;
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_renderings_of_the_same_are_no_drift() {
    let scene = Scene::new().await;
    // As an endpoint pinned to an older version got it: other members, the same to the columns.
    let mut object = json!({
        "id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "active",
        "current_period_end": 1_800_000_000, "created": 1_700_000_000, "livemode": false,
        "items": {"object": "list", "data": [{"id": "si_1", "object": "subscription_item"}]},
    });
    let event = event_at("customer.subscription.updated", &object, now() - 3600);
    let event = event.replace("2025-09-30.clover", "2020-08-27");
    assert_eq!(scene.app.deliver(event).await.status, 200);
    object.as_object_mut().unwrap().remove("current_period_end");
    object["items"]["data"][0]["current_period_end"] = json!(1_800_000_000);
    object["items"]["data"][0]["current_period_start"] = Value::Null;
    scene.stripe.put("", object);
    let agreed = scene.tollgate(&["verify"]).await;
    assert_eq!(printed(&agreed).trim(), "1 compared, 0 unchecked, 0 differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_was_cut_short_is_drift_in_every_version() {
    let scene = Scene::new().await;
    let lines = |most: usize| -> Vec<Value> {
        let line = |n| json!({"id": format!("il_{n}"), "object": "line_item", "amount": n});
        (0..most).map(line).collect()
    };
    let invoice = |most, has_more| {
        json!({
            "id": "in_1", "object": "invoice", "created": 1_700_000_000, "status": "open", "livemode": false,
            "lines": {"object": "list", "data": lines(most), "has_more": has_more, "url": "/v1/invoices/in_1/lines"},
        })
    };
    let event = event_at("invoice.updated", &invoice(10, true), now() - 3600);
    let event = event.replace("2025-09-30.clover", "2020-08-27");
    assert_eq!(scene.app.deliver(event).await.status, 200);
    scene.stripe.put("", invoice(40, false));
    let fixed = scene.tollgate(&["verify", "--fix"]).await;
    assert!(printed(&fixed).contains("differs in lines: mended"), "{fixed:?}");
    assert_eq!(scene.app.count("SELECT count(*) FROM stripe.invoice_lines").await, 40);
    assert!(printed(&scene.tollgate(&["verify"]).await).contains(" 0 differ"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_may_not_read_holds_up_nothing_else() {
    let scene = Scene::new().await;
    furnished(&scene, 3).await;
    scene.app.pool.execute("UPDATE stripe.subscriptions SET status = 'unpaid'").await.unwrap();
    scene.stripe.fail("/v1/customers", usize::MAX, Fault::Status(403));
    scene.stripe.fail("/v1/coupons", usize::MAX, Fault::Status(403));
    let done = scene.tollgate(&["verify", "--fix", "--json"]).await;
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(drifting(&verdict(&done)), ["sub_000", "sub_001", "sub_002"]);
    let refused = verdict(&done)["refused"].as_array().unwrap().len();
    assert!(refused >= 2, "{done:?}");
    let mended = "SELECT count(*) FROM stripe.subscriptions WHERE status = 'active'";
    assert_eq!(scene.app.count(mended).await, 3);
    let filled = scene.tollgate(&["backfill"]).await;
    assert_eq!(filled.status.code(), Some(1));
    let said = String::from_utf8_lossy(&filled.stderr).into_owned();
    assert!(said.contains("coupons: the API key may not do this"), "{said}");
    assert!(String::from_utf8_lossy(&filled.stdout).contains("subscriptions"), "{filled:?}");
}

/// Two events of one second that only their ids could order.
async fn tie(scene: &Scene, id: &str, created: i64) {
    for name in ["One", "Other"] {
        let event = event_at("customer.updated", &customer(id, name), created);
        assert_eq!(scene.app.deliver(event).await.status, 200);
    }
    let guess = "SELECT count(*) FROM stripe.order_ties";
    assert!(scene.app.count(guess).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_looked_up() {
    let scene = Scene::new().await;
    let ties = "SELECT count(*) FROM stripe.order_ties";
    tie(&scene, "cus_1", now() - 60).await;
    scene.stripe.put("", customer("cus_1", "One"));
    let mut healer = Healer::default();
    assert_eq!(healer.run_once(&scene.context).await.unwrap(), 1);
    assert_eq!(scene.app.count(ties).await, 0);
    let row = "SELECT name || ' ' || order_basis FROM stripe.customers";
    assert_eq!(scene.value(row).await, "One unique");
    // Gone at Stripe: an event will tell; until then it is asked for no more.
    tie(&scene, "cus_2", now() - 60).await;
    scene.stripe.forget_requests();
    for _ in 0..3 {
        assert_eq!(healer.run_once(&scene.context).await.unwrap(), 0);
    }
    assert_eq!(scene.stripe.requests().len(), 1);
    assert_eq!(scene.app.count(ties).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_looks_guesses_up_by_itself() {
    let scene = Scene::new().await;
    tie(&scene, "cus_1", now() - 60).await;
    scene.stripe.put("", customer("cus_1", "Other"));
    let gateway = spawn(&scene.app.database_url, &asking(&scene.stripe)).await;
    let healed = async || scene.app.count("SELECT count(*) FROM stripe.order_ties").await == 0;
    until("the guess is looked up", healed).await;
    gateway.stop().await;
}
