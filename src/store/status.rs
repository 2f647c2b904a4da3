//! Questions about the database as a whole: is it there, is it safe, what is in it.
//! Judges nothing: health and `check` turn the answers into advice.

use sqlx::{Connection, PgConnection, PgPool, Row};

use super::StoreError;
use super::connect::Database;

/// Answers if the database does.
pub async fn ping(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("SELECT 1").execute(connection).await?;
    Ok(())
}

/// Connects, and answers if the database does.
pub async fn knock(database: &Database) -> Result<(), sqlx::Error> {
    let mut connection = database.connect().await?;
    ping(&mut connection).await?;
    connection.close().await
}

/// What `check` and start-up need to know about the server.
#[derive(Clone, Debug)]
pub struct Server {
    /// As in `server_version_num`: 150018 is 15.18.
    pub version: i32,
    /// Settings without which a commit may be lost, and that are off.
    pub unsafe_settings: Vec<String>,
    /// Whether the role may create our schema, or tables in it if it is there.
    pub may_create: bool,
}

pub async fn server(pool: &PgPool) -> Result<Server, StoreError> {
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::int,
                (SELECT coalesce(array_agg(name::text ORDER BY name), '{}') FROM pg_settings
                 WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'),
                CASE WHEN to_regnamespace('tollgate') IS NULL THEN has_database_privilege(current_database(), 'CREATE')
                     ELSE has_schema_privilege('tollgate', 'CREATE') END",
    )
    .fetch_one(pool)
    .await?;
    Ok(Server {
        version: row.try_get(0)?,
        unsafe_settings: row.try_get(1)?,
        may_create: row.try_get(2)?,
    })
}

/// What the log holds of one type of object.
#[derive(Clone, Debug)]
pub struct ObjectCount {
    /// None for events that name no object.
    pub object_type: Option<String>,
    pub event_types: i64,
    pub events: i64,
    pub objects: i64,
}

/// What the log holds by type of object, most events first. Reads all of it.
pub async fn object_counts(pool: &PgPool) -> Result<Vec<ObjectCount>, StoreError> {
    let rows = sqlx::query(
        "SELECT object_type, count(DISTINCT type), count(*), count(DISTINCT object_id)
         FROM tollgate.events GROUP BY object_type ORDER BY 3 DESC, 1",
    )
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(ObjectCount {
                object_type: row.try_get(0)?,
                event_types: row.try_get(1)?,
                events: row.try_get(2)?,
                objects: row.try_get(3)?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(StoreError::from)
}

/// How many bodies are in quarantine.
pub async fn quarantined(pool: &PgPool) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM tollgate.quarantine").fetch_one(pool).await?)
}
