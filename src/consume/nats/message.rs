//! What is sent for an event, and what the answer says: subject, headers, sizes, acknowledgement.
//! Pure; sending is the target's.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::consume::target::Delivery;

/// Most characters that are used of a prefix or a type. Servers cut the connection when the line
/// with subject and reply address is longer than 4,096 bytes; Stripe's longest type has under 100.
const MOST_CHARS: usize = 255;

/// What is percent-encoded in a header besides all that is not ASCII: what would end the line, the
/// spaces that readers trim, and the sign itself, so that different ids stay different.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// `PREFIX.TYPE`. Characters that a subject may not hold become `_`, and so does an empty token, so
/// that this is a subject whatever the type; Stripe's types stay as they are.
pub(super) fn subject(prefix: &str, event_type: &str) -> String {
    format!("{}.{}", tokens(prefix), tokens(event_type))
}

fn tokens(text: &str) -> String {
    let legal = |c: char| c.is_ascii_graphic() && !['*', '>'].contains(&c);
    let text = text.chars().take(MOST_CHARS).map(|c| if legal(c) { c } else { '_' });
    let text: String = text.collect();
    let tokens: Vec<_> = text.split('.').map(|it| if it.is_empty() { "_" } else { it }).collect();
    tokens.join(".")
}

/// Whether subjects may begin with this: it needs no mending, and is not among the names that
/// servers and clients use for themselves (`$JS`, `_INBOX`).
pub fn is_prefix(text: &str) -> bool {
    !text.starts_with('$') && !text.starts_with("_INBOX") && tokens(text) == text
}

/// The headers of an event. `Nats-Msg-Id` is its id, by which a stream knows what it has.
pub(super) fn headers(delivery: &Delivery) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, encoded(&delivery.event_id).as_str());
    headers.insert("Tollgate-Consumer", encoded(&delivery.consumer).as_str());
    headers.insert("Tollgate-Position", delivery.position.to_string());
    headers.insert("Tollgate-Attempt", delivery.attempt.to_string());
    if !delivery.account.is_empty() {
        headers.insert("Stripe-Account", encoded(&delivery.account).as_str());
    }
    if let Some(traceparent) = &delivery.traceparent {
        headers.insert("traceparent", traceparent.as_str());
    }
    headers
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Bytes of a message as servers count them against `max_payload`: headers and body.
pub(super) fn wire_size(headers: &HeaderMap, body: usize) -> usize {
    let line = |name: &str, value: &str| name.len() + ": ".len() + value.len() + "\r\n".len();
    let lines = headers.iter().flat_map(|(name, values)| {
        values.iter().map(move |value| line(name.as_ref(), value.as_str()))
    });
    "NATS/1.0\r\n\r\n".len() + lines.sum::<usize>() + body
}

/// Why a message of this size can never be sent, if so. `max` is what the server announces; 0 means
/// that it announces nothing.
pub(super) fn too_large(size: usize, max: usize) -> Option<String> {
    (max > 0 && size > max).then(|| {
        format!(
            "with its headers the event has {size} bytes, and the NATS server takes at most {max} \
             (max_payload)"
        )
    })
}

/// What to do when nobody takes the subject.
pub(super) fn no_stream(subject: &str, prefix: &str) -> String {
    let prefix = tokens(prefix);
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = prefix.chars().map(word).collect();
    format!(
        "no stream takes the subject {subject}; make one: nats stream add {name} --subjects \
         '{prefix}.>' --defaults"
    )
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The stream has the message, from now on or from before.
    Stored,
    /// It refused, in these words.
    Refused(String),
    /// Whoever answered, it was no stream.
    Strange,
}

/// Reads the answer to a publication.
pub(super) fn read_answer(answer: &[u8]) -> Answer {
    match serde_json::from_slice::<Response<PublishAck>>(answer) {
        Ok(Response::Ok(ack)) if !ack.stream.is_empty() && ack.sequence > 0 => Answer::Stored,
        Ok(Response::Err { error }) => Answer::Refused(error.to_string()),
        _ => Answer::Strange,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{
        Answer, headers, is_prefix, no_stream, read_answer, subject, too_large, wire_size,
    };
    use crate::consume::target::Delivery;

    fn delivery(event_id: &str, account: &str) -> Delivery {
        Delivery {
            consumer: "späti".to_owned(),
            position: 7,
            event_id: event_id.to_owned(),
            event_type: "invoice.paid".to_owned(),
            account: account.to_owned(),
            livemode: false,
            attempt: 2,
            raw: Bytes::from_static(b"{}"),
            traceparent: None,
        }
    }

    #[test]
    fn types_become_subjects() {
        let cases = [
            ("stripe", "invoice.payment_failed", "stripe.invoice.payment_failed"),
            ("a.b", "v1.billing.meter.no_meter_found", "a.b.v1.billing.meter.no_meter_found"),
            ("stripe", "", "stripe._"),
            ("", "x", "_.x"),
            ("stripe", ".a..b.", "stripe._.a._.b._"),
            ("stripe", "a b\t*.>\r\nPUB x", "stripe.a_b__.___PUB_x"),
            ("stripe", "zahlung.überfällig\0", "stripe.zahlung._berf_llig_"),
        ];
        for (prefix, event_type, expected) in cases {
            assert_eq!(subject(prefix, event_type), expected);
        }
        assert!(subject("stripe", &".".repeat(9000)).len() < 600);
    }

    #[test]
    fn prefixes_that_need_mending_are_none() {
        assert!(["stripe", "shop.stripe", "a-b_c"].into_iter().all(is_prefix));
        let bad = ["", ".", "a..b", "a.", "a b", "a.*", ">", "ä", "$JS.API", "_INBOX.a"];
        assert!(!bad.into_iter().any(is_prefix));
        assert!(!is_prefix(&"a".repeat(256)));
    }

    #[test]
    fn headers_say_whose_and_which() {
        let headers = headers(&delivery("evt_1", "acct_1"));
        let value = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        assert_eq!(value("Nats-Msg-Id").as_deref(), Some("evt_1"));
        assert_eq!(value("Tollgate-Consumer").as_deref(), Some("sp%C3%A4ti"));
        assert_eq!(value("Tollgate-Position").as_deref(), Some("7"));
        assert_eq!(value("Tollgate-Attempt").as_deref(), Some("2"));
        assert_eq!(value("Stripe-Account").as_deref(), Some("acct_1"));
    }

    #[test]
    fn strange_ids_stay_apart_and_make_no_lines_of_their_own() {
        let id = |text: &str| {
            let headers = headers(&delivery(text, ""));
            assert!(headers.get("Stripe-Account").is_none());
            headers.get("Nats-Msg-Id").unwrap().as_str().to_owned()
        };
        assert_eq!(id("evt\r\nStripe-Account: x"), "evt%0D%0AStripe-Account:%20x");
        assert_ne!(id("a\n"), id("a%0A"));
        assert_ne!(id("a"), id("a "));
    }

    #[test]
    fn the_size_is_that_on_the_wire() {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("A", "bc");
        headers.insert("Longer", "x");
        assert_eq!(wire_size(&headers, 5), b"NATS/1.0\r\nA: bc\r\nLonger: x\r\n\r\n12345".len());
    }

    #[test]
    fn only_what_exceeds_a_known_limit_is_too_large() {
        assert_eq!(too_large(100, 100), None);
        assert_eq!(too_large(100, 0), None);
        let sentence = too_large(101, 100).unwrap();
        assert!(sentence.contains("has 101 bytes") && sentence.contains("at most 100"));
    }

    #[test]
    fn the_line_that_makes_a_stream_fits_the_prefix() {
        let sentence = no_stream("shop.stripe.x", "shop.stripe");
        assert!(sentence.contains("nats stream add SHOP_STRIPE --subjects 'shop.stripe.>'"));
    }

    #[test]
    fn only_an_acknowledgement_is_one() {
        let stored = [
            r#"{"stream":"S","seq":1}"#,
            r#"{"stream":"S","seq":3,"duplicate":true,"domain":"d","new":[]}"#,
        ];
        assert!(stored.iter().all(|it| read_answer(it.as_bytes()) == Answer::Stored));
        let refused =
            br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"S","seq":0}"#;
        let Answer::Refused(words) = read_answer(refused) else { panic!("no refusal") };
        assert!(words.contains("maximum messages exceeded"));
        for strange in
            ["", "+OK", "{}", "[]", r#"{"stream":"S","seq":0}"#, r#"{"stream":"","seq":1}"#]
        {
            assert_eq!(read_answer(strange.as_bytes()), Answer::Strange, "{strange}");
        }
    }
}
