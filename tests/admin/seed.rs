//! A log of any size, made by the database itself: common and rare types, accounts, customers small
//! and large, failures and dead letters.

use sqlx::PgPool;

/// Rows made by one statement.
const CHUNK: i64 = 100_000;

/// Fills the log with `events` events of the last 80 days.
pub async fn fill(pool: &PgPool, events: i64) {
    for from in (0..events).step_by(usize::try_from(CHUNK).unwrap()) {
        sqlx::query(
            "WITH made AS (
                 INSERT INTO tollgate.event_log
                     (created, id, endpoint, account, livemode, type, object_type, object_id, api_version, source, raw)
                 SELECT date_trunc('second', now()) - (($3 - g) * (interval '80 days' / $3)),
                        'evt_1' || lpad(to_hex(g), 8, '0') || substr(md5(g::text), 1, 12), 'default',
                        CASE WHEN g % 50000 = 7 THEN 'acct_rare' WHEN g % 10 = 0 THEN 'acct_1' ELSE '' END, g % 100 <> 3,
                        CASE WHEN g % 100000 = 11 THEN 'invoice.marked_uncollectible' WHEN g % 20000 = 13 THEN 'rare.' || g % 7
                             ELSE (ARRAY['invoice.created', 'invoice.finalized', 'invoice.paid', 'customer.updated', 'charge.succeeded',
                                         'payment_intent.created', 'payment_intent.succeeded', 'customer.subscription.updated',
                                         'invoice.updated', 'charge.updated'])[1 + (hashint8(g) & 1023) % 10] END,
                        'invoice', CASE WHEN g % 4 = 0 THEN 'in_hot' WHEN g % 1000 < 2 THEN 'cus_all' ELSE 'in_' || g / 5 END,
                        '2025-03-31.basil', 'webhook',
                        convert_to(format('{\"id\":\"evt\",\"n\":%s,\"pad\":\"%s\"}', g, repeat(md5(g::text), 6)), 'UTF8')
                 FROM generate_series($1, $2 - 1) g RETURNING created, id)
             INSERT INTO tollgate.positions SELECT nextval('tollgate.position_seq'), created, id FROM made",
        )
        .bind(from)
        .bind((from + CHUNK).min(events))
        .bind(events)
        .execute(pool)
        .await
        .unwrap();
    }
    billing(pool, events).await;
    troubles(pool).await;
    for table in
        ["tollgate.event_log", "tollgate.positions", "stripe.invoices", "tollgate.failures"]
    {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("ANALYZE {table}"))).execute(pool).await.unwrap();
    }
}

/// Customers with two invoices each, one with 200, and one with more than anybody searches.
async fn billing(pool: &PgPool, events: i64) {
    sqlx::query(
        "INSERT INTO stripe.invoices (account, livemode, id, incarnation, phase, as_of, as_of_event, order_basis,
                                      rests_on_base, deleted, links, object, customer)
         SELECT '', true, 'in_' || g, 0, 1, now(), 'evt_1', 'unique', false, false, '{}', '{}',
                CASE WHEN g % 100 = 1 THEN 'cus_big' WHEN g < 20000 AND g % 100 = 2 THEN 'cus_medium' ELSE 'cus_' || g / 2 END
         FROM generate_series(0, $1 / 5) g",
    )
    .bind(events)
    .execute(pool)
    .await
    .unwrap();
}

/// A consumer with dead letters, and handlers' failures.
async fn troubles(pool: &PgPool) {
    sqlx::raw_sql(
        "SELECT tollgate.create_consumer('mailer', start => 'latest');
         INSERT INTO tollgate.deliveries (consumer, position, state, created, event_id, event_type, attempts, reason, died_at)
         SELECT 'mailer', p.position, 'dead', p.created, p.id, 'x', 20, 'max_attempts_exceeded', now()
         FROM tollgate.positions p WHERE p.position % 997 = 0 LIMIT 3000;
         INSERT INTO tollgate.failures (stage, created, event_id, event_type, error, next_attempt)
         SELECT 'projection', p.created, p.id, 'x', 'no', CASE WHEN p.position % 10 = 0 THEN NULL ELSE now() + interval '1 hour' END
         FROM tollgate.positions p WHERE p.position % 499 = 0 LIMIT 5000",
    )
    .execute(pool)
    .await
    .unwrap();
}
