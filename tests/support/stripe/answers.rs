//! Answers in Stripe's words: errors, faults, single objects. Which one a request gets is decided
//! in `gate`.

use serde_json::{Value, json};

use super::world::{Found, World};
use super::{Asked, Fault, lists, paths};

/// What goes over the wire.
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Answer {
    pub fn json(status: u16, body: &Value) -> Self {
        let body = serde_json::to_string_pretty(body).unwrap();
        Self { status, content_type: "application/json", headers: Vec::new(), body }
    }

    pub fn error(status: u16, error: &Value) -> Self {
        Self::json(status, &json!({ "error": error }))
    }
}

pub fn bad_parameter(name: &str, why: &str) -> Answer {
    Answer::error(400, &json!({ "message": why, "param": name, "type": "invalid_request_error" }))
}

/// There is no object with this id.
pub fn missing(status: u16, kind: &str, id: &str, parameter: &str) -> Answer {
    Answer::error(
        status,
        &json!({
            "code": "resource_missing",
            "doc_url": "https://stripe.com/docs/error-codes/resource-missing",
            "message": format!("No such {}: '{id}'", kind.replace(['_', '.'], " ")),
            "param": parameter,
            "type": "invalid_request_error"
        }),
    )
}

pub fn unrecognized(asked: &Asked) -> Answer {
    let Asked { method, path, .. } = asked;
    let message = format!("Unrecognized request URL ({method}: {path}).");
    Answer::error(404, &json!({ "message": message, "type": "invalid_request_error" }))
}

pub fn invalid_key(key: Option<&str>) -> Answer {
    let message = match key {
        None => "You did not provide an API key.".to_owned(),
        Some(key) => format!("Invalid API Key provided: {}", obscured(key)),
    };
    Answer::error(401, &json!({ "message": message, "type": "invalid_request_error" }))
}

pub fn invalid_account(key: &str, account: &str) -> Answer {
    let message = format!(
        "The provided key '{}' does not have access to account '{account}' (or that account does \
         not exist). Application access may have been revoked.",
        obscured(key)
    );
    Answer::error(
        403,
        &json!({ "code": "account_invalid", "message": message, "type": "invalid_request_error" }),
    )
}

/// A key as error messages show it.
fn obscured(key: &str) -> String {
    let characters: Vec<char> = key.chars().collect();
    let end: String = characters[characters.len().saturating_sub(4)..].iter().collect();
    format!("{}****{end}", characters.iter().take(8).collect::<String>())
}

/// The answer that a fault makes; None where it only changes the real one.
pub fn fault(fault: &Fault, key: &str) -> Option<Answer> {
    let plain = |content_type, body: &str| {
        Some(Answer { status: 200, content_type, headers: Vec::new(), body: body.to_owned() })
    };
    match fault {
        Fault::Status(status) => {
            let message = "An error occurred with our API.";
            Some(Answer::error(*status, &json!({ "message": message, "type": "api_error" })))
        }
        Fault::RateLimited { retry_after } => {
            let message = "Request rate limit exceeded.";
            let error = json!({
                "code": "rate_limit", "message": message, "type": "invalid_request_error"
            });
            let mut answer = Answer::error(429, &error);
            answer.headers.extend(retry_after.map(|seconds| ("Retry-After", seconds.to_string())));
            Some(answer)
        }
        Fault::Html => {
            plain("text/html; charset=utf-8", "<!DOCTYPE html>\n<title>We will be back</title>\n")
        }
        Fault::NotJson => plain("application/json", "{\n  \"object\": \"list\",\n  \"data\": [\n"),
        Fault::WrongMode => {
            let (used, other) = if is_live(key) { ("live", "test") } else { ("test", "live") };
            let message = format!(
                "No such object; a similar object exists in {other} mode, but a {used} mode key \
                 was used to make this request."
            );
            let error = json!({
                "code": "resource_missing", "message": message, "type": "invalid_request_error"
            });
            Some(Answer::error(401, &error))
        }
        Fault::Hang(_) | Fault::Reset | Fault::RepeatPage => None,
    }
}

fn is_live(key: &str) -> bool {
    key.contains("_live_")
}

/// Answers a GET.
pub fn read(
    world: &mut World,
    account: &str,
    key: &str,
    asked: &Asked,
    first_again: bool,
) -> Answer {
    match asked.path.as_str() {
        "/v1/account" => return Answer::json(200, &world.own(account)),
        "/v1/balance" => return Answer::json(200, &balance(is_live(key))),
        _ => {}
    }
    let account = world.account(account);
    if let Some(answer) = lists::answer(account, asked, first_again) {
        return answer;
    }
    let path = asked.path.as_str();
    if let Some(id) = path.strip_prefix("/v1/events/") {
        let event = account.event(id).map(|event| Answer::json(200, event));
        return event.unwrap_or_else(|| missing(404, "event", id, "id"));
    }
    let id = path.rsplit('/').next().unwrap_or_default();
    let kind = paths::single(path).map(|(kind, _)| kind);
    let fits = |object: &Value| kind.is_none_or(|kind| object["object"] == kind);
    match account.find(id) {
        Found::Here(object) if fits(object) => Answer::json(200, &lists::rendered(object)),
        Found::Stub(stub) if fits(stub) => Answer::json(200, stub),
        _ => kind.map_or_else(|| unrecognized(asked), |kind| missing(404, kind, id, "id")),
    }
}

fn balance(live: bool) -> Value {
    let amount = json!([{ "amount": 0, "currency": "usd", "source_types": { "card": 0 } }]);
    json!({ "object": "balance", "available": amount, "livemode": live, "pending": amount })
}
