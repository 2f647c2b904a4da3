//! Charts as SVG of our own: stacked bars and lines over time, with axes, a legend, values to point
//! at, and the same figures as a table. Pure: figures in, a template out.
//!
//! The drawing stretches with the page while its labels are text beside it, so that they keep their
//! size on a phone.

use std::fmt::Write as _;

use askama::Template;
use askama::filters::HtmlSafe;
use time::{OffsetDateTime, UtcOffset};

use super::text;

/// Units of the drawing: one bucket is as wide as `WIDE`, and the highest value as high as `HIGH`.
const WIDE: f64 = 10.0;
const HIGH: f64 = 100.0;

/// Labels below the drawing.
const LABELS: usize = 7;

/// One of the things drawn, with a value for each bucket; none where nothing is known.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: &'static str,
    /// Number of its colour in the style sheet, 1 to 5.
    pub colour: u8,
    pub values: Vec<Option<f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Values of a bucket stand on each other.
    Bars,
    Lines,
}

/// How values are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    Plain,
    /// The values are seconds.
    Seconds,
    /// The values are minor units of a currency.
    Money(String),
}

impl Unit {
    #[allow(clippy::cast_possible_truncation, reason = "amounts are whole and below 2^53 or so")]
    fn text(&self, value: f64) -> String {
        match self {
            Self::Plain => text::short_number(value),
            Self::Seconds if value == 0.0 => "0".to_owned(),
            Self::Seconds if value < 1.0 => format!("{} ms", text::short_number(value * 1e3)),
            Self::Seconds => format!("{} s", text::short_number(value)),
            Self::Money(currency) => text::amount(value as i64, currency),
        }
    }
}

/// What to draw.
#[derive(Clone, Debug)]
pub struct Figures {
    pub title: String,
    pub form: Form,
    pub unit: Unit,
    /// When each bucket begins, at equal distances, oldest first.
    pub times: Vec<OffsetDateTime>,
    pub series: Vec<Series>,
}

/// A bar's piece.
struct Rect {
    colour: u8,
    x: String,
    y: String,
    height: String,
}

struct Line {
    colour: u8,
    path: String,
}

struct Hit {
    x: String,
    title: String,
}

struct Row {
    time: String,
    values: Vec<String>,
}

/// A chart, ready to be shown.
#[derive(Template)]
#[template(path = "chart.html")]
pub struct Chart {
    title: String,
    summary: String,
    width: String,
    bars: Vec<Rect>,
    lines: Vec<Line>,
    hits: Vec<Hit>,
    grid: Vec<String>,
    y_labels: Vec<String>,
    x_labels: Vec<String>,
    legend: Vec<(u8, &'static str)>,
    rows: Vec<Row>,
    empty: bool,
}

impl HtmlSafe for Chart {}

impl Chart {
    /// Draws figures.
    pub fn new(figures: &Figures) -> Self {
        let top = nice_top(highest(figures));
        let steps = 4;
        let y_labels = (0..=steps)
            .rev()
            .map(|step| figures.unit.text(top * f64::from(step) / f64::from(steps)));
        let grid = (0..=steps).map(|step| number(HIGH * f64::from(step) / f64::from(steps)));
        let name = |time: OffsetDateTime| bucket_name(time, step_seconds(&figures.times));
        let hits = figures.times.iter().enumerate().map(|(i, time)| {
            let mut title = name(*time);
            for series in &figures.series {
                if let Some(value) = series.values.get(i).copied().flatten() {
                    let _ = write!(title, "\n{}: {}", series.name, figures.unit.text(value));
                }
            }
            Hit { x: number(bucket(i)), title }
        });
        let empty = figures.series.iter().all(|s| s.values.iter().flatten().all(|v| *v == 0.0));
        Self {
            title: figures.title.clone(),
            summary: summary(figures),
            width: number(bucket(figures.times.len().max(1))),
            bars: if figures.form == Form::Bars { bars(figures, top) } else { Vec::new() },
            lines: if figures.form == Form::Lines { lines(figures, top) } else { Vec::new() },
            hits: hits.collect(),
            grid: grid.collect(),
            y_labels: y_labels.collect(),
            x_labels: x_labels(&figures.times),
            legend: figures.series.iter().map(|series| (series.colour, series.name)).collect(),
            rows: rows(figures),
            empty,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a few hundred buckets")]
fn bucket(index: usize) -> f64 {
    index as f64 * WIDE
}

/// The highest value, or sum of values where they stand on each other.
fn highest(figures: &Figures) -> f64 {
    let at = |i: usize| {
        figures.series.iter().filter_map(move |series| series.values.get(i).copied().flatten())
    };
    (0..figures.times.len())
        .map(|i| match figures.form {
            Form::Bars => at(i).sum::<f64>(),
            Form::Lines => at(i).fold(0.0, f64::max),
        })
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max)
}

/// The end of an axis that holds `value`: 4 times 1, 1.5, 2, 2.5, 3, 4, 5 or 7.5 of some power of ten, so that
/// its four steps are numbers that people know.
pub fn nice_top(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 4.0;
    }
    let power = 10_f64.powf((value / 4.0).log10().floor());
    let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0];
    let fits = steps.iter().find(|step| *step * power * 4.0 >= value * (1.0 - 1e-9));
    fits.copied().unwrap_or(10.0) * power * 4.0
}

fn bars(figures: &Figures, top: f64) -> Vec<Rect> {
    let mut bars = Vec::new();
    for i in 0..figures.times.len() {
        let mut below = 0.0;
        for series in &figures.series {
            let value = series.values.get(i).copied().flatten().unwrap_or(0.0);
            if value > 0.0 {
                below += value;
                bars.push(Rect {
                    colour: series.colour,
                    x: number(bucket(i) + WIDE * 0.1),
                    y: number(HIGH - below / top * HIGH),
                    height: number(value / top * HIGH),
                });
            }
        }
    }
    bars
}

fn lines(figures: &Figures, top: f64) -> Vec<Line> {
    let line = |series: &Series| {
        let known = |i: usize| series.values.get(i).copied().flatten();
        let mut path = String::new();
        for i in 0..series.values.len() {
            let Some(value) = known(i) else { continue };
            let (x, y) = (bucket(i) + WIDE / 2.0, number(HIGH - value / top * HIGH));
            let follows = i > 0 && known(i - 1).is_some();
            let _ = match (follows, known(i + 1)) {
                (true, _) => write!(path, "L{} {y}", number(x)),
                (false, Some(_)) => write!(path, "M{} {y}", number(x)),
                // One that stands alone is as long as its bucket, or it would not be seen.
                (false, None) => write!(path, "M{} {y}h{}", number(x - WIDE / 2.0), number(WIDE)),
            };
        }
        Line { colour: series.colour, path }
    };
    figures.series.iter().map(line).collect()
}

/// A coordinate, no more precise than can be seen.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn step_seconds(times: &[OffsetDateTime]) -> i64 {
    times.windows(2).next().map_or(60, |pair| (pair[1] - pair[0]).whole_seconds())
}

/// As exact as a bucket is long.
fn bucket_name(time: OffsetDateTime, step: i64) -> String {
    let time = time.to_offset(UtcOffset::UTC);
    if step >= 86_400 {
        return time.date().to_string();
    }
    format!("{} {:02}:{:02}", time.date(), time.hour(), time.minute())
}

/// Labels at equal distances, the first and the last bucket among them.
fn x_labels(times: &[OffsetDateTime]) -> Vec<String> {
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return Vec::new();
    };
    let whole = (*last - *first).whole_seconds();
    let day = step_seconds(times) >= 86_400 || whole > 2 * 86_400;
    let count = LABELS.min(times.len());
    (0..count)
        .map(|i| {
            let at = if count > 1 { i * (times.len() - 1) / (count - 1) } else { 0 };
            let time = times[at].to_offset(UtcOffset::UTC);
            if day {
                format!("{} {}", time.day(), &time.month().to_string()[..3])
            } else {
                format!("{:02}:{:02}", time.hour(), time.minute())
            }
        })
        .collect()
}

fn rows(figures: &Figures) -> Vec<Row> {
    let step = step_seconds(&figures.times);
    let row = |(i, time): (usize, &OffsetDateTime)| Row {
        time: bucket_name(*time, step),
        values: figures
            .series
            .iter()
            .map(|series| match series.values.get(i).copied().flatten() {
                Some(value) => figures.unit.text(value),
                None => "–".to_owned(),
            })
            .collect(),
    };
    // Newest first: that is what people look for in a table.
    figures.times.iter().enumerate().rev().map(row).collect()
}

/// One sentence for who cannot see the drawing.
fn summary(figures: &Figures) -> String {
    let told: Vec<String> = figures
        .series
        .iter()
        .map(|series| {
            let most = series.values.iter().flatten().copied().fold(0.0, f64::max);
            format!("{} at most {}", series.name, figures.unit.text(most))
        })
        .collect();
    format!("{}: {}", figures.title, told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(form: Form, series: Vec<Series>) -> Figures {
        let start = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let times = (0..3).map(|i| start + time::Duration::minutes(i)).collect();
        Figures { title: "Events".to_owned(), form, unit: Unit::Plain, times, series }
    }

    fn series(colour: u8, values: [Option<f64>; 3]) -> Series {
        Series { name: "recorded", colour, values: values.to_vec() }
    }

    #[test]
    fn an_axis_ends_on_a_number_people_know() {
        for (value, top) in [
            (0.0, 4.0),
            (1.0, 1.0),
            (3.9, 4.0),
            (4.1, 6.0),
            (95.0, 100.0),
            (101.0, 120.0),
            (0.013, 0.016),
            (f64::NAN, 4.0),
        ] {
            let is = nice_top(value);
            assert!((is - top).abs() < 1e-9, "{value}: {is}");
        }
    }

    #[test]
    fn bars_stand_on_each_other_and_fill_the_height() {
        let drawn = Chart::new(&figures(
            Form::Bars,
            vec![series(1, [Some(3.0), None, Some(1.0)]), series(2, [Some(1.0), Some(0.0), None])],
        ));
        let places: Vec<_> = drawn
            .bars
            .iter()
            .map(|bar| (bar.colour, bar.y.as_str(), bar.height.as_str()))
            .collect();
        assert_eq!(places, [(1, "25", "75"), (2, "0", "25"), (1, "75", "25")]);
        assert_eq!(drawn.y_labels, ["4", "3", "2", "1", "0"]);
        assert_eq!(drawn.rows[0].values, ["1", "–"]);
    }

    #[test]
    fn a_line_has_a_gap_where_nothing_is_known() {
        let drawn =
            Chart::new(&figures(Form::Lines, vec![series(1, [Some(4.0), None, Some(2.0)])]));
        assert_eq!(drawn.lines[0].path, "M0 0h10M20 50h10");
    }

    #[test]
    fn no_figures_and_hostile_names_are_no_trouble() {
        let mut nothing = figures(Form::Bars, Vec::new());
        nothing.times.clear();
        nothing.title = "<script>".to_owned();
        let html = Chart::new(&nothing).render().unwrap();
        assert!(!html.contains("<script>"), "{html}");
    }
}
