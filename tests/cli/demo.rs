//! `tollgate demo`: that it works, whatever was there before.

use std::net::TcpListener;
use std::path::Path;

use sqlx::{ConnectOptions, Executor};
use tollgate::embedded::{self, Postgres};
use tollgate::fixtures::{SEED, START, stories};

use super::{stderr, stdout, tollgate};

#[test]
fn the_demo_ends_in_a_summary_and_in_order() {
    let data_dir = tempfile::tempdir().unwrap();
    let data_dir = data_dir.path().to_str().unwrap();
    // The port is taken, and a database is configured that must not be touched.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let environment = [
        ("TOLLGATE_LISTEN", address.as_str()),
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
    ];
    let sent = sample_events();
    let first = tollgate(&["demo", "--once", "--data-dir", data_dir], &environment);
    assert!(first.status.success(), "{}", stderr(&first));
    let text = stdout(&first);
    assert!(figure(&text, "recorded") == sent, "{text}");
    assert!(figure(&text, "duplicate") > sent / 5, "{text}");
    assert_eq!(figure(&text, "refused"), 0);
    assert!(text.contains("subscription") && text.contains("in quarantine: 0"), "{text}");
    assert!(!text.contains(&address), "{text}");

    let second = tollgate(&["demo", "--once", "--data-dir", data_dir], &environment);
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(figure(&stdout(&second), "recorded"), 0, "all of it was known");
    assert_eq!(tollgate::embedded::running(Path::new(data_dir)), None, "the database went with it");
}

#[tokio::test]
async fn the_demo_puts_aside_what_a_build_with_another_schema_left() {
    let folder = tempfile::tempdir().unwrap();
    let demo = folder.path().join("demo");
    let environment = [
        ("TOLLGATE_DATA_DIR", folder.path().to_str().unwrap()),
        ("TOLLGATE_LISTEN", "127.0.0.1:0"),
    ];
    change_a_migration(&demo).await;
    for _ in 0..2 {
        // What the user chose is never moved.
        let named =
            tollgate(&["demo", "--once", "--data-dir", demo.to_str().unwrap()], &environment);
        assert!(stderr(&named).contains("has been modified"), "{}", stderr(&named));

        let own = tollgate(&["demo", "--once"], &environment);
        assert!(own.status.success(), "{}", stderr(&own));
        let text = stdout(&own);
        assert!(text.contains("demo.old; starting afresh"), "{text}");
        assert_eq!(figure(&text, "recorded"), sample_events(), "{text}");
        assert!(folder.path().join("demo.old/postgres").is_dir());
        change_a_migration(&demo).await;
    }
}

/// Leaves a database of which one migration had another text when it was applied.
async fn change_a_migration(data_dir: &Path) {
    let options = embedded::Options { data_dir: data_dir.to_owned(), bin_dir: None, port: None };
    let server = Postgres::start(&options).await.unwrap();
    let mut connection = server.connection().options().connect().await.unwrap();
    tollgate::store::migrations::run(&mut connection).await.unwrap();
    connection
        .execute("UPDATE tollgate.migrations SET checksum = '\\x00' WHERE version = 3")
        .await
        .unwrap();
    server.stop().await.unwrap();
}

fn sample_events() -> usize {
    stories(SEED, START).iter().map(|story| story.events.len()).sum()
}

/// The number behind a word at the start of a line.
fn figure(text: &str, word: &str) -> usize {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(word))
        .unwrap_or_else(|| panic!("{word}: {text}"));
    line.trim().parse().unwrap()
}
