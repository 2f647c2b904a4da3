//! The front page: is all well, what came in, who waits. Judges what the figures mean; where they
//! come from is `store`'s and `health`'s.

use actix_web::HttpResponse;
use actix_web::web::{self, Query, ServiceConfig};
use askama::Template;
use serde::Deserialize;

use super::chart::Chart;
use super::filters;
use super::nav::Trouble;
use super::page::{self, Shell, Visit};
use super::text;
use super::traffic::{self, PERIODS, Period, Totals};
use crate::http::admin::AdminError;
use crate::http::health::{Part, Readiness, Status};
use crate::store::browse::consumers::{Consumer, consumers};
use crate::store::traffic as figures;

const PATH: &str = "/";

/// Lag from which on a consumer counts as behind, in seconds.
const BEHIND: f64 = 60.0;

pub fn routes(config: &mut ServiceConfig) {
    config.route(PATH, web::get().to(overview));
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    period: String,
}

/// Something that somebody should look at.
struct Concern {
    bad: bool,
    text: String,
    /// Where; empty if nowhere on these pages.
    link: &'static str,
}

/// A part's state, as on /readyz.
struct PartLine {
    name: &'static str,
    status: &'static str,
    message: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    period: Period,
    /// Colour of the lamp: a class of the style sheet.
    mood: &'static str,
    verdict: String,
    concerns: Vec<Concern>,
    totals: Totals,
    trouble: Trouble,
    deliveries: Chart,
    latency: Chart,
    consumers: Vec<Consumer>,
    lag_seconds: f64,
    lag_events: i64,
    parts: Vec<PartLine>,
}

async fn overview(visit: Visit, asked: Query<Asked>) -> Result<HttpResponse, AdminError> {
    let period = Period::named(&asked.period);
    let (start, now) = (period.start(visit.now), visit.now);
    let admin = visit.admin.clone();
    // In a task of its own, as all that asks the database.
    let read = actix_web::rt::spawn(async move {
        let readiness = admin.parts.examine().await;
        (figures::series(&admin.pool, start, now, period.step).await, readiness)
    });
    let (points, readiness) = read.await.map_err(|_| AdminError::Internal)?;
    let points = points.map_err(page::unanswered)?;
    let consumers = visit.read(async |connection| Ok(consumers(connection, None).await?)).await?;
    let shell = visit.shell("Overview", PATH).await?;
    let trouble = shell.trouble;
    let parts = parts(&readiness);
    let concerns = concerns(&parts, &consumers, trouble);
    let lag_seconds = consumers.iter().map(|it| it.lag_seconds).fold(0.0, f64::max);
    let lag_events = consumers.iter().map(|it| it.lag_events).fold(0, i64::max);
    page::show(&OverviewPage {
        shell,
        period,
        mood: mood(&concerns),
        verdict: verdict(&concerns),
        concerns,
        totals: Totals::of(&points),
        trouble,
        deliveries: traffic::deliveries(&points, period),
        latency: traffic::latency(&points),
        consumers,
        lag_seconds,
        lag_events,
        parts,
    })
}

fn mood(concerns: &[Concern]) -> &'static str {
    match concerns {
        [] => "ok",
        some if some.iter().any(|concern| concern.bad) => "bad",
        _ => "warn",
    }
}

fn verdict(concerns: &[Concern]) -> String {
    match concerns.len() {
        0 => "All is well.".to_owned(),
        1 => "One thing wants a look.".to_owned(),
        some => format!("{some} things want a look."),
    }
}

fn parts(readiness: &Readiness) -> Vec<PartLine> {
    let line = |name, part: &Part| PartLine {
        name,
        status: match part.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        },
        message: part.message.clone(),
    };
    let always = [
        ("Database", Some(&readiness.database)),
        ("Schema", Some(&readiness.migrations)),
        ("Intake queue", Some(&readiness.intake_queue)),
        ("Notifications", readiness.listener.as_ref()),
        ("Disk", readiness.disk.as_ref()),
        ("Shutdown", Some(&readiness.shutdown)),
    ];
    always.into_iter().filter_map(|(name, part)| Some(line(name, part?))).collect()
}

/// What wants a look, the worst first.
fn concerns(parts: &[PartLine], consumers: &[Consumer], trouble: Trouble) -> Vec<Concern> {
    let mut concerns = Vec::new();
    let mut add = |bad, text, link| concerns.push(Concern { bad, text, link });
    for part in parts.iter().filter(|part| part.status != "ok") {
        add(part.status == "fail", format!("{}: {}", part.name, part.message), "");
    }
    for it in consumers {
        match it.state.as_str() {
            "open" | "half_open" => {
                let text = format!("Consumer {}: its target fails, the breaker is open", it.name);
                add(true, text, "/consumers");
            }
            "paused" if it.lag_events > 0 => {
                let waits = text::thousands(it.lag_events);
                add(
                    false,
                    format!("Consumer {} is paused, {waits} events wait", it.name),
                    "/consumers",
                );
            }
            _ if it.lag_seconds > BEHIND => {
                let behind = text::span(it.lag_seconds);
                add(false, format!("Consumer {} is {behind} behind", it.name), "/consumers");
            }
            _ => {}
        }
    }
    let count = |count, one: &str, many: &str| {
        if count == 1 { format!("1 {one}") } else { format!("{} {many}", text::thousands(count)) }
    };
    if trouble.dead > 0 {
        let text = count(trouble.dead, "event was", "events were");
        add(true, format!("{text} given up by consumers"), "/dead-letters");
    }
    if trouble.failures > 0 {
        let text = count(trouble.failures, "failure", "failures");
        add(false, format!("{text} of tables or handlers"), "/failures");
    }
    if trouble.quarantine > 0 {
        let text = count(trouble.quarantine, "body", "bodies");
        add(false, format!("{text} in quarantine"), "/quarantine");
    }
    concerns.sort_by_key(|concern| !concern.bad);
    concerns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_say_is_said_in_one_sentence() {
        let concerns = concerns(&[], &[], Trouble::default());
        assert_eq!((verdict(&concerns).as_str(), mood(&concerns)), ("All is well.", "ok"));
    }

    #[test]
    fn the_worst_comes_first() {
        let trouble = Trouble { dead: 1, failures: 2, quarantine: 1_000 };
        let concerns = concerns(&[], &[], trouble);
        let texts: Vec<_> = concerns.iter().map(|concern| concern.text.as_str()).collect();
        let expected = [
            "1 event was given up by consumers",
            "2 failures of tables or handlers",
            "1,000 bodies in quarantine",
        ];
        assert_eq!((texts.as_slice(), mood(&concerns)), (&expected[..], "bad"));
        assert_eq!(verdict(&concerns), "3 things want a look.");
    }
}
