//! Lists as Stripe gives them: filters, order, cursors, pages. Where their objects come from is
//! said in `paths`.

use serde_json::{Value, json};

use super::answers::{Answer, bad_parameter, missing};
use super::world::{Account, created};
use super::{Asked, paths};

/// Objects within an object that are shown with it.
const SHOWN_WITHIN: usize = 10;
const DEFAULT_LIMIT: usize = 10;
const MOST: usize = 100;

/// Parameters that choose no objects by a member of that name.
const NO_MEMBERS: [&str; 7] =
    ["limit", "starting_after", "ending_before", "expand[]", "delivery_success", "types[]", "page"];

/// Types that can only be listed for one customer.
const OF_A_CUSTOMER: [&str; 2] = ["payment_method", "entitlements.active_entitlement"];

/// Answers a list; None if there is none at this path. `first_again` ignores where the client is.
pub fn answer(account: &Account, asked: &Asked, first_again: bool) -> Option<Answer> {
    let (kind, objects) = if let Some(items) = paths::nested(account, asked) {
        let kind = items.first().and_then(|item| item["object"].as_str()).unwrap_or("item");
        (kind.to_owned(), items)
    } else if let Some((kind, member, owner)) = paths::belongings(&asked.path) {
        if account.is_removed(owner) {
            return Some(missing(404, member, owner, member));
        }
        let owned = account.of_kind(kind).into_iter().filter(|it| refers(it, member, owner));
        (kind.to_owned(), owned.collect())
    } else {
        let path = asked.path.strip_prefix("/v1/")?;
        if path == "events" {
            ("event".to_owned(), account.newest_events())
        } else {
            let kind = paths::kind(path)?;
            if OF_A_CUSTOMER.contains(&kind) && asked.parameter("customer").is_none() {
                return Some(bad_parameter("customer", "Missing required param: customer."));
            }
            (kind.to_owned(), account.of_kind(kind))
        }
    };
    Some(page(&kind, &objects, asked, first_again).unwrap_or_else(|refusal| refusal))
}

fn page(
    kind: &str,
    objects: &[&Value],
    asked: &Asked,
    first_again: bool,
) -> Result<Answer, Answer> {
    let limit = limit(asked)?;
    let place = |name: &str| -> Result<Option<usize>, Answer> {
        let Some(cursor) = asked.parameter(name).filter(|_| !first_again) else { return Ok(None) };
        let at = objects.iter().position(|object| object["id"] == cursor);
        at.map(Some).ok_or_else(|| missing(400, kind, cursor, name))
    };
    let (after, before) = (place("starting_after")?, place("ending_before")?);
    // Cursors are places among all objects: one need not match the filters of this request.
    let from = after.map_or(0, |at| at + 1);
    let within = &objects[from..before.unwrap_or(objects.len()).max(from)];
    // Before a cursor all are needed: the page is the end of them.
    let most = if before.is_some() { usize::MAX } else { limit + 1 };
    let matching = within.iter().filter(|it| matches(kind, it, asked)).take(most);
    let matching: Vec<&&Value> = matching.collect();
    let skipped = if before.is_some() { matching.len().saturating_sub(limit) } else { 0 };
    let shown = matching.iter().skip(skipped).take(limit);
    let data: Vec<Value> = shown.map(|object| rendered(object)).collect();
    let has_more = first_again || matching.len() > limit;
    Ok(Answer::json(
        200,
        &json!({ "object": "list", "data": data, "has_more": has_more, "url": asked.path }),
    ))
}

fn limit(asked: &Asked) -> Result<usize, Answer> {
    let Some(text) = asked.parameter("limit") else { return Ok(DEFAULT_LIMIT) };
    let refuse = |why: String| Err(bad_parameter("limit", &why));
    match text.parse() {
        Err(_) => refuse(format!("Invalid integer: {text}")),
        Ok(0) => refuse("This value must be greater than or equal to 1.".to_owned()),
        Ok(limit) if limit > MOST => refuse(format!(
            "This value must be less than or equal to {MOST} (it currently is '{limit}')."
        )),
        Ok(limit) => Ok(limit),
    }
}

/// Whether an object is one of those that the parameters ask for.
fn matches(kind: &str, object: &Value, asked: &Asked) -> bool {
    let canceled = kind == "subscription" && object["status"] == "canceled";
    if canceled && asked.parameter("status").is_none() {
        return false;
    }
    // Without an owner, the account's own ones.
    if asked.path == "/v1/tax_ids" {
        let owner = asked.parameter("owner[customer]");
        let fits = owner.map_or(object["customer"].is_null(), |it| refers(object, "customer", it));
        if !fits {
            return false;
        }
    }
    let types: Vec<&str> = asked
        .query
        .iter()
        .filter(|(name, _)| name == "types[]")
        .map(|(_, it)| it.as_str())
        .collect();
    if !types.is_empty() && !types.iter().any(|wanted| is_type(object, wanted)) {
        return false;
    }
    asked.query.iter().all(|(name, wanted)| match name.as_str() {
        "created" => wanted.parse() == Ok(created(object)),
        "type" if kind == "event" => is_type(object, wanted),
        "status" if wanted == "all" => true,
        "subscription" if kind == "invoice" => {
            let parent = &object["parent"]["subscription_details"];
            refers(object, name, wanted) || refers(parent, name, wanted)
        }
        // The one whose items are asked for was found by it.
        "subscription" if kind == "subscription_item" => true,
        name if NO_MEMBERS.contains(&name) || name.starts_with("expand[") => true,
        name => match name.strip_prefix("created[") {
            Some(bound) => in_time(bound, created(object), wanted),
            None => name.contains('[') || refers(object, name, wanted),
        },
    })
}

fn in_time(bound: &str, created: i64, wanted: &str) -> bool {
    let wanted: i64 = wanted.parse().expect("Unix seconds");
    match bound.trim_end_matches(']') {
        "gt" => created > wanted,
        "gte" => created >= wanted,
        "lt" => created < wanted,
        "lte" => created <= wanted,
        _ => false,
    }
}

fn is_type(event: &Value, wanted: &str) -> bool {
    let name = event["type"].as_str().unwrap_or_default();
    wanted == name || wanted.strip_suffix('*').is_some_and(|start| name.starts_with(start))
}

/// Whether a member is this value, or an object with this id.
fn refers(object: &Value, member: &str, wanted: &str) -> bool {
    match &object[member] {
        Value::String(text) => text == wanted,
        Value::Object(expanded) => expanded.get("id").is_some_and(|id| id == wanted),
        Value::Null => false,
        other => serde_json::from_str(wanted).is_ok_and(|wanted: Value| *other == wanted),
    }
}

/// An object as it is shown: long lists within are cut short.
pub fn rendered(object: &Value) -> Value {
    let mut object = object.clone();
    if object["object"] == "event" {
        return object;
    }
    // Who has it is known from the question alone.
    if object["object"] == "entitlements.active_entitlement"
        && let Some(members) = object.as_object_mut()
    {
        members.remove("customer");
    }
    cut(&mut object);
    object
}

fn cut(value: &mut Value) {
    if paths::is_list(value) {
        let data = value["data"].as_array_mut().expect("a list has data");
        let more = data.len() > SHOWN_WITHIN;
        data.truncate(SHOWN_WITHIN);
        if more {
            value["has_more"] = true.into();
        }
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(cut),
        Value::Object(members) => members.values_mut().for_each(cut),
        _ => {}
    }
}
