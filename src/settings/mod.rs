//! The configuration, parsed once into types that the rest of the program can trust.
//! Names and defaults stand in `spec`, sources in `layers`; nothing here is wired to anything.

pub mod layers;
pub mod parse;
pub mod spec;
mod stripe;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use crate::ingest::body::BodyLimits;
use crate::ingest::queue::Limits;
use crate::ingest::{Endpoint, EndpointName, Endpoints, LivemodeRule};
use crate::store::events::Notify;
use crate::store::tokens::Hashed;
use crate::stripe::signature::{SigningSecret, Tolerance};
use crate::traces::TraceOptions;
use layers::{Layers, Origin, Problem, RawEndpoint};
pub use stripe::StripeSettings;

/// Stripe can resend an event for 30 days (<https://docs.stripe.com/webhooks>); the rest is slack.
const LEAST_RETENTION: Duration = Duration::from_hours(35 * 24);

/// Everything that can be set.
#[derive(Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    /// None: no admin listener.
    pub admin: Option<AdminSettings>,
    pub endpoints: Endpoints,
    pub tolerance: Tolerance,
    pub database: DatabaseSettings,
    pub writing: WritingSettings,
    pub consuming: ConsumingSettings,
    /// None: Stripe is not asked.
    pub stripe: Option<StripeSettings>,
    pub http: HttpSettings,
    /// None: events are kept for ever.
    pub retention: Option<Duration>,
    pub drain: Duration,
    pub shutdown_timeout: Duration,
    /// None: no traces.
    pub traces: Option<TraceOptions>,
    pub log: LogSettings,
}

/// Where the gateway is looked at and operated.
#[derive(Clone, Copy, Debug)]
pub struct AdminSettings {
    pub listen: SocketAddr,
    /// None on loopback only.
    pub token: Option<Hashed>,
}

/// Where events are written to.
#[derive(Debug)]
pub struct DatabaseSettings {
    /// None: the embedded server.
    pub url: Option<PgConnectOptions>,
    /// The server itself, if `url` leads through a pooler.
    pub direct_url: Option<PgConnectOptions>,
    pub pool: u32,
    pub migrate: bool,
    pub data_dir: PathBuf,
    pub pg_bin: Option<PathBuf>,
    pub pg_port: Option<u16>,
}

/// How events are written.
#[derive(Clone, Copy, Debug)]
pub struct WritingSettings {
    pub writers: usize,
    pub batch: Limits,
    pub queue: Limits,
    pub deadline: Duration,
    pub notify: Notify,
    pub billing_tables: bool,
}

/// How events are handed on.
#[derive(Clone, Copy, Debug)]
pub struct ConsumingSettings {
    /// How often to look for new events when no notification comes.
    pub poll: Duration,
    /// Whether pushes may go to private addresses that are not of this host.
    pub allow_private: bool,
}

/// How HTTP is served.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    pub workers: usize,
    pub max_connections: usize,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub body: BodyLimits,
}

/// How logs look.
#[derive(Clone, Debug)]
pub struct LogSettings {
    pub filter: String,
    pub json: bool,
}

/// Reads values and gathers what is wrong with them, so that a person sees all of it at once.
struct Reader<'a> {
    layers: &'a Layers,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// A setting that need not be there.
    fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.layers.get(key)?;
        let secret = spec::by_key(key).is_some_and(|setting| setting.secret);
        let parsed = if secret {
            parse::secret_text(&value.text).and_then(|text| parse(&text))
        } else {
            parse(&value.text)
        };
        parsed
            .map_err(|expected| {
                let shown = if secret { "…".to_owned() } else { parse::shown(&value.text) };
                self.problems
                    .push(Problem(format!("{key} = {shown} ({}): {expected}", value.origin)));
            })
            .ok()
    }

    /// A setting with a default: `fallback` is only seen when the problems are reported anyway.
    fn required<T>(
        &mut self,
        key: &'static str,
        fallback: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.optional(key, parse).unwrap_or(fallback)
    }
}

impl Settings {
    /// Parses the layers, or says everything that is wrong.
    pub fn parse(layers: &Layers) -> Result<Self, Vec<Problem>> {
        let mut read = Reader { layers, problems: Vec::new() };
        let settings = Self {
            listen: read.required("listen", SocketAddr::from(([127, 0, 0, 1], 0)), parse::address),
            admin: admin(&mut read),
            endpoints: endpoints(&mut read),
            tolerance: read.required("tolerance", Tolerance::default(), |text| {
                let seconds = parse::period(text)?.as_secs();
                Ok(Tolerance(u32::try_from(seconds).unwrap_or(u32::MAX)))
            }),
            database: database(&mut read),
            writing: writing(&mut read),
            consuming: ConsumingSettings {
                poll: read.required("poll_interval", Duration::ZERO, parse::timeout),
                allow_private: read.required("push_allow_private", false, parse::flag),
            },
            stripe: stripe::settings(&mut read),
            http: http(&mut read),
            retention: retention(&mut read),
            drain: read.required("drain", Duration::ZERO, parse::duration),
            shutdown_timeout: read.required("shutdown_timeout", Duration::ZERO, parse::timeout),
            traces: traces(&mut read),
            log: LogSettings {
                filter: read.required("log", String::new(), parse::log_filter),
                json: read.required("log_format", false, |text| match text {
                    "pretty" => Ok(false),
                    "json" => Ok(true),
                    _ => Err("expected pretty or json".into()),
                }),
            },
        };
        if settings.writing.queue.bytes < settings.http.body.size {
            let expected = format!(
                "expected at least max_body, {}, or a body of that size could never be taken",
                settings.http.body.size
            );
            read.optional("queue_bytes", |_| Err::<(), _>(expected));
        }
        let admin = settings.admin.as_ref().map(|admin| admin.listen);
        if admin == Some(settings.listen) && settings.listen.port() != 0 {
            read.optional("admin_listen", |_| {
                Err::<(), _>("expected another address than that of listen".into())
            });
        }
        if read.problems.is_empty() { Ok(settings) } else { Err(read.problems) }
    }
}

fn admin(read: &mut Reader<'_>) -> Option<AdminSettings> {
    let listen = read.required("admin_listen", None, |text| match text.trim() {
        "off" => Ok(None),
        text => parse::address(text).map(Some).map_err(|_| {
            "expected an address and a port, for example 127.0.0.1:9090, or off".into()
        }),
    });
    let token = read.optional("admin_token", str::parse::<Hashed>);
    let listen = listen?;
    // The layer and not what was parsed of it: a token that is wrong has been told of.
    if !listen.ip().is_loopback() && read.layers.get("admin_token").is_none() {
        read.optional("admin_listen", |_| {
            Err::<(), _>(
                "others can connect there, so admin_token must be set (TOLLGATE_ADMIN_TOKEN)"
                    .into(),
            )
        });
    }
    Some(AdminSettings { listen, token })
}

fn database(read: &mut Reader<'_>) -> DatabaseSettings {
    fn url(text: &str) -> Result<PgConnectOptions, String> {
        let expected = "expected postgres://user:password@host:port/database";
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(expected.to_owned());
        }
        text.parse().map_err(|error| format!("{expected}: {error}"))
    }
    DatabaseSettings {
        url: read.optional("database_url", url),
        direct_url: read.optional("database_direct_url", url),
        pool: read.required("database_pool", 1, |text| {
            parse::whole(text, 2, 100).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
        }),
        migrate: read.required("migrate", true, parse::flag),
        data_dir: read
            .optional("data_dir", |text| Ok(PathBuf::from(text)))
            .unwrap_or_else(default_data_dir),
        pg_bin: read.optional("pg_bin", |text| Ok(PathBuf::from(text))),
        pg_port: read.optional("pg_port", |text| {
            parse::whole(text, 1, u16::MAX.into())
                .map(|port| u16::try_from(port).unwrap_or(u16::MAX))
        }),
    }
}

fn writing(read: &mut Reader<'_>) -> WritingSettings {
    WritingSettings {
        writers: read.required("writers", 1, |text| parse::count(text, 1, 64)),
        batch: Limits {
            events: read.required("batch_events", 1, |text| parse::count(text, 1, 4096)),
            bytes: read.required("batch_bytes", 1, parse::bytes),
        },
        queue: Limits {
            events: read.required("queue_events", 1, |text| parse::count(text, 1, 1_000_000)),
            bytes: read.required("queue_bytes", 1, parse::bytes),
        },
        deadline: read.required("write_deadline", Duration::ZERO, parse::timeout),
        notify: read.required("notify", Notify::Off, |text| match text {
            "event" => Ok(Notify::Event),
            "batch" => Ok(Notify::Batch),
            "off" => Ok(Notify::Off),
            _ => Err("expected event, batch or off".into()),
        }),
        billing_tables: read.required("billing_tables", true, parse::flag),
    }
}

fn http(read: &mut Reader<'_>) -> HttpSettings {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    HttpSettings {
        workers: read
            .optional("http_workers", |text| parse::count(text, 1, 256))
            .unwrap_or(cores.min(4)),
        max_connections: read
            .required("max_connections", 1, |text| parse::count(text, 1, 1_000_000)),
        header_timeout: read.required("header_timeout", Duration::ZERO, parse::timeout),
        idle_timeout: read.required("idle_timeout", Duration::ZERO, parse::timeout),
        body: BodyLimits {
            size: read.required("max_body", 1, parse::bytes),
            time: read.required("body_timeout", Duration::ZERO, parse::timeout),
        },
    }
}

fn traces(read: &mut Reader<'_>) -> Option<TraceOptions> {
    let endpoint = read.optional("otlp_endpoint", parse::collector);
    let headers = read.optional("otlp_headers", parse::headers).unwrap_or_default();
    let share = read.required("otlp_sample", 1.0, parse::share);
    let service = read.required("service_name", String::new(), |text| Ok(text.trim().to_owned()));
    Some(TraceOptions { endpoint: endpoint?, headers, service, share })
}

fn retention(read: &mut Reader<'_>) -> Option<Duration> {
    let allowed = read.required("retention_override", false, parse::flag);
    read.required("retention", None, |text| match text.trim() {
        "forever" => Ok(None),
        text => match parse::period(text).map_err(|_| "expected forever, or a time, for example 400d")? {
            short if short < LEAST_RETENTION && !allowed => Err(
                "expected at least 35d: Stripe may resend an event for 30 days, and one that was forgotten \
                 would count as new (retention_override = true allows it)"
                    .into(),
            ),
            long => Ok(Some(long)),
        },
    })
}

/// The endpoints of the file; the one named default also from `stripe_webhook_secret`, which wins.
fn endpoints(read: &mut Reader<'_>) -> Endpoints {
    let layers = read.layers;
    let mut all: Vec<Endpoint> = Vec::new();
    for (name, raw) in &layers.endpoints {
        match endpoint(name, raw) {
            Ok(endpoint) => all.push(endpoint),
            Err(problem) => {
                let file = layers.file.clone().map_or(Origin::Default, Origin::File);
                read.problems.push(Problem(format!("{file}: [endpoints.{name}]: {problem}")));
            }
        }
    }
    if let Some(secrets) = read.optional("stripe_webhook_secret", secrets) {
        let default = EndpointName::from_str(EndpointName::DEFAULT).expect("a valid name");
        match all.iter_mut().find(|endpoint| endpoint.name == default) {
            Some(endpoint) => endpoint.secrets = secrets,
            None => all.push(Endpoint {
                name: default,
                secrets,
                livemode: LivemodeRule::Any,
                account: None,
            }),
        }
    }
    all.into_iter().collect()
}

fn endpoint(name: &str, raw: &RawEndpoint) -> Result<Endpoint, String> {
    if raw.secrets.is_empty() {
        return Err("secrets: expected at least one, for example secrets = [\"whsec_…\"]".into());
    }
    let mut all = Vec::new();
    for text in &raw.secrets {
        all.extend(secrets(&parse::secret_text(text)?)?);
    }
    Ok(Endpoint {
        name: name
            .parse()
            .map_err(|error: crate::ingest::endpoint::EndpointNameError| error.to_string())?,
        secrets: all,
        livemode: match &raw.livemode {
            Some(text) => text
                .parse()
                .map_err(|expected| format!("livemode = {text}: expected {expected}"))?,
            None => LivemodeRule::Any,
        },
        account: raw.account.clone(),
    })
}

fn secrets(text: &str) -> Result<Vec<SigningSecret>, String> {
    let parts = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
    let all = parts.map(|secret| secret.parse().map_err(|error| format!("{error}")));
    let all: Vec<SigningSecret> = all.collect::<Result<_, _>>()?;
    if all.is_empty() { Err("the signing secret is empty".into()) } else { Ok(all) }
}

/// `/var/lib/tollgate` for root, whose home the server's own user cannot enter.
pub fn default_data_dir() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
    if nix::unistd::Uid::effective().is_root() {
        PathBuf::from("/var/lib/tollgate")
    } else if let Some(data_home) =
        std::env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty())
    {
        PathBuf::from(data_home).join("tollgate")
    } else if cfg!(target_os = "macos") {
        home().join("Library/Application Support/tollgate")
    } else {
        home().join(".local/share/tollgate")
    }
}
