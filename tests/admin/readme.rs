//! The examples of the README's section on the admin API, run as printed.

use std::process::Command;

use crate::api::Api;
use crate::support::App;

/// The commands of the section, as a shell gets them.
fn commands() -> Vec<String> {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let section = readme.split("\n## ").find(|section| section.starts_with("Admin API")).unwrap();
    let blocks = section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn examples_run_as_printed() {
    let api = Api { app: App::spawn().await };
    api.sql("SELECT tollgate.create_consumer('mailer')").await;
    let body = r#"{"id":"evt_1","type":"invoice.paid","created":1790000000,"data":{"object":{"id":"in_1","object":"invoice","customer":"cus_1"}}}"#;
    assert_eq!(api.app.deliver(body).await.status, 200);
    let commands = commands();
    assert!(commands.len() > 5, "{commands:?}");
    for command in commands {
        let here = command.replace("http://localhost:9090", &api.app.admin_url(""));
        let done =
            tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &here]).output());
        let done = done.await.unwrap().unwrap();
        let answer = String::from_utf8(done.stdout).unwrap();
        let json: serde_json::Value = serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("{command}: {error}: {answer}"));
        assert!(done.status.success() && json.get("code").is_none(), "{command}: {answer}");
    }
    let noted: Vec<String> =
        sqlx::query_scalar("SELECT action FROM tollgate.audit_log ORDER BY entry DESC")
            .fetch_all(&api.app.pool)
            .await
            .unwrap();
    assert_eq!(noted, ["events.replay", "dead_letters.retry", "consumer.resume", "consumer.pause"]);
}
