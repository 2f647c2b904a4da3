//! Pushes over TLS, to a target whose certificate is made here.
//! What TLS and HTTP/2 themselves do is their libraries' affair.

use std::future::poll_fn;
use std::sync::Arc;

use h2::server::SendResponse;
use reqwest::Certificate;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::TlsAcceptor;

use super::*;

struct Identity {
    certificate: rustls::pki_types::CertificateDer<'static>,
    acceptor: TlsAcceptor,
}

/// A certificate for `localhost` that nobody else trusts, and a server with it.
fn identity(protocols: &[&str]) -> Identity {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Identity { certificate, acceptor: TlsAcceptor::from(Arc::new(config)) }
}

fn trusting(port: u16, identity: &Identity) -> PushTarget {
    let options = options(&format!("https://localhost:{port}/hook"));
    let root = Certificate::from_der(&identity.certificate).unwrap();
    let lookup = Arc::new(SystemLookup);
    let trust = |client: ClientBuilder| client.tls_certs_only([root]);
    PushTarget::with(options, PrivateTargets::Refuse, clock(), lookup, trust).unwrap()
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

type Incoming = (http::Request<h2::RecvStream>, SendResponse<Bytes>);

/// Serves one connection over HTTP/2; what comes in is handed back.
fn serve(listener: TcpListener, acceptor: TlsAcceptor) -> UnboundedReceiver<Incoming> {
    let (got, incoming) = unbounded_channel();
    tokio::spawn(async move {
        let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok(request)) = connection.accept().await {
            got.send(request).unwrap();
        }
    });
    incoming
}

#[tokio::test]
async fn http_2_is_spoken_where_the_target_offers_it() {
    let (listener, port) = listen().await;
    let identity = identity(&["h2", "http/1.1"]);
    let target = trusting(port, &identity);
    let mut incoming = serve(listener, identity.acceptor);
    // Both come over the one connection that is accepted.
    for _ in 0..2 {
        let delivery = delivery();
        let answer = async {
            let (mut request, mut respond) = incoming.recv().await.unwrap();
            assert!(request.headers().contains_key("stripe-signature"));
            let body = request.body_mut().data().await.unwrap().unwrap();
            respond.send_response(http::Response::default(), true).unwrap();
            body
        };
        let (attempt, body) = tokio::join!(target.deliver(&delivery), answer);
        assert_eq!((attempt.verdict, attempt.status), (Verdict::Delivered, Some(200)));
        assert_eq!(body, BODY);
    }
}

#[tokio::test]
async fn of_a_huge_answer_over_http_2_only_the_beginning_is_taken() {
    const BLOCK: usize = 16 * 1024;
    let (listener, port) = listen().await;
    let identity = identity(&["h2"]);
    let target = trusting(port, &identity);
    let mut incoming = serve(listener, identity.acceptor);
    let flood = tokio::spawn(async move {
        let (_request, mut respond) = incoming.recv().await.unwrap();
        let mut stream = respond.send_response(http::Response::default(), false).unwrap();
        let mut sent = 0;
        while sent < 1 << 30 {
            stream.reserve_capacity(BLOCK);
            let Some(Ok(room)) = poll_fn(|context| stream.poll_capacity(context)).await else {
                break;
            };
            if stream.send_data(Bytes::from(vec![b'a'; room]), false).is_err() {
                break;
            }
            sent += room;
        }
        sent
    });
    let attempt = target.deliver(&delivery()).await;
    assert_eq!(attempt.verdict, Verdict::Delivered);
    assert_eq!(attempt.answer, "a".repeat(ANSWER_KEPT));
    let sent = flood.await.unwrap();
    assert!(sent < 1 << 20, "{sent}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_named_as_the_cause() {
    let (listener, port) = listen().await;
    let target = trusting(port, &identity(&[]));
    let acceptor = identity(&[]).acceptor;
    let server =
        tokio::spawn(
            async move { acceptor.accept(listener.accept().await.unwrap().0).await.is_err() },
        );
    let attempt = target.deliver(&delivery()).await;
    assert_eq!(attempt.verdict, RETRY);
    let start = format!("no connection to localhost:{port}: invalid peer certificate");
    assert!(attempt.error.starts_with(&start), "{}", attempt.error);
    assert!(server.await.unwrap());
}

#[tokio::test]
async fn a_target_without_tls_is_named_as_the_cause() {
    let (listener, port) = listen().await;
    let target = trusting(port, &identity(&[]));
    let server = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Held open until the other side is done with it.
        drop(stream.read_to_end(&mut Vec::new()).await);
    });
    let attempt = target.deliver(&delivery()).await;
    assert_eq!(attempt.verdict, RETRY);
    let start = format!("no connection to localhost:{port}: received corrupt message");
    assert!(attempt.error.starts_with(&start), "{}", attempt.error);
    server.await.unwrap();
}
