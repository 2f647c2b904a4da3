//! Stripe's own command line, as `scripts/ensure-test-tools` installs it, against the fake. What is
//! done with it is in the tests.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::support::stripe::{API_KEY, FakeStripe};

/// Longest that a command may take, or something may be waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// The program itself: its npm shim would leave it running when killed.
fn program() -> Option<PathBuf> {
    let packages = "target/test-tools/node/node_modules/@stripe";
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join(packages);
    let folders = std::fs::read_dir(packages).into_iter().flatten().flatten();
    folders.map(|folder| folder.path().join("bin/stripe")).find(|program| program.is_file())
}

/// The command line with a home of its own.
pub struct Cli {
    program: PathBuf,
    home: TempDir,
    base: String,
}

impl Cli {
    /// None if it is not there, said loudly; with `CI=true` that is a failure.
    pub fn of(stripe: &FakeStripe) -> Option<Self> {
        let Some(program) = program() else {
            let missing = "the Stripe CLI is missing; scripts/ensure-test-tools installs it";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            // Past the test harness, which swallows what tests that pass print.
            let line = format!("SKIPPED {name}: {missing}\n");
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
            return None;
        };
        Some(Self { program, home: tempfile::tempdir().unwrap(), base: stripe.base() })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .args(["--api-base", &self.base, "--color", "off"])
            .env_clear()
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path())
            .env("STRIPE_API_KEY", API_KEY)
            .env("STRIPE_CLI_TELEMETRY_OPTOUT", "1")
            // It asks the internet for newer versions of itself, but here nobody answers.
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end; its exit code, and all it printed.
    pub async fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = timeout(PATIENCE, self.command(arguments).output());
        let output = output.await.unwrap_or_else(|_| panic!("{arguments:?} takes too long"));
        let output = output.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs one that must work; what it printed.
    pub async fn done(&self, arguments: &[&str]) -> String {
        let (code, text) = self.run(arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
        text
    }

    /// Starts `stripe listen` with these flags, and waits until it is connected.
    pub async fn listen(&self, flags: &[&str]) -> Listening {
        let arguments: Vec<&str> =
            ["listen", "--skip-update"].iter().chain(flags).copied().collect();
        let mut child = self.command(&arguments).spawn().unwrap();
        let lines = Arc::new(Mutex::new(String::new()));
        keep(child.stdout.take().unwrap(), Arc::clone(&lines));
        keep(child.stderr.take().unwrap(), Arc::clone(&lines));
        let listening = Listening { child: Mutex::new(child), lines };
        listening.until_it_says("Ready!").await;
        listening
    }
}

/// Collects what a program prints.
fn keep(pipe: impl AsyncRead + Unpin + Send + 'static, kept: Arc<Mutex<String>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            *kept.lock().unwrap() += &(line + "\n");
        }
    });
}

/// A running `stripe listen`; killed when dropped.
pub struct Listening {
    child: Mutex<Child>,
    lines: Arc<Mutex<String>>,
}

impl Listening {
    fn ended(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }

    /// Everything it printed so far.
    pub fn said(&self) -> String {
        self.lines.lock().unwrap().clone()
    }

    pub async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let reached = async {
            while !condition() {
                assert!(!self.ended(), "it ended, before: {what}; it said:\n{}", self.said());
                sleep(Duration::from_millis(20)).await;
            }
        };
        let reached = timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "still not after {PATIENCE:?}: {what}; it said:\n{}", self.said());
    }

    pub async fn until_it_says(&self, words: &str) {
        self.until(words, || self.said().contains(words)).await;
    }
}
