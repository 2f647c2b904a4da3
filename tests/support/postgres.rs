//! The Postgres of the tests: one real server for all of them, a new database for each.
//! `TOLLGATE_TEST_DATABASE_URL` names another server to use; its role must be able to make databases.

use std::path::PathBuf;
use std::sync::OnceLock;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use tollgate::embedded::{self, EmbeddedError, Options, Postgres};

/// Names of the databases made for tests begin with this.
const PREFIX: &str = "tollgate_test_";

/// The server's URL without a database.
fn server() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| {
        // A thread with a runtime of its own: each test's runtime ends with the test.
        std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(start()))
            .join()
            .unwrap()
    })
}

async fn start() -> String {
    if let Ok(url) = std::env::var("TOLLGATE_TEST_DATABASE_URL") {
        return url;
    }
    let data_dir = std::env::var_os("TOLLGATE_TEST_DIR").map_or_else(
        || std::env::temp_dir().join(format!("tollgate-test-{}", nix::unistd::getuid())),
        PathBuf::from,
    );
    let options = Options { data_dir: data_dir.clone(), bin_dir: None, port: None };
    match Postgres::start(&options).await {
        Ok(server) => {
            let url = server.connection().url();
            remove_leftovers(&url).await;
            // It outlives this process: the next test binary adopts it, `make test` stops it.
            std::mem::forget(server);
            url
        }
        // Another test process has it.
        Err(EmbeddedError::Locked { .. }) => {
            embedded::running(&data_dir).unwrap().expect("a running server").url()
        }
        Err(error) => panic!("no Postgres for the tests: {error}"),
    }
}

/// Databases of earlier runs; nobody else is using the server.
async fn remove_leftovers(url: &str) {
    let mut admin = PgConnection::connect(url).await.unwrap();
    let old: Vec<String> =
        sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)")
            .bind(PREFIX)
            .fetch_all(&mut admin)
            .await
            .unwrap();
    for name in old {
        admin.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
    }
}

/// Makes an empty database and returns its URL.
pub async fn fresh_database() -> String {
    let server: PgConnectOptions = server().parse().unwrap();
    let name = format!("{PREFIX}{:016x}", rand::random::<u64>());
    let mut admin = server.connect().await.unwrap();
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let mut url: reqwest::Url = self::server().parse().unwrap();
    url.set_path(&name);
    url.into()
}
