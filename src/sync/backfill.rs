//! Fills the billing tables with what Stripe has: lists each kind of object and writes down, as
//! snapshots, those whose rows are missing or different. Goes on where it was interrupted.

use super::accounts::{Accounts, accounts};
use super::context::{Context, Shown};
use super::error::SyncError;
use super::list::List;
use super::objects::{AT_ONCE, Finding, examine, is_empty_summary, summary, whole};
use crate::store::events::Source;
use crate::store::sync::backfill::{self as store, Stretch};
use crate::stripe::resources::{Listing, Resource};
use time::OffsetDateTime;

/// The duty's name.
const DUTY: &str = "backfill";

/// What to fill.
#[derive(Clone, Debug)]
pub struct Plan {
    pub kinds: Vec<&'static Resource>,
    /// Only what Stripe made from then on, of the kinds that can be asked for so.
    pub since: Option<OffsetDateTime>,
    pub accounts: Accounts,
}

/// How far it is with one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Empty for the platform's own.
    pub account: String,
    /// The table.
    pub kind: String,
    /// Objects that Stripe listed, and those of them that were written, runs before included that
    /// this one goes on from.
    pub listed: i64,
    pub written: i64,
}

/// Fills the tables; `told` hears of each page.
///
/// # Errors
/// If it did not come to its end. What is done stays, and the next run goes on behind it.
pub async fn backfill(
    context: &Context,
    plan: &Plan,
    mut told: impl FnMut(&Progress),
) -> Result<Vec<Progress>, SyncError> {
    if !context.lead(DUTY).await? {
        return Err(SyncError::Busy);
    }
    let done = async {
        let mut all = Vec::new();
        for account in accounts(&context.client, plan.accounts).await? {
            for resource in &plan.kinds {
                all.push(Fill::run(context, plan, &account, resource, &mut told).await?);
            }
        }
        Ok(all)
    };
    let done = done.await;
    context.resign(DUTY).await;
    done
}

/// Filling one table.
struct Fill<'a> {
    context: &'a Context,
    resource: &'static Resource,
    stretch: Stretch<'a>,
    progress: Progress,
    told: &'a mut dyn FnMut(&Progress),
}

impl<'a> Fill<'a> {
    async fn run(
        context: &'a Context,
        plan: &Plan,
        account: &'a str,
        resource: &'static Resource,
        told: &'a mut dyn FnMut(&Progress),
    ) -> Result<Progress, SyncError> {
        let (kind, livemode) = (resource.table, context.client.livemode());
        let since = plan.since.filter(|_| resource.by_time);
        let stretch = Stretch { account, livemode, kind, since };
        let begun = store::begin(&context.pool, stretch).await?;
        let progress = Progress {
            account: account.to_owned(),
            kind: kind.to_owned(),
            listed: begun.listed,
            written: begun.written,
        };
        let mut fill = Self { context, resource, stretch, progress, told };
        (fill.told)(&fill.progress);
        match resource.listing {
            Listing::All(_) => fill.all(begun.cursor).await?,
            Listing::OfCustomer(_) | Listing::Summary => fill.by_customer(begun.cursor).await?,
        }
        store::finish(&context.pool, stretch).await?;
        Ok(fill.progress)
    }

    async fn all(&mut self, cursor: Option<String>) -> Result<(), SyncError> {
        let account = self.stretch.account;
        let mut path = self.resource.list("");
        if let Some(since) = self.stretch.since {
            let join = if path.contains('?') { '&' } else { '?' };
            path = format!("{path}{join}created[gte]={}", since.unix_timestamp());
        }
        let mut list = List::new(&self.context.client, path, account, cursor);
        while let Some(page) = list.next().await? {
            let last = page.items.last().map(|item| item.id.clone()).unwrap_or_default();
            let shown = whole(self.context, page.items, account, page.second).await?;
            self.take(&shown, &last).await?;
        }
        Ok(())
    }

    async fn by_customer(&mut self, cursor: Option<String>) -> Result<(), SyncError> {
        if self.resource.listing == Listing::Summary && !self.has_entitlements().await? {
            return Ok(());
        }
        let account = self.stretch.account;
        let mut customers = List::new(&self.context.client, "/v1/customers", account, cursor);
        while let Some(page) = customers.next().await? {
            let mut shown = Vec::new();
            let mut done = String::new();
            for customer in page.items {
                shown.extend(self.of_customer(&customer.id).await?);
                done = customer.id;
                if shown.len() >= AT_ONCE {
                    self.take(&std::mem::take(&mut shown), &done).await?;
                }
            }
            self.take(&shown, &done).await?;
        }
        Ok(())
    }

    /// One request instead of one for each customer, where nobody uses entitlements.
    async fn has_entitlements(&self) -> Result<bool, SyncError> {
        let account = self.stretch.account;
        let mut features =
            List::new(&self.context.client, "/v1/entitlements/features", account, None);
        Ok(features.next().await?.is_some_and(|page| !page.items.is_empty()))
    }

    async fn of_customer(&self, customer: &str) -> Result<Vec<Shown>, SyncError> {
        let account = self.stretch.account;
        if self.resource.listing == Listing::Summary {
            let (json, second) = summary(self.context, customer, account).await?;
            let account = account.to_owned();
            return Ok(vec![Shown { json, account, second }]);
        }
        let path = self.resource.list(customer);
        let mut list = List::new(&self.context.client, path, account, None);
        let mut all = Vec::new();
        loop {
            match list.next().await {
                Ok(Some(page)) => {
                    all.extend(whole(self.context, page.items, account, page.second).await?);
                }
                Ok(None) => return Ok(all),
                // The customer was deleted after it was listed.
                Err(error) if error.gone().is_some() => return Ok(all),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes what is missing or different, and notes that all up to `cursor` is done.
    async fn take(&mut self, shown: &[Shown], cursor: &str) -> Result<(), SyncError> {
        self.context.keep_leading(DUTY).await?;
        let (table, account) = (self.resource.table, self.stretch.account);
        let findings = examine(self.context, table, account, shown).await?;
        let wanted: Vec<_> = findings
            .iter()
            .zip(shown)
            .filter(|(finding, shown)| {
                let nothing = **finding == Finding::Missing && is_empty_summary(&shown.json);
                finding.wants_writing() && !nothing
            })
            .map(|(_, shown)| shown.clone())
            .collect();
        self.context.write(&wanted, Source::Backfill).await?;
        let listed = i64::try_from(shown.len()).unwrap_or(i64::MAX);
        let written = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
        store::advance(&self.context.pool, self.stretch, cursor, listed, written).await?;
        self.progress.listed += listed;
        self.progress.written += written;
        (self.told)(&self.progress);
        Ok(())
    }
}
