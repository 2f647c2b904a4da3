//! A gateway, or a command, beside the fake Stripe: how tests of what is fetched are set up, and what
//! they compare. What is expected stands in the tests.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tollgate::clock::Clock;
use tollgate::fixtures::{Sample, stories};
use tollgate::settings::Settings;
use tollgate::settings::layers::{Inputs, Layers};
use tollgate::startup::{Backend, stripe};
use tollgate::sync::Context;

use crate::support::stripe::{API_KEY, FakeStripe};
use crate::support::{App, SECRET, now, postgres};

/// Settings with which a gateway asks the fake, by hand only.
pub fn asking(stripe: &FakeStripe) -> Vec<(&'static str, String)> {
    vec![
        ("stripe_api_key", API_KEY.to_owned()),
        ("stripe_api_base", stripe.base()),
        ("stripe_api_rate", "10000".to_owned()),
        ("reconcile_interval", "off".to_owned()),
    ]
}

/// A gateway with these settings on a database.
pub async fn spawn(database_url: &str, settings: &[(&'static str, String)]) -> App {
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    App::spawn_on(database_url, &settings).await
}

/// The fake, and a database with a gateway that does not ask it; `context` does.
pub struct Scene {
    pub stripe: FakeStripe,
    pub app: App,
    pub context: Context,
}

impl Scene {
    pub async fn new() -> Self {
        let (stripe, url) = (FakeStripe::start().await, postgres::fresh_database().await);
        let app = App::spawn_on(&url, &[]).await;
        let context = context(&stripe, &url);
        Self { stripe, app, context }
    }

    /// Runs the command itself.
    pub async fn tollgate(&self, arguments: &[&str]) -> Output {
        command(&self.stripe, &self.app.database_url, arguments).output().await.unwrap()
    }

    /// One value from the database.
    pub async fn value(&self, sql: &'static str) -> Value {
        let wrapped = format!("SELECT to_jsonb(it) FROM ({sql}) it (it)");
        let text = format!("SELECT it::text FROM ({wrapped}) it (it)");
        let text: Option<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(&self.app.pool).await.unwrap();
        text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
    }
}

/// What the duties work with, as for a command.
pub fn context(stripe: &FakeStripe, database_url: &str) -> Context {
    let mut flags: BTreeMap<&'static str, String> = asking(stripe).into_iter().collect();
    flags.insert("database_url", database_url.to_owned());
    flags.insert("stripe_webhook_secret", SECRET.to_owned());
    let inputs = Inputs { flags: Some(&flags), ..Inputs::default() };
    let settings = Settings::parse(&Layers::gather(&inputs).unwrap()).unwrap();
    let asked = settings.stripe.clone().unwrap();
    let backend = Backend::attach(&settings.database).unwrap();
    let stop = CancellationToken::new();
    stripe::for_command(&settings, &asked, &backend, &Clock::system(), &stop).unwrap()
}

/// A command that asks the fake.
pub fn command(stripe: &FakeStripe, database_url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command
        .args(arguments)
        .env("DATABASE_URL", database_url)
        .env("STRIPE_API_KEY", API_KEY)
        .env("TOLLGATE_STRIPE_API_BASE", stripe.base())
        .env("TOLLGATE_STRIPE_API_RATE", "10000")
        .env("TOLLGATE_LOG", "warn")
        .env_remove("STRIPE_WEBHOOK_SECRET")
        .kill_on_drop(true);
    command
}

/// A small event, made now, with an id of its own.
pub fn event(event_type: &str, object: &Value) -> String {
    event_at(event_type, object, now())
}

/// A small event that was made then.
pub fn event_at(event_type: &str, object: &Value, created: i64) -> String {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    json!({
        "id": format!("evt_{number:06}_{}", std::process::id()),
        "object": "event",
        "type": event_type,
        "created": created,
        "livemode": false,
        "api_version": "2025-09-30.clover",
        "data": {"object": object},
    })
    .to_string()
}

/// A customer as the API shows one.
pub fn customer(id: &str, name: &str) -> Value {
    json!({
        "id": id, "object": "customer", "created": 1_700_000_000, "livemode": false,
        "name": name, "email": format!("{id}@example.com"), "metadata": {},
    })
}

/// Sample events of these seeds, oldest first, without the thin ones, which `/v1/events` does not list.
pub fn samples(seeds: std::ops::RangeInclusive<u64>, start: i64) -> Vec<Sample> {
    let all = seeds.flat_map(|seed| stories(seed, start));
    let mut all: Vec<_> = all.flat_map(|story| story.events).collect();
    all.retain(|sample| !sample.body.contains("v2.core.event"));
    all.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    all
}

/// Lists events at Stripe.
pub fn list(stripe: &FakeStripe, samples: &[Sample]) {
    for sample in samples {
        stripe.emit("", serde_json::from_str(&sample.body).unwrap());
    }
}

/// Delivers events as webhooks.
pub async fn deliver(app: &App, samples: &[Sample]) {
    let sent = stream::iter(samples).map(|sample| app.deliver(&sample.body));
    let answers: Vec<_> = sent.buffer_unordered(32).collect().await;
    assert!(answers.iter().all(|answer| answer.status == 200));
}

/// The billing tables as text, a line for each row.
pub async fn tables(pool: &PgPool) -> Vec<String> {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT tollgate.billing_tables()").fetch_all(pool).await.unwrap();
    let mut all = Vec::new();
    for name in names {
        let sql = format!("SELECT '{name} ' || to_jsonb(t)::text FROM stripe.{name} t ORDER BY 1");
        let rows: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await.unwrap();
        all.extend(rows);
    }
    all
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within a minute: {what}");
}

/// What a command printed; it must have worked.
pub fn printed(output: &Output) -> String {
    let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}{}", String::from_utf8_lossy(out));
    String::from_utf8_lossy(out).into_owned()
}
