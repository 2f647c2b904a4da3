//! The fake's lists, filters and objects, as Stripe's documentation has them.

use serde_json::{Value, json};

use crate::support::client;
use crate::support::stripe::{API_KEY, FakeStripe};
use crate::{get, ids};

fn customer(number: i64) -> Value {
    json!({ "id": format!("cus_{number}"), "object": "customer", "created": 1000 + number / 2 })
}

fn event(id: &str, kind: &str, created: i64) -> Value {
    json!({ "id": id, "object": "event", "type": kind, "created": created })
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_newest_first() {
    let stripe = FakeStripe::start().await;
    (0..25).for_each(|number| stripe.put("", customer(number)));
    let newest_first: Vec<String> = (0..25).rev().map(|number| format!("cus_{number}")).collect();
    let (mut path, mut seen, mut pages) = ("/v1/customers".to_owned(), Vec::new(), 0);
    loop {
        let (status, page) = get(&stripe, &path).await;
        assert_eq!(
            (status, &page["object"], &page["url"]),
            (200, &json!("list"), &json!("/v1/customers"))
        );
        pages += 1;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        if page["has_more"] == false {
            break;
        }
        path = format!("/v1/customers?starting_after={}", seen.last().unwrap());
    }
    assert_eq!((pages, seen), (3, newest_first));

    let (_, all) = get(&stripe, "/v1/customers?limit=100").await;
    assert_eq!((ids(&all).len(), &all["has_more"]), (25, &json!(false)));
    let (_, before) = get(&stripe, "/v1/customers?limit=2&ending_before=cus_20").await;
    assert_eq!((ids(&before), &before["has_more"]), (vec!["cus_22", "cus_21"], &json!(true)));
    let (_, before) = get(&stripe, "/v1/customers?limit=9&ending_before=cus_22").await;
    assert_eq!((ids(&before), &before["has_more"]), (vec!["cus_24", "cus_23"], &json!(false)));
    for wrong in ["limit=101", "limit=0", "limit=x", "starting_after=cus_99"] {
        let (status, body) = get(&stripe, &format!("/v1/customers?{wrong}")).await;
        assert_eq!((status, &body["error"]["type"]), (400, &json!("invalid_request_error")));
    }
    let (_, body) = get(&stripe, "/v1/customers?starting_after=cus_99").await;
    assert_eq!(body["error"]["code"], "resource_missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_by_time_owner_and_status() {
    let stripe = FakeStripe::start().await;
    (0..6).for_each(|number| stripe.put("", customer(number)));
    let (_, some) = get(&stripe, "/v1/customers?created[gte]=1001&created[lt]=1002").await;
    assert_eq!(ids(&some), ["cus_3", "cus_2"]);
    let (_, some) = get(&stripe, "/v1/customers?created%5Bgt%5D=1000&created[lte]=1001").await;
    assert_eq!(ids(&some), ["cus_3", "cus_2"]);

    for (id, owner, status) in
        [("sub_1", json!("cus_1"), "active"), ("sub_2", json!({ "id": "cus_1" }), "canceled")]
    {
        stripe.put(
            "",
            json!({ "id": id, "object": "subscription", "customer": owner, "status": status }),
        );
    }
    let (_, some) = get(&stripe, "/v1/subscriptions?customer=cus_1").await;
    assert_eq!(ids(&some), ["sub_1"]);
    let (_, some) = get(&stripe, "/v1/subscriptions?customer=cus_1&status=all").await;
    assert_eq!(ids(&some), ["sub_2", "sub_1"]);
    let (_, some) = get(&stripe, "/v1/subscriptions?status=canceled").await;
    assert_eq!(ids(&some), ["sub_2"]);
    let (_, none) = get(&stripe, "/v1/subscriptions?customer=cus_2").await;
    assert!(ids(&none).is_empty());

    let parent = json!({ "subscription_details": { "subscription": "sub_1" } });
    stripe.put("", json!({ "id": "in_1", "object": "invoice", "parent": parent }));
    stripe.put("", json!({ "id": "in_2", "object": "invoice", "subscription": "sub_1" }));
    stripe.put("", json!({ "id": "in_3", "object": "invoice", "subscription": "sub_2" }));
    let (_, some) = get(&stripe, "/v1/invoices?subscription=sub_1").await;
    assert_eq!(ids(&some), ["in_2", "in_1"]);

    let (status, _) = get(&stripe, "/v1/payment_methods").await;
    assert_eq!(status, 400, "only of a customer");
    stripe.put("", json!({ "id": "pm_1", "object": "payment_method", "customer": "cus_1" }));
    for path in ["/v1/payment_methods?customer=cus_1", "/v1/customers/cus_1/payment_methods"] {
        assert_eq!(ids(&get(&stripe, path).await.1), ["pm_1"], "{path}");
    }
    assert!(ids(&get(&stripe, "/v1/customers/cus_2/payment_methods").await.1).is_empty());
    stripe.remove("", "cus_2");
    assert_eq!(get(&stripe, "/v1/customers/cus_2/payment_methods").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_a_customer_is_asked_for_by_the_customer() {
    let stripe = FakeStripe::start().await;
    stripe.put("", json!({ "id": "txi_1", "object": "tax_id", "customer": null }));
    stripe.put("", json!({ "id": "txi_2", "object": "tax_id", "customer": "cus_1" }));
    for (path, wanted) in [
        ("/v1/tax_ids", "txi_1"),
        ("/v1/tax_ids?owner[type]=customer&owner[customer]=cus_1", "txi_2"),
        ("/v1/customers/cus_1/tax_ids", "txi_2"),
    ] {
        assert_eq!(ids(&get(&stripe, path).await.1), [wanted], "{path}");
    }
    let entitlement = "entitlements.active_entitlement";
    for number in 1..3 {
        let (id, owner) = (format!("ent_{number}"), format!("cus_{number}"));
        stripe.put("", json!({ "id": id, "object": entitlement, "customer": owner }));
    }
    let path = "/v1/entitlements/active_entitlements";
    assert_eq!(get(&stripe, path).await.0, 400, "only of a customer");
    let (_, list) = get(&stripe, &format!("{path}?customer=cus_2")).await;
    assert_eq!(list["data"], json!([{ "id": "ent_2", "object": entitlement }]), "not said again");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_chosen_by_type() {
    let stripe = FakeStripe::start().await;
    for (at, kind) in ["invoice.paid", "invoice.created", "charge.succeeded"].iter().enumerate() {
        stripe.emit("", event(&format!("evt_{at}"), kind, 1000));
    }
    stripe.emit("acct_1", event("evt_9", "invoice.paid", 1000));
    for (query, wanted) in [
        ("", vec!["evt_2", "evt_1", "evt_0"]),
        ("?type=invoice.*", vec!["evt_1", "evt_0"]),
        ("?type=invoice.paid", vec!["evt_0"]),
        ("?types[]=invoice.paid&types[]=charge.succeeded", vec!["evt_2", "evt_0"]),
        ("?delivery_success=false&limit=1", vec!["evt_2"]),
        ("?type=charge.*&starting_after=evt_2", vec![]),
    ] {
        assert_eq!(ids(&get(&stripe, &format!("/v1/events{query}")).await.1), wanted, "{query}");
    }
    assert_eq!(get(&stripe, "/v1/events/evt_1").await.1["type"], "invoice.created");
    assert_eq!(get(&stripe, "/v1/events/evt_9").await.0, 404, "another account's");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_read_by_id_and_leave_stubs() {
    let stripe = FakeStripe::start().await;
    stripe.put("", customer(1));
    stripe.put("", json!({ "id": "in_1", "object": "invoice" }));
    stripe.put("", json!({ "id": "mtr_1", "object": "billing.meter" }));
    stripe.put("", json!({ "id": "thing_1", "object": "v2.thing" }));
    for path in ["/v1/customers/cus_1", "/v1/billing/meters/mtr_1", "/v2/core/things/thing_1"] {
        assert_eq!(get(&stripe, path).await.0, 200, "{path}");
    }
    for path in ["/v1/customers/cus_2", "/v1/invoices/cus_1", "/v1/nothing", "/v1/nothing/at_all"] {
        assert_eq!(get(&stripe, path).await.0, 404, "{path}");
    }
    stripe.remove("", "cus_1");
    stripe.remove("", "in_1");
    assert_eq!(
        get(&stripe, "/v1/customers/cus_1").await,
        (200, json!({ "id": "cus_1", "object": "customer", "deleted": true }))
    );
    let (status, body) = get(&stripe, "/v1/invoices/in_1").await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("resource_missing")));
    assert!(ids(&get(&stripe, "/v1/customers").await.1).is_empty());
    assert_eq!(get(&stripe, "/v1/balance").await.1["livemode"], false);
    assert_eq!(get(&stripe, "/v1/account").await.1["object"], "account");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_within_objects_are_cut_and_can_be_read_whole() {
    let stripe = FakeStripe::start().await;
    let list = |kind: &str, url: &str| {
        let item = |number| json!({ "id": format!("{kind}_{number}"), "object": kind });
        let data: Vec<Value> = (0..23).map(item).collect();
        json!({ "object": "list", "data": data, "has_more": false, "url": url })
    };
    let lines = list("line_item", "/v1/invoices/in_1/lines");
    stripe.put("", json!({ "id": "in_1", "object": "invoice", "lines": lines }));
    let items = list("subscription_item", "/v1/subscription_items?subscription=sub_1");
    stripe.put("", json!({ "id": "sub_1", "object": "subscription", "items": items }));
    let refunds = list("refund", "/v1/charges/ch_1/refunds");
    stripe.put("", json!({ "id": "ch_1", "object": "charge", "refunds": refunds }));
    for (object, member, whole) in [
        ("/v1/invoices/in_1", "lines", "/v1/invoices/in_1/lines?"),
        ("/v1/subscriptions/sub_1", "items", "/v1/subscription_items?subscription=sub_1&"),
        ("/v1/charges/ch_1", "refunds", "/v1/charges/ch_1/refunds?"),
    ] {
        let (_, shown) = get(&stripe, object).await;
        assert_eq!(ids(&shown[member]).len(), 10, "{object}");
        assert_eq!(shown[member]["has_more"], true, "{object}");
        let (_, listed) = get(&stripe, object.rsplit_once('/').unwrap().0).await;
        assert_eq!(listed["data"][0], shown);
        let cursor = ids(&shown[member])[9].to_owned();
        let (_, rest) = get(&stripe, &format!("{whole}limit=100&starting_after={cursor}")).await;
        assert_eq!((ids(&rest).len(), &rest["has_more"]), (13, &json!(false)), "{object}");
    }
    assert_eq!(stripe.object("", "in_1").unwrap()["lines"]["data"].as_array().unwrap().len(), 23);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_look_like_stripes() {
    let stripe = FakeStripe::start().await;
    stripe.put("", customer(1));
    stripe.set_skew(-7200);
    let url = format!("{}/v1/customers?limit=3", stripe.base());
    let request =
        client().get(&url).basic_auth(API_KEY, Some("")).header("Stripe-Version", "2020-08-27");
    let answer = request.send().await.unwrap();
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((answer.status().as_u16(), header("stripe-version").as_str()), (200, "2020-08-27"));
    assert!(header("request-id").starts_with("req_"));
    let date = time::OffsetDateTime::parse(
        &header("date").replace("GMT", "+0000"),
        &time::format_description::well_known::Rfc2822,
    );
    let ahead = date.unwrap().unix_timestamp() - crate::support::now();
    assert!((-7260..=-7190).contains(&ahead), "{ahead}");
    let body = answer.text().await.unwrap();
    assert!(
        body.starts_with("{\n  \"object\": \"list\",\n  \"data\": [\n    {\n      \"id\""),
        "{body}"
    );
    let asked = &stripe.requests()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", "/v1/customers"));
    assert_eq!(asked.parameter("limit"), Some("3"));
    assert_eq!(asked.headers["stripe-version"], "2020-08-27");
    stripe.forget_requests();
    assert!(stripe.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_its_last_handle() {
    let stripe = FakeStripe::start().await;
    let (other, base) = (stripe.clone(), stripe.base());
    drop(stripe);
    assert_eq!(get(&other, "/v1/customers").await.0, 200);
    drop(other);
    for _ in 0..100 {
        if client().get(&base).send().await.is_err_and(|error| error.is_connect()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("still there after five seconds");
}
