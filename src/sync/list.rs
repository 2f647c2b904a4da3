//! Stripe's lists, page by page (<https://docs.stripe.com/api/pagination>), and lists inside objects
//! that were cut short. What is done with the items is up to the caller.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::client::{Answer, Client};
use super::error::ApiError;
use crate::stripe::resources::segment;
use crate::stripe::snapshot::identity_of;

/// Items of a page: the most that Stripe gives.
pub const PAGE: usize = 100;

/// How often a list is begun anew.
const MOST_BEGINNINGS: u32 = 3;

/// Pages of a list inside an object at most.
const NESTED_PAGES: usize = 100;

/// One of a list's items.
#[derive(Clone, Debug)]
pub struct Item {
    /// Empty if it has none.
    pub id: String,
    /// As Stripe wrote it.
    pub json: String,
}

/// A page.
#[derive(Debug)]
pub struct Page {
    pub items: Vec<Item>,
    /// See [`Answer::second`](super::client::Answer::second).
    pub second: OffsetDateTime,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(default)]
    has_more: bool,
}

/// A list, and how far it has been read.
#[derive(Debug)]
pub struct List<'a> {
    client: &'a Client,
    /// With its query.
    path: String,
    account: &'a str,
    /// The ids of the page before; the list goes on behind the last of them.
    before: Vec<String>,
    /// Where pages ended. Two may overlap, but none may end where one did before.
    ends: HashSet<String>,
    /// How often it was begun anew, because all of a page was gone.
    begun_anew: u32,
    ended: bool,
}

impl<'a> List<'a> {
    /// From its beginning, or behind the item with the id `after`.
    pub fn new(
        client: &'a Client,
        path: impl Into<String>,
        account: &'a str,
        after: Option<String>,
    ) -> Self {
        let (path, before) = (path.into(), after.into_iter().collect());
        Self { client, path, account, before, ends: HashSet::new(), begun_anew: 0, ended: false }
    }

    /// The next page; none after the last.
    ///
    /// # Errors
    /// Also if a page comes a second time, which would go on for ever.
    pub async fn next(&mut self) -> Result<Option<Page>, ApiError> {
        if self.ended {
            return Ok(None);
        }
        let answer = self.page().await?;
        let body: Body<'_> = serde_json::from_slice(&answer.body)
            .map_err(|_| ApiError::NotStripe(format!("{} is no list", self.path)))?;
        let item =
            |json: &&RawValue| Item { id: identity_of(json.get()), json: json.get().to_owned() };
        let items: Vec<_> = body.data.iter().map(item).collect();
        self.before =
            items.iter().map(|item| &item.id).filter(|id| !id.is_empty()).cloned().collect();
        self.ended = !body.has_more || self.before.is_empty();
        if let Some(last) = self.before.last()
            && !self.ends.insert(last.clone())
        {
            return Err(ApiError::Endless(self.path.clone()));
        }
        Ok(Some(Page { items, second: answer.second }))
    }

    /// Where the last item of the page before is gone meanwhile, the one in front of it will do; if
    /// all are, the list is read from its beginning.
    async fn page(&mut self) -> Result<Answer, ApiError> {
        loop {
            match self.client.get(&self.query(), self.account).await {
                // A cursor that is not there is a bad request; a list that is not there is a 404.
                Err(error @ ApiError::Refused(_)) if error.is_missing() => {
                    if self.before.pop().is_none() || self.begun_anew == MOST_BEGINNINGS {
                        return Err(error);
                    }
                    if self.before.is_empty() {
                        self.begun_anew += 1;
                    }
                    self.ends.clear();
                }
                answer => return answer,
            }
        }
    }

    fn query(&self) -> String {
        let Self { path, before, .. } = self;
        let join = if path.contains('?') { '&' } else { '?' };
        let after = before.last().map(|id| format!("&starting_after={}", segment(id)));
        format!("{path}{join}limit={PAGE}{}", after.unwrap_or_default())
    }
}

/// The object with the lists inside it whole: where Stripe cut one short, the rest is fetched.
/// Returned as it was if there is none.
pub async fn completed(client: &Client, json: String, account: &str) -> Result<String, ApiError> {
    if !json.contains("\"has_more\"") {
        return Ok(json);
    }
    let Ok(Value::Object(mut object)) = serde_json::from_str(&json) else {
        return Ok(json);
    };
    let mut changed = false;
    for list in object.values_mut().filter(|value| is_cut_short(value)) {
        let Some(url) = list["url"].as_str().filter(|url| url.starts_with("/v")) else {
            continue;
        };
        let mut pages = List::new(client, url, account, None);
        let (mut all, mut known) = (Vec::new(), HashSet::new());
        for _ in 0..NESTED_PAGES {
            let Some(mut page) = pages.next().await? else { break };
            page.items.retain(|item| item.id.is_empty() || known.insert(item.id.clone()));
            all.extend(
                page.items.iter().filter_map(|it| serde_json::from_str::<Value>(&it.json).ok()),
            );
        }
        list["data"] = Value::Array(all);
        list["has_more"] = Value::Bool(!pages.ended);
        changed = true;
    }
    Ok(if changed { Value::Object(object).to_string() } else { json })
}

fn is_cut_short(value: &Value) -> bool {
    value["object"] == "list" && value["has_more"] == true
}
