//! Stripe's side of `stripe listen`: sessions, the websocket, signed events going out, and what the
//! command line says became of them. Which events there are is not decided here.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use actix_ws::AggregatedMessage;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedSender};
use tollgate::stripe::signature::SigningSecret;

use super::super::now;
use super::answers::Answer;
use super::{Asked, FakeStripe, Forwarded, LISTEN_SECRET, Shared};

/// Where the websocket is.
pub const PATH: &str = "/stripecli/subscribe";

/// What a session asks for, in `websocket_features[]`.
const SNAPSHOTS: &str = "webhooks";
const THIN: &str = "v2_events";

/// The largest frame of a listener; it sends bodies back.
const LARGEST_FRAME: usize = 8 << 20;

struct Listener {
    features: Vec<String>,
    frames: UnboundedSender<String>,
}

/// Who listens, and what they said.
#[derive(Default)]
pub struct Listeners {
    /// What each session asked for, by its websocket's id.
    sessions: HashMap<String, Vec<String>>,
    connected: HashMap<u64, Listener>,
    number: u64,
    pub acknowledged: Vec<String>,
    pub forwarded: Vec<Forwarded>,
}

impl Listeners {
    /// Answers `POST /v1/stripecli/sessions`.
    pub fn open(&mut self, asked: &Asked, address: &str) -> Answer {
        let features = super::gate::pairs(&asked.body).into_iter();
        let features = features.filter(|(name, _)| name == "websocket_features[]");
        self.number += 1;
        let id = format!("cliws_{}", self.number);
        self.sessions.insert(id.clone(), features.map(|(_, feature)| feature).collect());
        Answer::json(
            200,
            &json!({
                "object": "stripecli_session",
                "default_version": super::gate::VERSION,
                "device_token": "cliep_of_the_tests",
                "display_connect_filter_warning": false,
                "latest_version": super::gate::VERSION,
                "reconnect_delay": 86_400,
                "secret": LISTEN_SECRET,
                "websocket_authorized_feature": SNAPSHOTS,
                "websocket_id": id,
                "websocket_url": format!("ws://{address}{PATH}")
            }),
        )
    }

    /// Sends an event to all who want its kind, signed now.
    pub fn send(&mut self, event: &Value) {
        let thin = event["object"] == "v2.core.event";
        self.number += 1;
        let body = serde_json::to_string_pretty(event).unwrap();
        let secret: SigningSecret = LISTEN_SECRET.parse().unwrap();
        let headers = json!({
            "Accept": "*/*; q=0.5, application/xml",
            "Cache-Control": "no-cache",
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": secret.sign(now(), body.as_bytes()),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)"
        });
        let frame = if thin {
            json!({
                "type": "v2_event", "destination_id": "cliep_of_the_tests",
                "http_headers": headers, "payload": body
            })
        } else {
            json!({
                "type": "webhook_event", "endpoint": { "api_version": null },
                "event_payload": body, "http_headers": headers,
                "webhook_conversation_id": format!("wc_{}", self.number),
                "webhook_id": format!("we_{}", self.number)
            })
        };
        let wanted = if thin { THIN } else { SNAPSHOTS };
        for listener in self.connected.values() {
            if listener.features.iter().any(|feature| feature == wanted) {
                // One that has gone away meanwhile is taken off elsewhere.
                let _ = listener.frames.send(frame.to_string());
            }
        }
    }

    /// Takes what a listener says.
    fn hear(&mut self, message: &Value) {
        let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str() {
            Some("event_ack") => self.acknowledged.push(text("event_id")),
            Some("webhook_response") => {
                let status = message["status"].as_u64().and_then(|it| u16::try_from(it).ok());
                self.forwarded.push(Forwarded {
                    event: text("notification_id"),
                    status: status.unwrap_or_default(),
                    outcome: message["http_headers"]["X-Event-Status"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    url: text("forward_url"),
                });
            }
            _ => {}
        }
    }
}

/// Takes a listener's websocket.
pub async fn connect(
    request: HttpRequest,
    body: web::Payload,
    state: web::Data<Arc<Shared>>,
) -> actix_web::Result<HttpResponse> {
    let fake = FakeStripe { shared: Arc::clone(&state), running: None };
    let id = request.headers().get("websocket-id").and_then(|id| id.to_str().ok());
    let Some(features) = id.and_then(|id| fake.world().listeners.sessions.get(id).cloned()) else {
        let error = json!({ "error": { "message": "Unknown WebSocket ID." } });
        return Ok(HttpResponse::BadRequest().json(error));
    };
    let protocols = ["stripecli-devproxy-v1"];
    let (response, mut session, messages) =
        actix_ws::handle_with_protocols(&request, body, &protocols)?;
    let messages = messages.max_frame_size(LARGEST_FRAME).aggregate_continuations();
    let mut messages = messages.max_continuation_size(LARGEST_FRAME);
    let (sender, mut frames) = mpsc::unbounded_channel();
    let number = {
        let mut world = fake.world();
        world.listeners.number += 1;
        let number = world.listeners.number;
        world.listeners.connected.insert(number, Listener { features, frames: sender });
        number
    };
    actix_web::rt::spawn(async move {
        loop {
            tokio::select! {
                frame = frames.recv() => {
                    let Some(frame) = frame else { break };
                    if session.text(frame).await.is_err() { break }
                }
                message = messages.next() => match message {
                    Some(Ok(AggregatedMessage::Text(text))) => {
                        let message = serde_json::from_str(&text).unwrap_or_default();
                        fake.world().listeners.hear(&message);
                    }
                    Some(Ok(AggregatedMessage::Ping(bytes))) => {
                        if session.pong(&bytes).await.is_err() { break }
                    }
                    Some(Ok(AggregatedMessage::Close(_)) | Err(_)) | None => break,
                    Some(Ok(_)) => {}
                }
            }
        }
        fake.world().listeners.connected.remove(&number);
        let _ = session.close(None).await;
    });
    Ok(response)
}
