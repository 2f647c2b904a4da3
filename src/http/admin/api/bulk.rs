//! Doing it again with many events: first a dry run, which says how many there are and what to send
//! back to have it done. What was confirmed is done, or nothing.

use actix_web::web::{Data, Json, Payload};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use super::super::{Admin, AdminError, Operate, actions};
use super::Problems;
use super::ask::{FilterBody, body};
use super::events::yes;
use crate::store::browse::EventFilter;
use crate::store::reprocess::{self, Again, Redelivered, Selection};

/// Events of one call, unless asked otherwise, and at most.
const USUAL: i64 = 1000;

/// How long after its dry run a call may be made.
const GOOD_FOR: Duration = Duration::minutes(15);

/// What a dry run says.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRun {
    /// Events that the call would be about: the newest that fit.
    pub events: usize,
    /// Whether these are all that fit.
    pub complete: bool,
    /// When Stripe made the oldest of them; `until` to go on from, if there are more.
    #[serde(with = "time::serde::rfc3339::option")]
    pub oldest: Option<OffsetDateTime>,
    /// What to send back, without `dry_run`, to have it done; good for 15 minutes.
    pub confirm: String,
}

/// The outcome of a call: of a dry run, or what was done.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Outcome<T> {
    Dry(DryRun),
    Done {
        /// Events that it was about.
        events: usize,
        #[serde(flatten)]
        #[schema(inline)]
        done: T,
    },
}

/// Events to give to a consumer again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayMany {
    #[schema(example = "mailer")]
    consumer: String,
    #[serde(default)]
    filter: FilterBody,
    /// Most events, up to 10,000; 1,000 unless said. The newest are taken.
    limit: Option<i64>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// From the dry run.
    confirm: Option<String>,
}

/// Events to run handlers and billing tables for again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReprocessMany {
    #[serde(default)]
    filter: FilterBody,
    /// Bring billing tables up to date; yes, unless said.
    #[serde(default = "yes")]
    projection: bool,
    /// The handlers to call again; all that want the type, unless said. What such a handler did
    /// before, it does a second time.
    handlers: Option<Vec<String>>,
    /// Most events, up to 10,000; 1,000 unless said. The newest are taken.
    limit: Option<i64>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// From the dry run.
    confirm: Option<String>,
}

/// What was asked of handlers and billing tables.
#[derive(Debug, Serialize, ToSchema)]
pub struct Asked {
    /// Things to be done: see `GET /api/v1/failures` for what is left.
    pub asked: i32,
}

/// Hand many events to a consumer again.
///
/// First with `dry_run`, then with the `confirm` that it answers. If other events fit by then, nothing
/// is done.
#[utoipa::path(post, path = "/api/v1/replay", tag = "events", request_body = ReplayMany,
    responses((status = 200, description = "What would be done, or was", body = Outcome<Redelivered>), Problems))]
pub async fn replay(
    Operate(who): Operate,
    admin: Data<Admin>,
    payload: Payload,
) -> Result<Json<Outcome<Redelivered>>, AdminError> {
    let asked: ReplayMany = body(payload).await?;
    let consumer = asked.consumer;
    let plan = Plan::new(&admin, "replay", &consumer, &asked.filter, asked.limit)?;
    let step = plan.step(asked.dry_run, asked.confirm.as_deref())?;
    let done = admin.transact(async move |connection| {
        crate::store::consumer_admin::exists(connection, &consumer)
            .await?
            .then_some(())
            .ok_or_else(|| AdminError::NotFound(format!("consumer {consumer}")))?;
        let which = match step.select(connection).await? {
            Selected::Dry(dry) => return Ok(Outcome::Dry(dry)),
            Selected::Events(which) => which,
        };
        let what = step.plan.filter.words();
        let done = actions::replay(connection, &who.name, &which, &consumer, &what).await?;
        Ok(Outcome::Done { events: which.len(), done })
    });
    Ok(Json(done.await?))
}

/// Run handlers and billing tables for many events again.
///
/// First with `dry_run`, then with the `confirm` that it answers. If other events fit by then, nothing
/// is done.
#[utoipa::path(post, path = "/api/v1/reprocess", tag = "events", request_body = ReprocessMany,
    responses((status = 200, description = "What would be done, or was", body = Outcome<Asked>), Problems))]
pub async fn reprocess(
    Operate(who): Operate,
    admin: Data<Admin>,
    payload: Payload,
) -> Result<Json<Outcome<Asked>>, AdminError> {
    let asked: ReprocessMany = body(payload).await?;
    let again = Again { projection: asked.projection, handlers: asked.handlers };
    let how = format!("{again:?}");
    let plan = Plan::new(&admin, "reprocess", &how, &asked.filter, asked.limit)?;
    let step = plan.step(asked.dry_run, asked.confirm.as_deref())?;
    let done = admin.transact(async move |connection| {
        let which = match step.select(connection).await? {
            Selected::Dry(dry) => return Ok(Outcome::Dry(dry)),
            Selected::Events(which) => which,
        };
        let what = step.plan.filter.words();
        let asked = actions::reprocess(connection, &who.name, &which, &again, &what).await?;
        Ok(Outcome::Done { events: which.len(), done: Asked { asked } })
    });
    Ok(Json(done.await?))
}

/// What is to be done, and with which events.
struct Plan {
    filter: EventFilter,
    limit: i64,
    fingerprint: String,
    now: OffsetDateTime,
}

/// A plan, and where it stands.
struct Step {
    plan: Plan,
    /// How many events were confirmed; none in a dry run.
    confirmed: Option<usize>,
    /// Events made from here on do not count: there were none when it was confirmed.
    cut_off: OffsetDateTime,
}

enum Selected {
    Dry(DryRun),
    Events(Selection),
}

impl Plan {
    fn new(
        admin: &Admin,
        what: &str,
        how: &str,
        filter: &FilterBody,
        limit: Option<i64>,
    ) -> Result<Self, AdminError> {
        let most = reprocess::MOST;
        let limit = limit.unwrap_or(USUAL);
        if !(1..=most).contains(&limit) {
            return Err(AdminError::Invalid(format!("limit: expected 1 to {most}, not {limit}")));
        }
        let filter = filter.filter()?;
        let digest = Sha256::digest(format!("{what} {how:?} {filter:?} {limit}"));
        let fingerprint = hex::encode(&digest[..8]);
        // Whole seconds, as Stripe's times are.
        let now = admin.clock.now().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Ok(Self { filter, limit, fingerprint, now })
    }

    fn step(self, dry_run: bool, confirm: Option<&str>) -> Result<Step, AdminError> {
        let cut_off = self.now + Duration::seconds(1);
        match (dry_run, confirm) {
            (true, Some(_)) => {
                Err(AdminError::Invalid("either dry_run or confirm, not both".to_owned()))
            }
            (true, None) => Ok(Step { plan: self, confirmed: None, cut_off }),
            (false, None) => Err(AdminError::Invalid(
                "confirm: ask with dry_run first, and send back what it answers".to_owned(),
            )),
            (false, Some(confirm)) => self.confirmed(confirm),
        }
    }

    fn confirmed(self, confirm: &str) -> Result<Step, AdminError> {
        let parts = || {
            let (print, rest) = confirm.split_once('-')?;
            let (cut_off, events) = rest.split_once('-')?;
            let cut_off = OffsetDateTime::from_unix_timestamp(cut_off.parse().ok()?).ok()?;
            Some((print, cut_off, events.parse::<usize>().ok()?))
        };
        let Some((print, cut_off, events)) = parts() else {
            return Err(AdminError::Invalid("confirm: that is none of ours".to_owned()));
        };
        if print != self.fingerprint {
            let other = "confirm: it comes from the dry run of another call";
            return Err(AdminError::Invalid(other.to_owned()));
        }
        if cut_off.saturating_add(GOOD_FOR) < self.now || cut_off > self.now + Duration::minutes(1)
        {
            return Err(AdminError::Conflict(
                "the dry run was too long ago: do it again".to_owned(),
            ));
        }
        Ok(Step { plan: self, confirmed: Some(events), cut_off })
    }
}

impl Step {
    async fn select(&self, connection: &mut PgConnection) -> Result<Selected, AdminError> {
        let mut filter = self.plan.filter.clone();
        filter.until = Some(filter.until.map_or(self.cut_off, |until| until.min(self.cut_off)));
        let which = reprocess::select(connection, &filter, self.plan.limit).await?;
        match self.confirmed {
            None => Ok(Selected::Dry(DryRun {
                events: which.len(),
                complete: which.complete,
                oldest: which.oldest(),
                confirm: format!(
                    "{}-{}-{}",
                    self.plan.fingerprint,
                    self.cut_off.unix_timestamp(),
                    which.len()
                ),
            })),
            Some(events) if events != which.len() => Err(AdminError::Conflict(format!(
                "{} events fit now, not {events}: do the dry run again",
                which.len()
            ))),
            Some(_) => Ok(Selected::Events(which)),
        }
    }
}
