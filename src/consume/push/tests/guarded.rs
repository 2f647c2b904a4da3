//! Pushes to addresses and names that lead where pushes may not go.
//! Which address lies where is tested beside `addresses`.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use super::*;

/// A name server that gives these answers in turn.
struct Scripted(Mutex<VecDeque<&'static [&'static str]>>);

impl Lookup for Scripted {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let answer = self.0.lock().unwrap().pop_front().expect("one lookup more than expected");
        let addresses = answer.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
        Box::pin(async { Ok(addresses) })
    }
}

fn resolving(
    url: &str,
    private: PrivateTargets,
    answers: &[&'static [&'static str]],
) -> (PushTarget, Arc<Scripted>) {
    let lookup = Arc::new(Scripted(Mutex::new(answers.iter().copied().collect())));
    let options = options(url);
    let names = Arc::clone(&lookup);
    let target = PushTarget::with(options, private, clock(), names, |client| client).unwrap();
    (target, lookup)
}

#[tokio::test]
async fn addresses_of_private_networks_are_refused_in_every_spelling() {
    for (host, shown) in [
        ("10.0.0.1", "10.0.0.1 is a private address"),
        ("167772161", "10.0.0.1 is a private address"),
        ("0x0a.1", "10.0.0.1 is a private address"),
        ("012.0.0.1.", "10.0.0.1 is a private address"),
        ("１０.0.0.1", "10.0.0.1 is a private address"),
        ("169.254.169.254", "169.254.169.254 is a link-local address"),
        ("[fd00::1]", "fd00::1 is a private address"),
        ("[::ffff:7f00:1]", "::ffff:127.0.0.1 is an address of this machine"),
        ("[64:ff9b::a00:1]", "64:ff9b::a00:1 is a private address"),
    ] {
        // A port that does no harm, should a push get there.
        let attempt = hasty(&format!("http://{host}:9/")).deliver(&delivery()).await;
        assert_eq!(attempt.verdict, RETRY);
        let leave = "pushes go there only with TOLLGATE_PUSH_ALLOW_PRIVATE=true";
        assert_eq!(attempt.error, format!("{shown}; {leave}"), "{host}");
    }
    for host in ["0.0.0.0", "0", "[::]", "224.0.0.1", "255.255.255.255", "[::ffff:0.0.0.0]"] {
        let url = format!("http://{host}:9/");
        let target = PushTarget::new(options(&url), PrivateTargets::Allow, clock()).unwrap();
        let error = target.deliver(&delivery()).await.error;
        assert!(error.ends_with("; pushes never go there"), "{error}");
    }
}

#[tokio::test]
async fn loopback_is_reached_where_the_url_says_so() {
    let server = Server::status("200 OK").await;
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "2130706433", "0x7f.1"] {
        let url = format!("http://{host}:{}/", server.port);
        let attempt = hasty(&url).deliver(&delivery()).await;
        assert_eq!(attempt.verdict, Verdict::Delivered, "{host}: {}", attempt.error);
    }
    // Nobody listens there; but it was tried.
    for host in ["127.8.9.1", "[::1]"] {
        let url = format!("http://{host}:{}/", server.port);
        let error = hasty(&url).deliver(&delivery()).await.error;
        assert!(error.contains(&format!(" {host}:{}", server.port)), "{error}");
    }
}

#[tokio::test]
async fn a_name_is_judged_by_all_its_addresses() {
    let server = Server::status("200 OK").await;
    let url = format!("http://app.test:{}/", server.port);
    for (answer, shown) in [
        (&["127.0.0.1"] as &[_], "127.0.0.1, which is an address of this machine"),
        (&["::1"], "::1, which is an address of this machine"),
        (&["10.1.2.3"], "10.1.2.3, which is a private address"),
        // The first would do; but half an answer is none.
        (&["93.184.215.14", "169.254.169.254"], "169.254.169.254, which is a link-local address"),
    ] {
        let (target, _) = resolving(&url, PrivateTargets::Refuse, &[answer]);
        let attempt = target.deliver(&delivery()).await;
        assert_eq!(attempt.verdict, RETRY);
        let leave = "pushes go there only with TOLLGATE_PUSH_ALLOW_PRIVATE=true";
        assert_eq!(attempt.error, format!("app.test resolves to {shown}; {leave}"));
    }
    let (target, _) = resolving(&url, PrivateTargets::Allow, &[&["127.0.0.1"], &["224.0.0.1"]]);
    assert_eq!(target.deliver(&delivery()).await.verdict, Verdict::Delivered);
    let (target, _) = resolving(&url, PrivateTargets::Allow, &[&["224.0.0.1"]]);
    let error = target.deliver(&delivery()).await.error;
    assert!(error.ends_with("a multicast address; pushes never go there"), "{error}");
    let (target, _) = resolving(&url, PrivateTargets::Refuse, &[&[]]);
    let error = target.deliver(&delivery()).await.error;
    assert!(error.ends_with(": app.test has no address"), "{error}");
}

#[tokio::test]
async fn a_name_that_changes_its_address_gets_nowhere_new() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec();
    let server = Server::start(Manner::Close(answer)).await;
    let url = format!("http://localhost:{}/", server.port);
    let answers: [&[_]; 2] = [&["127.0.0.1"], &["10.0.0.1"]];
    let (target, names) = resolving(&url, PrivateTargets::Refuse, &answers);
    assert_eq!(target.deliver(&delivery()).await.verdict, Verdict::Delivered);
    // Asked once: what was checked is what was connected to.
    assert_eq!(names.0.lock().unwrap().len(), 1);
    let attempt = target.deliver(&delivery()).await;
    assert_eq!(attempt.verdict, RETRY);
    assert!(attempt.error.starts_with("localhost resolves to 10.0.0.1"), "{}", attempt.error);
    assert_eq!(server.connections(), 1);
}
