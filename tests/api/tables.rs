//! The schema `stripe` as people use it: what it says of itself, its indexes, its views.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Executor, Row};

use crate::support::App;

/// Delivers an event that shows an object.
async fn show(app: &App, n: usize, event_type: &str, object: &str) {
    let body = format!(
        r#"{{"id":"evt_{n}","object":"event","type":"{event_type}","created":{},"livemode":true,
        "data":{{"object":{object}}}}}"#,
        1_767_600_000 + n
    );
    assert_eq!(app.deliver(body).await.word(), "recorded");
}

/// `UPDATE_DOCS=1 cargo test --test api tables` writes the file anew.
#[tokio::test]
async fn the_documentation_of_the_tables_is_that_of_the_database() {
    let app = App::spawn().await;
    let rows = sqlx::query(
        "SELECT c.relname::text AS relation, c.relkind = 'v' AS is_view, obj_description(c.oid, 'pg_class') AS about,
                a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS kind,
                col_description(c.oid, a.attnum) AS meaning
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace = 'stripe'::regnamespace AND c.relkind IN ('r', 'v')
         ORDER BY is_view, relation, a.attnum",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let mut text = String::from(
        "# The schema stripe\n\nGenerated from the comments in the database: \
         `UPDATE_DOCS=1 cargo test --test api tables`.\n",
    );
    let mut current = String::new();
    for row in rows {
        let (relation, is_view): (String, bool) = (row.get("relation"), row.get("is_view"));
        if relation != current {
            let kind = if is_view { "view" } else { "table" };
            let about: String = row.get("about");
            write!(
                text,
                "\n## {relation} ({kind})\n\n{about}.\n\n| column | type | |\n|---|---|---|\n"
            )
            .unwrap();
            current = relation;
        }
        let meaning: String = row.get::<String, _>("meaning").replace('|', "\\|");
        let (name, kind): (String, String) = (row.get("name"), row.get("kind"));
        writeln!(text, "| `{name}` | {kind} | {meaning} |").unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/TABLES.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        text,
        "see the comment of this test"
    );
}

#[tokio::test]
async fn daily_questions_use_their_indexes() {
    let app = App::spawn().await;
    for (table, key, question, index) in [
        ("customers", "email", "email = 'a7@b.c'", "customers_email"),
        ("subscriptions", "customer", "customer = 'a7@b.c'", "subscriptions_customer"),
        ("invoices", "customer", "customer = 'a7@b.c' AND status = 'open'", "invoices_customer"),
        ("invoice_payments", "invoice", "invoice = 'a7@b.c'", "invoice_payments_invoice"),
        ("payment_intents", "customer", "customer = 'a7@b.c'", "payment_intents_customer"),
        ("charges", "customer", "customer = 'a7@b.c'", "charges_customer"),
        ("payment_methods", "customer", "customer = 'a7@b.c'", "payment_methods_customer"),
    ] {
        let fill = format!(
            "INSERT INTO stripe.{table} (account, livemode, id, incarnation, phase, as_of, as_of_event, order_basis,
                                        rests_on_base, deleted, links, object)
             SELECT '', true, 'x_' || n, 0, 1, now(), 'evt_' || n, 'unique', false, false, '{{}}',
                    jsonb_build_object('{key}', 'a' || n || '@b.c', 'status', 'open')
             FROM generate_series(1, 2000) n;
             ANALYZE stripe.{table};"
        );
        app.pool.execute(AssertSqlSafe(fill)).await.unwrap();
        let explain = format!("EXPLAIN SELECT * FROM stripe.{table} WHERE {question}");
        let plan: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&app.pool).await.unwrap();
        assert!(plan.join("\n").contains(index), "{plan:#?}");
    }
    let fill = "INSERT INTO stripe.invoice_payments (account, livemode, id, incarnation, phase, as_of, as_of_event,
                    order_basis, rests_on_base, deleted, links, object)
                SELECT '', true, 'y_' || n, 0, 1, now(), 'evt_' || n, 'unique', false, false, '{}',
                       jsonb_build_object('payment', jsonb_build_object('payment_intent', 'pi_' || n))
                FROM generate_series(1, 2000) n; ANALYZE stripe.invoice_payments;";
    app.pool.execute(fill).await.unwrap();
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN SELECT * FROM stripe.invoice_payments WHERE payment_intent = 'pi_7'",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert!(plan.join("\n").contains("invoice_payments_payment_intent"), "{plan:#?}");
}

/// The rows of a query, each as text.
#[tokio::test]
async fn a_failed_payment_of_an_invoice_that_was_paid_otherwise_is_history() {
    let app = App::spawn().await;
    let payment = |id: &str, invoice: &str| {
        format!(
            r#"{{"id":"{id}","object":"payment_intent","status":"canceled","amount":500,"currency":"usd",
            "invoice":"{invoice}","last_payment_error":{{"code":"card_declined"}}}}"#
        )
    };
    show(&app, 1, "payment_intent.canceled", &payment("pi_1", "in_1")).await;
    show(&app, 2, "payment_intent.canceled", &payment("pi_2", "in_unseen")).await;
    let failed = "SELECT id, amount, failure_code FROM stripe.failed_payments";
    assert_eq!(
        answers(&app, failed).await,
        ["(pi_1,500,card_declined)", "(pi_2,500,card_declined)"]
    );
    let invoice =
        r#"{"id":"in_1","object":"invoice","status":"open","attempt_count":1,"amount_due":500}"#;
    show(&app, 3, "invoice.payment_failed", invoice).await;
    assert_eq!(
        answers(&app, failed).await,
        ["(in_1,500,card_declined)", "(pi_2,500,card_declined)"]
    );
    show(&app, 4, "invoice.paid", &invoice.replace("open", "paid")).await;
    assert_eq!(answers(&app, failed).await, ["(pi_2,500,card_declined)"]);
}

#[tokio::test]
async fn a_column_added_later_is_filled_for_old_and_new_rows() {
    let app = App::spawn().await;
    let customer = |id: &str| {
        format!(r#"{{"id":"{id}","object":"customer","metadata":{{"tenant":"t_{id}"}}}}"#)
    };
    show(&app, 1, "customer.created", &customer("cus_old")).await;
    let add = "SELECT tollgate.add_billing_column('customers', 'tenant', 'text',
                   $$stripe.to_text(object #> '{metadata,tenant}')$$, 'Whose customer it is')";
    app.pool.execute(add).await.unwrap();
    show(&app, 2, "customer.created", &customer("cus_new")).await;
    show(&app, 3, "customer.updated", &customer("cus_old").replace("t_cus_old", "moved")).await;
    let found = answers(&app, "SELECT id, tenant FROM stripe.customers").await;
    assert_eq!(found, ["(cus_new,t_cus_new)", "(cus_old,moved)"]);
}

async fn answers(app: &App, sql: &str) -> Vec<String> {
    let sql = format!("SELECT q::text FROM ({sql}) q ORDER BY 1");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&app.pool).await.unwrap()
}

fn price(id: &str, amount: i64, interval: &str, count: i64, currency: &str) -> String {
    format!(
        r#"{{"id":"{id}","object":"price","unit_amount":{amount},"currency":"{currency}","product":"prod_1",
        "recurring":{{"interval":"{interval}","interval_count":{count},"usage_type":"licensed"}}}}"#
    )
}

fn subscription(
    id: &str,
    status: &str,
    currency: &str,
    price: &str,
    quantity: i64,
    more: &str,
) -> String {
    format!(
        r#"{{"id":"{id}","object":"subscription","customer":"cus_1","status":"{status}","currency":"{currency}",
        "items":{{"object":"list","data":[{{"id":"si_{id}","object":"subscription_item","quantity":{quantity},
        "price":{price}}}]}}{more}}}"#
    )
}

fn charge(id: &str, amount: i64, refunded: i64, currency: &str, status: &str) -> String {
    format!(
        r#"{{"id":"{id}","object":"charge","amount":{amount},"amount_captured":{amount},"amount_refunded":{refunded},
        "captured":true,"currency":"{currency}","status":"{status}","created":1767600000,"customer":"cus_1"}}"#
    )
}

/// A few lives, small enough to be reckoned by hand.
fn objects() -> Vec<(&'static str, String)> {
    let half = r#","discount":{"object":"discount","coupon":{"id":"HALF","percent_off":50,"duration":"forever"}}"#;
    let monthly = price("price_1", 3000, "month", 1, "usd");
    vec![
        ("customer.created", r#"{"id":"cus_1","object":"customer","email":"jo@example.com"}"#.to_owned()),
        // 2 × 30.00 a month
        ("customer.subscription.updated", subscription("sub_1", "active", "usd", &monthly, 2, "")),
        // 120.00 a year, half off: 5.00 a month
        ("customer.subscription.updated", subscription("sub_2", "past_due", "usd", &price("price_2", 12000, "year", 1, "usd"), 1, half)),
        // 90.00 every three months: 30.00 a month, in another currency
        ("customer.subscription.updated", subscription("sub_3", "active", "eur", &price("price_3", 9000, "month", 3, "eur"), 1, "")),
        // pays nothing yet; pays nothing any more
        ("customer.subscription.updated", subscription("sub_4", "trialing", "usd", &monthly, 1, "")),
        ("customer.subscription.deleted", subscription("sub_5", "canceled", "usd", &monthly, 1, "")),
        ("charge.succeeded", charge("ch_1", 5000, 0, "usd", "succeeded")),
        ("charge.refunded", charge("ch_2", 2000, 500, "usd", "succeeded")),
        ("charge.succeeded", charge("ch_3", 700, 0, "eur", "succeeded")),
        ("charge.failed", charge("ch_4", 999, 0, "usd", "failed")),
        ("invoice.payment_failed", r#"{"id":"in_1","object":"invoice","customer":"cus_1","status":"open","currency":"usd",
            "amount_due":4900,"amount_remaining":4900,"attempt_count":2,"attempted":true,
            "lines":{"object":"list","data":[{"id":"il_1","amount":4000,"currency":"usd","quantity":1},
            {"id":"il_2","amount":900,"currency":"usd","quantity":3}]}}"#.to_owned()),
        ("entitlements.active_entitlement_summary.updated", r#"{"object":"entitlements.active_entitlement_summary","customer":"cus_1",
            "entitlements":{"object":"list","data":[{"id":"ent_1","object":"entitlements.active_entitlement","feature":"feat_1","lookup_key":"sso"}]}}"#.to_owned()),
    ]
}

#[tokio::test]
async fn views_give_the_numbers_that_a_person_would() {
    let app = App::spawn().await;
    for (n, (event_type, object)) in objects().iter().enumerate() {
        show(&app, n, event_type, object).await;
    }
    let cases = [
        (
            "SELECT currency, mrr, subscriptions FROM stripe.mrr",
            &["(eur,3000,1)", "(usd,6500,2)"][..],
        ),
        (
            "SELECT id, customer_email, quantity FROM stripe.active_subscriptions",
            &[
                "(sub_1,jo@example.com,2)",
                "(sub_2,jo@example.com,1)",
                "(sub_3,jo@example.com,1)",
                "(sub_4,jo@example.com,1)",
            ],
        ),
        (
            "SELECT subscription, unit_amount, \"interval\", interval_count FROM stripe.subscription_items WHERE subscription < 'sub_4'",
            &["(sub_1,3000,month,1)", "(sub_2,12000,year,1)", "(sub_3,9000,month,3)"],
        ),
        (
            "SELECT currency, gross, refunded, net, charges FROM stripe.revenue_daily",
            &["(eur,700,0,700,1)", "(usd,7000,500,6500,2)"],
        ),
        (
            "SELECT source, id, email, amount, attempt_count FROM stripe.failed_payments",
            &["(charge,ch_4,jo@example.com,999,)", "(invoice,in_1,jo@example.com,4900,2)"],
        ),
        (
            "SELECT id, amount, quantity FROM stripe.invoice_lines",
            &["(il_1,4000,1)", "(il_2,900,3)"],
        ),
        (
            "SELECT customer, feature, lookup_key FROM stripe.customer_entitlements",
            &["(cus_1,feat_1,sso)"],
        ),
        ("SELECT * FROM stripe.order_ties", &[]),
    ];
    for (sql, expected) in cases {
        assert_eq!(answers(&app, sql).await, expected, "{sql}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_payment_under_way_has_not_failed() {
    let app = App::spawn().await;
    let invoice = r#"{"id":"in_1","object":"invoice","status":"open","attempt_count":1,"amount_due":500,"currency":"eur",
        "payment_intent":"pi_1"}"#;
    show(&app, 1, "invoice.updated", invoice).await;
    let payment = r#"{"id":"pi_1","object":"payment_intent","status":"processing","amount":500,"currency":"eur","invoice":"in_1"}"#;
    show(&app, 2, "payment_intent.processing", payment).await;
    let failed = "SELECT id, amount FROM stripe.failed_payments";
    assert!(answers(&app, failed).await.is_empty(), "a direct debit takes days");
    let refused = payment.replace("processing", "requires_payment_method");
    show(&app, 3, "payment_intent.payment_failed", &refused).await;
    assert_eq!(answers(&app, failed).await, ["(in_1,500)"]);
}

#[tokio::test]
async fn revenue_knows_packages_and_discounts_of_every_time() {
    let app = App::spawn().await;
    let subscribed = |id: &str, currency: &str, item: &str, coupon: &str| {
        format!(
            r#"{{"id":"{id}","object":"subscription","status":"active","currency":"{currency}",
            "discount":{{"coupon":{coupon}}},
            "items":{{"data":[{{"id":"si_{id}","quantity":1000,"plan":{{"id":"p","interval":"month","interval_count":1,
            "usage_type":"licensed","currency":"{currency}","amount":100{item}}}}}]}}}}"#
        )
    };
    let packages = r#","transform_usage":{"divide_by":100,"round":"up"}"#;
    let third = r#"{"id":"c","duration":"forever","percent_off":33,"percent_off_precise":33.33}"#;
    let dollars = r#"{"id":"d","duration":"forever","amount_off":500,"currency":"usd"}"#;
    show(&app, 1, "customer.subscription.created", &subscribed("sub_1", "gbp", packages, third))
        .await;
    show(&app, 2, "customer.subscription.created", &subscribed("sub_2", "eur", "", dollars)).await;
    show(&app, 3, "customer.subscription.created", &subscribed("sub_3", "usd", "", dollars)).await;
    let mrr = "SELECT currency, mrr, gross, uncertain FROM stripe.mrr ORDER BY currency";
    assert_eq!(
        answers(&app, mrr).await,
        ["(eur,100000,100000,1)", "(gbp,667,1000,0)", "(usd,99500,100000,0)"]
    );
    show(&app, 4, "coupon.created", &third.replace('{', r#"{"object":"coupon","#)).await;
    assert_eq!(answers(&app, "SELECT id, percent_off FROM stripe.coupons").await, ["(c,33.33)"]);
}

#[tokio::test]
async fn discounts_keep_their_coupons_when_a_version_names_them_alone() {
    let app = App::spawn().await;
    let half =
        r#"{"id":"HALF OFF","object":"coupon","created":1,"duration":"forever","percent_off":50}"#;
    let subscribed = |discounts: &str| {
        format!(
            r#"{{"id":"sub_1","object":"subscription","status":"active","currency":"usd",{discounts},
            "items":{{"data":[{{"id":"si_1","quantity":1,"price":{{"id":"p","currency":"usd","unit_amount":1000,
            "recurring":{{"interval":"month","interval_count":1,"usage_type":"licensed"}}}}}}]}}}}"#
        )
    };
    let first = format!(
        r#""discount":{{"id":"di_1","object":"discount","coupon":{half}}},"discounts":["di_1"]"#
    );
    let found = async || {
        let coupon = "SELECT coupon FROM stripe.subscriptions";
        let mrr = "SELECT mrr, uncertain FROM stripe.mrr";
        (answers(&app, coupon).await.concat(), answers(&app, mrr).await.concat())
    };
    let is = |coupon: &str, mrr: &str| (coupon.to_owned(), mrr.to_owned());
    show(&app, 1, "coupon.created", half).await;
    show(&app, 2, "customer.subscription.created", &subscribed(&first)).await;
    assert_eq!(found().await, is("(\"HALF OFF\")", "(500,0)"));
    show(&app, 3, "customer.subscription.updated", &subscribed(r#""discounts":["di_1"]"#)).await;
    assert_eq!(found().await, is("(\"HALF OFF\")", "(500,0)"));
    // Of another one nothing is known, and none is none.
    show(&app, 4, "customer.subscription.updated", &subscribed(r#""discounts":["di_2"]"#)).await;
    assert_eq!(found().await, is("()", "(1000,1)"));
    show(&app, 5, "customer.subscription.updated", &subscribed(r#""discounts":[]"#)).await;
    assert_eq!(found().await, is("()", "(1000,0)"));
    // Two, of which one is also in the old place.
    let ten = r#"{"id":"di_3","object":"discount","coupon":{"id":"TEN","duration":"forever","percent_off":10}}"#;
    let stacked = format!(
        r#""discount":{{"id":"di_1","object":"discount","coupon":{half}}},"discounts":["di_1",{ten}]"#
    );
    show(&app, 6, "customer.subscription.updated", &subscribed(&stacked)).await;
    assert_eq!(found().await, is("(\"HALF OFF\")", "(450,0)"));
    app.stop().await;
}
