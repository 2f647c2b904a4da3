//! Objects as Stripe shows them now, and what that says of their rows: the same, missing, different.
//! Whether anything is written is up to the duty that asks.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::client::API_VERSION;
use super::context::{Context, Fetched};
use super::error::{ApiError, SyncError};
use super::list::{Item, List, completed};
use crate::store::events::Source;
use crate::store::sync::compare::{self, Beside, Candidate, Known, Shelf, beside};
use crate::store::{Fault, StoreError, objects};
use crate::stripe::kinds::ENTITLEMENTS;
use crate::stripe::order::{Phase, Standing, differences};
use crate::stripe::resources::{Resource, path_of};
use crate::stripe::snapshot::storable;

/// Objects compared in one statement.
pub const AT_ONCE: usize = 200;

/// What was found of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The row shows it.
    Same,
    /// There is no row.
    Missing,
    /// Columns, or members of the object, that are not so.
    Differs(Vec<String>),
    /// The row differs, and is as new as the look at Stripe: look again.
    AsNew,
    /// The row differs in a way that no later look can overrule.
    Beyond(String),
}

impl Finding {
    /// Whether writing the object down mends the row.
    pub fn wants_writing(&self) -> bool {
        matches!(self, Self::Missing | Self::Differs(_))
    }
}

/// The lists inside the items of a page made whole. What is gone meanwhile is left as it was listed.
pub async fn whole(
    context: &Context,
    items: Vec<Item>,
    account: &str,
    second: OffsetDateTime,
) -> Result<Vec<Fetched>, ApiError> {
    let mut all = Vec::with_capacity(items.len());
    for Item { json, .. } in items {
        let json = match completed(&context.client, json.clone(), account).await {
            Err(ApiError::NotFound { .. }) => json,
            whole => whole?,
        };
        all.push(Fetched { json, account: account.to_owned(), second });
    }
    Ok(all)
}

/// Holds objects of one table against their rows.
pub async fn examine(
    context: &Context,
    table: &str,
    account: &str,
    fetched: &[Fetched],
) -> Result<Vec<Finding>, SyncError> {
    let mut all = Vec::with_capacity(fetched.len());
    for some in fetched.chunks(AT_ONCE) {
        match examine_some(context, table, account, some).await {
            Ok(findings) => all.extend(findings),
            // One of them is nothing that Postgres can hold; the others must not suffer for it.
            Err(error) if error.fault() == Fault::Data => {
                for one in some {
                    let finding = examine_some(context, table, account, std::slice::from_ref(one));
                    all.extend(match finding.await {
                        Err(error) if error.fault() == Fault::Data => {
                            vec![Finding::Beyond(format!("all: no row can hold it: {error}"))]
                        }
                        finding => finding?,
                    });
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

async fn examine_some(
    context: &Context,
    table: &str,
    account: &str,
    some: &[Fetched],
) -> Result<Vec<Finding>, StoreError> {
    let shelf = Shelf { table, account, livemode: context.client.livemode() };
    let events: Vec<_> = some.iter().map(|it| context.snapshot(it, Source::Backfill)).collect();
    let read = events.iter().map(|event| {
        let event = event.as_ref()?;
        objects::Shown::of(&event.envelope, &event.raw)
    });
    let read: Vec<_> = read.map(|shown| shown.filter(|it| it.key.table == table)).collect();
    let candidates: Vec<_> = read.iter().flatten().map(candidate).collect();
    let mut rows = beside(&context.pool, shelf, &candidates).await?.into_iter();
    let findings = read.iter().map(|shown| match shown {
        // Without an identity there is no row that could show it.
        None => Finding::Same,
        Some(shown) => rows.next().flatten().map_or(Finding::Missing, |row| compared(shown, &row)),
    });
    Ok(findings.collect())
}

fn candidate(shown: &objects::Shown<'_>) -> Candidate {
    Candidate {
        object_type: shown.key.object_type.clone(),
        id: shown.key.id.clone(),
        json: storable(shown.snapshot.json).into_owned(),
    }
}

fn compared(shown: &objects::Shown<'_>, row: &Beside) -> Finding {
    let Standing { incarnation, phase, created } = shown.standing;
    let (here, there) = ((row.incarnation, row.phase), (incarnation, phase as i16));
    let differing = match phase {
        // Of what is gone nothing but that counts.
        Phase::Deleted if row.phase == there.1 => Vec::new(),
        Phase::Deleted => vec!["deleted".to_owned()],
        _ => differing(shown, row),
    };
    if differing.is_empty() {
        Finding::Same
    } else if here > there {
        Finding::Beyond(format!("{}: by its events it is over or deleted", differing.join(", ")))
    } else if here == there && row.as_of >= created {
        Finding::AsNew
    } else {
        Finding::Differs(differing)
    }
}

/// Typed columns and members that the row shows otherwise. Renderings in other versions differ without
/// saying anything else: of these the columns count, and the lists, from which views are made.
fn differing(shown: &objects::Shown<'_>, row: &Beside) -> Vec<String> {
    let stored: Value = serde_json::from_str(&row.stored).unwrap_or_default();
    let seen: Value = serde_json::from_str(&storable(shown.snapshot.json)).unwrap_or_default();
    let mut all = row.differing.clone();
    if row.api_version.as_deref() == Some(API_VERSION) {
        all.extend(differences(&stored, &seen));
    } else {
        let members = seen.as_object().into_iter().flatten();
        let lists = members.filter(|(_, value)| value["object"] == "list");
        all.extend(
            lists
                .filter(|(key, list)| stored.get(*key).is_some_and(|it| lists_differ(it, list)))
                .map(|(key, _)| key.clone()),
        );
    }
    all.sort();
    all.dedup();
    all
}

/// Whether two lists are of different things, whatever the version they are rendered in.
fn lists_differ(stored: &Value, seen: &Value) -> bool {
    fn thing(item: &Value) -> [&Value; 4] {
        ["id", "quantity", "amount", "lookup_key"].map(|key| &item[key])
    }
    fn things(list: &Value) -> Vec<[&Value; 4]> {
        list["data"].as_array().into_iter().flatten().map(thing).collect()
    }
    things(stored) != things(seen)
}

/// What a look at one object showed.
#[derive(Clone, Debug)]
pub struct Look {
    pub fetched: Fetched,
    /// Stripe has it no more: it is shown as it was last known, and deleted.
    pub gone: bool,
}

/// Looks at the object of a known row. None for a type that the API cannot be asked for by id.
pub async fn look_up(context: &Context, known: &Known) -> Result<Option<Look>, ApiError> {
    let stored: Value = serde_json::from_str(&known.stored).unwrap_or_default();
    let account = known.account.clone();
    if known.object_type == ENTITLEMENTS {
        let (json, second) = summary(context, &known.id, &account).await?;
        let fetched = Fetched { json, account, second };
        return Ok(Some(Look { fetched, gone: false }));
    }
    let Some(path) = path_of(&known.object_type, &known.id, &stored) else {
        return Ok(None);
    };
    look_at(context, &path, &account, &stored).await.map(Some)
}

/// Looks at the object of a path, of which the last state is `known`.
pub async fn look_at(
    context: &Context,
    path: &str,
    account: &str,
    known: &Value,
) -> Result<Look, ApiError> {
    let account = account.to_owned();
    let answer = match context.client.get(path, &account).await {
        Ok(answer) => answer,
        Err(error) => match error.gone() {
            Some(second) => {
                let fetched = Fetched { json: deleted(known), account, second };
                return Ok(Look { fetched, gone: true });
            }
            None => return Err(error),
        },
    };
    let second = answer.second;
    let json = String::from_utf8(answer.body.to_vec())
        .map_err(|_| ApiError::NotStripe(format!("{path} is no text")))?;
    let gone = serde_json::from_str::<Value>(&json).is_ok_and(|object| object["deleted"] == true);
    let json =
        if gone { deleted(known) } else { completed(&context.client, json, &account).await? };
    Ok(Look { fetched: Fetched { json, account, second }, gone })
}

/// Rows that are looked up to see whose key it is.
const TRIED: i64 = 12;

/// Makes sure that the key is of the account whose objects the tables hold, as far as can be told: with
/// another account's everything would look deleted, and everything of that account's new.
pub async fn make_sure_of_account(context: &Context) -> Result<(), SyncError> {
    let livemode = context.client.livemode();
    let (mut gone, mut there) = (0, 0);
    for row in compare::sample(&context.pool, livemode, None, TRIED, false).await? {
        match look_up(context, &row).await {
            Ok(Some(look)) if look.gone => gone += 1,
            // A summary is made whether or not there is such a customer.
            Ok(Some(_)) if row.object_type != ENTITLEMENTS => there += 1,
            Ok(_) => {}
            Err(error) if error.is_about_asked() => {}
            Err(error) => return Err(error.into()),
        }
    }
    if there == 0 && gone > 2 { Err(wrong_key(gone, gone)) } else { Ok(()) }
}

/// That so much is gone that it is rather the key that is wrong.
pub fn wrong_key(gone: usize, of: usize) -> SyncError {
    SyncError::Wrong(format!(
        "{gone} of {of} objects that were looked up are gone at Stripe, which looks as if the API key were of another \
         account"
    ))
}

/// The object as it was last known, and deleted: what Stripe itself says of one that is gone does not
/// tell it from a later one of the same id.
fn deleted(known: &Value) -> String {
    let mut object = known.clone();
    object["deleted"] = Value::Bool(true);
    object.to_string()
}

/// What a customer is entitled to, as the event about it shows it.
pub async fn summary(
    context: &Context,
    customer: &str,
    account: &str,
) -> Result<(String, OffsetDateTime), ApiError> {
    let path =
        Resource::named("active_entitlements").map(|it| it.list(customer)).unwrap_or_default();
    let mut list = List::new(&context.client, path.as_str(), account, None);
    let (mut data, mut second) = (Vec::new(), None);
    loop {
        let page = match list.next().await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            // A customer who is gone is entitled to nothing.
            Err(ApiError::NotFound { said, second: then }) if said.code.is_some() => {
                second.get_or_insert(then);
                break;
            }
            Err(error) => return Err(error),
        };
        second.get_or_insert(page.second);
        data.extend(
            page.items.iter().filter_map(|it| serde_json::from_str::<Value>(&it.json).ok()),
        );
    }
    let summary = json!({
        "object": ENTITLEMENTS,
        "customer": customer,
        "entitlements": {
            "object": "list",
            "data": data,
            "has_more": false,
            "url": format!("/v1/customer/{customer}/entitlements"),
        },
        "livemode": context.client.livemode(),
    });
    Ok((summary.to_string(), second.unwrap_or(OffsetDateTime::UNIX_EPOCH)))
}

/// Whether a summary lists nothing.
pub fn is_empty_summary(json: &str) -> bool {
    serde_json::from_str::<Value>(json)
        .is_ok_and(|it| it["entitlements"]["data"].as_array().is_some_and(Vec::is_empty))
}
