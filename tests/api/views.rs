//! The views of the schema `stripe` over the sample events of `tollgate demo`: numbers reckoned by
//! hand from the stories in `fixtures/events`. Corner cases of single views stand in `tables`.

use std::io;

use sqlx::AssertSqlSafe;
use tollgate::replay::{Event, Options, Plan, source};

use crate::support::App;

fn sample_events() -> Vec<Event> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/events");
    source::load(&[folder.into()], io::empty()).unwrap()
}

/// As the demo does it: shuffled, and 30 % twice.
async fn deliver(app: &App, events: Vec<Event>) {
    let options = Options { shuffle: Some(7), duplicates: 30, unique_ids: None };
    for some in Plan::new(events, &options).deliveries().chunks(16) {
        let answers = some.iter().map(|delivery| app.deliver(&delivery.body));
        for answer in futures_util::future::join_all(answers).await {
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }
}

/// A query returns exactly these rows, each as text, in the order of their bytes.
async fn check(app: &App, sql: &str, expected: &[&str]) {
    let rows = format!(r#"SELECT q::text FROM ({sql}) q ORDER BY q::text COLLATE "C""#);
    let rows: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&app.pool).await.unwrap();
    assert_eq!(rows, expected, "{sql}");
}

#[tokio::test]
async fn after_the_demo_all_views_give_what_was_reckoned_by_hand() {
    let app = App::spawn().await;
    let events = sample_events();
    let count = i64::try_from(events.len()).unwrap();
    deliver(&app, events).await;
    assert_eq!((app.events().await, app.quarantined().await), (count, 0));
    active_subscriptions(&app).await;
    subscription_items(&app).await;
    mrr(&app).await;
    invoice_lines(&app).await;
    revenue(&app).await;
    revenue_of_single_days(&app).await;
    failed_payments(&app).await;
    entitlements(&app).await;
    ties(&app).await;
    app.stop().await;
}

/// Of 13 subscriptions two are canceled: those of `plan_upgraded_then_canceled`, `dunning_exhausted`.
async fn active_subscriptions(app: &App) {
    check(
        app,
        "SELECT account, livemode, currency, id, customer_email, status, quantity, current_period_end::date,
                trial_end::date, cancel_at_period_end, cancel_at, pause_collection FROM stripe.active_subscriptions",
        &[
            r#"("",f,eur,sub_13t3Qvzcsn5HyXOVKkmvvF2y,zed@oneill.example,active,2,2026-04-06,,f,,)"#, // dunning_recovered
            r#"("",f,eur,sub_1GBd69zcsn5HyXOVYIQRT3DE,joerg@muessig.example,active,2,2026-04-08,,f,,)"#, // discount_redeemed_clover
            r#"("",f,eur,sub_1f7t5Ezcsn5HyXOVFys4CJaw,zed@oneill.example,active,2,2026-02-27,2026-01-21,f,,)"#, // trial_paused_and_resumed
            r#"("",f,eur,sub_1tb3K6zcsn5HyXOV48zaSsUR,sakura@hanadayori.example,active,2,2026-04-05,,f,,)"#, // subscription_renewed_acacia
            r#"("",f,gbp,sub_1RIRbHzcsn5HyXOVizmsXViR,sakura@hanadayori.example,active,1,2026-04-06,,f,,)"#, // subscription_renewed_clover
            r#"("",f,gbp,sub_1areT6zcsn5HyXOVc2ZOoPEX,sakura@hanadayori.example,active,3,2026-03-21,2026-01-21,f,,)"#, // trial_converted
            r#"("",f,jpy,sub_136NQlzcsn5HyXOVwA7JYMIz,ada+billing@okonkwo.example,active,3,2026-04-06,,f,,)"#, // subscription_renewed_basil
            r#"("",f,jpy,sub_1zSLsAzcsn5HyXOVovnKcyYO,ada+billing@okonkwo.example,active,1,2026-04-08,,f,,)"#, // discount_redeemed_2020
            r#"("",f,usd,sub_1166fizcsn5HyXOVGTjCAb3a,ada+billing@okonkwo.example,active,2,2026-04-06,,f,,)"#, // dunning_recovered_clover
            r#"("",f,usd,sub_1eYj8Ezcsn5HyXOVVQplTm4X,ada+billing@okonkwo.example,active,1,2026-04-05,,f,,)"#, // subscription_renewed_2020
            r#"("",f,usd,sub_1uVmEnzcsn5HyXOVqncoKMd3,sakura@hanadayori.example,active,1,2026-03-07,,f,,)"#, // schedule_released
        ],
    )
    .await;
    // In full: of 2020, which has no currency of its own, and of clover, where the period is the item's.
    check(
        app,
        "SELECT * FROM stripe.active_subscriptions WHERE id IN ('sub_1eYj8Ezcsn5HyXOVVQplTm4X', 'sub_1RIRbHzcsn5HyXOVizmsXViR')",
        &[
            r#"("",f,gbp,sub_1RIRbHzcsn5HyXOVizmsXViR,cus_Dl9Ejb4isALm7O,sakura@hanadayori.example,active,price_18hpzXzcsn5HyXOVuAxgK4Gy,prod_LkIu5VZB9Iv7aV,1,"2026-03-06 05:01:30+00","2026-04-06 05:01:30+00",,f,,)"#,
            r#"("",f,usd,sub_1eYj8Ezcsn5HyXOVVQplTm4X,cus_Iw8vRreXUEHrMo,ada+billing@okonkwo.example,active,price_124Olkzcsn5HyXOVv8HZQM3S,prod_FlhkpKuiTkYg0s,1,"2026-03-05 14:00:39+00","2026-04-05 14:00:39+00",,f,,)"#,
        ],
    )
    .await;
}

/// One item for each of the 13 subscriptions, the canceled ones included.
async fn subscription_items(app: &App) {
    check(
        app,
        "SELECT account, livemode, currency, subscription_status, count(*), sum(quantity), sum(unit_amount * quantity)
         FROM stripe.subscription_items GROUP BY 1, 2, 3, 4",
        &[
            r#"("",f,eur,active,4,8,25180)"#,  // 2 × 4950 twice, 2 × 790, 2 × 1900
            r#"("",f,eur,canceled,1,5,9500)"#, // 5 × 1900 of plan_upgraded_then_canceled, 3 before the upgrade
            r#"("",f,gbp,active,2,4,4270)"#,   // 1 × 1900, 3 × 790
            r#"("",f,jpy,active,2,4,10420)"#,  // 1 × 1480, 3 × 2980
            r#"("",f,usd,active,3,4,9540)"#,   // 2 × 1900, 1 × 790, 1 × 4950
            r#"("",f,usd,canceled,1,3,2370)"#, // 3 × 790 of dunning_exhausted
        ],
    )
    .await;
    // In full: 2020, where the period is the subscription's, and basil, where it is the item's.
    check(
        app,
        "SELECT account, livemode, currency, id, subscription, customer, subscription_status, price, product, quantity,
                unit_amount, unit_amount_decimal, \"interval\", interval_count, usage_type,
                current_period_start, current_period_end, item->>'id' = id AS same
         FROM stripe.subscription_items WHERE id IN ('si_3cAOl76rJtL5IC', 'si_vVwBn1PYnHRq0q')",
        &[
            r#"("",f,eur,si_vVwBn1PYnHRq0q,sub_1hFehHzcsn5HyXOVLfxua3Ce,cus_ummJABJvmfYyhP,canceled,price_1Xi9QUzcsn5HyXOVcLBlSHiB,prod_LSUKlAL2R0kVs1,5,1900,1900,month,1,licensed,"2026-02-07 11:03:12+00","2026-03-07 11:03:12+00",t)"#,
            r#"("",f,usd,si_3cAOl76rJtL5IC,sub_1eYj8Ezcsn5HyXOVVQplTm4X,cus_Iw8vRreXUEHrMo,active,price_124Olkzcsn5HyXOVv8HZQM3S,prod_FlhkpKuiTkYg0s,1,790,790,month,1,licensed,"2026-03-05 14:00:39+00","2026-04-05 14:00:39+00",t)"#,
        ],
    )
    .await;
}

/// All prices are monthly, and no discount is left: both stories that redeem one end it.
async fn mrr(app: &App) {
    check(
        app,
        "SELECT * FROM stripe.mrr",
        &[
            r#"("",f,eur,25180,25180,4,0)"#, // 9900 dunning_recovered, 9900 renewed_acacia, 1580 discount_redeemed_clover, 3800 trial_paused_and_resumed
            r#"("",f,gbp,4270,4270,2,0)"#,   // 1900 renewed_clover, 2370 trial_converted
            r#"("",f,jpy,10420,10420,2,0)"#, // 1480 discount_redeemed_2020, 8940 renewed_basil
            r#"("",f,usd,9540,9540,3,0)"#, // 3800 dunning_recovered_clover, 4950 schedule_released, 790 renewed_2020
        ],
    )
    .await;
}

/// 39 invoices, of which four have two lines.
async fn invoice_lines(app: &App) {
    check(
        app,
        "SELECT account, livemode, currency, count(DISTINCT invoice), count(*), sum(amount)
         FROM stripe.invoice_lines GROUP BY 1, 2, 3",
        &[
            // 3 × 1580 discount_redeemed_clover, 3 × 9900 dunning_recovered, 9900 + 1900 of the void one,
            // 5700 − 3420 + 5700 + 9500 plan_upgraded_then_canceled, 3 × 9900 renewed_acacia, 0 + 3800 trial_paused_and_resumed
            r#"("",f,eur,15,17,97220)"#,
            // 3800 + 4950 invoice_credited, 3 × 1900 renewed_clover, 0 + 2 × 2370 trial_converted
            r#"("",f,gbp,7,8,19190)"#,
            // 3 × 1480 discount_redeemed_2020, 3 × 8940 renewed_basil
            r#"("",f,jpy,6,6,31260)"#,
            // 2 × 2370 dunning_exhausted, 3 × 3800 dunning_recovered_clover, 3800 + 4950 invoice_credited_basil,
            // 2 × 4950 schedule_released, 3 × 790 renewed_2020
            r#"("",f,usd,11,12,37160)"#,
        ],
    )
    .await;
    check(
        app,
        "SELECT * FROM stripe.invoice_lines WHERE id IN ('il_1MSFbhzcsn5HyXOVBzoSHvIT', 'il_1W0NqJzcsn5HyXOVNg6YafsG',
             'il_187WN7zcsn5HyXOVQndaH3HR', 'il_1ttmyAzcsn5HyXOVX8xbLt70')",
        &[
            // Basil: what is left of 3 × 1900 after 12 of 30 days, given back at the upgrade.
            r#"("",f,eur,il_1MSFbhzcsn5HyXOVBzoSHvIT,in_1WAMbWzcsn5HyXOVYravQNoo,cus_ummJABJvmfYyhP,sub_1hFehHzcsn5HyXOVLfxua3Ce,price_1Xi9QUzcsn5HyXOVcLBlSHiB,prod_LSUKlAL2R0kVs1,-3420,3,"2026-01-19 11:03:12+00","2026-02-07 11:03:12+00","Unused time on 3 × Café Club ""Crème"" ☕",t)"#,
            // Basil, without a subscription, of an invoice that is void.
            r#"("",f,eur,il_1W0NqJzcsn5HyXOVNg6YafsG,in_1xbN2dzcsn5HyXOVnjwz9Yl9,cus_s5SOnxJbgEXgcN,,price_1vRja9zcsn5HyXOVDc8pZolL,prod_sAtnwBBQzN6dio,9900,2,"2026-01-08 12:07:05+00","2026-01-08 12:07:05+00","Backups <4 teams>",f)"#,
            // Acacia, without a subscription.
            r#"("",f,gbp,il_187WN7zcsn5HyXOVQndaH3HR,in_1crqkIzcsn5HyXOVQBhNf8yr,cus_g1b1Bm44slDYTD,,price_1diFzVzcsn5HyXOVY7zfn6G5,prod_HLk0DbXZ8LmRjE,3800,2,"2026-01-08 17:06:22+00","2026-01-08 17:06:22+00",花だより,f)"#,
            // 2020: before the discount of 20 %; 1184 were paid.
            r#"("",f,jpy,il_1ttmyAzcsn5HyXOVX8xbLt70,in_1bttyPzcsn5HyXOVtkUwXBbE,cus_CPRR2DDTSwGgHL,sub_1zSLsAzcsn5HyXOVovnKcyYO,price_15n26nzcsn5HyXOVzWNGAMcd,prod_qzdQoyMgg1JomS,1480,1,"2026-02-08 02:04:03+00","2026-03-08 02:04:03+00","1 × Bücher-Abo „Lesezeit“ (at ¥1480 / month)",f)"#,
        ],
    )
    .await;
}

/// 41 charges succeeded; 9 failed, which count for nothing.
async fn revenue(app: &App) {
    check(
        app,
        "SELECT account, livemode, currency, count(*), sum(gross), sum(refunded), sum(disputed), sum(net), sum(charges)
         FROM stripe.revenue_daily GROUP BY 1, 2, 3",
        &[
            // 3010 checkout_paid_later, 1580 + 1264 + 1580 discount_redeemed_clover (20 % off the second),
            // 43732 dispute_lost, 3 × 9900 dunning_recovered, 5700 + 2280 + 9500 plan_upgraded_then_canceled,
            // 3 × 9900 renewed_acacia, 3800 trial_paused_and_resumed
            r#"("",f,eur,15,131846,0,43732,88114,15)"#,
            // 8750 invoice_credited, of which 2916 went back, 3 × 1900 renewed_clover, 2 × 2370 trial_converted
            r#"("",f,gbp,6,19190,2916,0,16274,6)"#,
            // 1480 + 1184 + 1480 discount_redeemed_2020, 3 × 8940 renewed_basil,
            // 6208 order_captured_and_refunded, a quarter of it given back
            r#"("",f,jpy,7,37172,1552,0,35620,7)"#,
            // 28235 dispute_won, 2370 dunning_exhausted, 3 × 3800 dunning_recovered_clover,
            // 8750 − 2916 invoice_credited_basil, 33421 refund_failed, 2 × 4950 schedule_released, 3 × 790 renewed_2020
            r#"("",f,usd,10,96446,2916,0,93530,12)"#,
            // connected_account_sells
            "(acct_1Z5dTmUtijRomMGq,f,eur,1,10116,0,0,10116,1)",
        ],
    )
    .await;
}

/// Days on which several currencies came in: a row for each.
async fn revenue_of_single_days(app: &App) {
    check(
        app,
        "SELECT * FROM stripe.revenue_daily WHERE day IN ('2026-01-06', '2026-01-09', '2026-01-11')",
        &[
            r#"("",f,eur,2026-01-06,9900,0,0,9900,1)"#, // dunning_recovered
            r#"("",f,eur,2026-01-09,43732,0,43732,0,1)"#, // dispute_lost
            r#"("",f,gbp,2026-01-06,1900,0,0,1900,1)"#, // subscription_renewed_clover
            r#"("",f,jpy,2026-01-06,8940,0,0,8940,1)"#, // subscription_renewed_basil, a minute after midnight
            r#"("",f,jpy,2026-01-09,6208,1552,0,4656,1)"#, // order_captured_and_refunded, captured two days later
            r#"("",f,usd,2026-01-06,6170,0,0,6170,2)"#, // 2370 dunning_exhausted, 3800 dunning_recovered_clover
            r#"("",f,usd,2026-01-09,61656,0,0,61656,2)"#, // 28235 dispute_won, 33421 refund_failed
            "(acct_1Z5dTmUtijRomMGq,f,eur,2026-01-11,10116,0,0,10116,1)", // connected_account_sells
        ],
    )
    .await;
}

/// `dunning_exhausted` stands here twice: in basil no event names both an invoice and its payment
/// until that has paid. So the invoice lacks a reason, and the payment an invoice.
async fn failed_payments(app: &App) {
    check(
        app,
        "SELECT * FROM stripe.failed_payments",
        &[
            // checkout_failed_later: the direct debit bounced.
            r#"("",f,eur,payment_intent,pi_1af99Izcsn5HyXOVIqxxMRNO,cus_giXpwbpffbKJHo,zed@oneill.example,5787,requires_payment_method,card_declined,"Your card has insufficient funds.",,,"2026-01-10 14:09:55+00")"#,
            // payment_canceled: the customer never came back.
            r#"("",f,gbp,payment_intent,pi_1Jviu0zcsn5HyXOVUtWIKgNf,cus_1DT2zwIN6nrtY5,sakura@hanadayori.example,8331,canceled,payment_intent_authentication_failure,"The provided payment method has failed authentication.",,,"2026-01-09 13:06:40+00")"#,
            // dunning_exhausted: 3 × 790, tried three times and written off. The customer is deleted,
            // the invoice has an address of its own.
            r#"("",f,usd,invoice,in_1woRHRzcsn5HyXOVif4giEqm,cus_x1SOAogFTItHhs,lucja@zolc.example,2370,uncollectible,,,3,,"2026-02-06 20:02:21+00")"#,
            r#"("",f,usd,payment_intent,pi_1hRcnxzcsn5HyXOV3WovAE1G,cus_x1SOAogFTItHhs,,2370,canceled,card_declined,"Your card has insufficient funds.",,,"2026-02-06 21:02:25+00")"#,
        ],
    )
    .await;
}

/// The last of the three summaries in `entitlements_granted`.
async fn entitlements(app: &App) {
    check(
        app,
        "SELECT * FROM stripe.customer_entitlements",
        &[
            r#"("",f,cus_CF7iq4oncZQn4j,ent_1QKrq8zcsn5HyXOVO6srMe3h,feat_1wvtFrzcsn5HyXOVclZ3N9LS,größere-anhänge)"#,
            r#"("",f,cus_CF7iq4oncZQn4j,ent_1cxaXLzcsn5HyXOVhMbIjdyo,feat_1IOZDyzcsn5HyXOVu3tb48hm,export_pdf)"#,
            r#"("",f,cus_CF7iq4oncZQn4j,ent_1gY3gyzcsn5HyXOVepVB3OoN,feat_1k5UnYzcsn5HyXOVipqwHZl5,priority_support)"#,
        ],
    )
    .await;
}

/// One object ends in a second whose events do not say which of them came last.
async fn ties(app: &App) {
    check(
        app,
        "SELECT * FROM stripe.order_ties",
        &[
            // dispute_won: closed and funds_reinstated, both won, neither with previous_attributes.
            r#"(disputes,"",f,du_1xMe1Ozcsn5HyXOVOv0RCokt,"2026-03-12 18:06:58+00",evt_1pMFdxzcsn5HyXOVNxAumlkK)"#,
        ],
    )
    .await;
}

/// What the views say once all events up to a day have come.
struct Moment {
    /// The first second that is left out, in Unix seconds.
    until: i64,
    mrr: &'static [&'static str],
    /// Of 9 January: currency, gross, refunded, disputed, net.
    revenue: &'static [&'static str],
    failed_payments: &'static [&'static str],
}

/// Both discounts last forever and have no end until they are deleted, so the day of the test does
/// not matter.
const MOMENTS: [Moment; 2] = [
    Moment {
        until: 1_768_435_200, // 2026-01-15, 00:00 UTC
        mrr: &[
            r#"("",f,eur,26764,27080,4,0)"#, // 1580 − 20 %, 9900, 9900, 3 × 1900; a trial owes nothing yet
            r#"("",f,gbp,1900,1900,1,0)"#,   // the other is a trial
            r#"("",f,jpy,10124,10420,2,0)"#, // 1480 − 20 %, 8940
            r#"("",f,usd,11910,11910,4,0)"#, // 2370, 3800, 4950, 790
        ],
        revenue: &[
            "(eur,43732,0,0,43732)",
            "(jpy,6208,0,0,6208)",
            "(usd,61656,33421,0,28235)", // the refund that will fail is pending
        ],
        failed_payments: &["(gbp,payment_intent,pi_1Jviu0zcsn5HyXOVUtWIKgNf,8331,canceled,)"],
    },
    Moment {
        until: 1_770_595_200, // 2026-02-09, 00:00 UTC
        mrr: &[
            r#"("",f,eur,34364,34680,5,0)"#, // 1580 − 20 %, 9900, 9900 (past due), 5 × 1900, 3800
            r#"("",f,gbp,4270,4270,2,0)"#,   // 1900, 2370
            r#"("",f,jpy,10124,10420,2,0)"#,
            r#"("",f,usd,11910,11910,4,0)"#, // as before, 2370 and 3800 of it past due
        ],
        revenue: &[
            "(eur,43732,0,43732,0)",     // lost
            "(jpy,6208,1552,0,4656)",    // a quarter was given back
            "(usd,61656,0,28235,33421)", // the refund has failed; the dispute that will be won is under review
        ],
        failed_payments: &[
            "(eur,invoice,in_1H8bYyzcsn5HyXOVMI1igd4u,9900,open,1)", // in acacia the invoice names its payment
            "(eur,payment_intent,pi_1af99Izcsn5HyXOVIqxxMRNO,5787,requires_payment_method,)",
            "(gbp,payment_intent,pi_1Jviu0zcsn5HyXOVUtWIKgNf,8331,canceled,)",
            "(usd,invoice,in_1KGGuizcsn5HyXOV6N08xSRB,3800,open,1)", // in clover the payment its invoice
            "(usd,invoice,in_1woRHRzcsn5HyXOVif4giEqm,2370,open,1)", // in basil neither: twice
            "(usd,payment_intent,pi_1hRcnxzcsn5HyXOV3WovAE1G,2370,requires_payment_method,)",
        ],
    },
];

/// Unix seconds; events of v2 have a text there, and count as late.
fn created(event: &Event) -> i64 {
    let event: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
    event["created"].as_i64().unwrap_or(i64::MAX)
}

#[tokio::test]
async fn in_the_middle_of_the_stories_the_views_tell_how_things_stand() {
    let app = App::spawn().await;
    let mut left = sample_events();
    for moment in MOMENTS {
        let (now, later) = left.into_iter().partition(|event| created(event) < moment.until);
        deliver(&app, now).await;
        left = later;
        check(&app, "SELECT * FROM stripe.mrr", moment.mrr).await;
        let revenue = "SELECT currency, gross, refunded, disputed, net FROM stripe.revenue_daily
                       WHERE day = '2026-01-09'";
        check(&app, revenue, moment.revenue).await;
        let failed = "SELECT currency, source, id, amount, status, attempt_count FROM stripe.failed_payments";
        check(&app, failed, moment.failed_payments).await;
    }
    deliver(&app, left).await;
    mrr(&app).await;
    revenue_of_single_days(&app).await;
    failed_payments(&app).await;
    app.stop().await;
}
