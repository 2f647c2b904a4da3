//! `tollgate replay --from-log`: which events of the gateway's own log are sent, and fetching them
//! as they are sent. Sending itself is `crate::replay`'s.

use std::collections::BTreeMap;

use futures_util::Stream;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::filter::FilterArgs;
use super::table;
use super::terminal::{harmless, second};
use crate::replay::{Delivery, Event, Options, plan};
use crate::store::browse::{EventFilter, event, events};

/// Most events of one run. What is kept of each while it lasts, its key, takes some 100 bytes.
const MOST: usize = 1_000_000;

/// Events that are looked for at a time.
const PIECE: i64 = 2000;

/// Bodies that are read at a time, and that wait to be sent: they may be large.
const BODIES: usize = 32;

/// Whether events of the log are sent, and which.
#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// Send events of the gateway's own log instead: all that fit the filters
    #[arg(long, conflicts_with = "paths")]
    pub from_log: bool,

    #[command(flatten)]
    pub filter: FilterArgs,

    /// With --from-log: only say how many events fit, and of which types
    #[arg(long, requires = "from_log")]
    pub dry_run: bool,

    /// With --from-log: do not ask before sending
    #[arg(long, requires = "from_log")]
    pub yes: bool,
}

/// Events of the log, oldest first, and those of one second as they came.
#[derive(Debug, Default)]
pub struct Chosen {
    keys: Vec<(OffsetDateTime, String)>,
    /// How many there are of each type.
    types: BTreeMap<String, usize>,
}

/// All events that fit. Without Tollgate's own, unless they are asked for by type.
///
/// # Errors
/// If they are too many for one run.
pub async fn choose(connection: &mut PgConnection, filter: &EventFilter) -> anyhow::Result<Chosen> {
    let mut found = Vec::new();
    let mut types = BTreeMap::new();
    let mut after = None;
    loop {
        // What the queries set counts until their transaction ends.
        let mut transaction = connection.begin().await?;
        let (keys, next) = events::walk(&mut transaction, filter, after.as_ref(), PIECE).await?;
        transaction.commit().await?;
        for key in keys.into_iter().filter(|key| filter.means(&key.event_type)) {
            *types.entry(key.event_type).or_insert(0) += 1;
            found.push((key.created, key.position, key.id));
        }
        if found.len() > MOST {
            anyhow::bail!(
                "more than {MOST} events fit: send them in parts, by --since and --until"
            );
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    found.sort_unstable();
    let keys = found.into_iter().map(|(created, _, id)| (created, id)).collect();
    Ok(Chosen { keys, types })
}

impl Chosen {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let time =
            |key: Option<&(OffsetDateTime, String)>| key.and_then(|it| it.0.format(&Rfc3339).ok());
        json!({
            "events": self.len(), "oldest": time(self.keys.first()),
            "newest": time(self.keys.last()), "types": self.types,
        })
    }

    /// For people: how many, from when to when, and of which types.
    pub fn words(&self) -> String {
        let (Some((oldest, _)), Some((newest, _))) = (self.keys.first(), self.keys.last()) else {
            return "no events fit".to_owned();
        };
        let mut types: Vec<_> = self.types.iter().collect();
        types.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut lines = table::plain();
        for (name, count) in types {
            lines.add_row([count.to_string(), harmless(name)]);
        }
        table::align_right(&mut lines, &[0]);
        let (oldest, newest) = (second(*oldest), second(*newest));
        let lines = table::text(&lines);
        format!("{} events fit, from {oldest} to {newest}\n{lines}", self.len())
    }

    /// How many deliveries that makes, and these, read from the log as they are taken. The task says
    /// in the end whether all could be read; what retention has dropped meanwhile is left out.
    pub fn deliveries(
        self,
        mut connection: PgConnection,
        options: Options,
    ) -> (usize, impl Stream<Item = Delivery>, JoinHandle<Result<(), sqlx::Error>>) {
        let order = plan::order(self.len(), &options);
        let planned = order.len();
        let (sender, receiver) = mpsc::channel(BODIES);
        let reading = tokio::spawn(async move {
            for numbers in order.chunks(BODIES) {
                let keys = numbers.iter().map(|number| &self.keys[*number]);
                let keys = keys.map(|(created, id)| (*created, id.as_str()));
                for (nth, body) in event::bodies_of(&mut connection, keys).await? {
                    let nth = usize::try_from(nth - 1).unwrap_or_default();
                    let event = Event::kept(&self.keys[numbers[nth]].1, body.into());
                    let delivery = Delivery::of(numbers[nth], event, &options);
                    if sender.send(delivery).await.is_err() {
                        return Ok(()); // interrupted
                    }
                }
            }
            Ok(())
        });
        let deliveries = futures_util::stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|delivery| (delivery, receiver))
        });
        (planned, deliveries, reading)
    }
}
