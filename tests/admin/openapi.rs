//! The OpenAPI document against the routes, in both directions, and its page.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tollgate::http::admin::api::{ROUTES, document};

use crate::api::Api;

fn parsed() -> Value {
    serde_json::from_str(document()).unwrap()
}

fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| {
        let methods: Vec<_> = item.as_object().unwrap().keys().cloned().collect();
        methods.into_iter().map(|method| (method, path.clone())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

#[test]
fn each_route_is_documented_and_nothing_else() {
    let routes: BTreeSet<_> =
        ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(operations(&parsed()), routes);
}

#[tokio::test]
async fn each_documented_operation_is_served() {
    let api = Api::spawn().await;
    for (method, path) in operations(&parsed()) {
        let filled = path.replace("{failure}", "1").replace('{', "no_such_").replace('}', "");
        let answer = api.call(&method.to_uppercase(), &filled, &json!({})).await;
        assert_ne!(answer.status, 405, "{method} {path}");
        // A 404 must be about a thing, not about a page.
        assert!(!answer.body.contains("there is no page"), "{method} {path}: {}", answer.body);
        assert!(answer.status < 500, "{method} {path}: {}", answer.body);
    }
}

/// The schema that `$ref` names.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str() {
        Some(name) => {
            document.pointer(name.trim_start_matches('#')).expect("a schema of that name")
        }
        None => schema,
    }
}

/// Every `$ref` leads somewhere, and examples are of the type that their schema says.
fn check(document: &Value, value: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(name) = value["$ref"].as_str() {
                assert!(document.pointer(name.trim_start_matches('#')).is_some(), "{name}");
            }
            let schema = members.get("schema").map_or(value, |schema| resolved(document, schema));
            if let Some(example) = members.get("example") {
                fits(document, schema, example);
            }
            members.values().for_each(|member| check(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| check(document, item)),
        _ => {}
    }
}

/// Whether an example has the type of its schema; an object also the members that it must have.
fn fits(document: &Value, schema: &Value, example: &Value) {
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let fits = types.iter().any(|name| match *name {
        "string" => example.is_string(),
        "integer" => example.is_i64(),
        "number" => example.is_number(),
        "boolean" => example.is_boolean(),
        "array" => example.is_array(),
        "object" => example.is_object(),
        _ => example.is_null(),
    });
    assert!(fits, "{example} is no {types:?}: {schema}");
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let of = resolved(document, &schema["properties"][name]);
        fits_member(document, of, &example[name], name);
    }
}

fn fits_member(document: &Value, schema: &Value, example: &Value, name: &str) {
    assert!(!example.is_null(), "{name} is missing");
    fits(document, schema, example);
}

#[test]
fn references_and_examples_hold() {
    let document = parsed();
    check(&document, &document);
    assert!(document["info"]["title"].is_string());
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

/// What the API answers has the members that the document says.
#[tokio::test]
async fn answers_are_as_documented() {
    let api = Api::spawn().await;
    api.deliver(&["evt_1"]).await;
    api.app.deliver("no json").await;
    api.sql("SELECT tollgate.create_consumer('mailer')").await;
    let document = parsed();
    for (method, path) in operations(&document).into_iter().filter(|(method, _)| method == "get") {
        let content = &document["paths"][&path][&method]["responses"]["200"]["content"];
        if content["application/json"].is_null() {
            continue;
        }
        let filled = path
            .replace("{table}/{id}", "invoices/in_evt_1")
            .replace("{id}", "evt_1")
            .replace("{name}", "mailer");
        if filled.contains('{') {
            continue;
        }
        let answer = api.json(&filled).await;
        let schema = resolved(&document, &content["application/json"]["schema"]);
        has_members(&document, schema, &answer, &path);
    }
}

fn has_members(document: &Value, schema: &Value, value: &Value, place: &str) {
    for part in schema["allOf"].as_array().into_iter().flatten() {
        has_members(document, resolved(document, part), value, place);
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for value in values {
            has_members(document, resolved(document, items), value, place);
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let member =
            value.get(name).unwrap_or_else(|| panic!("{place}: {name} is missing: {value}"));
        has_members(document, resolved(document, &schema["properties"][name]), member, place);
    }
}

#[tokio::test]
async fn the_page_comes_whole_from_here_and_only_to_those_who_may_look() {
    let api = Api::spawn().await;
    let page = api.get("/api/").await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(!page.body.contains("//"), "nothing from elsewhere: {}", page.body);
    assert!(!page.body.contains("<script>") && !page.body.contains("style="), "{}", page.body);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe-inline"), "{policy}");
    for (file, kind) in [
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "javascript"),
        ("start.js", "javascript"),
        ("openapi.json", "application/json"),
    ] {
        let answer = api.get(&format!("/api/{file}")).await;
        assert_eq!(answer.status, 200, "{file}: {}", answer.body);
        assert!(answer.header("content-type").unwrap().contains(kind), "{file}");
        assert!(answer.body.len() > 100, "{file}");
        let stranger = api.call_as("nobody", "GET", &format!("/api/{file}"), &json!({})).await;
        assert_eq!(stranger.status, 401, "{file}");
    }
    assert_eq!(api.get("/api/index.html").await.status, 404);
}
