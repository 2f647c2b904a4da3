//! Compares the billing tables with Stripe, object by object, says what differs, and mends it if asked.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::accounts::{self, Accounts};
use super::context::{Context, Fetched};
use super::error::SyncError;
use super::list::List;
use super::objects::{
    AT_ONCE, Finding, Look, examine, look_up, make_sure_of_account, whole, wrong_key,
};
use crate::store::events::Source;
use crate::store::sync::compare::{self, Known, Shelf};
use crate::store::sync::lease::Lease;
use crate::stripe::resources::{ALL, Listing, Resource};
use crate::stripe::snapshot::identity_of;

/// The duty's name.
const DUTY: &str = "verify";

/// Rows that are read at once, to be looked up one by one.
const ROWS: i64 = 200;

/// How often rows are looked up again that are as new as the look at them, and the wait before.
const LOOKS: usize = 3;
const WAIT: Duration = Duration::from_secs(2);

/// Drifts that are told one by one; beyond, they are counted.
const MOST_TOLD: usize = 10_000;

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
    /// What Stripe did not let be looked at, in words: a kind, an account, an object.
    pub refused: Vec<String>,
    /// Rows that are not as Stripe has them, and those of them that are not mended.
    pub differ: u64,
    pub unmended: u64,
    /// The first ten thousand of them.
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
    let verdict = Verdict::default();
    let (found, gone) = (Vec::new(), Vec::new());
    let mut look = Looker { context, check, lease, verdict, rows: 0, found, gone, told: &mut told };
    let done = look.everywhere().await;
    let done = match done {
        Ok(()) => look.settle_gone().await,
        failed => failed,
    };
    look.lease.release().await;
    done.map(|()| look.verdict)
}

/// A row that drifts, and the look at Stripe that would mend it.
struct Drifting {
    table: String,
    id: String,
    what: String,
    fetched: Fetched,
}

struct Looker<'a> {
    context: &'a Context,
    check: &'a Check,
    lease: Lease,
    verdict: Verdict,
    /// Rows of ours that were compared: not what only Stripe has.
    rows: usize,
    /// What was found and is not settled yet.
    found: Vec<Drifting>,
    /// Rows whose objects are gone at Stripe: settled last, when it is known how many they are.
    gone: Vec<Drifting>,
    told: &'a mut dyn FnMut(u64),
}

impl Looker<'_> {
    async fn everywhere(&mut self) -> Result<(), SyncError> {
        if self.check.fix {
            make_sure_of_account(self.context).await?;
        }
        let livemode = self.context.client.livemode();
        if let Some(most) = self.check.sample {
            let table = self.check.table.as_deref();
            let connected = self.check.accounts == Accounts::Connected;
            let pool = &self.context.pool;
            let rows = compare::sample(pool, livemode, table, most.into(), connected).await?;
            self.one_by_one(rows).await?;
            return self.settle().await;
        }
        let wanted = |table: &str| self.check.table.as_ref().is_none_or(|only| only == table);
        let kinds: Vec<_> = ALL.iter().filter(|it| wanted(it.table)).collect();
        let others = wanted("objects");
        for account in accounts::all(&self.context.client, self.check.accounts).await? {
            for resource in &kinds {
                match self.kind(resource, &account).await {
                    Err(error) if error.is_about_asked() => {
                        self.refused(resource.table, &account, "", &error);
                    }
                    done => done?,
                }
                self.settle().await?;
            }
            if others {
                self.rows("objects", &account, &HashSet::new()).await?;
                self.settle().await?;
            }
        }
        Ok(())
    }

    async fn kind(&mut self, resource: &Resource, account: &str) -> Result<(), SyncError> {
        let mut seen = HashSet::new();
        if let Listing::All(queries) = resource.listing {
            for query in queries {
                self.listed(resource, query, account, &mut seen).await?;
            }
        }
        self.rows(resource.table, account, &seen).await
    }

    /// Compares what Stripe lists, and remembers what that was.
    async fn listed(
        &mut self,
        resource: &Resource,
        query: &str,
        account: &str,
        seen: &mut HashSet<u64>,
    ) -> Result<(), SyncError> {
        let mut again = Vec::new();
        let mut list = List::new(&self.context.client, resource.list(query), account, None);
        while let Some(page) = list.next().await? {
            self.lease.check().await?;
            seen.extend(page.items.iter().map(|item| hash(&item.id)));
            let fetched = whole(self.context, page.items, account, page.second).await?;
            let findings = examine(self.context, resource.table, account, &fetched).await?;
            for (fetched, finding) in fetched.into_iter().zip(findings) {
                let id = identity_of(&fetched.json);
                if finding == Finding::AsNew {
                    again.push(Known {
                        table: resource.table.to_owned(),
                        account: account.to_owned(),
                        object_type: resource.object_type.to_owned(),
                        id,
                        stored: fetched.json,
                    });
                } else {
                    self.note(resource.table, &id, finding, Look { fetched, gone: false });
                }
            }
            self.settle().await?;
        }
        self.look_again(again).await
    }

    /// Compares the rows of a table that were not seen in Stripe's list.
    async fn rows(
        &mut self,
        table: &str,
        account: &str,
        seen: &HashSet<u64>,
    ) -> Result<(), SyncError> {
        let whose = Shelf { table, account, livemode: self.context.client.livemode() };
        let mut after = (String::new(), String::new());
        loop {
            let behind = (after.0.as_str(), after.1.as_str());
            let rows = compare::next(&self.context.pool, whose, behind, ROWS).await?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = (last.id.clone(), last.object_type.clone());
            let unseen = rows.into_iter().filter(|row| !seen.contains(&hash(&row.id))).collect();
            self.one_by_one(unseen).await?;
            self.settle().await?;
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
            let look = match look_up(self.context, &row).await {
                Ok(Some(look)) => look,
                Ok(None) => {
                    self.verdict.unchecked += 1;
                    continue;
                }
                Err(error) if error.is_about_asked() => {
                    self.refused(&row.table, &row.account, &row.id, &error.into());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let fetched = std::slice::from_ref(&look.fetched);
            let findings = examine(self.context, &row.table, &row.account, fetched).await?;
            let finding = findings.into_iter().next().unwrap_or(Finding::Same);
            if finding == Finding::AsNew {
                as_new.push(row);
            } else {
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
            self.count(true);
            let what = "differs, but its events are newer than Stripe's clock".to_owned();
            self.tell(Drift {
                table: row.table,
                account: row.account,
                id: row.id,
                what,
                mended: false,
            });
        }
        Ok(())
    }

    fn count(&mut self, has_row: bool) {
        self.verdict.checked += 1;
        self.rows += usize::from(has_row);
        (self.told)(self.verdict.checked);
    }

    fn refused(&mut self, table: &str, account: &str, id: &str, error: &SyncError) {
        if self.verdict.refused.len() < MOST_TOLD {
            let what = format!("{account} {table} {id}");
            let words: Vec<_> = what.split_whitespace().collect();
            self.verdict.refused.push(format!("{}: {error}", words.join(" ")));
        }
    }

    fn note(&mut self, table: &str, id: &str, finding: Finding, look: Look) {
        self.count(finding != Finding::Missing);
        let mendable = finding.wants_writing();
        let what = match finding {
            Finding::Same | Finding::AsNew => return,
            Finding::Missing if look.gone => return,
            Finding::Missing => "has no row".to_owned(),
            Finding::Differs(_) if look.gone => "is deleted at Stripe".to_owned(),
            Finding::Differs(fields) => format!("differs in {}", fields.join(", ")),
            Finding::Beyond(what) => format!("differs in {what}"),
        };
        let Look { fetched, gone } = look;
        let (table, id) = (table.to_owned(), id.to_owned());
        if !mendable {
            self.tell(Drift { table, account: fetched.account, id, what, mended: false });
        } else if gone {
            self.gone.push(Drifting { table, id, what, fetched });
        } else {
            self.found.push(Drifting { table, id, what, fetched });
        }
    }

    fn tell(&mut self, drift: Drift) {
        self.verdict.differ += 1;
        self.verdict.unmended += u64::from(!drift.mended);
        if self.verdict.drifts.len() < MOST_TOLD {
            self.verdict.drifts.push(drift);
        }
    }

    /// Mends what was found, if that is asked for, and tells of it.
    async fn settle(&mut self) -> Result<(), SyncError> {
        let found = std::mem::take(&mut self.found);
        self.settle_all(found).await
    }

    /// The same with what is gone at Stripe, unless that is everything: then it is the key that is wrong.
    async fn settle_gone(&mut self) -> Result<(), SyncError> {
        let gone = std::mem::take(&mut self.gone);
        if self.check.fix && !gone.is_empty() && gone.len() * 2 > self.rows {
            return Err(wrong_key(gone.len(), self.rows));
        }
        self.settle_all(gone).await
    }

    async fn settle_all(&mut self, found: Vec<Drifting>) -> Result<(), SyncError> {
        for some in found.chunks(AT_ONCE) {
            let fetched: Vec<_> = some.iter().map(|it| it.fetched.clone()).collect();
            if self.check.fix {
                self.lease.check().await?;
                self.context.write(&fetched, Source::Reconcile).await?;
            }
            for Drifting { table, id, what, fetched } in some {
                let one = std::slice::from_ref(fetched);
                let mended = self.check.fix
                    // An event that came meanwhile may say something else again, and be right.
                    && !examine(self.context, table, &fetched.account, one).await?[0].wants_writing();
                let (table, account, id) = (table.clone(), fetched.account.clone(), id.clone());
                self.tell(Drift { table, account, id, what: what.clone(), mended });
            }
        }
        Ok(())
    }
}

/// A number for an id: a kind may have millions of them.
fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
