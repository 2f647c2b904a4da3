//! What every black-box test needs: a real Postgres, a database of its own, a real gateway on a
//! random port, and a sender that signs.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod load;
pub mod nats;
pub mod postgres;
pub mod process;
pub mod stripe;
pub mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tollgate::clock::Clock;
use tollgate::http_client;
use tollgate::settings::Settings;
use tollgate::settings::layers::{Inputs, Layers};
use tollgate::startup::Gateway;
use tollgate::store::hooks::Hooks;
use tollgate::stripe::signature::SigningSecret;

/// The signing secret of the endpoint named default.
pub const SECRET: &str = "whsec_of_the_tests";

/// Unix seconds now.
#[allow(clippy::disallowed_methods, reason = "tests live in real time")]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A `Stripe-Signature` made now with [`SECRET`].
pub fn sign(body: &[u8]) -> String {
    SECRET.parse::<SigningSecret>().unwrap().sign(now(), body)
}

/// A small event; the same id gives the same bytes, as with Stripe.
pub fn event(id: &str) -> String {
    static CREATED: LazyLock<i64> = LazyLock::new(now);
    let created = *CREATED;
    format!(
        r#"{{"id":"{id}","object":"event","type":"invoice.paid","created":{created},"livemode":false,
        "api_version":"2025-03-31.basil","data":{{"object":{{"id":"in_{id}","object":"invoice"}}}}}}"#
    )
}

/// An HTTP client as a test needs it.
pub fn client() -> reqwest::Client {
    let any = "http://localhost".parse().unwrap();
    http_client::builder(&any).timeout(Duration::from_secs(30)).build().unwrap()
}

/// Sends these fields as a form of a page does.
pub fn form(request: reqwest::RequestBuilder, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    request
        .header("content-type", "application/x-www-form-urlencoded")
        .body(pairs.collect::<Vec<_>>().join("&"))
}

/// A gateway under test, in this process, on a database of its own.
pub struct App {
    pub address: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    pub pool: PgPool,
    pub database_url: String,
    client: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The status word of a 200, or the code of a problem.
    pub fn word(&self) -> String {
        let json = self.json();
        let word = if self.status == 200 { &json["status"] } else { &json["code"] };
        word.as_str().unwrap_or_default().to_owned()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.text().await.unwrap(),
    }
}

fn no_hooks() -> Hooks {
    Hooks::from([])
}

impl App {
    pub async fn spawn() -> Self {
        Self::spawn_with(&[]).await
    }

    /// With settings of its own, as on the command line.
    pub async fn spawn_with(settings: &[(&'static str, &str)]) -> Self {
        let database_url = postgres::fresh_database().await;
        Self::spawn_on(&database_url, settings).await
    }

    /// With a configuration file.
    pub async fn spawn_configured(config: &Path) -> Self {
        let database_url = postgres::fresh_database().await;
        Self::start(&database_url, &[], Some(config), no_hooks()).await
    }

    /// On a database that is there already.
    pub async fn spawn_on(database_url: &str, settings: &[(&'static str, &str)]) -> Self {
        Self::start(database_url, settings, None, no_hooks()).await
    }

    /// With handlers in Rust.
    pub async fn spawn_embedded(settings: &[(&'static str, &str)], hooks: Hooks) -> Self {
        let database_url = postgres::fresh_database().await;
        Self::start(&database_url, settings, None, hooks).await
    }

    async fn start(
        database_url: &str,
        settings: &[(&'static str, &str)],
        config: Option<&Path>,
        hooks: Hooks,
    ) -> Self {
        let mut flags: BTreeMap<&'static str, String> = [
            ("listen", "127.0.0.1:0"),
            ("admin_listen", "127.0.0.1:0"),
            ("stripe_webhook_secret", SECRET),
            ("database_url", database_url),
            ("drain", "0s"),
        ]
        .map(|(key, value)| (key, value.to_owned()))
        .into();
        flags.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let config = config.map(Path::to_owned);
        let inputs = Inputs { config, flags: Some(&flags), ..Inputs::default() };
        let settings = Settings::parse(&Layers::gather(&inputs).unwrap()).unwrap();
        let stop = CancellationToken::new();
        let gateway = Gateway::start_with(settings, Clock::system(), hooks, &stop).await;
        let gateway = gateway.unwrap().unwrap();
        let (address, admin) = (gateway.address(), gateway.admin_address().unwrap());
        let running = tokio::spawn(gateway.run_until(stop.clone()));
        Self {
            address,
            admin,
            pool: PgPool::connect(database_url).await.unwrap(),
            database_url: database_url.to_owned(),
            client: client(),
            stop,
            running,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A path of the admin listener.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// Sends a request to the admin listener; the caller adds to it what it wants.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Answer {
        let request = self.client.request(method.parse().unwrap(), self.admin_url(path));
        answer(with(request)).await
    }

    /// Sends a request; the caller adds to it what it wants.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Answer {
        let request = self.client.request(method.parse().unwrap(), self.url(path));
        answer(with(request)).await
    }

    /// Delivers a body as Stripe would, signed now.
    pub async fn deliver(&self, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref().to_vec();
        let signature = sign(&body);
        self.deliver_signed(body, &signature).await
    }

    /// Delivers a body with a header of one's own.
    pub async fn deliver_signed(&self, body: Vec<u8>, signature: &str) -> Answer {
        self.request("POST", "/webhooks/stripe", |request| {
            request.header("Stripe-Signature", signature).body(body)
        })
        .await
    }

    /// One number from the database.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Events in the log.
    pub async fn events(&self) -> i64 {
        self.count("SELECT count(*) FROM tollgate.events").await
    }

    /// Bodies in quarantine.
    pub async fn quarantined(&self) -> i64 {
        self.count("SELECT count(*) FROM tollgate.quarantine").await
    }

    /// Shuts the gateway down and waits for it.
    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}
