//! The front page: is all well, what came in, who waits. Where the figures come from is
//! `store`'s and `health`'s, what of them is a concern `http::concerns`'.

use actix_web::HttpResponse;
use actix_web::web::{self, Query, ServiceConfig};
use askama::Template;
use serde::Deserialize;

use super::chart::Chart;
use super::filters;
use super::page::{self, Shell, Visit};
use super::traffic::{self, PERIODS, Period, Totals};
use crate::http::admin::AdminError;
use crate::http::concerns::{self, About, Concern, Trouble};
use crate::http::health::{Part, Readiness, Status};
use crate::store::browse::consumers::{Consumer, consumers};
use crate::store::traffic as figures;

const PATH: &str = "/";

pub fn routes(config: &mut ServiceConfig) {
    config.route(PATH, web::get().to(overview));
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    period: String,
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

impl OverviewPage {
    /// Where to look; empty if nowhere on these pages.
    #[allow(clippy::unused_self, reason = "the template calls it so")]
    fn link(&self, concern: &Concern) -> &'static str {
        match concern.about {
            About::Gateway | About::Stripe => "",
            About::Consumers => "/consumers",
            About::DeadLetters => "/dead-letters",
            About::Failures => "/failures",
            About::Quarantine => "/quarantine",
        }
    }
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
        verdict: concerns::verdict(&concerns),
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

/// What wants a look: parts of the gateway first.
fn concerns(parts: &[PartLine], consumers: &[Consumer], trouble: Trouble) -> Vec<Concern> {
    let sick = parts.iter().filter(|part| part.status != "ok").map(|part| Concern {
        bad: part.status == "fail",
        text: format!("{}: {}", part.name, part.message),
        about: About::Gateway,
    });
    sick.chain(concerns::concerns(consumers, trouble)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fails_is_worse_than_one_that_warns() {
        let part = |status| PartLine { name: "Disk", status, message: "full".to_owned() };
        let mood_of = |status| mood(&concerns(&[part(status)], &[], Trouble::default()));
        assert_eq!(["ok", "warn", "fail"].map(mood_of), ["ok", "warn", "bad"]);
    }
}
