//! How metrics are written: samples with labels in, a page in one of the two text formats out.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Format;

/// Writes what collectors have.
pub fn write(format: Format, collectors: Vec<Box<dyn Collector>>) -> String {
    let mut registry = Registry::default();
    for collector in collectors {
        registry.register_collector(collector);
    }
    let mut page = String::new();
    // Writing to a string does not fail.
    text::encode(&mut page, &registry).unwrap_or_default();
    match format {
        Format::OpenMetrics => page,
        Format::Text => classic(&page),
    }
}

/// The older format names a counter's family like its samples, and knows no end mark.
fn classic(page: &str) -> String {
    let mut out = String::with_capacity(page.len() + 1024);
    let mut help = None;
    for line in page.lines() {
        if line.starts_with("# HELP ") {
            help = Some(line);
            continue;
        }
        match line.strip_prefix("# TYPE ").and_then(|rest| rest.rsplit_once(' ')) {
            Some((name, kind)) => {
                let total = if kind == "counter" { "_total" } else { "" };
                let text = help.take().and_then(|line| line.splitn(4, ' ').nth(3));
                let text = text.unwrap_or_default();
                let name = [name, total].concat();
                out += &["# HELP ", &name, " ", text, "\n# TYPE ", &name, " ", kind, "\n"].concat();
            }
            None if line == "# EOF" => {}
            None => {
                out += line;
                out.push('\n');
            }
        }
    }
    out
}

/// Labels of a sample: names are ours, values may be anything.
pub type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

/// Writes families, one after the other.
pub struct Page<'e>(pub DescriptorEncoder<'e>);

impl Page<'_> {
    /// A family of counters; `name` without `_total`.
    pub fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            let mut encoder = family.encode_family(&labels)?;
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// A counter of its own.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A family of gauges.
    pub fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a, N>, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A gauge of its own.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A family of histograms: sum and buckets, one more than bounds.
    pub fn histograms<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[f64],
        samples: impl IntoIterator<Item = (Labels<'a, N>, f64, &'a [u64])>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, sum, buckets) in samples {
            let bounds = bounds.iter().copied().chain([f64::INFINITY]);
            let counts: Vec<_> = bounds.zip(buckets.iter().copied()).collect();
            let all = buckets.iter().sum();
            family
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum, all, &counts, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Sample;

    impl Collector for Sample {
        fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
            let mut page = Page(encoder);
            page.counters("seen", "How many.", [([("of", "a\"\\\nb")], 3)])?;
            page.counter("lone", "One.", 1)?;
            page.gauge("depth", "How deep.", 1.5)?;
            page.gauges::<1>("none", "Nothing.", [])?;
            page.histograms("took_seconds", "Time.", &[0.5], [([("k", "v")], 2.0, &[1, 2][..])])
        }
    }

    #[test]
    fn both_formats_name_counters_as_they_should() {
        let text = write(Format::Text, vec![Box::new(Sample)]);
        let expected = "\
# HELP seen_total How many.
# TYPE seen_total counter
seen_total{of=\"a\\\"\\\\\\nb\"} 3
# HELP lone_total One.
# TYPE lone_total counter
lone_total 1
# HELP depth How deep.
# TYPE depth gauge
depth 1.5
# HELP none Nothing.
# TYPE none gauge
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_sum{k=\"v\"} 2.0
took_seconds_count{k=\"v\"} 3
took_seconds_bucket{le=\"0.5\",k=\"v\"} 1
took_seconds_bucket{le=\"+Inf\",k=\"v\"} 3
";
        assert_eq!(text, expected);
        let open = write(Format::OpenMetrics, vec![Box::new(Sample)]);
        assert!(open.contains("# TYPE seen counter\nseen_total{"), "{open}");
        assert!(open.ends_with("# EOF\n"));
    }
}
