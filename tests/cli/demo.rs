//! `tollgate demo`: that it works, whatever was there before.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sqlx::{ConnectOptions, PgConnection};
use tollgate::embedded::{self, Postgres};
use tollgate::fixtures::{SEED, START, stories};
use tollgate::store::migrations;

use super::support::App;
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
        ("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:0"),
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
    assert_eq!(
        tollgate::embedded::running(Path::new(data_dir)).unwrap(),
        None,
        "the database went with it"
    );
}

#[tokio::test]
async fn the_demo_puts_aside_what_another_build_or_another_postgres_left() {
    let folder = tempfile::tempdir().unwrap();
    let (demo, aside) = (folder.path().join("demo"), folder.path().join("demo.old"));
    let environment = [
        ("TOLLGATE_DATA_DIR", folder.path().to_str().unwrap()),
        ("TOLLGATE_LISTEN", "127.0.0.1:0"),
        ("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    let start_afresh = |because: &str| {
        // What the user named is never moved.
        let named =
            tollgate(&["demo", "--once", "--data-dir", demo.to_str().unwrap()], &environment);
        assert!(stderr(&named).contains(because), "{}", stderr(&named));

        let own = tollgate(&["demo", "--once"], &environment);
        assert!(own.status.success(), "{}", stderr(&own));
        let text = stdout(&own);
        assert!(text.contains(because) && text.contains("starting afresh"), "{text}");
        assert_eq!(figure(&text, "recorded"), sample_events(), "{text}");
    };
    make_a_database_of_another_build(&demo).await;
    start_afresh("migration 3 was previously applied but has been modified");

    let version = std::fs::read_to_string(demo.join("postgres/PG_VERSION")).unwrap();
    std::fs::write(demo.join("postgres/PG_VERSION"), "9\n").unwrap();
    start_afresh("was made by PostgreSQL 9");
    let kept = std::fs::read_to_string(aside.join("postgres/PG_VERSION")).unwrap();
    assert_eq!(kept, "9\n", "in place of what was put aside before, of {version}");
}

#[tokio::test]
async fn the_demo_puts_nothing_aside_for_a_database_that_was_named() {
    let app = App::spawn().await;
    change_a_migration(&mut app.pool.acquire().await.unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    for name in ["demo", "demo.old"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("mine"), name).unwrap();
    }
    let environment = [
        ("TOLLGATE_DATA_DIR", folder.path().to_str().unwrap()),
        ("TOLLGATE_LISTEN", "127.0.0.1:0"),
        ("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    let refused = tollgate(&["demo", "--once", "--database-url", &app.database_url], &environment);
    assert!(stderr(&refused).contains("has been modified"), "{}", stderr(&refused));
    for name in ["demo", "demo.old"] {
        let kept = std::fs::read_to_string(folder.path().join(name).join("mine")).unwrap();
        assert_eq!(kept, name);
    }
    app.stop().await;
}

/// As on a host where nobody but the owner gets anything.
#[test]
fn a_strict_umask_keeps_nobody_out_of_our_own_folders() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let data_dir = folder.path().join("made/by/us");
    let migrated = std::process::Command::new("sh")
        .args(["-c", "umask 077; exec \"$0\" migrate", env!("CARGO_BIN_EXE_tollgate")])
        .env_remove("DATABASE_URL")
        .env("TOLLGATE_DATA_DIR", &data_dir)
        .output()
        .unwrap();
    assert!(migrated.status.success(), "{}", stderr(&migrated));
}

/// As when its volume is not mounted yet.
#[tokio::test]
async fn a_database_that_was_away_still_has_its_password() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let data_dir = folder.path().join("data");
    let options = embedded::Options { data_dir: data_dir.clone(), bin_dir: None, port: None };
    let once = async |with: &'static str| {
        let server = Postgres::start(&options).await.unwrap();
        let mut connection = server.connection().options().connect().await.unwrap();
        sqlx::raw_sql(with).execute(&mut connection).await.unwrap();
        server.stop().await.unwrap();
    };
    once("CREATE TABLE public.ours ()").await;
    let (there, away) = (data_dir.join("postgres"), data_dir.join("away"));
    std::fs::rename(&there, &away).unwrap();
    once("SELECT").await;
    std::fs::remove_dir_all(&there).unwrap();
    std::fs::rename(&away, &there).unwrap();
    once("SELECT FROM public.ours").await;
}

async fn make_a_database_of_another_build(data_dir: &Path) {
    let options = embedded::Options { data_dir: data_dir.to_owned(), bin_dir: None, port: None };
    let server = Postgres::start(&options).await.unwrap();
    let mut connection = server.connection().options().connect().await.unwrap();
    migrations::run(&mut connection).await.unwrap();
    change_a_migration(&mut connection).await;
    server.stop().await.unwrap();
}

/// Has it look as if one migration had had another text when it was applied.
async fn change_a_migration(connection: &mut PgConnection) {
    let sql = "UPDATE tollgate.migrations SET checksum = '\\x00' WHERE version = 3";
    sqlx::query(sql).execute(connection).await.unwrap();
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
