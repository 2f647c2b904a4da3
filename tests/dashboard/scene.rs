//! What tests of the dashboard set up: a gateway that needs a token, the demo's events, events of a
//! hostile sender, and a form sent as a browser does.

use std::num::NonZeroUsize;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tollgate::clock::Clock;
use tollgate::fixtures::{SEED, START, stories};
use tollgate::replay::{Options, Pace, Plan, Sender, Target, source};

use crate::receiver::{self, Receiver, Reply};
use crate::support::{Answer, App, SECRET, form};

/// The token of the settings.
pub const TOKEN: &str = "a-token-of-the-settings";

/// Text that would do harm on a page that does not escape, and in a terminal.
pub const HOSTILE: &str =
    "<img src=x onerror=window.harmed=1><script>window.harmed=1</script>'\"&amp;";

/// A gateway that needs a token.
pub async fn guarded() -> App {
    App::spawn_with(&[("admin_token", TOKEN)]).await
}

/// Delivers the demo's events through the real endpoint.
pub async fn deliver_the_demo(app: &App) {
    let events = source::from_stories(&stories(SEED, START));
    let plan = Plan::new(events, &Options { shuffle: Some(7), duplicates: 30, unique_ids: None });
    let url = app.url("/webhooks/stripe");
    let target = Target { url: url.parse().unwrap(), secret: SECRET.parse().unwrap() };
    let pace = Pace { concurrency: NonZeroUsize::new(8).unwrap(), interval: None, retries: 5 };
    let sender = Sender::new(target, pace, Clock::system()).unwrap();
    let report = sender.send(&plan, &CancellationToken::new(), |_| ()).await;
    assert!(report.complete(), "the demo's events were not all taken");
}

/// An event whose every text is hostile: markup, marks that turn text around, orders to a terminal,
/// and a megabyte.
pub fn hostile_event() -> String {
    let text = format!("{HOSTILE}\u{202e}gnp.txt\u{200b}");
    serde_json::json!({
        "id": format!("evt_{HOSTILE}\u{202e}"), "object": "event", "type": format!("invoice.{HOSTILE}\u{1b}[31m"),
        "created": crate::support::now(), "livemode": false, "api_version": HOSTILE,
        "account": format!("acct_{HOSTILE}"),
        "data": {"object": {
            "id": format!("in_{HOSTILE}"), "object": "invoice", "customer": format!("cus_{HOSTILE}"),
            "description": text, HOSTILE: [text, "\u{1b}]0;owned\u{7}"], "long": "x".repeat(900_000),
        }},
    })
    .to_string()
}

/// Runs statements.
pub async fn run(app: &App, sql: &str) {
    app.pool
        .execute(AssertSqlSafe(sql.to_owned()))
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Waits until a condition holds in the database.
pub async fn until(app: &App, condition: &str) {
    let sql = format!("SELECT coalesce(({condition})::bool, false)");
    for _ in 0..1200 {
        let holds = sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_one(&app.pool).await;
        if holds.unwrap() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("not so: {condition}");
}

/// A consumer pushed to `receiver` from the log's beginning, that gives up and opens its breaker soon.
pub async fn push_to(app: &App, receiver: &Receiver, name: &str, types: &str) {
    // In one transaction, or it would be claimed from in between.
    let sql = format!(
        "SELECT tollgate.create_consumer('{name}', '{{{types}}}', start => 'earliest', max_attempts => 2,
                                         retry_first => '0.05 seconds', retry_most => '0.1 seconds');
         SELECT tollgate.set_target('{name}', '{}', secrets => '{{{}}}', breaker_after => 5, breaker_wait => '0.5 seconds')",
        receiver.url(),
        receiver::SECRET
    );
    run(app, &sql).await;
}

/// Something of everything that pages show: events, a failing target, a paused consumer, a failing
/// handler, bodies in quarantine.
pub async fn populate(app: &App, receiver: &Receiver) {
    run(
        app,
        "CREATE SCHEMA app;
         CREATE FUNCTION app.on_dispute(jsonb) RETURNS void LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'the ledger has no account %', $1 #>> '{data,object,id}'; END $$;
         CREATE FUNCTION app.on_invoice(jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
         SELECT tollgate.register_handler('charge.dispute.*', 'app.on_dispute(jsonb)'::regprocedure, 'ledger of disputes', max_attempts => 3);
         SELECT tollgate.register_handler('invoice.*', 'app.on_invoice(jsonb)'::regprocedure, 'books');
         SELECT tollgate.create_consumer('warehouse', '{invoice.*,charge.*}', start => 'earliest');
         SELECT tollgate.pause_consumer('warehouse', 'the schema is being changed');
         SELECT tollgate.create_consumer('mailer', '{customer.*}', start => 'latest')",
    )
    .await;
    deliver_the_demo(app).await;
    for body in ["{\"object\":\"event\",\"note\":\"<b>no id</b>\"}", "not json \u{202e}<i>", "[1,2"]
    {
        assert_eq!(app.deliver(body).await.word(), "quarantined");
    }
    assert_eq!(app.deliver(hostile_event()).await.word(), "recorded");
    let stale = app.deliver_signed(b"{}".to_vec(), "t=1,v1=00").await;
    assert_eq!(stale.status, 400);
    receiver
        .answer(|_| Reply::status(500).body(b"<h1>Internal <script>window.harmed=1</script></h1>"));
    push_to(app, receiver, "app", "*").await;
    until(app, "SELECT breaker <> 'closed' FROM tollgate.consumer_progress WHERE consumer = 'app'")
        .await;
}

/// A browser that has logged in, without the browser.
#[derive(Clone)]
pub struct Session<'a> {
    pub app: &'a App,
    pub cookie: String,
    pub csrf: String,
}

impl<'a> Session<'a> {
    pub async fn begin(app: &'a App, token: &str) -> Self {
        let login = app.ask("POST", "/login", |request| form(request, &[("token", token)])).await;
        let cookie =
            login.header("set-cookie").expect("a session").split(';').next().unwrap().to_owned();
        let mut session = Self { app, cookie, csrf: String::new() };
        let page = session.get("/").await.body;
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").expect("a form");
        rest.split('"').next().unwrap().clone_into(&mut session.csrf);
        session
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.app.ask("GET", path, |request| request.header("cookie", &self.cookie)).await
    }

    /// With another cookie besides.
    pub async fn get_with(&self, path: &str, cookie: &str) -> Answer {
        let cookies = format!("{}; {cookie}", self.cookie);
        self.app.ask("GET", path, |request| request.header("cookie", cookies)).await
    }

    /// Sends a form.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut fields = fields.to_vec();
        fields.push(("csrf", &self.csrf));
        self.app
            .ask("POST", path, |request| form(request.header("cookie", &self.cookie), &fields))
            .await
    }
}
