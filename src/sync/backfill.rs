//! Fills the billing tables with what Stripe has: lists each kind of object and writes down, as
//! snapshots, those whose rows are missing or different. Goes on where it was interrupted.

use time::OffsetDateTime;

use super::accounts::{self, Accounts};
use super::context::{Context, Fetched};
use super::error::SyncError;
use super::list::List;
use super::objects::{
    AT_ONCE, Finding, examine, is_empty_summary, make_sure_of_account, summary, whole,
};
use crate::store::events::Source;
use crate::store::sync::backfill::{self as store, Begun, Portion};
use crate::store::sync::lease::Lease;
use crate::stripe::resources::{Listing, Resource};

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
    /// Why it did not come to its end, if it did not.
    pub error: Option<String>,
}

/// Fills the tables; `told` hears of each page.
///
/// # Errors
/// If nothing goes on. What is done stays, and the next run goes on behind it. A kind or an account that
/// Stripe does not let be listed has its error in its progress.
pub async fn backfill(
    context: &Context,
    plan: &Plan,
    mut told: impl FnMut(&Progress),
) -> Result<Vec<Progress>, SyncError> {
    let mut lease = context.lead(DUTY).await?;
    let done = async {
        make_sure_of_account(context).await?;
        let mut all = Vec::new();
        for account in accounts::all(&context.client, plan.accounts).await? {
            for resource in &plan.kinds {
                let mut fill = Fill::begin(context, plan, &account, resource).await?;
                match fill.run(&mut Along { lease: &mut lease, told: &mut told }).await {
                    // Others can be filled all the same.
                    Err(error) if error.is_about_asked() => {
                        fill.progress.error = Some(error.to_string());
                    }
                    done => done?,
                }
                all.push(fill.progress);
            }
        }
        Ok(all)
    };
    let done = done.await;
    lease.release().await;
    done
}

/// Filling one table.
struct Fill<'a> {
    context: &'a Context,
    resource: &'static Resource,
    portion: Portion<'a>,
    cursor: Option<String>,
    progress: Progress,
}

/// What goes along: the lease, and whoever is told of each page.
struct Along<'a> {
    lease: &'a mut Lease,
    told: &'a mut dyn FnMut(&Progress),
}

impl<'a> Fill<'a> {
    async fn begin(
        context: &'a Context,
        plan: &Plan,
        account: &'a str,
        resource: &'static Resource,
    ) -> Result<Self, SyncError> {
        let (kind, livemode) = (resource.table, context.client.livemode());
        let since = plan.since.filter(|_| resource.by_time);
        let portion = Portion { account, livemode, kind, since };
        let Begun { cursor, listed, written } = store::begin(&context.pool, portion).await?;
        let (account, kind) = (account.to_owned(), kind.to_owned());
        let progress = Progress { account, kind, listed, written, error: None };
        Ok(Self { context, resource, portion, cursor, progress })
    }

    async fn run(&mut self, along: &mut Along<'_>) -> Result<(), SyncError> {
        (along.told)(&self.progress);
        match self.resource.listing {
            Listing::All(queries) => self.all(queries, along).await?,
            Listing::OfCustomer(_) | Listing::Summary => self.by_customer(along).await?,
        }
        Ok(store::finish(&self.context.pool, self.portion).await?)
    }

    /// Lists all, query by query. The cursor says which one it is of.
    async fn all(&mut self, queries: &[&str], along: &mut Along<'_>) -> Result<(), SyncError> {
        let account = self.portion.account;
        let begun = self.cursor.take().unwrap_or_default();
        let (number, id) = begun.split_once('/').unwrap_or(("0", ""));
        let first: usize = number.parse().unwrap_or_default();
        let mut after = Some(id.to_owned()).filter(|id| !id.is_empty());
        for (number, query) in queries.iter().enumerate().skip(first) {
            let mut path = self.resource.list(query);
            if let Some(since) = self.portion.since {
                let join = if path.contains('?') { '&' } else { '?' };
                path = format!("{path}{join}created[gte]={}", since.unix_timestamp());
            }
            let mut list = List::new(&self.context.client, path, account, after.take());
            while let Some(page) = list.next().await? {
                let cursor = page.items.last().map(|item| format!("{number}/{}", item.id));
                let fetched = whole(self.context, page.items, account, page.second).await?;
                self.take(&fetched, &cursor.unwrap_or_default(), along).await?;
            }
        }
        Ok(())
    }

    async fn by_customer(&mut self, along: &mut Along<'_>) -> Result<(), SyncError> {
        if self.resource.listing == Listing::Summary && !self.has_entitlements().await? {
            return Ok(());
        }
        let account = self.portion.account;
        let cursor = self.cursor.take();
        let mut customers = List::new(&self.context.client, "/v1/customers", account, cursor);
        while let Some(page) = customers.next().await? {
            let mut fetched = Vec::new();
            let mut done = String::new();
            for customer in page.items {
                fetched.extend(self.of_customer(&customer.id).await?);
                done = customer.id;
                if fetched.len() >= AT_ONCE {
                    self.take(&std::mem::take(&mut fetched), &done, along).await?;
                }
            }
            self.take(&fetched, &done, along).await?;
        }
        Ok(())
    }

    /// One request instead of one for each customer, where nobody uses entitlements.
    async fn has_entitlements(&self) -> Result<bool, SyncError> {
        let account = self.portion.account;
        let mut features =
            List::new(&self.context.client, "/v1/entitlements/features", account, None);
        Ok(features.next().await?.is_some_and(|page| !page.items.is_empty()))
    }

    async fn of_customer(&self, customer: &str) -> Result<Vec<Fetched>, SyncError> {
        let account = self.portion.account;
        if self.resource.listing == Listing::Summary {
            let (json, second) = summary(self.context, customer, account).await?;
            let account = account.to_owned();
            return Ok(vec![Fetched { json, account, second }]);
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
    async fn take(
        &mut self,
        fetched: &[Fetched],
        cursor: &str,
        along: &mut Along<'_>,
    ) -> Result<(), SyncError> {
        along.lease.check().await?;
        let (table, account) = (self.resource.table, self.portion.account);
        let findings = examine(self.context, table, account, fetched).await?;
        let wanted: Vec<_> = findings
            .iter()
            .zip(fetched)
            .filter(|(finding, fetched)| {
                let nothing = **finding == Finding::Missing && is_empty_summary(&fetched.json);
                finding.wants_writing() && !nothing
            })
            .map(|(_, fetched)| fetched.clone())
            .collect();
        self.context.write(&wanted, Source::Backfill).await?;
        let listed = i64::try_from(fetched.len()).unwrap_or(i64::MAX);
        let written = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
        store::advance(&self.context.pool, self.portion, cursor, listed, written).await?;
        self.progress.listed += listed;
        self.progress.written += written;
        (along.told)(&self.progress);
        Ok(())
    }
}
