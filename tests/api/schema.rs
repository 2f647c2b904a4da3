//! The schema keeps its own promises: comments, constraints, compression, who may repeat it.

use sqlx::{Connection, Executor};

use crate::support::App;

#[tokio::test]
async fn every_table_column_and_function_says_what_it_is() {
    let app = App::spawn().await;
    for schema in ["tollgate", "stripe"] {
        let silent: Vec<String> = sqlx::query_scalar(
            "SELECT format('%s.%s', c.relname, a.attname) FROM pg_class c
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p', 'v') AND c.relname <> 'migrations'
               AND col_description(c.oid, a.attnum) IS NULL
             UNION ALL
             SELECT c.relname FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
             WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S', 'i', 'I') AND NOT c.relispartition
               AND NOT coalesce(i.indisprimary, false) AND c.relname <> 'migrations'
               AND obj_description(c.oid, 'pg_class') IS NULL
             UNION ALL
             SELECT p.proname || '()' FROM pg_proc p
             WHERE p.pronamespace = $1::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL",
        )
        .bind(schema)
        .fetch_all(&app.pool)
        .await
        .unwrap();
        assert_eq!(silent, Vec::<String>::new(), "in {schema}");
    }
}

#[tokio::test]
async fn bodies_are_compressed_with_lz4_where_the_server_has_it() {
    let app = App::spawn().await;
    let body = format!(r#"{{"id":"evt_1","x":"{}"}}"#, "abc".repeat(2000));
    app.deliver(body).await;
    let used: String = sqlx::query_scalar("SELECT pg_column_compression(raw) FROM tollgate.events")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    let offered: bool = sqlx::query_scalar(
        "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!(used, if offered { "lz4" } else { "pglz" });
}

#[tokio::test]
async fn the_payload_can_be_read_as_json() {
    let app = App::spawn().await;
    app.deliver(r#"{"id":"evt_1","type":"a","x":"\u0000 is fine","n":1e400}"#).await;
    let read: String =
        sqlx::query_scalar("SELECT tollgate.payload(raw) ->> 'type' FROM tollgate.events")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    assert_eq!(read, "a");
}

#[tokio::test]
async fn constraints_state_the_invariants() {
    let app = App::spawn().await;
    for statement in [
        "INSERT INTO tollgate.event_log SELECT now(), '', 'e', '', false, 't', NULL, NULL, NULL, now(), 'webhook', ''",
        "INSERT INTO tollgate.event_log SELECT now(), 'x', '', '', false, 't', NULL, NULL, NULL, now(), 'webhook', ''",
        "INSERT INTO tollgate.event_log SELECT now(), 'x', 'e', '', false, 't', NULL, NULL, NULL, now(), 'pigeon', ''",
        "INSERT INTO tollgate.event_log SELECT now(), 'x', 'e', '', false, 't', NULL, '', NULL, now(), 'webhook', ''",
        "INSERT INTO tollgate.positions VALUES (0, now(), 'x')",
        "INSERT INTO tollgate.quarantine (sha256, endpoint, reason, raw) VALUES ('short', 'e', 'r', '')",
    ] {
        let error = app.pool.execute(statement).await.unwrap_err();
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .unwrap()
            .into_owned();
        assert_eq!(code, "23514", "{statement}");
    }
}

#[tokio::test]
async fn gateways_may_migrate_at_the_same_time() {
    let url = crate::support::postgres::fresh_database().await;
    let apps = futures_util::future::join_all((0..4).map(|_| App::spawn_on(&url, &[]))).await;
    let applied = "SELECT count(*) FROM tollgate.migrations WHERE success";
    let files = std::fs::read_dir("migrations").unwrap().filter(|file| {
        file.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "sql")
    });
    assert_eq!(apps[0].count(applied).await, i64::try_from(files.count()).unwrap());
}

#[tokio::test]
async fn somebody_elses_schema_stripe_is_left_alone_and_named() {
    let url = crate::support::postgres::fresh_database().await;
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    connection.execute("CREATE SCHEMA stripe").await.unwrap();
    let error = tollgate::store::migrations::run(&mut connection).await.unwrap_err().to_string();
    assert!(error.contains("there is a schema stripe already"), "{error}");
    connection.execute("ALTER SCHEMA stripe RENAME TO stripe_before").await.unwrap();
    // It still holds the migrations' lock.
    connection.close().await.unwrap();
    App::spawn_on(&url, &[]).await.stop().await;
}

#[tokio::test]
async fn migrations_of_the_users_own_are_left_alone() {
    let url = crate::support::postgres::fresh_database().await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    pool.execute(
        "CREATE TABLE _sqlx_migrations (version bigint); INSERT INTO _sqlx_migrations VALUES (1)",
    )
    .await
    .unwrap();
    let app = App::spawn_on(&url, &[]).await;
    assert_eq!(app.count("SELECT count(*) FROM _sqlx_migrations").await, 1);
}
