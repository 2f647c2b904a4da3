//! What the gateway logs: one line per request with the event in it, never a secret or a body.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::support::{SECRET, postgres, sign};

#[tokio::test]
async fn a_line_names_the_event_and_holds_neither_secret_nor_body() {
    let database_url = postgres::fresh_database().await;
    let address = free_address();
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args([
            "serve",
            "--log-format",
            "json",
            "--log",
            "debug",
            "--drain",
            "0s",
            "--admin-listen",
            "off",
            "--listen",
            &address,
        ])
        .env("STRIPE_WEBHOOK_SECRET", SECRET)
        .env("DATABASE_URL", &database_url)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let client = crate::support::client();
    let ready = format!("http://{address}/readyz");
    while !client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let body = r#"{"id":"evt_1","type":"invoice.paid","x":"private matter"}"#;
    for signature in [sign(body.as_bytes()), "t=1,v1=00".to_owned()] {
        let url = format!("http://{address}/webhooks/stripe");
        let request =
            client.post(url).header("stripe-signature", signature).header("x-request-id", "req-1");
        request.body(body).send().await.unwrap();
    }
    let far = format!("http://{address}/{}", "x".repeat(20_000));
    assert_eq!(client.get(far).send().await.unwrap().status(), 404);
    let pid = nix::unistd::Pid::from_raw(gateway.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let mut log = String::new();
    gateway.stderr.take().unwrap().read_to_string(&mut log).await.unwrap();
    assert!(gateway.wait().await.unwrap().success());

    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |message: &str| {
        lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{log}"))
    };
    let delivery = of("delivery");
    assert_eq!(delivery["level"], "INFO");
    assert_eq!(delivery["status"], 200);
    let span = &delivery["span"];
    assert_eq!(span["event_id"], "evt_1");
    assert_eq!(span["event_type"], "invoice.paid");
    assert_eq!(span["endpoint"], "default");
    assert_eq!(span["outcome"], "recorded");
    assert_eq!(span["request_id"], "req-1");
    let refused = of("delivery refused");
    assert_eq!(
        (&refused["level"], &refused["span"]["outcome"]),
        (&"WARN".into(), &"signature_no_v1".into())
    );
    let unknown = lines.iter().find(|line| line["status"] == 404).unwrap();
    assert_eq!(unknown["path"].as_str().unwrap().len(), 200, "not all of it");
    let password =
        reqwest::Url::parse(&database_url).unwrap().password().unwrap_or("-none-").to_owned();
    for private in [SECRET, "private matter", password.as_str()] {
        assert!(!log.contains(private), "the log holds {private}");
    }
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
