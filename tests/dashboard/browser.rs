//! A real browser, headless, driven through chromedriver: pages, clicks, keys, screenshots, and what
//! it says on its console. Speaks the WebDriver protocol itself: the few commands that are needed
//! are plain JSON over HTTP, and two of them only Chromium has.

use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::support;
use crate::support::process::free_address;

/// Longest wait for anything on a page. CI is slow, and a browser wants two cores for itself.
const SOON: Duration = Duration::from_mins(1);

/// Flags without which it would not run in a container, or talk to the world.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
];

/// What an element is called in the protocol.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    driver: Child,
    /// The browser itself, which does not end with its driver.
    process: Option<i32>,
    session: String,
    client: reqwest::Client,
    _profile: TempDir,
}

fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&path).chain(["/usr/lib/chromium".into()]).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|it| it.is_file())
}

impl Browser {
    /// Starts one. `None` if it is not installed, said loudly; with `CI=true` that is a failure.
    pub async fn start() -> Option<Self> {
        let chromium = program(&["chromium", "chromium-browser", "google-chrome"]);
        let (Some(chromium), Some(chromedriver)) = (chromium, program(&["chromedriver"])) else {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "chromium is not installed");
            // Past the test harness, which swallows what tests that pass print.
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            let line = format!("SKIPPED {name}: chromium and chromedriver are not installed\n");
            stderr().write_all(line.as_bytes()).unwrap();
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let port = free_address().port();
        let driver = Command::new(chromedriver)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let client = support::client();
        let base = format!("http://127.0.0.1:{port}");
        let mut args: Vec<String> = FLAGS.map(str::to_owned).to_vec();
        args.push(format!("--user-data-dir={}", profile.path().display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"binary": chromium, "args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": 60_000, "pageLoad": 60_000},
        }}});
        let began = Instant::now();
        let session = loop {
            let answer =
                client.post(format!("{base}/session")).body(wanted.to_string()).send().await;
            match answer {
                Ok(answer) => {
                    break serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap();
                }
                Err(error) => assert!(began.elapsed() < SOON, "no chromedriver: {error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        let id = session["value"]["sessionId"].as_str();
        let session_url =
            format!("{base}/session/{}", id.unwrap_or_else(|| panic!("no session: {session}")));
        let process = session["value"]["capabilities"]["goog:processID"].as_i64();
        Some(Self {
            driver,
            process: process.and_then(|pid| i32::try_from(pid).ok()),
            session: session_url,
            client,
            _profile: profile,
        })
    }

    async fn ask(&self, command: &str, body: Option<Value>) -> Value {
        let url = format!("{}{command}", self.session);
        let request = match body {
            Some(body) => self.client.post(url).body(body.to_string()),
            None => self.client.get(url),
        };
        let text = request.send().await.unwrap().text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        let value = answer["value"].take();
        assert!(value.get("error").is_none(), "{command}: {}", value["message"]);
        value
    }

    async fn command(&self, command: &str, params: Value) {
        self.ask("/goog/cdp/execute", Some(json!({"cmd": command, "params": params}))).await;
    }

    pub async fn go(&self, url: &str) {
        self.ask("/url", Some(json!({"url": url}))).await;
    }

    /// The path and query that it is at.
    pub async fn place(&self) -> String {
        self.js("return location.pathname + location.search").await.as_str().unwrap().to_owned()
    }

    /// What a script returns.
    pub async fn js(&self, script: &str) -> Value {
        self.ask("/execute/sync", Some(json!({"script": script, "args": []}))).await
    }

    /// Waits until an expression is true.
    pub async fn until(&self, expression: &str) {
        let began = Instant::now();
        // While a page is left, there is nothing to ask.
        let script = format!("try {{ return Boolean({expression}) }} catch (e) {{ return false }}");
        loop {
            let request = self.client.post(format!("{}/execute/sync", self.session));
            let answer = request
                .body(json!({"script": script, "args": []}).to_string())
                .send()
                .await
                .unwrap();
            let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            if answer["value"] == true {
                return;
            }
            if began.elapsed() > SOON {
                let text = self.js("return document.body.innerText").await;
                panic!(
                    "not so: {expression}; at {}:\n{}",
                    self.place().await,
                    text.as_str().unwrap()
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page, without what it hides, holds this text.
    pub async fn until_text(&self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    async fn element(&self, css: &str) -> String {
        self.until(&format!("document.querySelector({})", json!(css))).await;
        let found =
            self.ask("/element", Some(json!({"using": "css selector", "value": css}))).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Clicks the first element that fits.
    pub async fn click(&self, css: &str) {
        // One that is not to be seen yet, as in a dialog that opens.
        self.until(&format!("document.querySelector({})?.checkVisibility()", json!(css))).await;
        let element = self.element(css).await;
        self.ask(&format!("/element/{element}/click"), Some(json!({}))).await;
    }

    /// Clicks, and waits for the page that this leads to.
    pub async fn follow(&self, css: &str) {
        self.js("window.left = true").await;
        self.click(css).await;
        self.until("!window.left && document.readyState === 'complete'").await;
    }

    /// Writes into the first field that fits.
    pub async fn write(&self, css: &str, text: &str) {
        let element = self.element(css).await;
        self.ask(&format!("/element/{element}/value"), Some(json!({"text": text}))).await;
    }

    /// Presses keys, one after the other.
    pub async fn press(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
        });
        let actions =
            json!([{"type": "key", "id": "keys", "actions": strokes.collect::<Vec<_>>()}]);
        self.ask("/actions", Some(json!({"actions": actions}))).await;
    }

    /// As wide as this many CSS pixels, in light or dark.
    pub async fn dress(&self, width: u32, dark: bool) {
        let height = if width < 600 { 844 } else { 860 };
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.command("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.command("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// A picture of the whole page, as far down as three screens.
    pub async fn picture(&self, path: &Path, width: u32) {
        let height = self.js("return Math.min(document.documentElement.scrollHeight, 2600)").await;
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let params = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let answer = self
            .ask(
                "/goog/cdp/execute",
                Some(json!({"cmd": "Page.captureScreenshot", "params": params})),
            )
            .await;
        std::fs::write(path, decoded(answer["data"].as_str().unwrap())).unwrap();
    }

    /// What stands on the console and is worse than a remark, since this was asked last.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.ask("/se/log", Some(json!({"type": "browser"}))).await;
        let lines = log.as_array().unwrap().iter();
        let bad =
            lines.filter(|line| ["SEVERE", "WARNING"].contains(&line["level"].as_str().unwrap()));
        bad.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn close(mut self) {
        self.client.delete(&self.session).send().await.unwrap();
        self.process = None;
        self.driver.kill().await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
}

/// Base64 with the usual alphabet.
fn decoded(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().take_while(|byte| *byte != b'=') {
        let value = ALPHABET.iter().position(|known| *known == byte).expect("base64");
        bits = (bits << 6 | u32::try_from(value).unwrap()) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}
