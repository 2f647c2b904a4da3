//! `tollgate check`: shows the configuration and tries everything a start depends on. Says what is
//! wrong and how to mend it.

use std::process::ExitCode;

use nix::unistd::{AccessFlags, access};
use tokio_util::sync::CancellationToken;

use super::flags::SettingFlags;
use crate::clock::Clock;
use crate::settings::layers::{Layers, Problem};
use crate::settings::spec;
use crate::settings::{Settings, parse};
use crate::startup::Backend;
use crate::store::StoreError;
use crate::store::connect::{Database, Route, within};
use crate::store::migrations;
use crate::store::status::{self, Server};
use crate::sync::ApiError;
use crate::{embedded, startup};

/// How long the database may take over a question.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Check configuration, secrets, database and permissions
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate check
  tollgate check --config /etc/tollgate.toml

Exit codes: 0 all is well, 1 something would keep serve from working, 2 the configuration is wrong.")]
pub struct CheckArgs {
    #[command(flatten)]
    flags: SettingFlags,
}

/// Beyond that signatures of webhooks come near their tolerance.
const MOST_SKEW: time::Duration = time::Duration::minutes(2);

/// What has been found, printed as it comes.
#[derive(Default)]
struct Findings {
    failures: usize,
}

impl Findings {
    fn ok(message: &str) {
        say!("  ok    {message}");
    }

    fn warn(message: &str) {
        say!("  warn  {message}");
    }

    fn fail(&mut self, message: &str) {
        self.failures += 1;
        say!("  FAIL  {message}");
    }
}

pub async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let layers = match args.flags.layers() {
        Ok(layers) => layers,
        Err(problems) => return Ok(wrong(&problems)),
    };
    print_settings(&layers);
    let settings = match Settings::parse(&layers) {
        Ok(settings) => settings,
        Err(problems) => return Ok(wrong(&problems)),
    };
    say!("\nChecks");
    layers.warnings.iter().for_each(|warning| Findings::warn(warning));
    let mut findings = Findings::default();
    secrets(&settings, &mut findings);
    match &settings.database.url {
        Some(url) => {
            let direct = settings.database.direct_url.as_ref();
            database(&Database::new(direct.unwrap_or(url).clone(), Route::Direct), &mut findings)
                .await;
            if direct.is_some() {
                pooler(&Database::new(url.clone(), Route::Pooler), &mut findings).await;
            }
        }
        None => embedded_postgres(&settings, &mut findings),
    }
    stripe_api(&settings, &mut findings).await;
    Ok(if findings.failures == 0 {
        say!("\nAll is well.");
        ExitCode::SUCCESS
    } else {
        say!("\n{} to mend.", findings.failures);
        ExitCode::FAILURE
    })
}

fn wrong(problems: &[Problem]) -> ExitCode {
    say!("\nThe configuration is wrong");
    for problem in problems {
        say!("  FAIL  {problem}");
    }
    ExitCode::from(super::USAGE)
}

fn print_settings(layers: &Layers) {
    say!("Settings");
    for setting in spec::ALL {
        let (text, origin) = match layers.get(setting.key) {
            None => continue,
            Some(value) if setting.secret && !value.text.starts_with("file:") => {
                ("[redacted]".to_owned(), &value.origin)
            }
            Some(value) => (parse::shown(&value.text), &value.origin),
        };
        say!("  {:<22} {text:<26} {origin}", setting.key);
    }
    for (name, endpoint) in &layers.endpoints {
        say!("  {:<22} {} secrets", format!("endpoints.{name}"), endpoint.secrets.len());
    }
}

fn secrets(settings: &Settings, findings: &mut Findings) {
    if settings.endpoints.is_empty() {
        findings.fail(
            "no signing secret: put the endpoint's whsec_… into STRIPE_WEBHOOK_SECRET (Dashboard, or `stripe \
             listen --print-secret`)",
        );
    }
    for endpoint in settings.endpoints.iter() {
        let path = match endpoint.name.as_str() {
            "default" => "/webhooks/stripe".to_owned(),
            name => format!("/webhooks/stripe/{name}"),
        };
        Findings::ok(&format!(
            "endpoint {} at {path}, {} secret(s)",
            endpoint.name,
            endpoint.secrets.len()
        ));
    }
}

/// Asks Stripe something, if there is a key.
async fn stripe_api(settings: &Settings, findings: &mut Findings) {
    let Some(asked) = &settings.stripe else {
        return Findings::warn(
            "no STRIPE_API_KEY: events that no webhook brings are not noticed, nor fetched",
        );
    };
    let mode = if asked.client.key.livemode() { "live" } else { "test" };
    let (clock, stop) = (Clock::system(), CancellationToken::new());
    let context = Backend::attach(&settings.database)
        .and_then(|backend| startup::stripe::for_command(settings, asked, &backend, &clock, &stop));
    let answer = match &context {
        Ok(context) => context.client.get("/v1/events?limit=1", "").await,
        Err(error) => return Findings::warn(&format!("Stripe's API was not asked: {error}")),
    };
    match answer {
        Ok(answer) if (clock.now() - answer.second).abs() > MOST_SKEW => Findings::warn(&format!(
            "Stripe's API answers, but clocks differ: there it is {}",
            answer.second
        )),
        Ok(_) => Findings::ok(&format!("Stripe's API answers, the key is of {mode} mode")),
        Err(ApiError::Store(error)) => {
            Findings::warn(&format!(
                "Stripe's API was not asked, for want of the database: {error}"
            ));
        }
        Err(error) => findings.fail(&format!("Stripe's API: {error}")),
    }
}

async fn database(database: &Database, findings: &mut Findings) {
    let name = database.describe();
    let pool = database.pool(2);
    let lost = |error: StoreError| {
        format!("database {name}: {error}; is DATABASE_URL right, and the server up?")
    };
    // The pool would only say that its time is up.
    if let Err(error) = database.connect().await {
        return findings.fail(&lost(error.into()));
    }
    match status::server(&pool).await {
        Err(error) => return findings.fail(&lost(error)),
        Ok(server) => judge(&name, &server, findings),
    }
    match within(&pool, PATIENCE, migrations::state).await {
        Ok(state @ migrations::SchemaState::Behind { .. }) => {
            Findings::warn(&format!("{state}; serve does so by itself unless migrate is false"));
        }
        Ok(state) => Findings::ok(&state.to_string()),
        Err(error) => findings.fail(&format!("cannot read the schema's version: {error}")),
    }
}

/// The way of the writers, if it is another one.
async fn pooler(database: &Database, findings: &mut Findings) {
    let name = database.describe();
    let trouble = match tokio::time::timeout(PATIENCE, status::knock(database)).await {
        Ok(Ok(())) => {
            return Findings::ok(&format!("the writers' way to it, {name}, is open"));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".to_owned(),
    };
    findings.fail(&format!("the writers' way to it, DATABASE_URL, {name}: {trouble}"));
}

fn judge(name: &str, server: &Server, findings: &mut Findings) {
    let major = server.version / 10_000;
    match major {
        15..=18 => Findings::ok(&format!("database {name}, Postgres {major}")),
        ..15 => {
            findings.fail(&format!("database {name} is Postgres {major}: 15 or newer is needed"));
        }
        _ => Findings::warn(&format!("database {name} is Postgres {major}: tested up to 18")),
    }
    if !server.may_create {
        findings.fail(
            "the role may not create the schema tollgate: GRANT CREATE ON DATABASE … TO …, or run tollgate \
             migrate as the owner",
        );
    }
    for setting in &server.unsafe_settings {
        findings.fail(&format!(
            "the server runs with {setting} = off: a crash loses events that were answered 200; turn it on"
        ));
    }
}

fn embedded_postgres(settings: &Settings, findings: &mut Findings) {
    let data_dir = &settings.database.data_dir;
    match embedded::examine(&Backend::embedded(&settings.database)) {
        Ok(install) => Findings::ok(&format!(
            "embedded Postgres {} from {}, data in {}",
            install.major,
            install.bin_dir.display(),
            data_dir.display()
        )),
        Err(error) => findings.fail(&error.to_string()),
    }
    // What is not there yet is made below what is.
    let there = data_dir.ancestors().find(|folder| folder.exists());
    if !there.is_some_and(|there| there.is_dir() && access(there, AccessFlags::W_OK).is_ok()) {
        findings.fail(&format!("nothing can be written to {}", data_dir.display()));
    }
    match embedded::running(data_dir) {
        Ok(Some(_)) => Findings::ok("the embedded database is running"),
        Ok(None) => {}
        Err(error) => findings.fail(&error.to_string()),
    }
}
