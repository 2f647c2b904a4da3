//! What an answer, or the lack of one, means for the event; and the sentence that says so.
//! How the request was made is of no interest here.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::guard::Forbidden;
use super::url::PushUrl;
use crate::consume::target::{ANSWER_KEPT, Attempt, Verdict};

/// Longest wait that a target may ask for.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// How long the body of an answer is waited for. By then its status has decided everything.
const BODY_PATIENCE: Duration = Duration::from_secs(2);

/// Longest sentence about a failure, in bytes. Parts of it come from the other side.
const SENTENCE_MAX: usize = 1000;

/// An attempt that led to no answer.
pub(super) fn failed(sentence: &str) -> Attempt {
    Attempt {
        verdict: Verdict::Retry { after: None },
        status: None,
        error: text(sentence.as_bytes(), SENTENCE_MAX),
        answer: String::new(),
        took: Duration::ZERO,
    }
}

/// Takes an answer whose head has come, `left` before the attempt has to end.
///
/// The status alone decides. If a 2xx's body is slow, endless or broken off, the event is delivered
/// all the same: the target has said so, and would not thank us for a second one.
pub(super) async fn taken(
    mut response: Response,
    to: &PushUrl,
    left: Duration,
    now: OffsetDateTime,
) -> Attempt {
    let status = response.status();
    let (verdict, error) = judged(status, response.headers(), to, now);
    let mut kept = Vec::new();
    // One byte more than is kept, to come to the end of an answer of just that length: only a
    // connection whose answer was read to its end is used again. Longer ones cost theirs.
    let read = async {
        while kept.len() <= ANSWER_KEPT
            && let Ok(Some(chunk)) = response.chunk().await
        {
            let room = (ANSWER_KEPT + 1).saturating_sub(kept.len());
            kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    };
    // Too late is no error: what has come is kept.
    drop(tokio::time::timeout(left.min(BODY_PATIENCE), read).await);
    Attempt {
        verdict,
        status: Some(status.as_u16()),
        error: text(error.as_bytes(), SENTENCE_MAX),
        answer: text(&kept, ANSWER_KEPT),
        took: Duration::ZERO,
    }
}

fn judged(
    status: StatusCode,
    headers: &HeaderMap,
    to: &PushUrl,
    now: OffsetDateTime,
) -> (Verdict, String) {
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let said = format!("the target answered {}{reason}", status.as_u16());
    if status.is_success() {
        return (Verdict::Delivered, String::new());
    }
    if status == StatusCode::GONE {
        return (Verdict::Gone, format!("{said}: it wants no more events"));
    }
    if status.is_redirection() {
        let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let there = location.and_then(|location| to.joined(location));
        let there = there.map(|url| format!(" to {url}")).unwrap_or_default();
        let sentence = format!("{said}{there}: redirects are not followed, push to the final URL");
        return (Verdict::Retry { after: None }, sentence);
    }
    let may_ask = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
    let after = if may_ask { retry_after(headers, now) } else { None };
    (Verdict::Retry { after }, said)
}

/// The wait that a target asks for: seconds, or a date in the one form that RFC 9110 lets servers
/// send. A date in the past is no wait; what cannot be read is none asked for.
fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are more than the longest wait as well.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
        Duration::try_from(date - now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_WAIT))
}

/// Why there is no answer. Names the innermost cause: the outer errors only say that the request
/// failed, and show the URL with all its secrets.
pub(super) fn why(error: &reqwest::Error, to: &PushUrl) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
        if let Some(forbidden) = cause.downcast_ref::<Forbidden>() {
            return forbidden.to_string();
        }
    }
    if error.is_connect() {
        format!("no connection to {}: {cause}", to.authority())
    } else {
        format!("{} gave no usable answer: {cause}", to.authority())
    }
}

/// Bytes made text that a column can hold, of at most `most` bytes.
fn text(bytes: &[u8], most: usize) -> String {
    let mut text =
        String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).replace('\0', "\u{fffd}");
    // A replaced byte takes three.
    text.truncate(text.floor_char_boundary(most));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<Duration> {
        let headers = [(RETRY_AFTER, text.parse().unwrap())].into_iter().collect();
        // Sun, 06 Nov 1994 08:49:37 GMT, as in RFC 9110.
        retry_after(&headers, OffsetDateTime::from_unix_timestamp(784_111_777).unwrap())
    }

    #[test]
    fn both_forms_of_retry_after_are_read_and_capped() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (text, expected) in [
            ("0", seconds(0)),
            (" 120 ", seconds(120)),
            ("86401", seconds(86_400)),
            ("99999999999999999999999", seconds(86_400)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", seconds(3)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", seconds(0)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", seconds(86_400)),
            ("", None),
            ("-1", None),
            ("Sun, 06 Nov 1994", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(asked(text), expected, "{text:?}");
        }
    }

    #[test]
    fn answers_become_text_that_a_column_can_hold() {
        assert_eq!(text(b"a\0b", 100), "a\u{fffd}b");
        assert_eq!(text(&[0xff; 4], 100), "\u{fffd}".repeat(4));
        assert_eq!(text(&[0xff; 4], 8), "\u{fffd}".repeat(2));
        assert_eq!(text("ää".as_bytes(), 3), "ä");
    }
}
