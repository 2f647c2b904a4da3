//! Metrics as a scraper reads them: a strict parser of the text format (version 0.0.4, see
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>), which panics at what it forbids.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::App;

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page {
    /// Type and help of each family.
    pub families: BTreeMap<String, (String, String)>,
    /// Values by name and sorted labels, as in `name{a="b",c="d"}`.
    pub samples: BTreeMap<String, f64>,
}

impl Page {
    /// One value; panics without it.
    pub fn value(&self, sample: &str) -> f64 {
        let found = self.samples.get(sample);
        *found.unwrap_or_else(|| panic!("{sample} is not among {:#?}", self.samples.keys()))
    }

    /// The sum of all values of a name.
    pub fn sum(&self, name: &str) -> f64 {
        let of_name = |key: &&String| key.split('{').next() == Some(name);
        self.samples.keys().filter(of_name).map(|key| self.samples[key]).sum()
    }

    /// The names that samples have.
    pub fn names(&self) -> BTreeSet<String> {
        let name = |key: &String| key.split('{').next().unwrap_or_default().to_owned();
        self.samples.keys().map(name).collect()
    }
}

/// Scrapes a gateway.
pub async fn scrape(app: &App) -> Page {
    let answer = app.ask("GET", "/metrics", |request| request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    parse(&answer.body)
}

/// Parses a page.
pub fn parse(text: &str) -> Page {
    assert!(text.ends_with('\n'), "the last line has an end");
    let mut page = Page::default();
    let (mut help, mut family) = (None, None::<(String, String)>);
    let mut closed = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(!text.trim().is_empty(), "{line}");
            help = Some((name.to_owned(), text.to_owned()));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let (of, text) = help.take().unwrap_or_else(|| panic!("no help: {line}"));
            assert_eq!(of, name, "help and type of one family");
            if let Some((before, _)) = family.replace((name.to_owned(), kind.to_owned())) {
                closed.insert(before);
            }
            assert!(!closed.contains(name), "a family in two places: {name}");
            page.families.insert(name.to_owned(), (kind.to_owned(), text));
        } else {
            let (name, labels, value) = sample(line);
            let (of, kind) = family.as_ref().unwrap_or_else(|| panic!("no type: {line}"));
            let belongs = match kind.as_str() {
                "histogram" => ["_sum", "_count", "_bucket"]
                    .iter()
                    .any(|part| name.strip_suffix(part) == Some(of)),
                _ => name == *of,
            };
            assert!(belongs, "{line} stands in the family {of}");
            let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
            let key =
                if labels.is_empty() { name } else { format!("{name}{{{}}}", labels.join(",")) };
            assert!(page.samples.insert(key, value).is_none(), "twice: {line}");
        }
    }
    check_histograms(&page);
    page
}

/// A sample's name, sorted labels and value.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let (value, after) = quoted(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    assert!(!value.contains(' '), "no time stamp: {line}");
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

/// A label's value up to its closing quote, and what comes after.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                other => panic!("unknown escape {other:?} in {text}"),
            },
            _ => value.push(char),
        }
    }
    panic!("no closing quote: {text}");
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// Buckets grow, and the last holds them all.
fn check_histograms(page: &Page) {
    let histograms = page.families.iter().filter(|(_, (kind, _))| kind == "histogram");
    for (name, _) in histograms {
        let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (key, value) in &page.samples {
            let Some(labels) = key.strip_prefix(&format!("{name}_bucket{{")) else { continue };
            let (le, others): (Vec<_>, Vec<_>) = labels
                .trim_end_matches('}')
                .split(',')
                .partition(|label| label.starts_with("le=\""));
            let le = le[0].trim_start_matches("le=\"").trim_end_matches('"');
            let le = le.parse().unwrap_or_else(|_| panic!("{key}"));
            series.entry(others.join(",")).or_default().push((le, *value));
        }
        assert!(!series.is_empty(), "{name} has no buckets");
        for (labels, mut buckets) in series {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name} {labels} {buckets:?}");
            let (last, all) = buckets[buckets.len() - 1];
            let braces = |labels: &str| match labels {
                "" => String::new(),
                labels => format!("{{{labels}}}"),
            };
            assert!(last.is_infinite(), "{name} {labels}");
            let count = page.value(&format!("{name}_count{}", braces(&labels)));
            assert!((all - count).abs() < 0.5, "{name} {labels}: {all} of {count}");
        }
    }
}
