//! `tollgate tokens`, and what commands leave in the audit log.

use sqlx::Row;

use crate::support::App;
use crate::{stderr, stdout, tollgate};

fn run(app: &App, arguments: &[&str]) -> (bool, String, String) {
    let output = tollgate(arguments, &[("DATABASE_URL", &app.database_url)]);
    (output.status.success(), stdout(&output), stderr(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_shown_once_used_listed_and_revoked() {
    let app = App::spawn().await;
    let (_, token, _) =
        run(&app, &["tokens", "create", "ada", "--scope", "operate", "--expires", "90d"]);
    let token = token.trim();
    assert!(token.starts_with("tollgate_") && token.len() > 60, "{token}");
    let whoami = app.ask("GET", "/api/v1/whoami", |request| request.bearer_auth(token)).await;
    assert_eq!(whoami.json(), serde_json::json!({"name": "ada", "scope": "operate"}));

    let (_, listed, _) = run(&app, &["tokens", "list"]);
    assert!(listed.contains("ada") && listed.contains("operate"), "{listed}");
    assert!(!listed.contains(&token[9..]), "only a hash is kept");
    let (_, json, _) = run(&app, &["tokens", "list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["scope"], "operate");
    assert!(json[0]["used_at"].is_string() && json[0]["expires_at"].is_string(), "{json}");

    let (worked, _, why) = run(&app, &["tokens", "revoke", "ada"]);
    assert!(!worked && why.contains("ada is the last token"), "{why}");
    assert_eq!(run(&app, &["tokens", "revoke", "ada", "--last"]).1, "revoked ada\n");
    let refused = app.ask("GET", "/api/v1/whoami", |request| request.bearer_auth(token)).await;
    assert_eq!(refused.status, 401);
    let (worked, _, why) = run(&app, &["tokens", "revoke", "ada"]);
    assert!(!worked && why.contains("there is no token ada"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_is_told() {
    let app = App::spawn().await;
    run(&app, &["tokens", "create", "ada"]);
    for (name, why) in [
        ("ada", "there is a token ada already"),
        ("admin", "choose another"),
        ("A b", "lower case"),
    ] {
        let (worked, shown, told) = run(&app, &["tokens", "create", name]);
        assert!(!worked && told.contains(why), "{name}: {told}");
        assert_eq!(shown, "", "no token that does not count");
    }
    assert_eq!(app.count("SELECT count(*) FROM tollgate.audit_log").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_act_stand_in_the_audit_log() {
    let app = App::spawn().await;
    for command in [
        "tokens create ada",
        "tokens revoke ada --last",
        "consumers create mailer --start earliest",
        "consumers alter mailer --max-attempts 3",
        "consumers pause mailer --because lunch",
        "consumers resume mailer",
        "consumers reset mailer --to latest",
        "dead-letters retry mailer --all",
        "consumers drop mailer",
    ] {
        let (worked, _, why) = run(&app, &command.split(' ').collect::<Vec<_>>());
        assert!(worked, "{command}: {why}");
    }
    for mistaken in ["tokens revoke ada", "consumers pause mailer", "handlers drop none"] {
        assert!(!run(&app, &mistaken.split(' ').collect::<Vec<_>>()).0, "{mistaken}");
    }
    let rows = sqlx::query(
        "SELECT action || ' ' || subject, actor, at > now() - interval '1 hour' FROM tollgate.audit_log ORDER BY entry",
    );
    let rows = rows.fetch_all(&app.pool).await.unwrap();
    let noted: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        noted,
        [
            "token.create ada",
            "token.revoke ada",
            "consumer.create mailer",
            "consumer.alter mailer",
            "consumer.pause mailer",
            "consumer.resume mailer",
            "consumer.rewind mailer",
            "dead_letters.retry mailer",
            "consumer.drop mailer",
        ]
    );
    assert!(rows.iter().all(|row| row.get::<String, _>(1).starts_with("cli:") && row.get(2)));
    let because = "SELECT count(*) FROM tollgate.audit_log WHERE detail->>'because' = 'lunch'";
    assert_eq!(app.count(because).await, 1);
}
