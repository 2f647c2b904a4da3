//! `tollgate status`: what it says when all is well, and when it is not.

use serde_json::Value;
use sqlx::Executor;

use crate::support::{App, event};
use crate::{stderr, stdout, tollgate};

fn status(app: &App, flags: &[&str]) -> (Option<i32>, String) {
    let (url, listen) = (app.database_url.as_str(), app.address.to_string());
    let environment = [("DATABASE_URL", url), ("TOLLGATE_LISTEN", listen.as_str())];
    let output = tollgate(&[&["status"], flags].concat(), &environment);
    assert_eq!(stderr(&output), "");
    (output.status.code(), stdout(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_or_what_is_not_is_named() {
    let app = App::spawn().await;
    app.deliver(event("evt_1")).await;
    let (code, screen) = status(&app, &[]);
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.starts_with("All is well.\n"), "{screen}");
    for part in ["gateway     ready", "up to date", "the newest 0s ago", "quarantine  0"] {
        assert!(screen.contains(part), "{part}: {screen}");
    }
    assert!(!screen.contains('\x1b'), "no colour into a pipe");

    app.deliver("not json").await;
    app.pool
        .execute(
            "SELECT tollgate.create_consumer('slow', start => 'earliest');
             SELECT tollgate.create_consumer('picky', start => 'earliest', max_attempts => 1);
             SELECT tollgate.nack(claim, position, 'no') FROM tollgate.claim('picky', 1);
             SELECT tollgate.pause_consumer('slow')",
        )
        .await
        .unwrap();
    let (code, screen) = status(&app, &[]);
    assert_eq!(code, Some(1), "{screen}");
    assert!(screen.starts_with("3 things want a look.\n  - 1 event was given up"), "{screen}");
    for part in ["Consumer slow is paused, with a lag of 1", "1 body is in quarantine", "picky"] {
        assert!(screen.contains(part), "{part}: {screen}");
    }
    let (_, json) = status(&app, &["--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["well"], json["concerns"].as_array().unwrap().len()),
        (&Value::Bool(false), 3)
    );
    assert_eq!(json["gateway"]["status"], "ok");
    assert_eq!(json["totals"]["quarantined"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_elsewhere_is_no_concern_but_a_missing_database_is() {
    let app = App::spawn().await;
    let environment =
        [("DATABASE_URL", app.database_url.as_str()), ("TOLLGATE_LISTEN", "127.0.0.1:1")];
    let output = tollgate(&["status"], &environment);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("none answers at 127.0.0.1:1"), "{}", stdout(&output));
    let output = tollgate(&["status"], &[("DATABASE_URL", "postgres://x@127.0.0.1:1/x")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!stderr(&output).is_empty());
}
