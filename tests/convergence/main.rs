//! The billing tables as a function of the set of events: whatever the order in which they arrive,
//! whoever sends them, and whatever is cut off meanwhile.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

#[path = "../support/mod.rs"]
mod support;

mod captured;
mod histories;
mod lives;
mod model;
mod named;
mod pure;
mod rebuilding;

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::{PgPool, Row};

use support::App;
use tollgate::store::connect::{Database, Route};
use tollgate::store::rebuild::Rebuilt;

/// What identifies a row: table, account, livemode, object type, id.
pub type Key = (String, String, bool, String, String);

/// One row of a billing table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableRow {
    pub incarnation: i64,
    pub phase: i16,
    pub as_of: i64,
    pub as_of_event: String,
    pub order_basis: String,
    pub rests_on_base: bool,
    pub api_version: Option<String>,
    pub deleted: bool,
    pub links: Value,
    pub object: Value,
    /// The whole row, with its generated columns.
    pub text: String,
}

/// All rows of all billing tables.
pub async fn rows(pool: &PgPool) -> BTreeMap<Key, TableRow> {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tollgate.billing_tables()").fetch_all(pool).await.unwrap();
    let mut all = BTreeMap::new();
    for table in tables {
        let object_type = if table == "objects" { "object_type" } else { "''" };
        let sql = format!(
            "SELECT account, livemode, {object_type} AS object_type, id, incarnation, phase,
                    extract(epoch FROM as_of)::bigint AS as_of, as_of_event, order_basis,
                    rests_on_base, api_version, deleted, links::text AS links,
                    object::text AS object, t::text AS text
             FROM stripe.{table} t"
        );
        for row in sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await.unwrap() {
            let json = |name| serde_json::from_str(row.get(name)).unwrap();
            let key = (
                table.clone(),
                row.get("account"),
                row.get("livemode"),
                row.get("object_type"),
                row.get("id"),
            );
            let row = TableRow {
                incarnation: row.get("incarnation"),
                phase: row.get("phase"),
                as_of: row.get("as_of"),
                as_of_event: row.get("as_of_event"),
                order_basis: row.get("order_basis"),
                rests_on_base: row.get("rests_on_base"),
                api_version: row.get("api_version"),
                deleted: row.get("deleted"),
                links: json("links"),
                object: json("object"),
                text: row.get("text"),
            };
            all.insert(key, row);
        }
    }
    all
}

/// Says where two states of the tables differ, and fails.
pub fn assert_equal(left: &BTreeMap<Key, TableRow>, right: &BTreeMap<Key, TableRow>, what: &str) {
    for key in left.keys().chain(right.keys()) {
        assert_eq!(left.get(key), right.get(key), "{what}: {key:?}");
    }
}

/// A gateway that keeps the billing tables.
pub async fn gateway() -> App {
    App::spawn().await
}

/// Rebuilds all tables from the log; returns how many rows were not as they should be.
pub async fn rebuild(app: &App) -> i64 {
    rebuilt(app).await.changed.iter().map(|(_, rows)| rows).sum()
}

/// Rebuilds all tables from the log.
pub async fn rebuilt(app: &App) -> Rebuilt {
    rebuilt_while(app, || {}).await
}

/// As `rebuilt`; when all is read, but nothing is swapped in yet, `meanwhile` happens.
pub async fn rebuilt_while(app: &App, mut meanwhile: impl FnMut()) -> Rebuilt {
    let database = Database::new(app.database_url.parse().unwrap(), Route::Direct);
    let limit = std::time::Duration::from_mins(1);
    let mut connection = database.connect_writer(limit).await.unwrap();
    tollgate::store::rebuild::rebuild(&mut connection, None, |_| meanwhile()).await.unwrap()
}
