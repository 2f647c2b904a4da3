//! The handlers of `examples/credits`.

use sqlx::Executor;

use crate::handlers::retry_until;
use crate::support::App;

const EXAMPLE: &str = include_str!("../../examples/credits/schema.sql");

#[tokio::test]
async fn the_credits_example_grants_once_and_in_any_order() {
    let app = App::spawn().await;
    app.pool.execute(EXAMPLE).await.unwrap();
    let event = |id: &str, event_type: &str, created: i64, object: &str| {
        format!(
            r#"{{"id":"{id}","object":"event","type":"{event_type}","created":{created},"livemode":false,
            "data":{{"object":{object}}}}}"#
        )
    };
    let invoice = event(
        "evt_paid",
        "invoice.paid",
        100,
        r#"{"id":"in_1","object":"invoice","customer":"cus_1","amount_paid":4900,"currency":"usd"}"#,
    );
    let answers =
        futures_util::future::join_all((0..100).map(|_| app.deliver(invoice.clone()))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let subscription = |status: &str| {
        format!(
            r#"{{"id":"sub_1","object":"subscription","customer":"cus_1","status":"{status}"}}"#
        )
    };
    for (id, event_type, created, object) in [
        ("evt_2", "customer.subscription.deleted", 300, subscription("canceled")),
        ("evt_1", "customer.subscription.updated", 200, subscription("active")),
        (
            "evt_0",
            "customer.created",
            50,
            r#"{"id":"cus_1","object":"customer","email":"a@b.c"}"#.into(),
        ),
    ] {
        app.deliver(event(id, event_type, created, &object)).await;
    }
    let account: (String, i64) =
        sqlx::query_as("SELECT email, credits FROM saas.accounts WHERE customer = 'cus_1'")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    assert_eq!(account, ("a@b.c".to_owned(), 49));
    assert_eq!(app.count("SELECT count(*) FROM saas.grants").await, 1);
    assert_eq!(app.count("SELECT count(*) FROM saas.licences WHERE NOT active").await, 1);
    assert_eq!(app.count("SELECT count(*) FROM tollgate.failures").await, 0);
    app.stop().await;
}

#[tokio::test]
async fn the_credits_example_tells_accounts_modes_and_currencies_apart() {
    let app = App::spawn().await;
    app.pool.execute(EXAMPLE).await.unwrap();
    // Somebody else's customer of the same id, and other currencies.
    for (id, account, livemode, currency) in [
        ("evt_own", "", "false", "usd"),
        ("evt_other", "acct_other", "false", "usd"),
        ("evt_live", "", "true", "usd"),
        ("evt_yen", "", "false", "jpy"),
        ("evt_unknown", "", "false", "xyz"),
    ] {
        let invoice = format!(
            r#"{{"id":"{id}","type":"invoice.paid","created":400,"livemode":{livemode},"account":"{account}","data":{{"object":
            {{"id":"in_{id}","object":"invoice","customer":"cus_1","amount_paid":3000,"currency":"{currency}"}}}}}}"#
        );
        assert_eq!(app.deliver(invoice).await.status, 200);
    }
    let accounts: Vec<(String, bool, i64)> = sqlx::query_as(
        "SELECT account, livemode, credits FROM saas.accounts ORDER BY account, livemode",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let of = |account: &str, livemode, credits| (account.to_owned(), livemode, credits);
    assert_eq!(accounts, [of("", false, 30 + 20), of("", true, 30), of("acct_other", false, 30)]);
    let failed = "SELECT count(*) FROM tollgate.failures WHERE error LIKE '%no price in xyz%'
                  AND error NOT LIKE '%at line%' AND event_id = 'evt_unknown'";
    assert_eq!(app.count(failed).await, 1);
    app.pool.execute("INSERT INTO saas.prices VALUES ('xyz', 1000)").await.unwrap();
    retry_until(&app, "SELECT count(*) FROM saas.grants", 5).await;
    // Processed again, nothing is granted again.
    let again = "SELECT saas.on_invoice_paid(convert_from(raw, 'UTF8')::jsonb) FROM tollgate.events WHERE type = 'invoice.paid'";
    app.pool.execute(again).await.unwrap();
    assert_eq!(app.count("SELECT sum(credits)::bigint FROM saas.accounts").await, 50 + 30 + 30 + 3);
    assert_eq!(app.count("SELECT count(*) FROM saas.grants").await, 5);
    assert_eq!(app.count("SELECT count(*) FROM tollgate.failures").await, 0);
    app.stop().await;
}
