//! `tollgate status`: one screen that says whether all is well. What counts as a concern stands in
//! `http::concerns`, what makes a gateway ready in `http::health`.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::database::{connect, current_schema};
use super::flags::SettingFlags;
use super::healthcheck::reachable;
use super::table;
use super::terminal::{colours, harmless};
use crate::clock::Clock;
use crate::http::concerns::{self, About, Concern, Trouble};
use crate::http_client;
use crate::settings::Settings;
use crate::startup::Backend;
use crate::store::browse::consumers::{Consumer, consumers};
use crate::store::browse::totals::{Totals, totals};
use crate::store::migrations::SchemaState;

/// Longest wait for the gateway itself.
const ANSWER: Duration = Duration::from_secs(5);

/// Is all well? One screen, and an exit code
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate status
  tollgate status --json | jq '.concerns | length'

Asks the database, and the gateway where TOLLGATE_LISTEN listens if it runs on this machine.
Exit codes: 0 all is well, 1 something wants a look, or the database does not answer.")]
pub struct StatusArgs {
    /// JSON, one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: SettingFlags,
}

/// What there is to say.
#[derive(Debug)]
struct Report {
    gateway: Gateway,
    database: String,
    schema: SchemaState,
    totals: Totals,
    consumers: Vec<Consumer>,
}

/// What the gateway says of itself.
#[derive(Debug)]
enum Gateway {
    /// The body of `/readyz`.
    Answers(Value),
    /// Perhaps on another machine.
    Silent(String),
}

pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let settings = args.flags.settings()?;
    let mut connection = connect(&args.flags).await?;
    let schema = current_schema(&mut connection).await?;
    let report = Report {
        gateway: gateway(&settings).await?,
        database: Backend::attach(&settings.database)?.direct.describe(),
        schema,
        totals: totals(&mut connection).await?,
        consumers: consumers(&mut connection, None).await?,
    };
    let concerns = report.concerns();
    if args.json {
        say!("{}", serde_json::to_string_pretty(&report.json(&concerns))?);
    } else {
        say!("{}", report.screen(&concerns, Clock::system().now()));
    }
    Ok(if concerns.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn gateway(settings: &Settings) -> anyhow::Result<Gateway> {
    let address = reachable(settings.listen);
    let url: reqwest::Url = format!("http://{address}/readyz").parse()?;
    let client = http_client::builder(&url).timeout(ANSWER).build()?;
    let answer = async { client.get(url).send().await?.bytes().await };
    Ok(match answer.await.ok().and_then(|body| serde_json::from_slice(&body).ok()) {
        Some(readiness) => Gateway::Answers(readiness),
        None => Gateway::Silent(format!("none answers at {address}")),
    })
}

impl Report {
    fn concerns(&self) -> Vec<Concern> {
        let mut all = self.sick_parts();
        all.extend(concerns::concerns(&self.consumers, Trouble::from(&self.totals)));
        all
    }

    /// Parts of the gateway that are not well.
    fn sick_parts(&self) -> Vec<Concern> {
        let Gateway::Answers(readiness) = &self.gateway else {
            return Vec::new();
        };
        let parts = readiness.as_object().into_iter().flatten();
        parts
            .filter_map(|(name, part)| {
                let status = part.get("status")?.as_str()?;
                let message = part.get("message")?.as_str()?;
                (status != "ok").then(|| Concern {
                    bad: status == "fail",
                    text: format!("{}: {message}", name.replace('_', " ")),
                    about: About::Gateway,
                })
            })
            .collect()
    }

    fn gateway_line(&self) -> String {
        match &self.gateway {
            Gateway::Answers(readiness) => match readiness["status"].as_str() {
                Some("fail") => "up, but not ready".to_owned(),
                Some(_) => "ready".to_owned(),
                None => "something else answers there".to_owned(),
            },
            Gateway::Silent(why) => why.clone(),
        }
    }

    fn screen(&self, concerns: &[Concern], now: OffsetDateTime) -> String {
        let Totals { events, last_received, failing, given_up, quarantined, .. } = &self.totals;
        let paint = colours();
        let verdict = concerns::verdict(concerns);
        let lamp = match concerns {
            [] => paint.good(&verdict),
            some if some.iter().any(|concern| concern.bad) => paint.bad(&verdict),
            _ => paint.doubtful(&verdict),
        };
        let mut screen = vec![lamp];
        screen.extend(concerns.iter().map(|it| format!("  - {}", harmless(&it.text))));
        screen.push(String::new());
        let newest = last_received.map_or("none yet".to_owned(), |at| {
            let ago = Duration::try_from(now - at).unwrap_or_default();
            format!(
                "the newest {} ago",
                humantime::format_duration(Duration::from_secs(ago.as_secs()))
            )
        });
        let mebibytes = self.totals.database_bytes >> 20;
        for (name, value) in [
            ("gateway", self.gateway_line()),
            ("database", format!("{}, {mebibytes} MiB, {}", self.database, self.schema)),
            ("events", format!("about {events}, {newest}")),
            ("failures", format!("{failing} tried again, {given_up} given up")),
            ("quarantine", quarantined.to_string()),
            ("dead", format!("{} letters", self.totals.dead_letters)),
            ("handlers", self.totals.handlers.to_string()),
        ] {
            screen.push(format!("{name:<11} {}", harmless(&value)));
        }
        if !self.consumers.is_empty() {
            screen.extend([String::new(), self.consumer_table()]);
        }
        screen.join("\n")
    }

    fn consumer_table(&self) -> String {
        let mut lines = table::plain();
        lines.set_header([
            "consumer",
            "kind",
            "state",
            "lag",
            "seconds",
            "in flight",
            "retrying",
            "dead",
        ]);
        for it in &self.consumers {
            lines.add_row([
                harmless(&it.name),
                it.kind.clone(),
                it.state.clone(),
                it.lag_events.to_string(),
                format!("{:.1}", it.lag_seconds),
                it.in_flight.to_string(),
                it.retrying.to_string(),
                it.dead.to_string(),
            ]);
        }
        table::align_right(&mut lines, &[3, 4, 5, 6, 7]);
        table::text(&lines)
    }

    fn json(&self, concerns: &[Concern]) -> Value {
        fn value(of: impl Serialize) -> Value {
            serde_json::to_value(of).unwrap_or_default()
        }
        let gateway = match &self.gateway {
            Gateway::Answers(readiness) => readiness.clone(),
            Gateway::Silent(why) => json!({"status": "silent", "message": why}),
        };
        let concerns = concerns.iter().map(|it| json!({"bad": it.bad, "text": it.text}));
        json!({
            "well": concerns.len() == 0,
            "concerns": concerns.collect::<Vec<_>>(),
            "gateway": gateway,
            "database": self.database,
            "totals": value(&self.totals),
            "consumers": value(&self.consumers),
        })
    }
}
