//! The fake's server: keys, accounts, faults, and what every answer carries. What the answers say
//! is not decided here.

use std::any::Any;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use actix_web::body::{BodyStream, BoxBody};
use actix_web::dev::{Extensions, ServerHandle};
use actix_web::http::StatusCode;
use actix_web::http::header::HttpDate;
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use futures_util::stream;
use socket2::Socket;

use super::acts;
use super::answers::{self, Answer};
use super::listen;
use super::world::World;
use super::{Asked, FakeStripe, Fault, Shared};

/// The version that answers name if the request names none.
pub const VERSION: &str = "2025-03-31.basil";

type State = web::Data<Arc<Shared>>;

/// Starts a server on a thread of its own, which ends when the server is stopped.
pub async fn start() -> (Arc<Shared>, ServerHandle) {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let shared = shared(listener.local_addr().unwrap());
            let state: State = web::Data::new(Arc::clone(&shared));
            let app = move || {
                App::new()
                    .app_data(state.clone())
                    .route(listen::PATH, web::get().to(listen::connect))
                    .default_service(web::to(respond))
            };
            let server = HttpServer::new(app)
                .on_connect(keep_socket)
                .workers(1)
                .disable_signals()
                .shutdown_timeout(0)
                .listen(listener)
                .unwrap()
                .run();
            assert!(tell.send((shared, server.handle())).is_ok(), "whoever started it waits");
            server.await.unwrap();
        });
    });
    told.await.unwrap()
}

fn shared(address: SocketAddr) -> Arc<Shared> {
    Arc::new(Shared { world: Mutex::new(World::new()), hook: Mutex::default(), address })
}

/// A second handle of each connection's socket, to reset it by.
fn keep_socket(connection: &dyn Any, data: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>() {
        data.insert(Socket::from(stream.as_fd().try_clone_to_owned().unwrap()));
    }
}

async fn respond(request: HttpRequest, body: web::Bytes, state: State) -> HttpResponse {
    let fake = FakeStripe { shared: Arc::clone(&state), running: None };
    let asked = asked(&request, &body);
    let fault = {
        let mut world = fake.world();
        world.asked.push(asked.clone());
        world.fault(&asked.path)
    };
    match fault {
        Some(Fault::Reset) => return reset(&request),
        Some(Fault::Hang(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    let answer = answer(&fake, &asked, fault.as_ref());
    dressed(&fake, &asked, answer)
}

fn answer(fake: &FakeStripe, asked: &Asked, fault: Option<&Fault>) -> Answer {
    let key = key(asked);
    let Some(key) = key.filter(|key| fake.world().keys.contains(key)) else {
        return answers::invalid_key(self::key(asked).as_deref());
    };
    if let Some(answer) = fault.and_then(|fault| answers::fault(fault, &key)) {
        return answer;
    }
    let header = asked.headers.get("stripe-account").map(String::as_str);
    let Some(account) = fake.world().named(header) else {
        return answers::invalid_account(&key, header.unwrap_or_default());
    };
    if asked.path == "/v1/stripecli/sessions" {
        return fake.world().listeners.open(asked, &fake.shared.address.to_string());
    }
    if asked.method != "GET" {
        return acts::write(&mut fake.world(), &account, asked);
    }
    let first_again = matches!(fault, Some(Fault::RepeatPage));
    let read = || answers::read(&mut fake.world(), &account, &key, asked, first_again);
    let hook = fake.shared.hook.lock().unwrap().clone();
    if let Some(hook) = hook
        && read().body.starts_with("{\n  \"object\": \"list\"")
    {
        // What happens in it belongs to this page already.
        hook(fake, asked);
    }
    read()
}

fn dressed(fake: &FakeStripe, asked: &Asked, answer: Answer) -> HttpResponse {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let skew = fake.world().skew;
    let apart = Duration::from_secs(skew.unsigned_abs());
    #[allow(clippy::disallowed_methods, reason = "tests live in real time")]
    let now = SystemTime::now();
    let date = if skew < 0 { now - apart } else { now + apart };
    let version = asked.headers.get("stripe-version").map_or(VERSION, String::as_str);
    let mut response = HttpResponse::build(StatusCode::from_u16(answer.status).unwrap());
    response
        .content_type(answer.content_type)
        .insert_header(("Date", HttpDate::from(date).to_string()))
        .insert_header(("Stripe-Version", version))
        .insert_header((
            "Request-Id",
            format!("req_{:014}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        ));
    for (name, value) in answer.headers {
        response.insert_header((name, value));
    }
    response.body(answer.body)
}

/// Breaks the connection off: with no time to linger, closing it sends a reset.
fn reset(request: &HttpRequest) -> HttpResponse {
    let socket = request.conn_data::<Socket>().expect("kept when it was connected");
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    let broken = stream::iter([Err::<web::Bytes, _>(std::io::Error::other("reset"))]);
    HttpResponse::Ok().body(BoxBody::new(BodyStream::new(broken)))
}

fn asked(request: &HttpRequest, body: &[u8]) -> Asked {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Asked {
        method: request.method().to_string(),
        path: request.path().to_owned(),
        query: pairs(request.query_string()),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())))
            .collect(),
        body: text(body),
    }
}

/// The pairs of a query or a form, decoded.
pub fn pairs(encoded: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let pairs = encoded.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// The key that came as a bearer's, or as the user of HTTP Basic.
fn key(asked: &Asked) -> Option<String> {
    let (scheme, value) = asked.headers.get("authorization")?.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(value.to_owned()),
        "basic" => base64(value)?.split(':').next().map(str::to_owned),
        _ => None,
    }
}

fn base64(text: &str) -> Option<String> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for digit in text.trim_end_matches('=').chars() {
        held = (held << 6 | u32::try_from(DIGITS.find(digit)?).ok()?) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}
