//! What a lease is worth, and claims and acknowledgements in transactions of the worker's own.

use sqlx::{Connection, Executor, PgConnection};

use crate::seed::{Batch, Log, claim};

#[tokio::test]
async fn what_a_lease_is_worth() {
    let log = Log::new().await;
    log.seed(4).await;
    log.consumer("c", "").await;
    let first = log.claim("c", 2).await;
    log.lapse(first.claim).await;
    assert_eq!(log.ack_some(first.claim, &[1]).await, 1, "nobody else has it yet");
    let others = log.claim("c", 2).await;
    assert_eq!((&others.positions, &others.attempts), (&vec![2, 3], &vec![2, 1]));
    for call in [
        format!("ack({})", first.claim),
        format!("ack({}, ARRAY[2])", first.claim),
        format!("nack({}, 2, 'no')", first.claim),
        format!("extend({})", first.claim),
    ] {
        assert_eq!(log.refusal(format!("SELECT tollgate.{call}")).await, "TG011", "{call}");
    }
    let error: String = log.one("SELECT error FROM tollgate.deliveries").await;
    assert_eq!(error, "the lease of the claim ran out");
    // Extended in time, even though it was over.
    log.lapse(others.claim).await;
    log.sql(format!("SELECT tollgate.extend({}, '1 minute')", others.claim)).await;
    assert_eq!(log.claim("c", 2).await.positions, [4]);
    let seconds: f64 = log
        .one(format!(
            "SELECT extract(epoch FROM tollgate.extend({}) - clock_timestamp())::float8",
            others.claim
        ))
        .await;
    assert!((29.0..=30.0).contains(&seconds), "the consumer's own lease: {seconds}");
    for wrong in ["0.5 seconds", "-1 hour", "2 days"] {
        let call = format!("SELECT tollgate.extend({}, '{wrong}')", others.claim);
        assert_eq!(log.refusal(call).await, "22023", "{wrong}");
    }
    assert_eq!(log.ack(others.claim).await, 2);
}

#[tokio::test]
async fn leases_that_run_out_use_up_attempts() {
    let log = Log::new().await;
    log.seed(2).await;
    log.consumer("c", "max_attempts => 2").await;
    for attempt in 1..=2 {
        let batch = log.claim("c", 10).await;
        assert_eq!(batch.attempts, [attempt, attempt]);
        log.lapse(batch.claim).await;
    }
    assert_eq!(log.claim("c", 10).await, Batch::default());
    assert_eq!(log.rows("c", "dead").await, [1, 2]);
}

/// A worker that dies of event 5 takes its batch down with it, twice. Then each goes alone.
#[tokio::test]
async fn a_poisonous_event_dies_alone() {
    let log = Log::new().await;
    log.seed(20).await;
    log.consumer("c", "max_attempts => 4").await;
    let (mut handled, mut deaths) = (Vec::<i64>::new(), 0);
    loop {
        let batch = log.claim("c", 10).await;
        if batch.claim == 0 {
            break;
        }
        if batch.positions.contains(&5) {
            deaths += 1;
            assert_eq!(batch.positions.len() == 1, deaths > 2, "{batch:?}");
            log.lapse(batch.claim).await;
        } else {
            handled.extend(&batch.positions);
            log.ack(batch.claim).await;
        }
    }
    handled.sort_unstable();
    assert_eq!(handled, (1..=20).filter(|&n| n != 5).collect::<Vec<i64>>());
    assert_eq!((deaths, log.rows("c", "dead").await), (4, vec![5]));
}

/// Worker A is slow, B gets its batch: of the two only B's effect is there.
#[tokio::test]
async fn an_acknowledgement_in_the_workers_own_transaction_makes_it_exactly_once() {
    let log = Log::new().await;
    log.seed(3).await;
    log.consumer("c", "").await;
    log.sql("CREATE TABLE effects (position bigint, worker text)").await;
    let effect = |worker: &str, batch: &Batch| {
        sqlx::AssertSqlSafe(format!(
            "INSERT INTO effects SELECT n, '{worker}' FROM unnest(ARRAY{:?}::bigint[]) n",
            batch.positions
        ))
    };
    let ack = |batch: &Batch| sqlx::AssertSqlSafe(format!("SELECT tollgate.ack({})", batch.claim));
    let mut a = PgConnection::connect(&log.url).await.unwrap();
    let mine = log.claim("c", 3).await;
    a.execute("BEGIN").await.unwrap();
    a.execute(effect("a", &mine)).await.unwrap();
    log.lapse(mine.claim).await;
    let mut b = PgConnection::connect(&log.url).await.unwrap();
    let taken = log.claim("c", 3).await;
    b.execute("BEGIN").await.unwrap();
    b.execute(effect("b", &taken)).await.unwrap();
    b.execute(ack(&taken)).await.unwrap();
    let error = a.execute(ack(&mine)).await.unwrap_err();
    assert_eq!(error.into_database_error().unwrap().code().unwrap(), "TG011");
    a.execute("COMMIT").await.unwrap();
    b.execute("COMMIT").await.unwrap();
    assert_eq!(
        log.all::<String>("SELECT position || worker FROM effects ORDER BY 1").await,
        ["1b", "2b", "3b"]
    );
}

/// What is being settled is not taken over, and not lost if that is rolled back.
#[tokio::test]
async fn a_batch_that_is_being_settled_is_left_alone() {
    let log = Log::new().await;
    log.seed(2).await;
    log.consumer("c", "").await;
    let batch = log.claim("c", 2).await;
    log.lapse(batch.claim).await;
    let mut worker = PgConnection::connect(&log.url).await.unwrap();
    worker.execute("BEGIN").await.unwrap();
    worker
        .execute(sqlx::AssertSqlSafe(format!("SELECT tollgate.ack({})", batch.claim)))
        .await
        .unwrap();
    assert_eq!(log.claim("c", 2).await, Batch::default());
    worker.execute("ROLLBACK").await.unwrap();
    assert_eq!(log.claim("c", 2).await.positions, [1, 2]);
}

#[tokio::test]
async fn a_claim_rolled_back_leaves_no_trace() {
    let log = Log::new().await;
    log.seed(5).await;
    for ordering in ["none", "object"] {
        log.consumer(ordering, &format!("ordering => '{ordering}'")).await;
        let mut worker = PgConnection::connect(&log.url).await.unwrap();
        worker.execute("BEGIN").await.unwrap();
        let batch = claim(&mut worker, ordering, 3).await.unwrap();
        assert_eq!(batch.positions, [1, 2, 3]);
        worker.execute("ROLLBACK").await.unwrap();
        assert_eq!(log.status(ordering, "in_flight").await, 0);
        assert_eq!(log.refusal(format!("SELECT tollgate.ack({})", batch.claim)).await, "TG011");
        assert_eq!(log.drain(ordering).await, [1, 2, 3, 4, 5]);
    }
}

/// A worker may hold the number of a claim that was undone: the connection broke before the commit,
/// or a standby took over that had not heard of it.
#[tokio::test]
async fn the_number_of_an_undone_claim_is_no_other_workers() {
    let log = Log::new().await;
    log.seed(5).await;
    log.consumer("c", "").await;
    let first = log.claim("c", 1).await;
    log.ack(first.claim).await;
    let mut worker = PgConnection::connect(&log.url).await.unwrap();
    worker.execute("BEGIN").await.unwrap();
    let undone = claim(&mut worker, "c", 2).await.unwrap();
    worker.execute("ROLLBACK").await.unwrap();
    let others = log.claim("c", 4).await;
    let slot = |batch: &Batch| batch.claim & 0xf_ffff;
    assert_eq!(slot(&undone), slot(&others), "the same row");
    assert_eq!(log.refusal(format!("SELECT tollgate.ack({})", undone.claim)).await, "TG011");
    assert_eq!(log.ack(others.claim).await, 4);
    assert!(others.claim < 1 << 53, "a number in JSON too");
}

/// What was settled meanwhile must be seen, or an event could wait for ever behind one that is done.
#[tokio::test]
async fn a_claim_needs_to_see_what_others_have_committed() {
    let log = Log::new().await;
    log.seed_objects(1, 1).await;
    log.consumer("c", "ordering => 'object'").await;
    let batch = log.claim("c", 1).await;
    log.nack(batch.claim, 1, "").await;
    let batch = log.claim("c", 1).await;
    log.seed_objects(1, 1).await;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let mut worker = PgConnection::connect(&log.url).await.unwrap();
        worker
            .execute(sqlx::AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}")))
            .await
            .unwrap();
        worker.execute("SELECT count(*) FROM tollgate.deliveries").await.unwrap();
        if level == "REPEATABLE READ" {
            log.ack(batch.claim).await;
        }
        let error = claim(&mut worker, "c", 1).await.expect_err(level);
        assert_eq!(error.into_database_error().unwrap().code().unwrap(), "25000");
    }
    assert_eq!(log.drain("c").await, [2]);
}

/// The claim is open when the acknowledgement begins, and gone when it gets to it.
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_had_to_wait_looks_again() {
    let log = Log::new().await;
    log.seed(2).await;
    log.consumer("c", "").await;
    let batch = log.claim("c", 2).await;
    let mut other = PgConnection::connect(&log.url).await.unwrap();
    other.execute("BEGIN").await.unwrap();
    other.execute("SELECT tollgate.reset_consumer('c', 'earliest')").await.unwrap();
    let taken = claim(&mut other, "c", 2).await.unwrap();
    let (pool, number) = (log.pool.clone(), batch.claim);
    let ack = tokio::spawn(async move {
        sqlx::query("SELECT tollgate.ack($1)").bind(number).execute(&pool).await
    });
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock')";
    while !log.one::<bool>(waits).await {
        assert!(!ack.is_finished(), "it waits for the reset");
    }
    other.execute("COMMIT").await.unwrap();
    let error = ack.await.unwrap().unwrap_err();
    assert_eq!(error.into_database_error().unwrap().code().unwrap(), "TG011");
    assert_eq!((taken.positions.len(), log.ack(taken.claim).await), (2, 2), "nothing came of it");
}
