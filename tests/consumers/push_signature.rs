//! Pushes are verified by Stripe's own library, from PyPI: programs written against it work
//! unchanged behind the gateway. Not here: what else there is to a push.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tollgate::clock::Clock;
use tollgate::consume::push::{PrivateTargets, PushOptions, PushTarget};
use tollgate::consume::target::{Delivery, Target, Verdict};

/// A body as Stripe sends it, two-space pretty JSON with raw UTF-8, and all that a rewriting would
/// change: escapes of two kinds, a number's spelling, white space at the end.
const BODY: &str = r#"{
  "id": "evt_1",
  "object": "event",
  "type": "charge.updated",
  "amount": 1.50e2,
  "data": {
    "object": {
      "id": "ch_1",
      "object": "charge",
      "description": "Zoë \u2603\/ 雪 😀 \ud83d\ude00 \"\\\t"
    }
  }
}

"#;
const DESCRIPTION: &str = r#"'Zo\xeb \u2603/ \u96ea \U0001f600 \U0001f600 "\\\t'"#;

/// A Python with the package `stripe`, as `scripts/ensure-test-tools` makes it. Without one the
/// test is skipped, but not where nobody would read that.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/python/bin/python");
    if python.exists() {
        return Some(python);
    }
    let missing = format!("{} is missing: run scripts/ensure-test-tools", python.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
    eprintln!("SKIPPED, NOTHING IS PROVEN: {missing}");
    None
}

/// Pushes the body with these secrets; what arrived: the signature's header, and the body.
async fn pushed(secrets: &[&str]) -> (String, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let options = PushOptions {
        url: url.parse().unwrap(),
        secrets: secrets.iter().map(|secret| secret.parse().unwrap()).collect(),
        timeout: Duration::from_secs(30),
        connections: 1,
    };
    let target = PushTarget::new(options, PrivateTargets::Refuse, Clock::system()).unwrap();
    let delivery = Delivery {
        consumer: "billing".to_owned(),
        position: 1,
        event_id: "evt_1".to_owned(),
        event_type: "charge.updated".to_owned(),
        account: String::new(),
        livemode: false,
        attempt: 1,
        raw: BODY.into(),
        traceparent: None,
    };
    let (attempt, arrived) = tokio::join!(target.deliver(&delivery), receive(&listener));
    assert_eq!(attempt.verdict, Verdict::Delivered, "{}", attempt.error);
    arrived
}

async fn receive(listener: &TcpListener) -> (String, Vec<u8>) {
    let mut stream = listener.accept().await.unwrap().0;
    let mut bytes = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "cut off");
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = str::from_utf8(&bytes[..end]).unwrap();
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).unwrap().1.to_owned()
        };
        if field("Content-Length").parse() == Ok(bytes.len() - end - 4) {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            return (field("Stripe-Signature"), bytes[end + 4..].to_vec());
        }
    }
}

/// What Stripe's library says of it.
fn verdict(python: &Path, body: &[u8], header: &str, secret: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), body).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/consumers/verify.py");
    let arguments = [script.as_os_str(), file.path().as_os_str(), header.as_ref(), secret.as_ref()];
    let output = Command::new(python).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn stripes_own_library_verifies_a_push() {
    let Some(python) = python() else { return };
    let ok = format!("ok evt_1 {DESCRIPTION}");
    for secrets in [&["whsec_new"] as &[_], &["whsec_new", "whsec_old"]] {
        let (header, body) = pushed(secrets).await;
        for secret in secrets {
            assert_eq!(verdict(&python, &body, &header, secret), ok);
        }
        let other = verdict(&python, &body, &header, "whsec_other");
        assert_eq!(other, "SignatureVerificationError");
        let altered = verdict(&python, body.trim_ascii_end(), &header, secrets[0]);
        assert_eq!(altered, "SignatureVerificationError");
    }
}
