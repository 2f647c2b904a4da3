//! An empty database is filled with what Stripe has, whole, however often that is interrupted; and
//! filling it again changes nothing.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tollgate::stripe::kinds::ENTITLEMENTS;
use tollgate::stripe::resources::ALL;

use crate::scene::{Scene, command, customer, event, printed, tables};
use crate::support::stripe::{FakeStripe, Fault};

/// One line of `backfill --json`.
fn lines(output: &std::process::Output) -> Vec<Value> {
    printed(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sum(lines: &[Value], member: &str) -> i64 {
    lines.iter().map(|line| line[member].as_i64().unwrap()).sum()
}

/// An object of every kind that has a table, and what belongs to a customer.
fn one_of_each(stripe: &FakeStripe) {
    for (number, kind) in ALL.iter().enumerate() {
        if kind.object_type == ENTITLEMENTS {
            continue;
        }
        let mut object = json!({
            "id": format!("{}_1", kind.table), "object": kind.object_type, "customer": "customers_1",
            "created": 1_700_000_000 + number, "livemode": false, "status": "canceled",
        });
        if kind.table == "prices" {
            object["active"] = json!(true);
            let mut archived = object.clone();
            archived["id"] = json!("prices_archived");
            archived["active"] = json!(false);
            stripe.put("", archived);
        }
        if kind.table == "customers" {
            object["customer"] = Value::Null;
        }
        stripe.put("", object);
    }
    stripe.put("", json!({"id": "feat_1", "object": "entitlements.feature", "lookup_key": "sso"}));
    stripe.put(
        "",
        json!({
            "id": "ent_1", "object": "entitlements.active_entitlement", "customer": "customers_1",
            "feature": "feat_1", "lookup_key": "sso", "livemode": false,
        }),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_listed_whole_and_once() {
    let scene = Scene::new().await;
    one_of_each(&scene.stripe);
    let data: Vec<_> = (0..23)
        .map(|n| json!({"id": format!("il_{n}"), "object": "line_item", "amount": n}))
        .collect();
    scene.stripe.put(
        "",
        json!({
            "id": "in_long", "object": "invoice", "customer": "customers_1", "created": 1_700_000_000,
            "status": "open", "livemode": false,
            "lines": {"object": "list", "data": data, "has_more": false, "url": "/v1/invoices/in_long/lines"},
        }),
    );
    let first = lines(&scene.tollgate(&["backfill", "--json"]).await);
    for kind in ALL {
        let line = first.iter().find(|line| line["kind"] == kind.table).unwrap();
        let there = if ["invoices", "prices"].contains(&kind.table) { 2 } else { 1 };
        assert_eq!((&line["listed"], &line["written"]), (&json!(there), &json!(there)), "{line}");
    }
    let rows = "SELECT (SELECT count(*) FROM stripe.subscriptions WHERE status = 'canceled' AND phase = 2)
                     + (SELECT count(*) FROM stripe.invoice_lines WHERE invoice = 'in_long')
                     + (SELECT count(*) FROM stripe.customer_entitlements WHERE customer = 'customers_1')";
    assert_eq!(scene.app.count(rows).await, 1 + 23 + 1);
    let kinds = "SELECT array_agg(DISTINCT source || ' ' || type) FROM tollgate.events";
    assert_eq!(scene.value(kinds).await, json!(["backfill tollgate.snapshot"]));

    let before = tables(&scene.app.pool).await;
    let events = scene.app.events().await;
    let second = lines(&scene.tollgate(&["backfill", "--json"]).await);
    assert_eq!((sum(&second, "listed"), sum(&second, "written")), (sum(&first, "listed"), 0));
    assert_eq!((scene.app.events().await, tables(&scene.app.pool).await), (events, before.clone()));
    let rebuilt = scene.tollgate(&["rebuild"]).await;
    assert!(printed(&rebuilt).lines().skip(1).all(|line| line.ends_with(" 0")), "{rebuilt:?}");
    assert_eq!(tables(&scene.app.pool).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_objects_are_complete_after_five_kills() {
    const MOST: i64 = 20_000;
    let scene = Scene::new().await;
    for n in 0..MOST {
        let mut object = customer(&format!("cus_{n:05}"), &format!("Name {n}"));
        object["created"] = json!(1_600_000_000 + n / 3);
        scene.stripe.put("", object);
    }
    let arguments = ["backfill", "--only", "customers", "--json"];
    let url = scene.app.database_url.clone();
    let listed = "SELECT coalesce(max(listed), 0)::bigint FROM tollgate.backfills";
    for kills in 1..=5 {
        let mut child = command(&scene.stripe, &url, &arguments).spawn().unwrap();
        while scene.app.count(listed).await < kills * 2_000 {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        child.wait().await.unwrap();
        assert!(scene.app.count(listed).await < MOST, "killed in the middle");
    }
    let done = lines(&command(&scene.stripe, &url, &arguments).output().await.unwrap());
    // Of a page that was written before a kill and noted after it, nothing is written twice.
    assert!(sum(&done, "written") <= sum(&done, "listed"));
    let rows = "SELECT count(*) FROM stripe.customers WHERE name = 'Name ' || substr(id, 5)::int";
    assert_eq!(scene.app.count(rows).await, MOST);
    let objects = "SELECT count(DISTINCT object_id) FROM tollgate.events";
    assert_eq!(scene.app.count(objects).await, MOST);
    let events = scene.app.events().await;
    // What a kill left committed and unnoted may be written a second time, a page each.
    assert!((MOST..=MOST + 500).contains(&events), "{events} events");
    let again = lines(&command(&scene.stripe, &url, &arguments).output().await.unwrap());
    assert_eq!((sum(&again, "listed"), sum(&again, "written")), (MOST, 0));
    assert_eq!(scene.app.events().await, events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_stands_below_the_events_of_its_second_and_above_earlier_ones() {
    let scene = Scene::new().await;
    // What a webhook showed an hour ago is older than what Stripe shows now.
    let old = customer("cus_1", "Old");
    let event_then = crate::scene::event_at("customer.updated", &old, crate::support::now() - 3600);
    assert_eq!(scene.app.deliver(event_then).await.status, 200);
    scene.stripe.put("", customer("cus_1", "New"));
    let only = ["backfill", "--only", "customers", "--json"];
    assert_eq!(sum(&lines(&scene.tollgate(&only).await), "written"), 1);
    let name = "SELECT name FROM stripe.customers";
    assert_eq!(scene.value(name).await, "New");
    // A stale event that comes late does not bring it back; a newer one counts.
    let stale = crate::scene::event_at("customer.updated", &old, crate::support::now() - 60);
    assert_eq!(scene.app.deliver(stale).await.status, 200);
    assert_eq!(scene.value(name).await, "New");
    let newer = event("customer.updated", &customer("cus_1", "Newest"));
    assert_eq!(scene.app.deliver(newer).await.status, 200);
    assert_eq!(scene.value(name).await, "Newest");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_no_business_of_handlers_and_of_consumers_of_everything() {
    let scene = Scene::new().await;
    for sql in [
        "CREATE TABLE calls (id text)",
        "CREATE FUNCTION on_all(e jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO calls VALUES (e ->> 'id') $$",
        "SELECT tollgate.register_handler('*', 'on_all(jsonb)'::regprocedure)",
        "SELECT tollgate.create_consumer('all', start => 'earliest')",
        "SELECT tollgate.create_consumer('looks', types => '{tollgate.*}', start => 'earliest')",
    ] {
        sqlx::query(sql).execute(&scene.app.pool).await.unwrap();
    }
    scene.stripe.put("", customer("cus_1", "Jenny"));
    printed(&scene.tollgate(&["backfill", "--only", "customers"]).await);
    assert_eq!(scene.app.count("SELECT count(*) FROM calls").await, 0);
    assert_eq!(scene.app.count("SELECT count(*) FROM tollgate.claim('all')").await, 0);
    assert_eq!(scene.app.count("SELECT count(*) FROM tollgate.claim('looks')").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_while_it_is_listed_holds_nothing_up() {
    let scene = Scene::new().await;
    for n in 0..350 {
        let mut object = customer(&format!("cus_{n:03}"), "Jenny");
        object["created"] = json!(1_600_000_000 + n);
        scene.stripe.put("", object);
    }
    // The last of each page is gone when the next is asked for.
    scene.stripe.on_page(|stripe, asked| {
        if let Some(cursor) = asked.parameter("starting_after") {
            stripe.remove("", cursor);
        }
    });
    scene.stripe.fail("/v1/customers", 2, Fault::RateLimited { retry_after: Some(0) });
    let done = lines(&scene.tollgate(&["backfill", "--only", "customers", "--json"]).await);
    assert_eq!(sum(&done, "written"), 350);
    assert_eq!(scene.app.count("SELECT count(*) FROM stripe.customers").await, 350);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_made_since_is_asked_for_if_that_is_wanted() {
    let scene = Scene::new().await;
    for (id, created) in [("cus_old", 1_600_000_000), ("cus_new", crate::support::now() - 60)] {
        let mut object = customer(id, "Jenny");
        object["created"] = json!(created);
        scene.stripe.put("", object);
    }
    printed(&scene.tollgate(&["backfill", "--only", "customers", "--since", "1d"]).await);
    assert_eq!(scene.value("SELECT array_agg(id) FROM stripe.customers").await, json!(["cus_new"]));
    let wrong = scene.tollgate(&["backfill", "--only", "customers,lamps"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    // Types are not for finding something in.
    for pattern in ["*.paid", "invoice.*d", ""] {
        let wrong = scene.tollgate(&["reconcile", "--type", pattern]).await;
        assert_eq!(wrong.status.code(), Some(2), "{pattern}");
    }
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("lamps is no table that can be filled")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_interrupted_long_ago_begins_anew() {
    let scene = Scene::new().await;
    for n in 0..150 {
        let mut object = customer(&format!("cus_{n:03}"), "Jenny");
        object["created"] = json!(1_600_000_000 + n);
        scene.stripe.put("", object);
    }
    // The second page does not come.
    scene.stripe.on_page(|stripe, asked| {
        if asked.path == "/v1/customers" && asked.parameter("starting_after").is_none() {
            stripe.fail("/v1/customers", usize::MAX, Fault::Status(400));
        }
    });
    let only = ["backfill", "--only", "customers", "--json"];
    assert_eq!(scene.tollgate(&only).await.status.code(), Some(1));
    scene.stripe.on_page(|_, _| {});
    scene.stripe.mend();
    scene.stripe.put("", customer("cus_new", "New"));
    let old = "UPDATE tollgate.backfills SET touched_at = touched_at - interval '2 days'";
    sqlx::query(old).execute(&scene.app.pool).await.unwrap();
    assert_eq!(sum(&lines(&scene.tollgate(&only).await), "listed"), 151);
    assert_eq!(scene.app.count("SELECT count(*) FROM stripe.customers").await, 151);
}
