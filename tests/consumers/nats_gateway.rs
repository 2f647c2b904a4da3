//! A gateway that delivers to a NATS server which dies in the middle. What a single publication
//! does is tested in `nats`.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, Stream};
use futures_util::StreamExt;

use crate::scene::{ask, record, run, until, until_settled};
use crate::support::App;
use crate::support::nats::NatsServer;

/// Message ids in the order of the stream, with their objects.
async fn held(stream: &Stream) -> Vec<(String, String)> {
    let count = usize::try_from(stream.get_info().await.unwrap().state.messages).unwrap();
    let consumer = stream.create_consumer(pull::Config::default()).await.unwrap();
    let fetched = consumer.fetch().max_messages(count.max(1)).messages().await.unwrap();
    let described = fetched.take(count).map(|message| {
        let message = message.unwrap();
        let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        let id = message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().to_string();
        assert_eq!(json["id"].as_str(), Some(id.as_str()));
        (id, json["data"]["object"]["id"].as_str().unwrap().to_owned())
    });
    described.collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nats_server_gets_every_event_once_and_in_order() {
    const EVENTS: usize = 300;
    let Some(mut server) = NatsServer::start("").await else { return };
    server.stream("stripe.>", Config::default()).await;
    let app = App::spawn().await;
    let sql = format!(
        "SELECT tollgate.create_consumer('bus', start => 'earliest', ordering => 'object', retry_first => '0.1 seconds',
                                         retry_most => '0.5 seconds', lease => '4 seconds');
         SELECT tollgate.set_target('bus', '{}', timeout => '2 seconds', rate => 150, burst => 20, breaker_wait => '0.2 seconds')",
        server.url()
    );
    run(&app.pool, &sql).await;
    record(&app.pool, 0, EVENTS, 30).await;
    until(&app.pool, "SELECT lag_events < 230 FROM tollgate.consumer_status").await;
    server.kill().await;
    let left: usize =
        ask(&app.pool, "SELECT lag_events FROM tollgate.consumer_status").await.parse().unwrap();
    assert!(left > 50, "the kill came too late to matter");
    until(&app.pool, "SELECT count(*) > 0 FROM tollgate.attempts").await;
    server.restart().await;
    until_settled(&app.pool).await;
    assert_eq!(ask(&app.pool, "SELECT count(*) FROM tollgate.dead_letters").await, "0");

    let stream = server.jetstream().await.get_stream("EVENTS").await.unwrap();
    let mut last = BTreeMap::new();
    let all = held(&stream).await;
    assert_eq!(all.len(), EVENTS);
    for (id, object) in all {
        let number: usize = id.strip_prefix("evt_").unwrap().parse().unwrap();
        let before = last.insert(object.clone(), number);
        assert!(before < Some(number), "{object}: {number} after {before:?}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nats_can_never_take_is_dead_at_once_and_holds_up_nobody() {
    let Some(server) = NatsServer::start("max_payload: 2000").await else { return };
    server.stream("stripe.>", Config::default()).await;
    let app = App::spawn().await;
    let sql = format!(
        "SELECT tollgate.create_consumer('bus', start => 'earliest', ordering => 'object');
         SELECT tollgate.set_target('bus', '{}')",
        server.url()
    );
    run(&app.pool, &sql).await;
    for (id, padding) in [("evt_big", 3000), ("evt_small", 3)] {
        let body = format!(
            r#"{{"id":"{id}","object":"event","type":"thing.done","data":{{"object":{{"id":"thing_1","object":"thing","x":"{}"}}}}}}"#,
            "x".repeat(padding)
        );
        assert_eq!(app.deliver(body).await.word(), "recorded");
    }
    until_settled(&app.pool).await;
    let dead = "SELECT string_agg(event_id || ' ' || attempts || ' ' || reason, ',') FROM tollgate.dead_letters";
    assert_eq!(ask(&app.pool, dead).await, "evt_big 1 non_retryable");
    let stream = server.jetstream().await.get_stream("EVENTS").await.unwrap();
    assert_eq!(held(&stream).await.len(), 1);
    app.stop().await;
}
