//! A Stripe API of the tests' own, over HTTP on a port of this machine: objects, events, lists with
//! pages, accounts, keys, listeners, and everything that goes wrong with a real one. What is written to
//! it is believed, not checked.

mod acts;
mod answers;
mod bills;
mod forms;
mod gate;
mod listen;
mod lists;
mod paths;
mod payments;
mod shapes;
mod world;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use serde_json::Value;
use world::World;

/// The key that is allowed from the start.
pub const API_KEY: &str = "sk_test_of_the_tests";

/// Signs what is sent to listeners; `stripe listen --print-secret` prints it.
pub const LISTEN_SECRET: &str = "whsec_of_the_listener";

/// One request that was asked of the fake.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// Decoded, in the order asked.
    pub query: Vec<(String, String)>,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Asked {
    /// The first value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An error with this status, in Stripe's form.
    Status(u16),
    /// 429, with the header `Retry-After` if there is a number.
    RateLimited { retry_after: Option<u64> },
    /// 200 with a page for people.
    Html,
    /// 200 with JSON that breaks off.
    NotJson,
    /// The answer comes, but only after this time.
    Hang(Duration),
    /// The connection is reset without an answer.
    Reset,
    /// Lists ignore `starting_after`: the first page comes again for ever, with `has_more`.
    RepeatPage,
    /// 401, saying that a key of one mode was used with an object of the other.
    WrongMode,
}

/// What a listener's target answered to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub event: String,
    pub status: u16,
    /// The answer's header `X-Event-Status`.
    pub outcome: String,
    pub url: String,
}

type Hook = Arc<dyn Fn(&FakeStripe, &Asked) + Send + Sync>;

/// What the server and all its handles share.
struct Shared {
    world: Mutex<World>,
    hook: Mutex<Option<Hook>>,
    address: SocketAddr,
}

/// Stops the server with the last handle of a test.
struct Running(ServerHandle);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stop(false));
    }
}

/// A running fake; clones are handles of the same one.
#[derive(Clone)]
pub struct FakeStripe {
    shared: Arc<Shared>,
    /// None in the server's own handle, which must not keep it alive.
    running: Option<Arc<Running>>,
}

impl FakeStripe {
    pub async fn start() -> Self {
        let (shared, handle) = gate::start().await;
        Self { shared, running: Some(Arc::new(Running(handle))) }
    }

    /// Where its API is, without a slash at the end.
    pub fn base(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// Creates or replaces an object of an account, which is thereby known; "" is the platform. Its
    /// place among others of the same second stays that of its creation. Makes no event.
    pub fn put(&self, account: &str, object: Value) {
        self.world().put(account, object);
    }

    /// Deletes an object. Of some types a deleted one can still be read, as itself no more.
    pub fn remove(&self, account: &str, id: &str) {
        self.world().account(account).remove(id);
    }

    pub fn object(&self, account: &str, id: &str) -> Option<Value> {
        self.world().account(account).object(id).cloned()
    }

    /// Adds an event to `/v1/events`, and sends it to whoever listens. Its id must be new.
    pub fn emit(&self, account: &str, event: Value) {
        self.world().emit(account, event);
    }

    /// Sends a thin event to whoever listens for such; `/v2/core/events` has it.
    pub fn emit_thin(&self, event: Value) {
        let mut world = self.world();
        world.listeners.send(&event);
        world.put("", event);
    }

    /// The ids of events that listeners acknowledged, in that order.
    pub fn acknowledged(&self) -> Vec<String> {
        self.world().listeners.acknowledged.clone()
    }

    /// What listeners forwarded, and what was answered.
    pub fn forwarded(&self) -> Vec<Forwarded> {
        self.world().listeners.forwarded.clone()
    }

    /// All events of an account, oldest first.
    pub fn events(&self, account: &str) -> Vec<Value> {
        self.world().account(account).events()
    }

    /// The next so many requests to paths that start so have this fault.
    pub fn fail(&self, path: &str, times: usize, fault: Fault) {
        self.world().faults.push((path.to_owned(), times, fault));
    }

    /// Ends all faults.
    pub fn mend(&self) {
        self.world().faults.clear();
    }

    /// Everything asked so far, also what was refused.
    pub fn requests(&self) -> Vec<Asked> {
        self.world().asked.clone()
    }

    pub fn forget_requests(&self) {
        self.world().asked.clear();
    }

    pub fn allow_key(&self, key: &str) {
        self.world().keys.insert(key.to_owned());
    }

    pub fn revoke_key(&self, key: &str) {
        self.world().keys.remove(key);
    }

    /// Connects an account: it may be named in `Stripe-Account`, and `/v1/accounts` has it.
    pub fn add_account(&self, id: &str) {
        self.world().connect(id);
    }

    pub fn disconnect_account(&self, id: &str) {
        self.world().disconnect(id);
    }

    /// How many seconds the clock of its `Date` headers is ahead.
    pub fn set_skew(&self, seconds: i64) {
        self.world().skew = seconds;
    }

    /// Called just before each list is answered: for what happens while a client pages.
    pub fn on_page(&self, hook: impl Fn(&FakeStripe, &Asked) + Send + Sync + 'static) {
        *self.shared.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock().unwrap()
    }
}
