//! Compares the billing tables with Stripe, object by object, says what differs, and mends it if asked.

use std::collections::HashSet;
use std::time::Duration;

use super::accounts::{self, Accounts};
use super::context::{Context, Shown};
use super::error::SyncError;
use super::list::List;
use super::objects::{Finding, Look, examine, look_up, whole};
use crate::store::events::Source;
use crate::store::sync::compare::{self, Known, Shelf};
use crate::store::sync::lease::Lease;
use crate::stripe::resources::{Listing, Resource};
use crate::stripe::snapshot::identity_of;

/// The duty's name.
const DUTY: &str = "verify";

/// Rows that are read at once, to be looked up one by one.
const ROWS: i64 = 200;

/// How often rows are looked up again that are as new as the look at them, and the wait before.
const LOOKS: usize = 3;
const WAIT: Duration = Duration::from_secs(2);

/// Rows that may be gone at Stripe before it looks as if the key were of another account.
const GONE_UNSUSPECTED: usize = 10;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Check {
    /// Only this table; else all.
    pub table: Option<String>,
    /// So many rows at random; else everything that Stripe lists, and every row that it does not.
    pub sample: Option<u32>,
    /// Whether to mend what differs.
    pub fix: bool,
    pub accounts: Accounts,
}

/// A row that is not as Stripe has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Drift {
    pub table: String,
    /// Empty for the platform's own.
    pub account: String,
    pub id: String,
    /// In words.
    pub what: String,
    pub mended: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Verdict {
    /// Objects that were compared.
    pub checked: u64,
    /// Rows of types that the API cannot be asked for by id.
    pub unchecked: u64,
    pub drifts: Vec<Drift>,
}

/// Compares; `told` hears how many were compared so far.
///
/// # Errors
/// If it did not come to its end. What was mended until then stays so.
pub async fn verify(
    context: &Context,
    check: &Check,
    mut told: impl FnMut(u64),
) -> Result<Verdict, SyncError> {
    let lease = context.lead(DUTY).await?;
    let (verdict, mend) = (Verdict::default(), Vec::new());
    let mut look = Looker { context, check, lease, verdict, mend, told: &mut told };
    let done = look.everywhere().await;
    let done = match done {
        Ok(()) if check.fix => look.mend().await,
        done => done,
    };
    look.lease.release().await;
    done.map(|()| look.verdict)
}

/// What is to be written to mend a drift.
struct Mending {
    /// Its place among the drifts.
    drift: usize,
    shown: Shown,
    gone: bool,
}

struct Looker<'a> {
    context: &'a Context,
    check: &'a Check,
    lease: Lease,
    verdict: Verdict,
    mend: Vec<Mending>,
    told: &'a mut dyn FnMut(u64),
}

impl Looker<'_> {
    async fn everywhere(&mut self) -> Result<(), SyncError> {
        let livemode = self.context.client.livemode();
        if let Some(most) = self.check.sample {
            let table = self.check.table.as_deref();
            let rows = compare::sample(&self.context.pool, livemode, table, most.into()).await?;
            return self.one_by_one(rows).await;
        }
        let wanted = |table: &str| self.check.table.as_ref().is_none_or(|only| only == table);
        let kinds: Vec<_> =
            crate::stripe::resources::ALL.iter().filter(|it| wanted(it.table)).collect();
        let others = wanted("objects");
        for account in accounts::all(&self.context.client, self.check.accounts).await? {
            for resource in &kinds {
                let seen = match resource.listing {
                    Listing::All(_) => self.listed(resource, &account).await?,
                    Listing::OfCustomer(_) | Listing::Summary => HashSet::new(),
                };
                self.rows(resource.table, &account, &seen).await?;
            }
            if others {
                self.rows("objects", &account, &HashSet::new()).await?;
            }
        }
        Ok(())
    }

    /// Compares what Stripe lists; returns the ids.
    async fn listed(
        &mut self,
        resource: &Resource,
        account: &str,
    ) -> Result<HashSet<String>, SyncError> {
        let mut seen = HashSet::new();
        let mut again = Vec::new();
        let mut list = List::new(&self.context.client, resource.list(""), account, None);
        while let Some(page) = list.next().await? {
            self.lease.check().await?;
            seen.extend(page.items.iter().map(|item| item.id.clone()));
            let shown = whole(self.context, page.items, account, page.second).await?;
            let findings = examine(self.context, resource.table, account, &shown).await?;
            self.count(shown.len());
            for (shown, finding) in shown.into_iter().zip(findings) {
                let id = identity_of(&shown.json);
                if finding == Finding::AsNew {
                    again.push(Known {
                        table: resource.table.to_owned(),
                        account: account.to_owned(),
                        object_type: resource.object_type.to_owned(),
                        id,
                        stored: shown.json,
                    });
                } else {
                    self.note(resource.table, &id, finding, Look { shown, gone: false });
                }
            }
        }
        self.look_again(again).await?;
        Ok(seen)
    }

    /// Compares the rows of a table that were not seen in Stripe's list.
    async fn rows(
        &mut self,
        table: &str,
        account: &str,
        seen: &HashSet<String>,
    ) -> Result<(), SyncError> {
        let shelf = Shelf { table, account, livemode: self.context.client.livemode() };
        let mut after = String::new();
        loop {
            let rows = compare::next(&self.context.pool, shelf, &after, ROWS).await?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after.clone_from(&last.id);
            let unseen = rows.into_iter().filter(|row| !seen.contains(&row.id)).collect();
            self.one_by_one(unseen).await?;
        }
    }

    async fn one_by_one(&mut self, rows: Vec<Known>) -> Result<(), SyncError> {
        let as_new = self.look(rows).await?;
        self.look_again(as_new).await
    }

    /// Looks rows up; returns those that are as new as the look.
    async fn look(&mut self, rows: Vec<Known>) -> Result<Vec<Known>, SyncError> {
        let mut as_new = Vec::new();
        for row in rows {
            self.lease.check().await?;
            let Some(look) = look_up(self.context, &row).await? else {
                self.verdict.unchecked += 1;
                continue;
            };
            let shown = std::slice::from_ref(&look.shown);
            let findings = examine(self.context, &row.table, &row.account, shown).await?;
            let finding = findings.into_iter().next().unwrap_or(Finding::Same);
            if finding == Finding::AsNew || (look.gone && finding == Finding::Same) {
                as_new.push(row);
            } else {
                self.count(1);
                self.note(&row.table, &row.id, finding, look);
            }
        }
        Ok(as_new)
    }

    /// What is as new as the look at it is looked at a little later.
    async fn look_again(&mut self, mut rows: Vec<Known>) -> Result<(), SyncError> {
        for _ in 0..LOOKS {
            if rows.is_empty() {
                return Ok(());
            }
            self.context.client.sleep(WAIT).await?;
            rows = self.look(rows).await?;
        }
        for row in rows {
            self.count(1);
            let what = "differs, but its events are newer than Stripe's clock".to_owned();
            let Known { table, account, id, .. } = row;
            self.verdict.drifts.push(Drift { table, account, id, what, mended: false });
        }
        Ok(())
    }

    fn count(&mut self, more: usize) {
        self.verdict.checked += u64::try_from(more).unwrap_or(u64::MAX);
        (self.told)(self.verdict.checked);
    }

    fn note(&mut self, table: &str, id: &str, finding: Finding, look: Look) {
        let mendable = finding.wants_writing();
        let what = match finding {
            Finding::Same | Finding::AsNew => return,
            Finding::Missing => "has no row".to_owned(),
            Finding::Differs(_) if look.gone => "is deleted at Stripe".to_owned(),
            Finding::Differs(fields) => format!("differs in {}", fields.join(", ")),
            Finding::Beyond(what) => format!("differs in {what}"),
        };
        let account = look.shown.account.clone();
        let (table, id) = (table.to_owned(), id.to_owned());
        self.verdict.drifts.push(Drift { table, account, id, what, mended: false });
        if mendable {
            let drift = self.verdict.drifts.len() - 1;
            self.mend.push(Mending { drift, shown: look.shown, gone: look.gone });
        }
    }

    /// Writes what mends the drifts, and looks whether it did.
    async fn mend(&mut self) -> Result<(), SyncError> {
        let gone = self.mend.iter().filter(|it| it.gone).count();
        if gone > GONE_UNSUSPECTED && gone as u64 * 2 > self.verdict.checked {
            return Err(SyncError::Wrong(format!(
                "{gone} of {} objects are gone at Stripe, which looks as if the API key were of another account: nothing \
                 was mended",
                self.verdict.checked
            )));
        }
        for some in self.mend.chunks(super::objects::AT_ONCE) {
            self.lease.check().await?;
            let shown: Vec<_> = some.iter().map(|it| it.shown.clone()).collect();
            self.context.write(&shown, Source::Reconcile).await?;
            for mending in some {
                let drift = &mut self.verdict.drifts[mending.drift];
                let shown = std::slice::from_ref(&mending.shown);
                let after = examine(self.context, &drift.table, &drift.account, shown).await?;
                drift.mended = after == [Finding::Same];
            }
        }
        Ok(())
    }
}
