//! Compares the log with Stripe's list of events and fetches what no webhook brought.
//! What is fetched goes the way of every event; how far it got is kept in `store::sync::reconcile`.

mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::accounts::{Accounts, connected};
use super::context::Context;
use super::error::{ApiError, SyncError};
use super::list::List;
use crate::ingest::queue::Outcome;
use crate::store::events::NewEvent;
use crate::store::handlers::Pattern;
use crate::store::sync::lease::Lease;
use crate::store::sync::reconcile::{self as store, Gap, Reach};
use crate::stripe::resources::segment;
pub use report::{Report, Scope};

/// The duty's name.
const DUTY: &str = "reconcile";

/// How far behind the watermark a run looks again, for what Stripe listed late.
const OVERLAP: time::Duration = time::Duration::minutes(5);

/// Webhooks of events that are younger may just be on their way.
const UNDER_WAY: time::Duration = time::Duration::minutes(1);

/// Passes of one run at most.
const PASSES: usize = 10;

/// What is gathered before it is written, oldest first: Stripe lists the newest first.
const HAUL_EVENTS: usize = 5_000;
const HAUL_BYTES: usize = 32 << 20;

/// Events that are handed over together.
const AT_ONCE: usize = 500;

/// Accounts in a row that Stripe does not answer about, before it is taken to be down for all.
const SILENT: usize = 2;

/// How long an event that a handler keeps out is tried again: as long as Stripe tries
/// (<https://docs.stripe.com/webhooks#automatic-retries>).
const KEPT_OUT: time::Duration = time::Duration::days(3);

/// Types that Stripe takes in one request.
const TYPES_AT_ONCE: usize = 20;

/// Compares again and again, until told to stop; at once, too, since the gateway may have been down.
pub async fn run(context: &Context, every: Duration, accounts: Accounts, stop: CancellationToken) {
    let scope = Scope { accounts, ..Scope::default() };
    loop {
        match reconcile(context, &scope).await {
            Ok(_) | Err(SyncError::Busy | SyncError::Api(ApiError::Stopped)) => {}
            Err(error) => {
                tracing::error!(%error, "the log could not be compared with Stripe's events");
            }
        }
        loop {
            if stop.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
                return;
            }
            // Once in that time does, for all replicas together.
            let fresh = store::is_fresh(&context.pool, context.client.livemode(), every / 2).await;
            if !matches!(fresh, Ok(true)) {
                break;
            }
        }
    }
}

/// Compares once, unless another process is doing so.
///
/// # Errors
/// If nothing could be compared. What goes wrong with one account stands in its report.
pub async fn reconcile(context: &Context, scope: &Scope) -> Result<Vec<Report>, SyncError> {
    let mut lease = context.lead(DUTY).await?;
    let done = each_account(context, scope, &mut lease).await;
    lease.release().await;
    done
}

async fn each_account(
    context: &Context,
    scope: &Scope,
    lease: &mut Lease,
) -> Result<Vec<Report>, SyncError> {
    // First, because it does not depend on what others are connected.
    let mut reports = vec![Run::new(context, scope, lease, "").report().await?];
    let others = match connected(&context.client, scope.accounts).await {
        Ok(others) => others,
        Err(error) => {
            // Where people look: else those accounts would never be missed.
            if !scope.dry_run {
                let (livemode, told) = (context.client.livemode(), error.to_string());
                store::failed(&context.pool, "", livemode, &told).await?;
            }
            return Err(error.into());
        }
    };
    if scope.accounts == Accounts::Connected && !scope.dry_run {
        store::forget_others(&context.pool, context.client.livemode(), &others).await?;
    }
    let mut silent = 0;
    for account in others {
        match Run::new(context, scope, lease, &account).report().await {
            Ok(report) => {
                silent = 0;
                reports.push(report);
            }
            Err(error) if error.is_about_asked() || error.is_silence() && silent < SILENT => {
                silent += usize::from(error.is_silence());
                tracing::error!(%error, account, "an account could not be compared");
                let livemode = context.client.livemode();
                let error = Some(error.to_string());
                reports.push(Report { account, livemode, error, ..Report::default() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(reports)
}

/// A part of Stripe's list of events.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Where it ends, in the past.
    floor: OffsetDateTime,
    /// What was made before that has been compared already.
    line: OffsetDateTime,
    /// Whether to look at all of it, and not to stop where there is nothing new behind the line. Done
    /// once a day, should Stripe ever list an event among a hundred others that are known, and after a
    /// run that broke off.
    whole: bool,
}

impl Stretch {
    /// What is new since all up to `watermark` was compared.
    fn behind(watermark: OffsetDateTime) -> Self {
        Self { floor: watermark - OVERLAP, line: watermark, whole: false }
    }
}

/// One account's run.
struct Run<'a> {
    context: &'a Context,
    scope: &'a Scope,
    lease: &'a mut Lease,
    account: &'a str,
    report: Report,
    haul: BTreeMap<(OffsetDateTime, String), NewEvent>,
    haul_bytes: usize,
    /// When the oldest event was made that a handler keeps out, and that Stripe itself would send
    /// again.
    kept_out: Option<OffsetDateTime>,
    /// Stripe's time, by the first page of a pass: what is made while others are read is not on it.
    now: OffsetDateTime,
}

impl<'a> Run<'a> {
    fn new(context: &'a Context, scope: &'a Scope, lease: &'a mut Lease, account: &'a str) -> Self {
        let livemode = context.client.livemode();
        let report = Report { account: account.to_owned(), livemode, ..Report::default() };
        let now = OffsetDateTime::UNIX_EPOCH;
        let haul = BTreeMap::new();
        Self { context, scope, lease, account, report, haul, haul_bytes: 0, kept_out: None, now }
    }

    /// Runs, and keeps what came of it where people look.
    async fn report(mut self) -> Result<Report, SyncError> {
        let done = self.go_through().await;
        if !self.scope.dry_run {
            let told = self.tell().await;
            if let Err(error) = &done
                && !matches!(error, SyncError::Api(ApiError::Stopped))
            {
                let (account, livemode) = (self.account, self.report.livemode);
                store::failed(&self.context.pool, account, livemode, &error.to_string()).await?;
            }
            told?;
        }
        done.map(|()| self.report)
    }

    /// Passes over the list until one finds nothing: events happen while pages are turned.
    async fn go_through(&mut self) -> Result<(), SyncError> {
        let reach = self.begin().await?;
        let mut stretch = match self.scope.since {
            Some(since) => Stretch { floor: since, line: since, whole: true },
            None if reach.sweep_is_due => {
                Stretch { floor: reach.swept_to - OVERLAP, line: reach.watermark, whole: true }
            }
            None => Stretch { whole: !reach.unbroken, ..Stretch::behind(reach.watermark) },
        };
        // A run of some types, or of the last hours only, says nothing of what lies between.
        let covers = self.scope.types.is_empty() && stretch.floor <= reach.watermark;
        for _ in 0..PASSES {
            let before = self.report.events();
            let newest = self.pass(&stretch).await?;
            if self.scope.dry_run {
                break;
            }
            // Not beyond Stripe's own clock as it was then, whatever an event says, and not beyond
            // what a handler keeps out.
            let newest = newest.unwrap_or(stretch.line).min(self.now);
            let watermark =
                self.kept_out.map_or(newest, |it| newest.min(it - time::Duration::SECOND));
            if covers {
                let (account, livemode) = (self.account, self.report.livemode);
                let swept =
                    stretch.whole && stretch.floor <= reach.swept_to && self.kept_out.is_none();
                store::reached(&self.context.pool, account, livemode, watermark, swept).await?;
            }
            if self.report.events() == before {
                break;
            }
            stretch = Stretch::behind(newest.max(stretch.line));
        }
        Ok(())
    }

    /// How far everything was compared. If nothing was yet: from when it is the gateway's to miss,
    /// which has to be told by Stripe's clock.
    async fn begin(&self) -> Result<Reach, SyncError> {
        let (pool, livemode) = (&self.context.pool, self.report.livemode);
        let reach = store::begin(pool, self.account, livemode).await?;
        if !reach.is_first {
            return Ok(reach);
        }
        let began = reach.began_at - self.context.client.skew(self.account).await?;
        let watermark = began.truncate_to_second();
        Ok(Reach { watermark, swept_to: watermark, ..reach })
    }

    /// Compares page by page, the newest first, so that what comes meanwhile does not move what is
    /// still to be read; returns when the newest was made.
    async fn pass(&mut self, stretch: &Stretch) -> Result<Option<OffsetDateTime>, SyncError> {
        let (mut newest, mut is_first) = (None, true);
        let query = self.query(stretch.floor);
        let mut list = List::new(&self.context.client, query, self.account, None);
        loop {
            let page = match list.next().await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(error) => {
                    // What was gathered is not lost: a list that breaks off in the same place again
                    // and again is got through all the same.
                    self.write().await?;
                    return Err(error.into());
                }
            };
            self.lease.check().await?;
            if is_first {
                self.now = page.second;
            }
            is_first = false;
            self.report.pages += 1;
            self.report.listed += page.items.len();
            let read = |json: &str| self.context.event(json, self.account);
            let mut events: Vec<_> = page.items.iter().filter_map(|it| read(&it.json)).collect();
            events.retain(|event| self.is_wanted(&event.envelope.event_type));
            newest = newest.or(events.iter().map(|event| event.envelope.created).max());
            // Asked for are those from the floor on; should there be others, they are not wanted.
            let floor = stretch.floor.truncate_to_second();
            let all = events.len();
            events.retain(|event| event.envelope.created >= floor);
            let is_below = events.len() < all;
            let nothing_new = self.gather(events, stretch.line).await?;
            if is_below || (nothing_new && !stretch.whole) {
                break;
            }
        }
        self.write().await?;
        Ok(newest)
    }

    /// The list's path. Types that cannot be asked for are sorted out here.
    fn query(&self, floor: OffsetDateTime) -> String {
        let mut query = format!("/v1/events?created[gte]={}", floor.unix_timestamp());
        let types: Vec<_> = self.scope.types.iter().map(Pattern::as_str).collect();
        match types.as_slice() {
            [one] => query.extend(["&type=", &segment(one)]),
            some if some.len() <= TYPES_AT_ONCE && !some.iter().any(|one| one.contains('*')) => {
                query.extend(some.iter().map(|one| format!("&types[]={}", segment(one))));
            }
            _ => {}
        }
        query
    }

    fn is_wanted(&self, event_type: &str) -> bool {
        let types = &self.scope.types;
        types.is_empty() || types.iter().any(|pattern| pattern.fits(event_type))
    }

    /// Takes what the log lacks. True if the page shows that what comes behind it has been compared
    /// before: it has nothing new, and reaches back to `line`.
    async fn gather(
        &mut self,
        events: Vec<NewEvent>,
        line: OffsetDateTime,
    ) -> Result<bool, SyncError> {
        let known = store::known(&self.context.pool, &events).await?;
        let oldest = events.iter().map(|event| event.envelope.created).min();
        let nothing_new = known.iter().all(|known| *known) && oldest.is_some_and(|it| it <= line);
        for (event, known) in events.into_iter().zip(known) {
            if !known {
                self.haul_bytes += event.raw.len();
                let key = (event.envelope.created, event.envelope.id.to_string());
                self.haul.insert(key, event);
            }
        }
        if self.haul.len() >= HAUL_EVENTS || self.haul_bytes >= HAUL_BYTES {
            self.write().await?;
        }
        Ok(nothing_new)
    }

    /// Writes what was gathered, oldest first.
    async fn write(&mut self) -> Result<(), SyncError> {
        self.haul_bytes = 0;
        let events: Vec<_> = std::mem::take(&mut self.haul).into_values().collect();
        for some in events.chunks(AT_ONCE) {
            let outcomes = if self.scope.dry_run {
                vec![Some(Outcome::Recorded { position: 0 }); some.len()]
            } else {
                self.context.inlet.commit(some).await?
            };
            for (event, outcome) in some.iter().zip(outcomes) {
                self.count(event, outcome.as_ref());
            }
        }
        Ok(())
    }

    fn count(&mut self, event: &NewEvent, outcome: Option<&Outcome>) {
        let created = event.envelope.created;
        match outcome {
            // A webhook brought it meanwhile.
            Some(Outcome::Duplicate) => {}
            Some(Outcome::Recorded { .. }) => {
                self.report.count(event, created < self.now - UNDER_WAY);
            }
            // The database cannot hold it, and never will: its bytes are kept.
            Some(Outcome::Quarantined { .. }) => self.report.quarantined += 1,
            None => {
                self.report.rejected += 1;
                if created > self.now - KEPT_OUT {
                    self.kept_out = Some(self.kept_out.map_or(created, |it| it.min(created)));
                }
            }
        }
    }

    /// Says what came of it where people look.
    async fn tell(&self) -> Result<(), SyncError> {
        let Report { account, livemode, late, rejected, quarantined, pages, .. } = &self.report;
        if let Some(gap) = self.report.gap() {
            store::keep_gap(&self.context.pool, account, *livemode, &gap).await?;
            let types: Vec<_> = gap.types.iter().map(|(name, n)| format!("{name} {n}")).collect();
            let Gap { events, since, until, .. } = gap;
            let types = types.join(", ");
            if *late > 0 {
                tracing::warn!(account, events, late, %since, %until, types, "reconcile.gap: webhooks did not bring these events; they are fetched");
            } else {
                tracing::info!(account, events, types, "reconciling was faster than webhooks");
            }
        }
        if *quarantined > 0 {
            tracing::warn!(
                account,
                quarantined,
                "Stripe lists events that the database cannot hold"
            );
        }
        if *rejected > 0 {
            tracing::warn!(account, rejected, "a handler keeps events out that Stripe lists");
        }
        tracing::debug!(account, pages, "compared with Stripe's events");
        Ok(())
    }
}
