//! The list of settings: names, defaults, help. Files, environment, flags, `tollgate check` and the
//! README's table all follow from it. What the values mean is parsed in `mod.rs`.

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in `tollgate.toml`; with `-` for `_`, its flag.
    pub key: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// Its value when nobody sets it, as text; empty if it has none.
    pub default: &'static str,
    /// Never shown, and may be `file:/path/to/it`.
    pub secret: bool,
    /// One line for people.
    pub help: &'static str,
}

const fn setting(
    key: &'static str,
    variable: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, variable, default, secret: false, help }
}

const fn secret(key: &'static str, variable: &'static str, help: &'static str) -> Setting {
    Setting { key, variable, default: "", secret: true, help }
}

/// Every setting, in the order in which they are shown.
pub const ALL: &[Setting] = &[
    setting(
        "listen",
        "TOLLGATE_LISTEN",
        "127.0.0.1:8080",
        "Address and port for Stripe's deliveries and health checks",
    ),
    setting(
        "admin_listen",
        "TOLLGATE_ADMIN_LISTEN",
        "127.0.0.1:9090",
        "Address and port for the dashboard, the admin API and metrics; off for none",
    ),
    secret(
        "admin_token",
        "TOLLGATE_ADMIN_TOKEN",
        "Token with which these are used; required unless admin_listen is a loopback address",
    ),
    secret(
        "stripe_webhook_secret",
        "STRIPE_WEBHOOK_SECRET",
        "Signing secret of the endpoint named default; several, comma-separated, while one is rolled",
    ),
    setting(
        "tolerance",
        "TOLLGATE_TOLERANCE",
        "300s",
        "How old, or how far in the future, a signature may be",
    ),
    secret(
        "database_url",
        "DATABASE_URL",
        "postgres://… to write to; without it Tollgate runs a Postgres of its own",
    ),
    secret(
        "database_direct_url",
        "TOLLGATE_DATABASE_DIRECT_URL",
        "Set it if DATABASE_URL leads through a pooler in transaction mode (PgBouncer): the server itself, for all but the writers",
    ),
    setting(
        "database_pool",
        "TOLLGATE_DATABASE_POOL",
        "4",
        "Connections for everything but the writers, which have one each",
    ),
    setting(
        "migrate",
        "TOLLGATE_MIGRATE",
        "true",
        "Whether serve brings the database's schema up to date when it starts",
    ),
    setting(
        "data_dir",
        "TOLLGATE_DATA_DIR",
        "",
        "Where the embedded Postgres lives; default: the user's data home, /var/lib/tollgate for root",
    ),
    setting(
        "pg_bin",
        "TOLLGATE_PG_BIN",
        "",
        "Folder with initdb and postgres for the embedded Postgres; default: searched for",
    ),
    setting(
        "pg_port",
        "TOLLGATE_PG_PORT",
        "",
        "Loopback port of the embedded Postgres; default: a free one, kept",
    ),
    setting(
        "writers",
        "TOLLGATE_WRITERS",
        "1",
        "Writers per HTTP thread, each with a database connection; more seldom help",
    ),
    setting(
        "batch_events",
        "TOLLGATE_BATCH_EVENTS",
        "256",
        "Most events that one transaction takes",
    ),
    setting("batch_bytes", "TOLLGATE_BATCH_BYTES", "4MiB", "Most bytes that one transaction takes"),
    setting(
        "queue_events",
        "TOLLGATE_QUEUE_EVENTS",
        "10000",
        "Most events that may wait; beyond that the answer is 503",
    ),
    setting(
        "queue_bytes",
        "TOLLGATE_QUEUE_BYTES",
        "32MiB",
        "Most bytes that may wait; beyond that the answer is 503",
    ),
    setting(
        "write_deadline",
        "TOLLGATE_WRITE_DEADLINE",
        "10s",
        "How long an event may wait for COMMIT before the answer is 503",
    ),
    setting(
        "notify",
        "TOLLGATE_NOTIFY",
        "event",
        "Notifications on tollgate_events: event (one each), batch or off",
    ),
    setting(
        "billing_tables",
        "TOLLGATE_BILLING_TABLES",
        "true",
        "Keep the tables of the schema stripe up to date, in the transaction of each event",
    ),
    setting(
        "poll_interval",
        "TOLLGATE_POLL_INTERVAL",
        "1s",
        "How often consumers look for new events when no notification comes",
    ),
    setting(
        "push_allow_private",
        "TOLLGATE_PUSH_ALLOW_PRIVATE",
        "false",
        "Whether pushes may go to private addresses other than the gateway's own host",
    ),
    secret(
        "stripe_api_key",
        "STRIPE_API_KEY",
        "Key to ask Stripe's API with, sk_… or better a restricted rk_…: fetches events that no webhook brought, and mends tables",
    ),
    setting(
        "stripe_api_base",
        "TOLLGATE_STRIPE_API_BASE",
        "https://api.stripe.com",
        "Where that API is",
    ),
    setting(
        "stripe_api_rate",
        "TOLLGATE_STRIPE_API_RATE",
        "20",
        "Requests per second to it, over all replicas; Stripe allows 100 in live mode, 25 in a sandbox",
    ),
    setting(
        "stripe_connect",
        "TOLLGATE_STRIPE_CONNECT",
        "false",
        "Whether to ask for connected accounts, too",
    ),
    setting(
        "reconcile_interval",
        "TOLLGATE_RECONCILE_INTERVAL",
        "5m",
        "How often the log is compared with Stripe's list of events, if there is a key; off for never",
    ),
    setting("max_body", "TOLLGATE_MAX_BODY", "1MiB", "Largest body; beyond that the answer is 413"),
    setting("body_timeout", "TOLLGATE_BODY_TIMEOUT", "15s", "How long a body may take to arrive"),
    setting(
        "header_timeout",
        "TOLLGATE_HEADER_TIMEOUT",
        "10s",
        "How long a connection's first request line and headers may take",
    ),
    setting("idle_timeout", "TOLLGATE_IDLE_TIMEOUT", "75s", "How long an idle connection is kept"),
    setting(
        "max_connections",
        "TOLLGATE_MAX_CONNECTIONS",
        "10000",
        "Most connections at once; the rest wait in the kernel's backlog",
    ),
    setting(
        "http_workers",
        "TOLLGATE_HTTP_WORKERS",
        "",
        "Threads that serve HTTP; default: one per core, at most 4; each has a queue and writers of its own",
    ),
    setting(
        "retention",
        "TOLLGATE_RETENTION",
        "forever",
        "How long events are kept, by whole months, for example 400d; at least 35d, as Stripe may resend for 30",
    ),
    setting(
        "retention_override",
        "TOLLGATE_RETENTION_OVERRIDE",
        "false",
        "true to allow a retention under 35 days",
    ),
    setting(
        "drain",
        "TOLLGATE_DRAIN",
        "1s",
        "On shutdown: how long to keep answering, with Connection: close and /readyz at 503",
    ),
    setting(
        "shutdown_timeout",
        "TOLLGATE_SHUTDOWN_TIMEOUT",
        "30s",
        "On shutdown: longest wait for requests and writes in flight",
    ),
    setting(
        "otlp_endpoint",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "Collector that traces go to, by OTLP over HTTP (protobuf), for example http://localhost:4318; without it there are none",
    ),
    secret(
        "otlp_headers",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "Headers for the collector, as in api-key=…,x-team=billing; values percent-encoded",
    ),
    setting(
        "otlp_sample",
        "OTEL_TRACES_SAMPLER_ARG",
        "1",
        "Share of new traces that is kept, from 0 to 1; a traceparent that comes with a webhook decides for itself",
    ),
    setting(
        "service_name",
        "OTEL_SERVICE_NAME",
        "tollgate",
        "What the gateway is called in traces",
    ),
    setting(
        "log",
        "TOLLGATE_LOG",
        "info,actix_server=warn,async_nats=off,sqlx=warn",
        "Log filter, for example warn or tollgate=debug,info",
    ),
    setting("log_format", "TOLLGATE_LOG_FORMAT", "pretty", "pretty or json"),
];

/// The setting of this key.
pub fn by_key(key: &str) -> Option<&'static Setting> {
    ALL.iter().find(|setting| setting.key == key)
}

/// The known name nearest to `name`, if one is near enough to be what was meant.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
