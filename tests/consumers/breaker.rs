//! Circuit breaker, rate and concurrency: kept in the database, hence one for all replicas, and
//! still there after a restart.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::receiver::{Receiver, Reply};
use crate::scene::{Logged, ask, lines, push_to, record, until, until_settled};
use crate::support::{App, postgres};

/// A target that fails a third of the time by a fixed pattern of chance, goes down for two
/// seconds, and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_target_is_let_alone_and_gets_everything_in_the_end() {
    let url = postgres::fresh_database().await;
    let gateway = Logged::start(&url, &[]).await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let mut receiver = Receiver::start().await;
    let mut dice = 1_u64;
    receiver.answer(move |_| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Reply::status(if (dice >> 33) % 10 < 3 { 500 } else { 200 }).after(Duration::from_millis(5))
    });
    let consumer = ", ordering => 'object', max_attempts => 12, retry_first => '0.05 seconds', retry_most => '0.5 seconds'";
    let target = ", concurrency => 8, breaker_after => 12, breaker_wait => '0.4 seconds'";
    push_to(&pool, &receiver, consumer, target).await;
    record(&pool, 0, 250, 40).await;
    receiver.until_delivered(60).await;
    receiver.go_down().await;
    let down = Instant::now();
    until(&pool, "SELECT breaker = 'open' FROM tollgate.consumer_progress").await;
    let opened_after = down.elapsed();
    sleep(Duration::from_secs(2).saturating_sub(opened_after)).await;
    let refused = "SELECT count(*) FROM tollgate.attempts WHERE status IS NULL";
    let refused: u64 = ask(&pool, refused).await.parse().unwrap();
    receiver.come_back().await;
    until_settled(&pool).await;

    // Twelve failures open it, with those that were under way then; after that one probe each 0.4,
    // 0.8, 1.6 … s, a fifth less at most. Successes that end late can start the count anew once.
    assert!((12..=12 + 2 * 8 + 5).contains(&refused), "{refused} attempts while it was down");
    let dead: usize =
        ask(&pool, "SELECT count(*) FROM tollgate.dead_letters").await.parse().unwrap();
    let delivered = receiver.delivered();
    assert_eq!((delivered.len() + dead, delivered.values().max()), (250, Some(&1)));
    // 0.3^12 is one in two million; only those hit while it was down come nearer.
    assert!(dead < 10, "{dead}");
    if dead == 0 {
        receiver.assert_in_order();
    }
    assert_eq!(ask(&pool, "SELECT breaker FROM tollgate.consumer_progress").await, "closed");
    let log = gateway.stop().await;
    let turns: Vec<_> = lines(&log, "delivery.breaker")
        .into_iter()
        .map(|line| (line["was"].as_str().unwrap(), line["is"].as_str().unwrap()))
        .collect();
    assert_eq!(turns.first(), Some(&("closed", "open")), "{turns:?}");
    assert_eq!(turns.last(), Some(&("half_open", "closed")), "{turns:?}");
    assert!(turns.windows(2).all(|pair| pair[0].1 == pair[1].0), "none is left out: {turns:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_outlives_the_gateway() {
    let app = App::spawn().await;
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::status(500));
    let target = ", breaker_after => 2, breaker_wait => '3 seconds', concurrency => 1";
    push_to(
        &app.pool,
        &receiver,
        ", retry_first => '0.01 seconds', retry_most => '0.01 seconds'",
        target,
    )
    .await;
    record(&app.pool, 0, 5, 5).await;
    until(&app.pool, "SELECT breaker = 'open' FROM tollgate.consumer_progress").await;
    let url = app.database_url.clone();
    app.stop().await;
    let failed = receiver.requests().len();
    assert_eq!(failed, 2);
    receiver.answer(|_| Reply::status(200));

    let gateways = [App::spawn_on(&url, &[]).await, App::spawn_on(&url, &[]).await];
    let pool = &gateways[0].pool;
    let left: f64 =
        ask(pool, "SELECT extract(epoch FROM breaker_until - clock_timestamp()) FROM tollgate.consumer_progress")
            .await
            .parse()
            .unwrap();
    let began = Instant::now();
    until_settled(pool).await;
    let requests = receiver.requests();
    let waited = requests[failed].began - began;
    assert!(waited.as_secs_f64() > left - 0.2, "{waited:?} of {left} s");
    // One to see; the others only once that has gone well.
    assert!(requests[failed + 1].began >= requests[failed].ended.unwrap().0);
    assert_eq!(requests.len(), failed + 5);
    for gateway in gateways {
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_keep_to_one_rate() {
    let app = App::spawn().await;
    let other = App::spawn_on(&app.database_url, &[]).await;
    let receiver = Receiver::start().await;
    push_to(&app.pool, &receiver, "", ", rate => 50, burst => 10").await;
    record(&app.pool, 0, 150, 150).await;
    receiver.until_delivered(150).await;
    let mut times: Vec<_> = receiver.requests().iter().map(|request| request.began).collect();
    times.sort_unstable();
    // What is claimed may arrive later than what is claimed after it: hence a tenth of a second.
    for (first, from) in times.iter().enumerate() {
        for (last, to) in times.iter().enumerate().skip(first) {
            let allowed = 10.0 + 50.0 * ((*to - *from).as_secs_f64() + 0.1);
            let count = last - first + 1;
            assert!(
                f64::from(u32::try_from(count).unwrap()) <= allowed,
                "{count} in {:?}",
                *to - *from
            );
        }
    }
    // And it is made use of: 140 tokens at 50 a second take 2.8 s.
    let took = times[149] - times[0];
    assert!(took > Duration::from_millis(2600) && took < Duration::from_secs(8), "{took:?}");
    for gateway in [app, other] {
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_keep_to_one_concurrency() {
    let app = App::spawn().await;
    let other = App::spawn_on(&app.database_url, &[]).await;
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::status(200).after(Duration::from_millis(15)));
    push_to(&app.pool, &receiver, "", ", concurrency => 3").await;
    record(&app.pool, 0, 200, 200).await;
    receiver.until_delivered(200).await;
    assert_eq!(receiver.requests().len(), 200);
    assert_eq!(receiver.most_at_once(), 3);
    for gateway in [app, other] {
        gateway.stop().await;
    }
}
