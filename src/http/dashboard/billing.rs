//! Figures of the business, one object with the events that made it, and ties. Currencies are kept
//! apart: nothing here adds up two of them.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::{self, Path, Query, ServiceConfig};
use askama::Template;
use serde::Deserialize;
use time::{Date, Duration};

use super::chart::{Chart, Figures, Form, Series, Unit};
use super::page::{self, Shell, Visit, encoded};
use super::payload::{Payload, is_id};
use super::{filters, text};
use crate::http::admin::AdminError;
use crate::store::browse::billing::{self, Billing, BillingFilter, RevenueDay};
use crate::store::browse::events::{self, EventLine};
use crate::store::browse::objects::{self, BillingObject, Tie};
use crate::store::browse::{EventFilter, PageRequest};
use crate::stripe::kinds::Kind;

const PATH: &str = "/billing";
const TIES: &str = "/ties";

/// Days to look back over.
const PERIODS: [(&str, i64); 3] = [("30d", 30), ("90d", 90), ("1y", 365)];

/// Charts of currencies on one page; the table below has the others.
const CHARTS: usize = 6;

/// Ties on the page.
const MOST_TIES: i64 = 200;

pub fn routes(config: &mut ServiceConfig) {
    config
        .route(PATH, web::get().to(figures))
        .route("/billing/objects/{id}", web::get().to(object))
        .route(TIES, web::get().to(ties));
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    account: String,
    /// true or false; whichever there is if it is not said.
    #[serde(default)]
    livemode: String,
    #[serde(default)]
    period: String,
}

#[derive(Template)]
#[template(path = "billing.html")]
struct BillingPage {
    shell: Shell,
    billing: Billing,
    account: String,
    livemode: bool,
    period: &'static str,
    /// By currency.
    revenue: Vec<Revenue>,
}

/// What came in in one currency.
struct Revenue {
    currency: String,
    chart: Option<Chart>,
    gross: i64,
    refunded: i64,
    disputed: i64,
    net: i64,
    charges: i64,
}

impl BillingPage {
    fn link(&self, livemode: bool, period: &str) -> String {
        format!("{PATH}?livemode={livemode}&period={period}&account={}", encoded(&self.account))
    }
}

fn filter_of(asked: &Asked, livemode: bool, since: Date) -> BillingFilter {
    let account = match asked.account.trim() {
        "" => None,
        "-" => Some(String::new()),
        account => Some(account.to_owned()),
    };
    BillingFilter { account, livemode, since: Some(since) }
}

fn is_empty(billing: &Billing) -> bool {
    billing.customers == Some(0)
        && [billing.mrr.as_ref().map(Vec::len), billing.revenue.as_ref().map(Vec::len)]
            .iter()
            .all(|count| *count == Some(0))
}

async fn figures(visit: Visit, asked: Query<Asked>) -> Result<HttpResponse, AdminError> {
    let asked = asked.into_inner();
    let (period, days) =
        PERIODS.into_iter().find(|(name, _)| *name == asked.period).unwrap_or(PERIODS[1]);
    let today = visit.now.date();
    let since = today.saturating_sub(Duration::days(days - 1));
    let live = asked.livemode != "false";
    let (first, second) = (filter_of(&asked, live, since), filter_of(&asked, false, since));
    let said = !asked.livemode.is_empty();
    let read = async move |connection: &mut _| {
        let billing = billing::figures(connection, &first).await?;
        if said || !is_empty(&billing) {
            return Ok((billing, first.livemode));
        }
        Ok((billing::figures(connection, &second).await?, second.livemode))
    };
    let (billing, livemode) = visit.read(read).await?;
    let revenue = revenue(billing.revenue.as_deref().unwrap_or_default(), since, today);
    let shell = visit.shell("Billing", PATH).await?;
    page::show(&BillingPage { shell, billing, account: asked.account, livemode, period, revenue })
}

/// Sums and charts, a currency at a time, those with the most charges first.
fn revenue(days: &[RevenueDay], since: Date, today: Date) -> Vec<Revenue> {
    let mut by_currency: BTreeMap<&str, Vec<&RevenueDay>> = BTreeMap::new();
    for day in days {
        by_currency.entry(&day.currency).or_default().push(day);
    }
    let mut all: Vec<(Revenue, Vec<&RevenueDay>)> = by_currency
        .into_iter()
        .map(|(currency, days)| {
            let sum = |of: fn(&RevenueDay) -> i64| {
                days.iter().fold(0_i64, |sum, day| sum.saturating_add(of(day)))
            };
            let revenue = Revenue {
                currency: currency.to_owned(),
                chart: None,
                gross: sum(|day| day.gross),
                refunded: sum(|day| day.refunded),
                disputed: sum(|day| day.disputed),
                net: sum(|day| day.net),
                charges: sum(|day| day.charges),
            };
            (revenue, days)
        })
        .collect();
    all.sort_by_key(|(revenue, _)| -revenue.charges);
    for (revenue, days) in all.iter_mut().take(CHARTS) {
        revenue.chart = Some(chart(&revenue.currency, days, since, today));
    }
    all.into_iter().map(|(revenue, _)| revenue).collect()
}

fn chart(currency: &str, days: &[&RevenueDay], since: Date, today: Date) -> Chart {
    let count = usize::try_from((today - since).whole_days()).unwrap_or(0) + 1;
    let places = || {
        days.iter().filter_map(|day| {
            let place = usize::try_from((day.day - since).whole_days()).ok()?;
            (place < count).then_some((place, *day))
        })
    };
    #[allow(clippy::cast_precision_loss, reason = "a pixel is coarser")]
    let series = |name, colour, of: fn(&RevenueDay) -> i64| {
        let mut values = vec![Some(0.0); count];
        for (place, day) in places() {
            values[place] = Some(of(day) as f64);
        }
        Series { name, colour, values }
    };
    Chart::new(&Figures {
        title: format!("Revenue by day, {}", text::harmless(&currency.to_uppercase())),
        form: Form::Bars,
        unit: Unit::Money(currency.to_owned()),
        times: (0..count)
            .map(|day| since.saturating_add(Duration::days(i64::try_from(day).unwrap_or(0))))
            .map(|day| day.midnight().assume_utc())
            .collect(),
        series: vec![
            series("net", 1, |day| day.net),
            series("refunded", 3, |day| day.refunded),
            series("disputed", 5, |day| day.disputed),
        ],
    })
}

/// A row, with its object laid out.
struct Shown {
    row: BillingObject,
    columns: Vec<(String, String)>,
    payload: Payload,
}

#[derive(Template)]
#[template(path = "object.html")]
struct ObjectPage {
    shell: Shell,
    id: String,
    rows: Vec<Shown>,
    events: Vec<EventLine>,
    more: bool,
}

impl ObjectPage {
    /// Whether a row shows this event.
    fn shows(&self, event: &EventLine) -> bool {
        self.rows.iter().any(|it| it.row.as_of_event == event.id && it.row.as_of == event.created)
    }
}

/// How the newest event of an object was told, in words.
pub fn basis_words(basis: &str) -> &'static str {
    match basis {
        "unique" => "one event is the newest",
        "same" => "several of the newest second say the same",
        "chain" => "several of the newest second, in order by what each says was before it",
        "pairwise" => "several of the newest second, in order by comparing each two",
        "rank" => "several of the newest second, in order by the object's lifecycle",
        "tiebreak" => {
            "several of the newest second, and only their ids decided: fetch it from Stripe if it matters"
        }
        _ => "",
    }
}

async fn object(visit: Visit, id: Path<String>) -> Result<HttpResponse, AdminError> {
    let id = id.into_inner();
    let mut filter = EventFilter::default();
    filter.set("object", &id).map_err(AdminError::from)?;
    let wanted = id.clone();
    let read = async move |connection: &mut _| {
        let page = events::list(connection, &filter, &PageRequest::default()).await;
        let page = page.map_err(AdminError::from)?;
        // What it is, its events say.
        let kind = page.items.iter().find_map(|event| event.object_type.as_deref());
        let rows = match kind {
            Some(kind) => objects::find(connection, Kind::of(kind).table, &wanted)
                .await
                .map_err(AdminError::from)?,
            // The log has dropped them, say.
            None => objects::find_anywhere(connection, &wanted).await?,
        };
        Ok((rows, page))
    };
    let (rows, page) = visit.read(read).await?;
    if rows.is_empty() && page.items.is_empty() {
        return Err(AdminError::NotFound(format!("object {id}, nor an event about it")));
    }
    let raw = rows
        .first()
        .map_or_else(String::new, |row| format!("/events/{}/raw", encoded(&row.as_of_event)));
    let rows = rows.into_iter().map(|row| shown(row, &raw)).collect();
    let shell = visit.shell(&id, PATH).await?;
    page::show(&ObjectPage { shell, id, rows, events: page.items, more: page.next.is_some() })
}

fn shown(row: BillingObject, raw: &str) -> Shown {
    let columns = row.columns.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), text)
    });
    let columns = columns.collect();
    let payload = Payload::new(row.object.get().as_bytes(), raw.to_owned());
    Shown { row, columns, payload }
}

#[derive(Template)]
#[template(path = "ties.html")]
struct TiesPage {
    shell: Shell,
    ties: Vec<Tie>,
    unfinished: Vec<String>,
}

async fn ties(visit: Visit) -> Result<HttpResponse, AdminError> {
    let read = async |connection: &mut _| {
        objects::ties(connection, None, MOST_TIES).await.map_err(AdminError::from)
    };
    let found = visit.read(read).await?;
    let shell = visit.shell("Ties", TIES).await?;
    page::show(&TiesPage { shell, ties: found.items, unfinished: found.unfinished })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(number: i64, currency: &str, net: i64, charges: i64) -> RevenueDay {
        let day = Date::from_ordinal_date(2026, 1).unwrap() + Duration::days(number);
        let currency = currency.to_owned();
        RevenueDay { day, currency, gross: net, refunded: 0, disputed: 0, net, charges }
    }

    #[test]
    fn currencies_are_kept_apart() {
        let days = [day(0, "usd", 100, 1), day(0, "eur", 5, 9), day(2, "usd", i64::MAX, 1)];
        let since = Date::from_ordinal_date(2026, 1).unwrap();
        let all = revenue(&days, since, since + Duration::days(2));
        let sums: Vec<_> = all.iter().map(|it| (it.currency.as_str(), it.net)).collect();
        assert_eq!(sums, [("eur", 5), ("usd", i64::MAX)]);
        assert!(all.iter().all(|it| it.chart.is_some()));
    }
}
