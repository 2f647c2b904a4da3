//! The list of events: every filter gives what it says, hostile values are data, pages join without a
//! seam, and no page reads more of the log than it may.

use std::time::Duration;

use sqlx::{PgPool, Row};
use tollgate::store::browse::events::EventLine;
use tollgate::store::browse::{EventFilter, Page, PageRequest, events, statements};
use tollgate::store::connect::transact;
use tollgate::store::migrations;

use crate::bench::{FILTERS, filter};
use crate::seed;
use crate::support::postgres::fresh_database;

async fn seeded(events: i64) -> PgPool {
    let pool = PgPool::connect(&fresh_database().await).await.unwrap();
    migrations::run(&mut pool.acquire().await.unwrap()).await.unwrap();
    seed::fill(&pool, events).await;
    pool
}

async fn page(pool: &PgPool, filter: &EventFilter, request: &PageRequest) -> Page<EventLine> {
    let (filter, request) = (filter.clone(), request.clone());
    transact(pool, Duration::from_mins(1), async move |connection| {
        events::list(connection, &filter, &request).await
    })
    .await
    .unwrap()
}

/// All ids that a filter gives, page by page.
async fn all(pool: &PgPool, filter: &EventFilter, limit: i64) -> Vec<String> {
    let mut ids = Vec::new();
    let mut request = PageRequest { limit, cursor: None };
    loop {
        let page = page(pool, filter, &request).await;
        assert!(page.items.len() <= usize::try_from(limit).unwrap());
        ids.extend(page.items.into_iter().map(|event| event.id));
        request.cursor = page.next;
        if request.cursor.is_none() {
            return ids;
        }
    }
}

/// Each filter gives what plain SQL says, whatever the size of pages, and however often the search has
/// to be given up and taken up again.
#[tokio::test]
async fn filters_give_what_they_say() {
    let pool = seeded(30_000).await;
    for (text, sql) in [
        ("type=invoice.paid", "l.type = 'invoice.paid'"),
        ("type=invoice.*&livemode=false", "l.type ^@ 'invoice.' AND NOT l.livemode"),
        ("type=rare.*", "l.type ^@ 'rare.'"),
        ("type=none.such", "false"),
        ("account=acct_rare", "l.account = 'acct_rare'"),
        (
            "type=invoice.paid,charge.*&account=acct_1",
            "l.type ~ '^(invoice.paid$|charge)' AND l.account = 'acct_1'",
        ),
        ("object=in_17", "l.object_id = 'in_17'"),
        (
            "object=in_hot&type=customer.updated",
            "l.object_id = 'in_hot' AND l.type = 'customer.updated'",
        ),
        (
            "customer=cus_5",
            "l.object_id IN (SELECT id FROM stripe.invoices WHERE customer = 'cus_5')",
        ),
        (
            "customer=cus_medium&type=invoice.*",
            "l.object_id IN (SELECT id FROM stripe.invoices WHERE customer = 'cus_medium') AND l.type ^@ 'invoice.'",
        ),
        ("status=dead", "tollgate.event_status(l.created, l.id, p.position) = 'dead'"),
        ("status=failing", "tollgate.event_status(l.created, l.id, p.position) = 'failing'"),
        (
            "status=ok&type=charge.updated",
            "tollgate.event_status(l.created, l.id, p.position) = 'ok' AND l.type = 'charge.updated'",
        ),
        ("id=evt_1000000f*", "l.id ^@ 'evt_1000000f'"),
    ] {
        let sql = format!(
            "SELECT l.id::text FROM tollgate.event_log l JOIN tollgate.positions p ON p.id = l.id
             WHERE {sql} ORDER BY l.created DESC, l.id DESC"
        );
        let wanted: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&pool).await.unwrap();
        let limit = if wanted.len() > 500 { 200 } else { 7 };
        let found = all(&pool, &filter(text), limit).await;
        assert!(found == wanted, "{text}: {} instead of {}", found.len(), wanted.len());
        assert!(text == "type=none.such" || !wanted.is_empty(), "{text} tests nothing");
    }
}

/// Rows of the log read by a page, as Postgres counts them.
async fn read_by(pool: &PgPool, text: &str) -> (i64, i64) {
    let filter = filter(text);
    transact(pool, Duration::from_mins(1), async move |connection| {
        let counters = "SELECT coalesce(sum(seq_scan), 0)::bigint, coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint
                        FROM pg_stat_xact_user_tables WHERE relname LIKE 'event_log%' OR relname = 'positions'";
        let before = sqlx::query(counters).fetch_one(&mut *connection).await?;
        events::list(connection, &filter, &PageRequest::default()).await.unwrap();
        let after = sqlx::query(counters).fetch_one(&mut *connection).await?;
        let grown = |column| after.get::<i64, _>(column) - before.get::<i64, _>(column);
        Ok::<_, sqlx::Error>((grown(0), grown(1)))
    })
    .await
    .unwrap()
}

/// However much there is, a page reads a bounded part of it, and never goes through a table.
#[tokio::test]
async fn no_page_reads_more_than_it_may() {
    let pool = seeded(60_000).await;
    for text in FILTERS {
        let (scans, rows) = read_by(&pool, text).await;
        assert_eq!(scans, 0, "{text} goes through a table");
        // Candidates, and the events and positions that they lead to.
        assert!(rows <= 4 * 8192, "{text} reads {rows} rows");
    }
}

#[tokio::test]
async fn plans_use_the_indexes_made_for_them() {
    let pool = seeded(30_000).await;
    for (lead, sql) in statements() {
        let index = match lead {
            "types" => "type_created_idx",
            "object" => "object_id_created_idx",
            _ => "_pkey",
        };
        // Values by hand, as EXPLAIN takes none.
        let sql = (1..=11).rev().fold(sql, |sql, number| {
            let value = match (number, lead) {
                (1 | 3, _) => "NULL::timestamptz",
                (5, _) => "NULL::boolean",
                (6..=8, _) => "NULL::text[]",
                (10, "types") => "ARRAY['invoice.paid']",
                (10, "keys") => "ARRAY['2026-01-01'::timestamptz]",
                (11, _) => "ARRAY['evt_1']",
                (10, _) => "'in_1'",
                _ => "NULL::text",
            };
            sql.replace(&format!("${number}"), value)
        });
        let plan = transact(&pool, Duration::from_mins(1), async move |connection| {
            sqlx::raw_sql("SET LOCAL enable_seqscan = off; SET LOCAL jit = off")
                .execute(&mut *connection)
                .await?;
            let sql = sqlx::AssertSqlSafe(format!("EXPLAIN {sql}"));
            sqlx::query_scalar::<_, String>(sql).fetch_all(connection).await
        });
        let plan = plan.await.unwrap().join("\n");
        assert!(plan.contains(index), "{lead}:\n{plan}");
        assert!(!plan.contains("Seq Scan on event_log"), "{lead}:\n{plan}");
    }
}

#[tokio::test]
async fn hostile_values_are_data() {
    let pool = seeded(200).await;
    let long = "x".repeat(1 << 20);
    for value in [
        "'; DROP TABLE tollgate.event_log; --",
        "\" OR 1=1",
        "%",
        "_",
        "\\",
        "in\\_%",
        ".*",
        "^(a+)+$",
        "$1",
        "{}",
        "\u{202e}evil",
        "\u{1f600}",
    ] {
        for name in ["object", "customer", "account", "id", "type"] {
            let mut filter = EventFilter::default();
            if filter.set(name, value).is_err() {
                continue; // not as a type
            }
            let found = page(&pool, &filter, &PageRequest::default()).await;
            assert!(found.items.is_empty(), "{name}={value} finds {:?}", found.items[0]);
        }
    }
    for value in ["a\0b", &long] {
        for name in ["object", "customer", "account", "id", "type"] {
            assert!(EventFilter::default().set(name, value).is_err(), "{name}");
        }
    }
    // Escapes of LIKE mean themselves in what begins an id, too.
    for (prefix, finds) in [("evt\\_*", false), ("evt_*", true), ("e%*", false), ("*", true)] {
        let filter = filter(&format!("id={prefix}"));
        let found = page(&pool, &filter, &PageRequest::default()).await;
        assert_eq!(!found.items.is_empty(), finds, "{prefix}");
    }
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM tollgate.event_log")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 200);
}
