//! The events of the benchmark: bodies from the fixtures, fresh ids, signed ahead of time.
//! How requests are sent stands in `client`.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use tollgate::fixtures;
use tollgate::stripe::signature::SigningSecret;

/// Events signed ahead for each second of a run. Faster servers get what is signed on the spot,
/// which costs the generator some microseconds an event.
const SIGNED_AHEAD: u64 = 30_000;

/// Bodies without their ids.
pub struct Templates(Vec<Template>);

/// A body, cut where ids are to be filled in.
struct Template {
    start: String,
    rest: Vec<(Gap, String)>,
}

/// What is filled in.
#[derive(Clone, Copy)]
enum Gap {
    EventId,
    /// Into every other id, behind its prefix: the stories are told again and again, of other objects
    /// each time. Else a few objects would have thousands of events in one second, as none of Stripe's
    /// has, and finding out which is the newest would be most of what is measured.
    Telling,
}

impl Template {
    fn new(body: &str, event_id: &str) -> Self {
        let (mut start, mut rest, mut done) = (None, Vec::new(), 0);
        let mut gap = Gap::EventId;
        for (at, text) in quoted(body) {
            let (next, cut, skipped) = if text == event_id {
                (Gap::EventId, at, text.len())
            } else if let Some(prefix) = prefix_of_id(text) {
                (Gap::Telling, at + prefix, 0)
            } else {
                continue;
            };
            let piece = body[done..cut].to_owned();
            match &start {
                None => start = Some(piece),
                Some(_) => rest.push((gap, piece)),
            }
            (gap, done) = (next, cut + skipped);
        }
        rest.push((gap, body[done..].to_owned()));
        Self { start: start.expect("an event has its id"), rest }
    }

    fn len(&self) -> usize {
        self.start.len() + self.rest.iter().map(|(_, text)| text.len()).sum::<usize>()
    }

    fn write(&self, event_id: &str, telling: &str, out: &mut String) {
        out.push_str(&self.start);
        for (gap, text) in &self.rest {
            out.push_str(match gap {
                Gap::EventId => event_id,
                Gap::Telling => telling,
            });
            out.push_str(text);
        }
    }

    fn filled_len(&self, event_id: &str, telling: &str) -> usize {
        let gaps = self.rest.iter().map(|(gap, _)| match gap {
            Gap::EventId => event_id.len(),
            Gap::Telling => telling.len(),
        });
        self.len() + gaps.sum::<usize>()
    }
}

/// What stands between the quotes of a JSON text, and where it begins: all strings, and what is between
/// them, which is no id.
fn quoted(json: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    json.split('"').map(move |text| {
        let begins = at;
        at += text.len() + 1;
        (begins, text)
    })
}

/// The length of the prefix, as `cus_`, of what looks like an id of Stripe's.
fn prefix_of_id(text: &str) -> Option<usize> {
    let (prefix, random) = text.rsplit_once('_')?;
    let lower = prefix.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let mixed = random.len() >= 10
        && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && random.bytes().any(|byte| !byte.is_ascii_lowercase());
    (lower && mixed && !prefix.is_empty()).then_some(prefix.len() + 1)
}

impl Templates {
    /// Every event of the fixtures' stories. `now` is in Unix seconds.
    pub fn from_stories(now: i64) -> Self {
        let templates = fixtures::stories(fixtures::SEED, now)
            .into_iter()
            .flat_map(|story| story.events)
            .map(|sample| Template::new(&sample.body, &sample.id))
            .collect();
        Self(templates)
    }

    fn of(&self, index: usize) -> &Template {
        &self.0[index % self.0.len()]
    }

    /// How often the stories have been told before this one.
    fn telling(&self, index: usize) -> usize {
        index / self.0.len()
    }
}

impl fmt::Display for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.0.iter().map(Template::len).sum();
        let mean = bytes / self.0.len().max(1);
        write!(f, "{} sample events, mean body {mean} bytes without the id", self.0.len())
    }
}

/// A practically endless sequence of different events.
pub struct Traffic<'a> {
    templates: &'a Templates,
    secret: SigningSecret,
    tag: u32,
    timestamp: i64,
    signatures: Vec<String>,
}

impl<'a> Traffic<'a> {
    /// Signs as many events as a run of `length` may take. `tag` sets its ids apart from those of
    /// other runs; `timestamp`, in Unix seconds, goes into the signatures.
    pub fn sign(
        templates: &'a Templates,
        secret: &SigningSecret,
        tag: u32,
        timestamp: i64,
        length: Duration,
    ) -> Self {
        let secret = secret.clone();
        let mut traffic = Self { templates, secret, tag, timestamp, signatures: Vec::new() };
        let count = usize::try_from(length.as_secs() * SIGNED_AHEAD).unwrap_or_default();
        traffic.signatures = (0..count).map(|index| traffic.signature(index)).collect();
        traffic
    }

    /// Writes the complete request for the event `index` into `request`. `head` is the part of
    /// the request's head that is the same for all.
    pub fn write(&self, index: usize, head: &str, request: &mut String) {
        let template = self.templates.of(index);
        let (id, telling) = (self.id(index), self.telling(index));
        let signed_now;
        let signature = if let Some(signature) = self.signatures.get(index) {
            signature
        } else {
            signed_now = self.signature(index);
            &signed_now
        };
        let length = template.filled_len(&id, &telling);
        request.clear();
        request.push_str(head);
        // Writing to a String cannot fail.
        let _ =
            write!(request, "Content-Length: {length}\r\nStripe-Signature: {signature}\r\n\r\n");
        template.write(&id, &telling, request);
    }

    fn signature(&self, index: usize) -> String {
        let mut body = String::new();
        self.templates.of(index).write(&self.id(index), &self.telling(index), &mut body);
        self.secret.sign(self.timestamp, body.as_bytes())
    }

    /// What is new in the ids of the objects, in no order either.
    fn telling(&self, index: usize) -> String {
        let telling = u64::try_from(self.templates.telling(index)).unwrap_or_default();
        format!("{:016x}", scatter(u64::from(self.tag) << 32 | telling))
    }

    /// In no order, as Stripe's ids are: ascending ones would be kinder to an index.
    fn id(&self, index: usize) -> String {
        let mixed = scatter(u64::try_from(index).unwrap_or_default());
        format!("evt_{:08x}{mixed:016x}", self.tag)
    }
}

/// The finishing step of splitmix64, which maps no two numbers to the same.
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
