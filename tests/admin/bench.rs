//! How long the list of events takes at 5 million of them, by filter: `make bench-browse`.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tollgate::store::browse::{EventFilter, PageRequest, events};
use tollgate::store::connect::transact;
use tollgate::store::migrations;

use crate::seed;
use crate::support::postgres::fresh_database;

/// Filters as a URL has them.
pub const FILTERS: [&str; 24] = [
    "",
    "type=invoice.paid",
    "type=invoice.*",
    "type=*",
    "type=invoice.marked_uncollectible",
    "type=rare.*",
    "type=none.such",
    "type=invoice.paid,charge.*,rare.*",
    "object=in_17",
    "object=in_hot",
    "object=cus_all",
    "customer=cus_17",
    "customer=cus_medium",
    "customer=cus_big",
    "account=acct_rare",
    "account=acct_1",
    "type=invoice.paid&account=acct_rare",
    "livemode=false",
    "status=ok",
    "status=failing",
    "status=dead",
    "type=invoice.*&status=dead&account=acct_rare",
    "id=evt_1000003e*",
    "customer=cus_medium&status=dead&type=rare.*",
];

pub fn filter(text: &str) -> EventFilter {
    let mut filter = EventFilter::default();
    for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
        filter.set(name, value).unwrap();
    }
    filter
}

/// The times of some pages, and how many events they had.
async fn pages(pool: &PgPool, filter: &EventFilter, count: usize) -> (Vec<Duration>, usize, bool) {
    let (mut times, mut items, mut partial) = (Vec::new(), 0, false);
    let mut cursor = None;
    for _ in 0..count {
        let request = PageRequest { limit: 50, cursor };
        let began = Instant::now();
        let page = transact(pool, Duration::from_secs(30), async |connection| {
            events::list(connection, filter, &request).await
        });
        let page = page.await.unwrap();
        times.push(began.elapsed());
        items += page.items.len();
        partial |= page.searched_until.is_some();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    (times, items, partial)
}

#[tokio::test]
#[ignore = "a benchmark: minutes, and 6 GB of disk"]
async fn lists_of_five_million_events() {
    let count = std::env::var("TOLLGATE_TEST_EVENTS").ok().and_then(|n| n.parse().ok());
    let url = fresh_database().await;
    let pool = PgPool::connect(&url).await.unwrap();
    migrations::run(&mut pool.acquire().await.unwrap()).await.unwrap();
    let began = Instant::now();
    seed::fill(&pool, count.unwrap_or(5_000_000)).await;
    println!("seeded in {:.0?}\n", began.elapsed());
    println!(
        "| filter | first page, ms | again, ms | slowest of 10 pages, ms | events | complete |"
    );
    println!("|---|---|---|---|---|---|");
    for text in FILTERS {
        let filter = filter(text);
        let (first, ..) = pages(&pool, &filter, 1).await;
        let (times, items, partial) = pages(&pool, &filter, 10).await;
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let slowest = times.iter().copied().max().unwrap_or_default();
        let complete = if partial { "no" } else { "yes" };
        println!(
            "| `{text}` | {:.1} | {:.1} | {:.1} | {items} | {complete} |",
            ms(first[0]),
            ms(times[0]),
            ms(slowest)
        );
    }
    pool.close().await;
}
