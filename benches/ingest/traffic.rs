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

/// A body, cut in two where the event's id stands.
struct Template {
    before: String,
    after: String,
}

impl Templates {
    /// Every event of the fixtures' stories. `now` is in Unix seconds.
    pub fn from_stories(now: i64) -> Self {
        let templates = fixtures::stories(fixtures::SEED, now)
            .into_iter()
            .flat_map(|story| story.events)
            .filter_map(|sample| {
                let (before, after) = sample.body.split_once(&sample.id)?;
                Some(Template { before: before.to_owned(), after: after.to_owned() })
            })
            .collect();
        Self(templates)
    }

    fn of(&self, index: usize) -> &Template {
        &self.0[index % self.0.len()]
    }
}

impl fmt::Display for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.0.iter().map(|it| it.before.len() + it.after.len()).sum();
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
        let Template { before, after } = self.templates.of(index);
        let id = self.id(index);
        let signed_now;
        let signature = if let Some(signature) = self.signatures.get(index) {
            signature
        } else {
            signed_now = self.signature(index);
            &signed_now
        };
        let length = before.len() + id.len() + after.len();
        request.clear();
        request.push_str(head);
        // Writing to a String cannot fail.
        let _ = write!(
            request,
            "Content-Length: {length}\r\nStripe-Signature: {signature}\r\n\r\n{before}{id}{after}"
        );
    }

    fn signature(&self, index: usize) -> String {
        let Template { before, after } = self.templates.of(index);
        let body = [before, self.id(index).as_str(), after].concat();
        self.secret.sign(self.timestamp, body.as_bytes())
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
