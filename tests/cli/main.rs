//! The commands, as a person or a script runs them.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

mod consumers;
mod demo;
mod events;
mod generated;
mod printed;
mod replay_log;
mod reprocess;
mod status;
#[path = "../support/mod.rs"]
mod support;
mod tail;
mod tokens;

use std::path::Path;
use std::process::{Command, Output};

use support::{App, SECRET, postgres};
use tollgate::fixtures::{SEED, START, stories};

/// `tollgate` with nothing from our own environment that it might heed.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_remove("DATABASE_URL").env_remove("STRIPE_WEBHOOK_SECRET");
    // What the tests are steered by looks like a slip in a setting's name.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOLLGATE_TEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it.
fn tollgate(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command().args(arguments).envs(environment.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must work; what it printed.
fn done(app: &App, arguments: &[&str]) -> String {
    let output = tollgate(arguments, &[("DATABASE_URL", &app.database_url)]);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    assert_eq!(stderr(&output), "", "{arguments:?}");
    stdout(&output)
}

/// Runs one that must fail, and print nothing but why; its exit code, and that.
fn failed(app: &App, arguments: &[&str]) -> (i32, String) {
    let output = tollgate(arguments, &[("DATABASE_URL", &app.database_url)]);
    assert!(!output.status.success(), "{arguments:?}: {}", stdout(&output));
    assert_eq!(stdout(&output), "", "{arguments:?}");
    (output.status.code().unwrap(), stderr(&output))
}

#[test]
fn the_fixtures_are_what_the_generator_makes() {
    let folder = tempfile::tempdir().unwrap();
    let written = tollgate(&["fixtures", folder.path().to_str().unwrap()], &[]);
    assert!(written.status.success());
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/events");
    let (kept, made) = (files(&kept), files(folder.path()));
    assert_eq!(kept.len(), made.len(), "run make fixtures");
    for (kept, made) in kept.iter().zip(&made) {
        assert!(kept == made, "{} differs: run make fixtures", kept.0);
    }
    let types: std::collections::HashSet<_> =
        made.iter().map(|(name, _)| name.split_once('.').unwrap().1).collect();
    assert!(types.len() >= 40, "{} event types", types.len());
}

/// Names and contents, sorted.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for story in std::fs::read_dir(folder).unwrap() {
        let story = story.unwrap().path();
        for file in std::fs::read_dir(&story).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            all.push((name, std::fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_what_is_wrong_and_says_how_to_mend_it() {
    let url = postgres::fresh_database().await;
    let good = tollgate(&["check"], &[("DATABASE_URL", &url), ("STRIPE_WEBHOOK_SECRET", SECRET)]);
    let text = stdout(&good);
    assert_eq!(good.status.code(), Some(0), "{text}");
    assert!(text.contains("All is well") && text.contains("Postgres 1"), "{text}");
    let password = reqwest::Url::parse(&url).unwrap().password().unwrap_or("-none-").to_owned();
    assert!(!text.contains(SECRET) && !text.contains(&password), "{text}");

    let no_secret = tollgate(&["check"], &[("DATABASE_URL", &url)]);
    assert_eq!(no_secret.status.code(), Some(1));
    assert!(stdout(&no_secret).contains("STRIPE_WEBHOOK_SECRET"));

    let unreachable = tollgate(
        &["check"],
        &[("DATABASE_URL", "postgres://x@127.0.0.1:1/x"), ("STRIPE_WEBHOOK_SECRET", SECRET)],
    );
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(stdout(&unreachable).contains("is DATABASE_URL right"));
    assert!(stdout(&unreachable).contains("refused"), "{}", stdout(&unreachable));

    let file = tempfile::NamedTempFile::new().unwrap();
    let below_a_file = file.path().join("data");
    let environment =
        [("TOLLGATE_DATA_DIR", below_a_file.to_str().unwrap()), ("STRIPE_WEBHOOK_SECRET", SECRET)];
    let nowhere = tollgate(&["check"], &environment);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stdout(&nowhere).contains("nothing can be written to"), "{}", stdout(&nowhere));

    let way = [
        ("DATABASE_URL", "postgres://x:y@127.0.0.1:1/none"),
        ("TOLLGATE_DATABASE_DIRECT_URL", &url),
        ("STRIPE_WEBHOOK_SECRET", SECRET),
    ];
    let cut_off = tollgate(&["check"], &way);
    assert_eq!(cut_off.status.code(), Some(1));
    assert!(stdout(&cut_off).contains("FAIL  the writers' way"), "{}", stdout(&cut_off));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let environment = [
        ("TOLLGATE_DATA_DIR", folder.path().to_str().unwrap()),
        ("TOLLGATE_PG_PORT", &port),
        ("STRIPE_WEBHOOK_SECRET", SECRET),
    ];
    let no_port = stdout(&tollgate(&["check"], &environment));
    assert!(no_port.contains("FAIL  port") && no_port.contains("in use"), "{no_port}");

    for (setting, value, says) in [
        ("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:8080", "another address than that of listen"),
        ("DATABASE_URL", "mysql://a:b@c/d", "expected postgres://"),
        ("TOLLGATE_LOG", "warning", "warning is none of the levels"),
        ("TOLLGATE_TOLERANCE", "500ms", "expected a time from 1s"),
        ("TOLLGATE_WRITE_DEADLINE", "18446744073709551615s", "expected a time up to a day"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://u:hunter2@x/y?key=hunter2", "credentials go into"),
    ] {
        let environment = [(setting, value), ("STRIPE_WEBHOOK_SECRET", SECRET)];
        let wrong = tollgate(&["check"], &environment);
        assert_eq!(wrong.status.code(), Some(2), "{setting}");
        assert!(stdout(&wrong).contains(says), "{}", stdout(&wrong));
        assert!(!stdout(&wrong).contains("hunter2"), "{}", stdout(&wrong));
    }
}

#[test]
fn what_is_easily_mistaken_in_the_environment_is_told_or_does_no_harm() {
    let rolling = format!("{SECRET},\n\n,");
    let lenient = [("STRIPE_WEBHOOK_SECRET", rolling.as_str()), ("TOLLGATE_CONFIG", "")];
    let shown = stdout(&tollgate(&["check"], &lenient));
    assert!(shown.contains("endpoint default at /webhooks/stripe, 1 secret"), "{shown}");
    let folder = tempfile::tempdir().unwrap();
    let environment = [
        ("TOLLGATE_DATABASE_URL", "postgres://x@127.0.0.1:1/x"),
        ("TOLLGATE_DATA_DIR", folder.path().to_str().unwrap()),
    ];
    let told = stderr(&tollgate(&["status"], &environment));
    assert!(told.contains("did you mean DATABASE_URL?"), "{told}");
}

#[test]
fn a_wrong_configuration_is_told_whole_with_place_and_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tollgate.toml");
    std::fs::write(
        &config,
        "batch_event = 7\nqueue_events = 'many'\n[endpoints.x]\nsecret = 'y'\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let names = tollgate(&["check", "--config", config], &[]);
    assert_eq!(names.status.code(), Some(2));
    let text = stdout(&names);
    for part in [
        "tollgate.toml",
        "batch_event: there is no such setting; did you mean batch_events?",
        "[endpoints]",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let values = tollgate(
        &["serve", "--tolerance", "0s", "--retention", "7d"],
        &[
            ("TOLLGATE_BATCH_EVENTS", "many"),
            ("TOLLGATE_NOTIFY", "always"),
            ("STRIPE_WEBHOOK_SECRET", "two words"),
        ],
    );
    assert_eq!(values.status.code(), Some(2));
    let text = stderr(&values);
    for part in [
        "batch_events = many (TOLLGATE_BATCH_EVENTS): expected a whole number from 1 to 4096",
        "notify = always (TOLLGATE_NOTIFY): expected event, batch or off",
        "tolerance = 0s (--tolerance)",
        "retention = 7d (--retention): expected at least 35d",
        "stripe_webhook_secret = … (STRIPE_WEBHOOK_SECRET): the signing secret contains white space",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("two words"));
    assert_eq!(tollgate(&["serve"], &[]).status.code(), Some(2), "no secret");
    assert_eq!(tollgate(&["serve", "--no-such-flag"], &[]).status.code(), Some(2));
}

#[test]
fn a_broken_file_does_not_spill_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tollgate.toml");
    for text in
        ["\nstripe_webhook_secret = 'whsec_private\n", "[endpoints.x]\nsecrets = 'whsec_private'\n"]
    {
        std::fs::write(&config, text).unwrap();
        let output = tollgate(&["check", "--config", config.to_str().unwrap()], &[]);
        assert_eq!(output.status.code(), Some(2));
        let told = stdout(&output) + &stderr(&output);
        assert!(told.contains("tollgate.toml") && !told.contains("private"), "{told}");
    }
}

#[test]
fn an_empty_variable_gives_the_default() {
    let shown = tollgate(&["check"], &[("TOLLGATE_MAX_BODY", ""), ("DATABASE_URL", " ")]);
    let line = stdout(&shown).lines().find(|line| line.contains("max_body")).unwrap().to_owned();
    assert!(line.contains("1MiB") && line.contains("default"), "{line}");
}

#[test]
fn a_queue_that_cannot_take_the_largest_body_is_refused() {
    let environment = [("STRIPE_WEBHOOK_SECRET", SECRET), ("TOLLGATE_QUEUE_BYTES", "1KiB")];
    let refused = tollgate(&["serve"], &environment);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("expected at least max_body"), "{}", stderr(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_waiting_for_the_database_is_heeded() {
    let mut gateway = tokio::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"])
        .args(["--database-url", "postgres://x@127.0.0.1:1/x"])
        .env("STRIPE_WEBHOOK_SECRET", SECRET)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let pid = nix::unistd::Pid::from_raw(gateway.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), gateway.wait()).await;
    assert!(ended.expect("it ends at once").unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_tells_by_its_exit_code() {
    let app = App::spawn().await;
    let listen = app.address.to_string();
    assert_eq!(tollgate(&["healthcheck", "--listen", &listen], &[]).status.code(), Some(0));
    assert_eq!(
        tollgate(&["healthcheck", "--url", &app.url("/nowhere")], &[]).status.code(),
        Some(1)
    );
    app.stop().await;
    assert_eq!(tollgate(&["healthcheck", "--listen", &listen], &[]).status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_makes_the_schema_and_may_be_repeated() {
    let url = postgres::fresh_database().await;
    for _ in 0..2 {
        let migrated = tollgate(&["migrate"], &[("DATABASE_URL", &url)]);
        assert!(migrated.status.success(), "{}", stderr(&migrated));
        assert!(stdout(&migrated).contains("up to date"));
    }
    let wrong =
        tollgate(&["migrate"], &[("DATABASE_URL", &url.replace("tollgate_test_", "no_such_"))]);
    assert_eq!(
        wrong.status.code(),
        Some(1),
        "a database that is not there will not come by waiting"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_sends_files_as_stripe_does_and_counts_what_became_of_them() {
    let app = App::spawn().await;
    let (to, folder) =
        (app.url("/webhooks/stripe"), concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/events"));
    let replay = |secret: &str, more: &[&str]| {
        let all: Vec<&str> = ["replay", folder, "--to", &to, "--secret", secret, "--json"]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        let output = tollgate(&all, &[]);
        let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        (output.status.code(), json)
    };
    let total = stories(SEED, START).iter().map(|story| story.events.len()).sum::<usize>();
    let (code, first) =
        replay(SECRET, &["--shuffle", "3", "--duplicates", "50", "--concurrency", "8"]);
    assert_eq!((code, &first["recorded"]), (Some(0), &total.into()));
    assert_eq!(first["duplicate"], total.div_ceil(2));
    let (_, again) = replay(SECRET, &[]);
    assert_eq!((&again["recorded"], &again["duplicate"]), (&0.into(), &total.into()));
    let (_, anew) = replay(SECRET, &["--unique-ids"]);
    assert_eq!(anew["recorded"], total);
    assert_eq!(app.events().await, i64::try_from(2 * total).unwrap());
    let (code, refused) = replay("whsec_wrong", &[]);
    assert_eq!((code, &refused["refused"]), (Some(1), &total.into()));
    assert_eq!(refused["reasons"][0]["code"], "signature_mismatch");
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_opens_the_database_without_showing_the_password() {
    let url = postgres::fresh_database().await;
    let printed = tollgate(&["psql", "--print"], &[("DATABASE_URL", &url)]);
    assert_eq!(stdout(&printed).trim(), url);
    let asked = tollgate(&["psql", "--", "-Atc", "SELECT 6 * 7"], &[("DATABASE_URL", &url)]);
    assert_eq!(stdout(&asked).trim(), "42", "{}", stderr(&asked));
    let nothing = tollgate(&["psql"], &[("TOLLGATE_DATA_DIR", "/nonexistent/tollgate")]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(stderr(&nothing).contains("is not running"));
}
