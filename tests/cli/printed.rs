//! Every example that `--help` and the README print is run as printed. Only what stands for something
//! of the reader's own (a secret, a host, a default port) is put in its place.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sqlx::Executor;
use tollgate::fixtures::{SEED, START, stories};

use crate::support::stripe::{API_KEY, FakeStripe};
use crate::support::{App, SECRET, event};
use crate::{stdout, tollgate};

/// Longest that an example may take, or take until it shows what it is up for.
const PATIENCE: Duration = Duration::from_mins(2);

/// Examples of the README that are not run here, by how they begin, and why.
const NOT_HERE: [(&str, &str); 5] = [
    ("make ", "CI runs them"),
    ("curl ", "tests/admin runs them"),
    ("cargo bench ", "takes an hour; its flags are parsed by the benchmark's own tests"),
    ("stripe listen ", "tests/stripe runs them"),
    ("stripe trigger ", "tests/stripe runs them"),
];

/// What a page's examples take for granted.
const GIVEN: [(&str, &str); 3] = [
    (
        "handlers",
        "CREATE SCHEMA app;
         CREATE FUNCTION app.on_invoice_paid(jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
         CREATE FUNCTION app.on_customer(jsonb) RETURNS void LANGUAGE sql AS 'SELECT'",
    ),
    (
        "reprocess",
        "CREATE SCHEMA app;
         CREATE FUNCTION app.on_customer(jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
         SELECT tollgate.register_handler('customer.*', 'app.on_customer(jsonb)');
         SELECT tollgate.create_consumer('mailer')",
    ),
    (
        "dead-letters",
        "ALTER SEQUENCE tollgate.position_seq RESTART 4711;
         SELECT tollgate.create_consumer('app', max_attempts => 1)",
    ),
];

/// A folder with what examples name, a gateway, and programs in front of `PATH`.
struct Scene {
    app: App,
    stripe: FakeStripe,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new(page: &str) -> Self {
        let (app, stripe) = (App::spawn().await, FakeStripe::start().await);
        let scene = Self { app, stripe, dir: tempfile::tempdir().unwrap() };
        for (_, sql) in GIVEN.iter().filter(|(name, _)| *name == page) {
            scene.app.pool.execute(*sql).await.unwrap();
        }
        for n in 1..=3 {
            assert_eq!(scene.app.deliver(event(&format!("evt_{n}"))).await.status, 200);
        }
        if page == "dead-letters" {
            let die = "SELECT tollgate.nack(claim, position, 'no') FROM tollgate.claim('app', 1)";
            scene.app.pool.execute(die).await.unwrap();
        }
        scene.furnish();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn furnish(&self) {
        let stories = stories(SEED, START);
        let events: Vec<_> = stories.iter().flat_map(|story| &story.events).take(5).collect();
        fs::create_dir_all(self.path("events")).unwrap();
        fs::create_dir_all(self.path("bin")).unwrap();
        let mut lines = fs::File::create(self.path("events.jsonl")).unwrap();
        for (n, event) in events.iter().enumerate() {
            fs::write(self.path(&format!("events/{n}.json")), &event.body).unwrap();
            let compact: serde_json::Value = serde_json::from_slice(event.body.as_ref()).unwrap();
            writeln!(lines, "{compact}").unwrap();
        }
        fs::write(self.path("invoice.paid.json"), event("evt_of_a_file")).unwrap();
        fs::write(self.path("tollgate.toml.etc"), "log = \"info\"\n").unwrap();
        // The defaults of a real machine are taken by others here.
        self.program(
            "tollgate",
            &format!(
                "case $1 in
                 serve|demo) export TOLLGATE_LISTEN=127.0.0.1:0 ;;
                 replay) case \" $* \" in *' --to '*) ;; *) set -- \"$@\" --to {} ;; esac ;;
                 esac
                 exec {} \"$@\"",
                self.app.url("/webhooks/stripe"),
                env!("CARGO_BIN_EXE_tollgate")
            ),
        );
        self.program(
            "stripe",
            &format!(
                "case \"$*\" in
                 'listen --print-secret') echo {SECRET} ;;
                 'events list --limit 100') echo '{{\"object\":\"list\",\"data\":[{}]}}' ;;
                 *) echo \"unexpected: $*\" >&2; exit 1 ;;
                 esac",
                event("evt_of_a_page")
            ),
        );
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The example with what stands for something of the reader's own in its place.
    fn filled_in(&self, example: &str) -> String {
        let here = |name: &str| self.path(name).display().to_string();
        [
            ("whsec_…", SECRET.to_owned()),
            ("rk_live_…", API_KEY.to_owned()),
            ("postgres://app@db/app", self.app.database_url.clone()),
            ("postgres://owner@db/app", self.app.database_url.clone()),
            ("0.0.0.0:8080", "127.0.0.1:0".to_owned()),
            ("http://gateway:8080", self.app.url("")),
            ("https://hooks.example.com", self.app.url("")),
            ("http://127.0.0.1:8080", self.app.url("")),
            ("http://127.0.0.1:9090", self.app.admin_url("")),
            ("/etc/tollgate.toml", here("tollgate.toml.etc")),
            (" /tmp/events", format!(" {}", here("others"))),
        ]
        .iter()
        .fold(example.to_owned(), |text, (printed, own)| text.replace(printed, own))
    }

    fn start(&self, example: &str, output: &Path) -> Child {
        let path = std::env::var("PATH").unwrap_or_default();
        let (out, err) = (fs::File::create(output).unwrap(), output.with_extension("err"));
        Command::new("bash")
            .args(["-o", "pipefail", "-c", &self.filled_in(example)])
            .current_dir(self.dir.path())
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("DATABASE_URL", &self.app.database_url)
            .env("STRIPE_WEBHOOK_SECRET", SECRET)
            .env("STRIPE_API_KEY", API_KEY)
            .env("TOLLGATE_STRIPE_API_BASE", self.stripe.base())
            .env("TOLLGATE_LISTEN", self.app.address.to_string())
            .env("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:0")
            .env("TOLLGATE_DATA_DIR", self.path("data"))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(fs::File::create(err).unwrap())
            .process_group(0)
            .spawn()
            .unwrap()
    }

    /// Has Stripe know what the tables know.
    async fn furnish_stripe(&self) {
        let all = "SELECT n.stored FROM tollgate.billing_tables() t, tollgate.next_objects(t, '', false, '', '', 1000) n";
        let objects: Vec<String> = sqlx::query_scalar(all).fetch_all(&self.app.pool).await.unwrap();
        for object in objects {
            let object: serde_json::Value = serde_json::from_str(&object).unwrap();
            if object["id"].is_string() {
                self.stripe.put("", object);
            }
        }
    }

    /// Runs an example; panics unless it does what it says.
    async fn run(&self, example: &str) {
        self.furnish_stripe().await;
        let output = self.path("output");
        let mut child = self.start(example, &output);
        let said = || {
            let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
            read(&output) + &read(&output.with_extension("err"))
        };
        let began = Instant::now();
        let mark = lasts_until(example);
        let mut told_to_end = false;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if let Some(mark) = mark.filter(|mark| !told_to_end && said().contains(mark)) {
                told_to_end = true;
                let group = Pid::from_raw(child.id().try_into().unwrap());
                killpg(group, Signal::SIGINT).unwrap_or_else(|error| panic!("{mark}: {error}"));
            }
            if example.contains("tollgate tail") {
                let new = event(&format!("evt_{}", began.elapsed().as_nanos()));
                assert_eq!(self.app.deliver(new).await.status, 200);
            }
            assert!(began.elapsed() < PATIENCE, "{example} does not end: {}", said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(told_to_end, mark.is_some(), "{example} ended by itself: {}", said());
        // The shell around a pipe dies of the signal itself.
        let ended = status.success() || (told_to_end && example.contains(" | "));
        assert!(ended, "{example}: {status}\n{}", said());
        assert!(!said().contains("panicked"), "{example}: {}", said());
    }
}

/// What commands that run until Ctrl-C have shown when they are up.
fn lasts_until(example: &str) -> Option<&'static str> {
    let has = |words: &str| example.contains(words);
    if has("tollgate serve") {
        Some("ready for deliveries")
    } else if has("tollgate demo") && !has("--once") {
        Some("until Ctrl-C")
    } else if has("tollgate tail") && !has("--once") {
        Some(if has("jq") { "in_evt_" } else { "invoice.paid" })
    } else {
        None
    }
}

/// The examples of a help page, without the words beside them.
fn examples(help: &str) -> Vec<String> {
    let Some((_, after)) = help.split_once("\nExamples:\n") else {
        return Vec::new();
    };
    let is_command = |line: &&str| {
        !line.ends_with(':') && (line.contains("tollgate ") || line.starts_with("stripe "))
    };
    let lines = after.lines().take_while(|line| line.is_empty() || line.starts_with("  "));
    lines
        .map(str::trim)
        .filter(is_command)
        .map(|line| line.split_once("   ").map_or(line, |(example, _)| example).to_owned())
        .collect()
}

/// All help pages: the program's own, and those of its commands.
fn pages() -> Vec<(String, String)> {
    let help = |command: &str| {
        let arguments: Vec<_> = [command, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
        stdout(&tollgate(&arguments, &[("COLUMNS", "1000")]))
    };
    let own = help("");
    let (_, commands) = own.split_once("\nCommands:\n").unwrap();
    let commands: Vec<String> = commands
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    assert!(commands.len() > 10, "{own}");
    let hidden = ["fixtures".to_owned()];
    let mut pages = vec![(String::new(), own)];
    pages.extend(commands.into_iter().chain(hidden).map(|name| (name.clone(), help(&name))));
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_every_help_page_work() {
    let pages = stream::iter(pages()).map(async |(page, help)| {
        let examples = examples(&help);
        assert!(!examples.is_empty(), "{page} --help has examples:\n{help}");
        let scene = Scene::new(&page).await;
        for example in &examples {
            scene.run(example).await;
        }
        scene.app.stop().await;
        examples.len()
    });
    // Much of it is waiting.
    let run: usize = pages.buffer_unordered(4).fold(0, async |sum, run| sum + run).await;
    assert!(run > 40, "{run} examples");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_work() {
    let readme = fs::read_to_string("README.md").unwrap();
    let blocks = readme.split("\n```").skip(1).step_by(2);
    let shell = blocks.filter_map(|block| block.strip_prefix("sh\n"));
    let commands: Vec<String> = shell
        .flat_map(|block| block.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .collect();
    for (beginning, why) in NOT_HERE {
        let there = commands.iter().any(|command| command.starts_with(beginning));
        assert!(there, "{beginning}: {why}, but the README has none");
    }
    let scene = Scene::new("README").await;
    for command in commands {
        if NOT_HERE.iter().all(|(beginning, _)| !command.starts_with(beginning)) {
            scene.run(command.trim_end_matches(" &")).await;
        }
    }
    scene.app.stop().await;
}
