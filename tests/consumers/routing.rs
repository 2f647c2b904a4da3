//! Several applications on one Stripe account: consumers that see a part of the log by endpoint,
//! account, mode and metadata. And Tollgate's own events, which only those get who name them.

use crate::seed::{Batch, Log};

/// An event to be; what is not said is the platform's, in test mode, of `default`.
struct Event<'a> {
    kind: &'a str,
    endpoint: &'a str,
    account: &'a str,
    live: bool,
    id: &'a str,
    object: &'a str,
    raw: String,
}

impl Default for Event<'_> {
    fn default() -> Self {
        Self {
            kind: "invoice.paid",
            endpoint: "default",
            account: "",
            live: false,
            id: "evt_",
            object: "in_1",
            raw: "{}".to_owned(),
        }
    }
}

/// A body whose object has these metadata.
fn with(metadata: &str) -> String {
    format!(r#"{{"id":"evt","data":{{"object":{{"id":"in_1","metadata":{metadata}}}}}}}"#)
}

async fn put(log: &Log, event: Event<'_>) {
    let Event { kind, endpoint, account, live, id, object, raw } = event;
    let raw = hex::encode(raw);
    log.sql(format!(
        "WITH new AS (
            INSERT INTO tollgate.event_log (created, id, endpoint, account, livemode, type, object_type, object_id, source, raw)
            SELECT now(), '{id}' || (SELECT count(*) + 1 FROM tollgate.positions), '{endpoint}', '{account}', {live}, '{kind}', 'invoice',
                   '{object}', 'webhook', decode('{raw}', 'hex')
            RETURNING created, id)
         SELECT tollgate.place_events(array_agg(created), array_agg(id::text), NULL, 'off') FROM new"
    ))
    .await;
}

/// A consumer of each ordering gets these; its status says so before, and none after.
async fn gets(log: &Log, filter: &str, expected: &[i64]) {
    for ordering in ["none", "object"] {
        log.consumer("c", &format!("ordering => '{ordering}'{filter}")).await;
        let lag = log.status("c", "lag_events").await;
        assert_eq!(lag, i64::try_from(expected.len()).unwrap(), "{filter}");
        assert_eq!(log.drain("c").await, expected, "{filter}, {ordering}");
        assert_eq!(log.status("c", "lag_events").await, 0, "{filter}");
        log.sql("SELECT tollgate.drop_consumer('c')").await;
    }
}

#[tokio::test]
async fn two_applications_share_an_account_by_metadata() {
    let log = Log::new().await;
    for metadata in [
        r#"{"app":"shop"}"#,
        r#"{"app":"club"}"#,
        r#"{"app":"shop","plan":"pro"}"#,
        "{}",
        "null",
        r#"["app","shop"]"#,
        r#"{"app":"Shop"}"#,
        r#"{"app":"sh\u006fp"}"#,
        r#"{"app":null}"#,
        r#"{"app":"100%"}"#,
    ] {
        put(&log, Event { raw: with(metadata), ..Event::default() }).await;
    }
    gets(&log, r#", metadata => '{"app":"shop"}'"#, &[1, 3, 8]).await;
    gets(&log, r#", metadata => '{"app":"club"}'"#, &[2]).await;
    gets(&log, r#", metadata => '{"plan":"pro","app":"shop"}'"#, &[3]).await;
    gets(&log, r#", metadata => '{"plan":"pro","app":"club"}'"#, &[]).await;
    gets(&log, r#", metadata => '{"app":"100%"}'"#, &[10]).await;
    gets(&log, r#", types => '{charge.*}', metadata => '{"app":"shop"}'"#, &[]).await;
    gets(&log, "", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).await;
}

/// Whatever a body is like, it fits or not; it does not keep a consumer from the next.
#[tokio::test]
async fn no_body_blocks_a_consumer() {
    let log = Log::new().await;
    let nested = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let among = |other: &str| {
        format!(r#"{{"x":{other},"data":{{"object":{{"metadata":{{"app":"shop"}}}}}}}}"#)
    };
    for raw in [
        "{}".to_owned(),
        "[]".to_owned(),
        r#"{"data":5}"#.to_owned(),
        r#"{"data":{"object":"in_1"}}"#.to_owned(),
        with("5"),
        "not json".to_owned(),
        r#"{"data":{"object":{"metadata":{"app":"shop"}"#.to_owned(),
        among(&nested),
        among("1e999999"),
        among(r#""\u0000""#),
        among(r#""half \ud800 of a pair \\ud800""#),
        with(r#"{"app":"\ud800"}"#),
    ] {
        put(&log, Event { raw, ..Event::default() }).await;
    }
    log.sql("INSERT INTO tollgate.positions SELECT 1000, now(), 'evt_gone'").await;
    log.sql("UPDATE tollgate.event_log SET raw = '\\xff' || raw WHERE id = 'evt_6'").await;
    gets(&log, r#", metadata => '{"app":"shop"}'"#, &[9, 10, 11]).await;
}

#[tokio::test]
async fn accounts_modes_and_endpoints_are_told_apart() {
    let log = Log::new().await;
    for (account, live, endpoint) in [
        ("", true, "default"),
        ("", false, "default"),
        ("acct_1", true, "connect"),
        ("acct_2", true, "connect"),
        ("acct_3", false, "connect"),
    ] {
        put(&log, Event { endpoint, account, live, ..Event::default() }).await;
    }
    for (filter, expected) in [
        (", accounts => '{\"\"}'", &[1_i64, 2] as &[i64]),
        (", accounts => '{acct_1,acct_2}'", &[3, 4]),
        (", accounts => '{\"\",acct_3}'", &[1, 2, 5]),
        (", accounts => '{acct_4}'", &[]),
        (", livemode => true", &[1, 3, 4]),
        (", livemode => false", &[2, 5]),
        (", endpoints => '{connect}'", &[3, 4, 5]),
        (", endpoints => '{connect,default}'", &[1, 2, 3, 4, 5]),
        (", endpoints => '{not_there_yet}'", &[]),
        (", endpoints => '{connect}', livemode => true, accounts => '{acct_2,acct_3}'", &[4]),
        (", livemode => true, types => '{charge.*}'", &[]),
    ] {
        gets(&log, filter, expected).await;
    }
}

/// The events of one object come one after the other, also when others stand between them that are
/// another application's.
#[tokio::test]
async fn order_per_object_holds_within_a_filter() {
    let log = Log::new().await;
    for (app, object) in
        [("shop", "a"), ("club", "a"), ("shop", "b"), ("shop", "a"), ("club", "b"), ("shop", "a")]
    {
        let raw = with(&format!(r#"{{"app":"{app}"}}"#));
        put(&log, Event { object, raw, ..Event::default() }).await;
    }
    log.consumer("c", r#"ordering => 'object', metadata => '{"app":"shop"}'"#).await;
    let first = log.claim("c", 10).await;
    assert_eq!(first.positions, [1, 3]);
    assert_eq!(log.claim("c", 10).await, Batch::default(), "4 waits for 1");
    log.nack(first.claim, 1, "retry_in => '1 hour'").await;
    log.ack(first.claim).await;
    assert_eq!(log.claim("c", 10).await, Batch::default());
    assert_eq!(log.rows("c", "deferred").await, [4, 6]);
    log.let_time_pass().await;
    assert_eq!(log.drain("c").await, [1, 4, 6]);
}

/// What is another's is passed over once and for all, and not looked into at every poll.
#[tokio::test]
async fn the_cursor_goes_past_what_is_left_out() {
    let log = Log::new().await;
    log.insert(
        3000,
        "'invoice.paid'",
        "'in_' || i",
        r#"'{"data":{"object":{"metadata":{"app":"club"}}}}'"#,
    )
    .await;
    put(&log, Event { raw: with(r#"{"app":"shop"}"#), ..Event::default() }).await;
    log.consumer("shop", r#"metadata => '{"app":"shop"}'"#).await;
    log.consumer("live", "livemode => true").await;
    assert_eq!(log.status("shop", "lag_events").await, 3001, "reckoned");
    assert_eq!(log.drain("shop").await, [3001]);
    assert_eq!(log.drain("live").await, [0; 0]);
    for consumer in ["shop", "live"] {
        assert_eq!(log.status(consumer, "cursor").await, 3001);
        assert_eq!(log.status(consumer, "lag_events").await, 0);
    }
    for _ in 0..60 {
        put(&log, Event::default()).await;
    }
    assert_eq!(log.claim("shop", 1).await, Batch::default());
    assert_eq!(log.status("shop", "cursor").await, 3061);
    assert_eq!(log.status("live", "cursor").await, 3001, "cheap to look at again");
}

#[tokio::test]
async fn a_filter_can_be_changed_and_unset() {
    let log = Log::new().await;
    let filter =
        "SELECT concat_ws(' ', endpoints, accounts, livemode, metadata) FROM tollgate.consumers";
    log.consumer(
        "c",
        "accounts => '{acct_1}', livemode => true, endpoints => '{a}', metadata => '{\"k\":\"v\"}'",
    )
    .await;
    assert_eq!(log.one::<String>(filter).await, r#"{a} {acct_1} t {"k": "v"}"#);
    log.sql("SELECT tollgate.alter_consumer('c', livemode => false, accounts => '{\"\"}')").await;
    assert_eq!(log.one::<String>(filter).await, r#"{a} {""} f {"k": "v"}"#);
    log.sql(
        "SELECT tollgate.alter_consumer('c', types => '{a.*}', unset => '{livemode,metadata}')",
    )
    .await;
    assert_eq!(log.one::<String>(filter).await, r#"{a} {""}"#);
    log.sql("SELECT tollgate.alter_consumer('c', unset => '{accounts,endpoints}')").await;
    assert_eq!(log.one::<String>(filter).await, "");
    // As the version before calls them.
    log.sql("SELECT tollgate.alter_consumer('c', NULL::text[], 'object', 3, NULL::interval, NULL::interval, NULL::interval)").await;
    log.sql("SELECT tollgate.create_consumer('d', start => 'latest', ordering => coalesce(NULL, 'none'))").await;
    log.sql("SELECT due, open, gone FROM tollgate.redeliver('c', '{1}')").await;
}

#[tokio::test]
async fn what_is_no_filter_is_refused_with_a_hint() {
    let log = Log::new().await;
    log.consumer("c", "").await;
    for (wrong, hint) in [
        ("unset => '{types}'", "parts of a filter"),
        ("unset => '{NULL}'", "parts of a filter"),
        ("unset => '{livemode}', livemode => true", "takes the place"),
        ("endpoints => '{}'", "unset => '{endpoints}'"),
        ("endpoints => '{NULL}'", "A name is"),
        ("endpoints => '{Default}'", "A name is"),
        ("endpoints => ARRAY[repeat('a', 65)]", "A name is"),
        ("endpoints => array_fill('a'::text, ARRAY[101])", "unset"),
        ("accounts => '{}'", "unset => '{accounts}'"),
        ("accounts => '{platform}'", "an empty text"),
        ("accounts => '{NULL}'", "an empty text"),
        ("accounts => '{\"acct_1 \"}'", "an empty text"),
        ("accounts => ARRAY['acct_' || repeat('a', 251)]", "an empty text"),
        ("accounts => array_fill('acct_1'::text, ARRAY[1001])", "unset"),
        ("metadata => '{}'", "unset => '{metadata}'"),
        ("metadata => '[]'", "{\"app\": \"shop\"}"),
        ("metadata => '\"app\"'", "{\"app\": \"shop\"}"),
        ("metadata => 'null'", "{\"app\": \"shop\"}"),
        ("metadata => '{\"a\":1}'", "1 to 40 characters"),
        ("metadata => '{\"a\":null}'", "1 to 40 characters"),
        ("metadata => '{\"a\":\"\"}'", "1 to 40 characters"),
        ("metadata => '{\"\":\"a\"}'", "1 to 40 characters"),
        ("metadata => jsonb_build_object(repeat('a', 41), 'b')", "1 to 40 characters"),
        ("metadata => jsonb_build_object('a', repeat('b', 501))", "1 to 40 characters"),
        (
            "metadata => (SELECT jsonb_object_agg('k' || n, 'v') FROM generate_series(1, 51) n)",
            "All of them",
        ),
    ] {
        let error = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT tollgate.alter_consumer('c', {wrong})"
        )))
        .execute(&log.pool)
        .await
        .expect_err(wrong);
        let error =
            error.as_database_error().unwrap().downcast_ref::<sqlx::postgres::PgDatabaseError>();
        assert_eq!(error.code(), "22023", "{wrong}: {error}");
        assert!(error.hint().is_some_and(|it| it.contains(hint)), "{wrong}: {:?}", error.hint());
        assert!(error.message().len() < 200, "{error}");
        if !wrong.starts_with("unset") {
            let create = format!("SELECT tollgate.create_consumer('x', {wrong})");
            assert_eq!(log.refusal(create).await, "22023", "{wrong}");
            let column = wrong.replacen("=>", "=", 1);
            let update = format!("UPDATE tollgate.consumers SET {column}");
            assert_eq!(log.refusal(update).await, "consumers_filter", "{wrong}");
        }
    }
}

#[tokio::test]
async fn what_is_given_again_keeps_to_the_filter() {
    let log = Log::new().await;
    for (app, kind) in [("shop", "a"), ("club", "a"), ("shop", "b"), ("club", "b")] {
        let raw = with(&format!(r#"{{"app":"{app}"}}"#));
        put(&log, Event { kind, raw, ..Event::default() }).await;
    }
    put(
        &log,
        Event {
            kind: "tollgate.snapshot",
            id: "evt_tollgate_",
            raw: with(r#"{"app":"shop"}"#),
            ..Event::default()
        },
    )
    .await;
    log.consumer("c", r#"types => '{a}', metadata => '{"app":"shop"}'"#).await;
    let again = "SELECT concat_ws(' ', due, open, gone, excluded) FROM tollgate.give_again('c', '{1,2,3,4,5,6}')";
    assert_eq!(
        log.one::<String>(again).await,
        "1 1 1 3",
        "3, of another type, at once; 1 comes by itself"
    );
    assert_eq!(log.drain("c").await, [1, 3]);
    assert_eq!(log.one::<String>(again).await, "2 0 1 3");
    let batch = log.claim("c", 9).await;
    assert_eq!(batch.positions, [1, 3]);
    log.nack(batch.claim, 1, "permanent => true").await;
    log.ack(batch.claim).await;
    log.sql(r#"SELECT tollgate.alter_consumer('c', metadata => '{"app":"club"}')"#).await;
    assert_eq!(
        log.one::<String>(again).await,
        "3 0 1 2",
        "what it could not take before is its own"
    );
    assert_eq!(log.drain("c").await, [1, 2, 4]);
}

#[tokio::test]
async fn snapshots_are_for_those_who_name_them() {
    let log = Log::new().await;
    put(&log, Event::default()).await;
    put(
        &log,
        Event {
            kind: "tollgate.snapshot",
            id: "evt_tollgate_",
            object: "in_2",
            ..Event::default()
        },
    )
    .await;
    put(&log, Event { kind: "charge.failed", object: "ch_1", ..Event::default() }).await;
    put(&log, Event { id: "evtXtollgateX", object: "in_3", ..Event::default() }).await;
    for (types, expected) in [
        ("{*}", &[1_i64, 3, 4] as &[i64]),
        ("{*,charge.*}", &[1, 3, 4]),
        ("{*,tollgate.*}", &[1, 2, 3, 4]),
        ("{tollgate.snapshot,*}", &[1, 2, 3, 4]),
        ("{*,tollgate.other}", &[1, 3, 4]),
        ("{tollgate.*}", &[2]),
        ("{tollgate.snapshot,charge.*}", &[2, 3]),
        ("{charge.*}", &[3]),
    ] {
        for filter in ["", ", livemode => false", ", accounts => '{\"\"}'"] {
            gets(&log, &format!(", types => '{types}'{filter}"), expected).await;
        }
    }
    let wants = "SELECT array_agg(tollgate.wants(ARRAY[p], t) ORDER BY n)::text
                 FROM (VALUES (1, '*', 'a.b'), (2, '*', 'tollgate.a'), (3, 'tollgate.*', 'tollgate.a'),
                              (4, 'tollgate.a', 'tollgate.a'), (5, 'a.*', 'a.b'), (6, 'a_b', 'aXb'), (7, '*', 'tollgate')) v (n, p, t)";
    assert_eq!(log.one::<String>(wants).await, "{t,f,t,t,t,f,t}");
}

#[tokio::test]
async fn handlers_of_everything_are_not_run_again_for_snapshots() {
    let log = Log::new().await;
    put(&log, Event::default()).await;
    put(&log, Event { kind: "tollgate.snapshot", id: "evt_tollgate_", ..Event::default() }).await;
    log.sql(
        "CREATE FUNCTION public.f(jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
             SELECT tollgate.register_handler('*', 'public.f(jsonb)', name => 'all'),
                    tollgate.register_handler('tollgate.*', 'public.f(jsonb)', name => 'own'),
                    tollgate.register_handler('charge.*', 'public.f(jsonb)', name => 'other')",
    )
    .await;
    for (named, expected) in [
        ("NULL", "all invoice.paid,own tollgate.snapshot"),
        ("'{all}'", "all invoice.paid"),
        ("'{own}'", "own invoice.paid,own tollgate.snapshot"),
        ("'{other}'", "other invoice.paid"),
        ("'{}'", ""),
    ] {
        log.sql(format!("DELETE FROM tollgate.failures; SELECT tollgate.reprocess(array_agg(created), array_agg(id::text), false, {named}, 'x') FROM tollgate.event_log")).await;
        let told = "SELECT coalesce(string_agg(handler || ' ' || event_type, ',' ORDER BY handler, event_type), '') FROM tollgate.failures";
        assert_eq!(log.one::<String>(told).await, expected, "{named}");
    }
}
