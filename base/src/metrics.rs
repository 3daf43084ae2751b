//! Metric families as plain values, so that one process can expose the series of many.
//!
//! Written in the Prometheus text format 0.0.4; [`merge`] joins families of the same name from several
//! sources, which the format demands to stand together; [`sum()`] adds up their series as well.

mod sum;

use std::collections::BTreeMap;
use std::fmt::Write;

use prometheus::proto;

pub use sum::sum;

/// The content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All series of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// The name, with its unit.
    pub name: String,
    /// Help text.
    pub help: String,
    /// Kind of the metric.
    pub kind: MetricKind,
    /// Series of the family.
    pub series: Vec<Series>,
}

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

/// Series: its labels and its value now.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// The reading.
    pub reading: Reading,
}

/// Value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// Of a counter or gauge.
    Value(f64),
    /// Of a histogram: cumulative counts by upper bound, without the infinite one.
    Histogram {
        /// Upper bound and how many observations were at or below it.
        buckets: Vec<(f64, u64)>,
        /// The sum of all observations.
        sum: f64,
        /// Number of observations.
        count: u64,
    },
}

impl Family {
    /// A gauge with these series.
    #[must_use]
    pub fn gauge(name: &str, help: &str, series: Vec<Series>) -> Self {
        Self { name: name.to_owned(), help: help.to_owned(), kind: MetricKind::Gauge, series }
    }

    /// A gauge that says yes or no: 1 or 0.
    #[must_use]
    pub fn flag(name: &str, help: &str, value: bool) -> Self {
        let reading = Reading::Value(if value { 1.0 } else { 0.0 });
        Self::gauge(name, help, vec![Series { labels: vec![], reading }])
    }
}

impl MetricKind {
    /// The word of the text format.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Gathers the families that a registry holds now. Summaries and untyped metrics, which Sealane does not use, are left
/// out.
#[must_use]
pub fn gather(registry: &prometheus::Registry) -> Vec<Family> {
    registry.gather().iter().filter_map(family).collect()
}

fn family(from: &proto::MetricFamily) -> Option<Family> {
    let kind = match from.get_field_type() {
        proto::MetricType::COUNTER => MetricKind::Counter,
        proto::MetricType::GAUGE => MetricKind::Gauge,
        proto::MetricType::HISTOGRAM => MetricKind::Histogram,
        proto::MetricType::SUMMARY | proto::MetricType::UNTYPED => return None,
    };
    let series = from.get_metric().iter().map(|metric| series(kind, metric)).collect();
    Some(Family { name: from.name().to_owned(), help: from.help().to_owned(), kind, series })
}

fn series(kind: MetricKind, metric: &proto::Metric) -> Series {
    // One without a value is none, by Prometheus' data model.
    let labels = metric.get_label().iter().filter(|pair| !pair.value().is_empty());
    let labels = labels.map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect();
    let reading = match kind {
        MetricKind::Counter => Reading::Value(metric.get_counter().get_value()),
        MetricKind::Gauge => Reading::Value(metric.get_gauge().get_value()),
        MetricKind::Histogram => {
            let histogram = metric.get_histogram();
            let buckets = histogram.get_bucket().iter();
            Reading::Histogram {
                buckets: buckets
                    .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                    .filter(|(bound, _)| bound.is_finite())
                    .collect(),
                sum: histogram.get_sample_sum(),
                count: histogram.get_sample_count(),
            }
        }
    };
    Series { labels, reading }
}

/// Joins families of the same name; the first one's help and kind stand, series of another kind are left out.
#[must_use]
pub fn merge(sources: impl IntoIterator<Item = Family>) -> Vec<Family> {
    let mut merged: BTreeMap<String, Family> = BTreeMap::new();
    for family in sources {
        match merged.get_mut(&family.name) {
            Some(known) if known.kind == family.kind => known.series.extend(family.series),
            Some(_) => {}
            None => {
                merged.insert(family.name.clone(), family);
            }
        }
    }
    merged.into_values().collect()
}

/// The families in the Prometheus text format.
#[must_use]
pub fn encode(families: &[Family]) -> String {
    let mut out = String::new();
    for family in families {
        let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ =
            writeln!(out, "# HELP {} {help}\n# TYPE {} {}", family.name, family.name, family.kind.as_str());
        for series in &family.series {
            encode_series(&mut out, &family.name, series);
        }
    }
    out
}

fn encode_series(out: &mut String, name: &str, series: &Series) {
    match &series.reading {
        Reading::Value(value) => sample(out, name, "", &series.labels, None, *value),
        Reading::Histogram { buckets, sum, count } => {
            for (bound, cumulative) in buckets {
                let bound = number(*bound);
                sample(out, name, "_bucket", &series.labels, Some(&bound), *cumulative as f64);
            }
            sample(out, name, "_bucket", &series.labels, Some("+Inf"), *count as f64);
            sample(out, name, "_sum", &series.labels, None, *sum);
            sample(out, name, "_count", &series.labels, None, *count as f64);
        }
    }
}

fn sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(String, String)],
    bound: Option<&str>,
    value: f64,
) {
    out.push_str(name);
    out.push_str(suffix);
    let bound = bound.map(|bound| ("le", bound));
    let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(bound);
    let mut separator = '{';
    for (label, text) in labels {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{separator}{label}=\"{text}\"");
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {}", number(value));
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

    use super::*;

    #[test]
    fn families_read_as_prometheus_writes_them() {
        let registry = Registry::new();
        let calls = IntCounterVec::new(Opts::new("calls_total", "Calls."), &["by"]).unwrap();
        calls.with_label_values(&["a\"b"]).inc_by(3);
        let opts = HistogramOpts::new("wait_seconds", "Waits.").buckets(vec![0.5, 1.0]);
        let waits = Histogram::with_opts(opts).unwrap();
        waits.observe(0.7);
        registry.register(Box::new(calls)).unwrap();
        registry.register(Box::new(waits)).unwrap();
        assert_eq!(
            encode(&gather(&registry)),
            "# HELP calls_total Calls.\n# TYPE calls_total counter\ncalls_total{by=\"a\\\"b\"} 3\n\
             # HELP wait_seconds Waits.\n# TYPE wait_seconds histogram\nwait_seconds_bucket{le=\"0.5\"} 0\n\
             wait_seconds_bucket{le=\"1\"} 1\nwait_seconds_bucket{le=\"+Inf\"} 1\nwait_seconds_sum 0.7\n\
             wait_seconds_count 1\n"
        );
    }

    #[test]
    fn families_of_one_name_stand_together() {
        let family = |value| Family {
            name: "x".into(),
            help: "X.".into(),
            kind: MetricKind::Gauge,
            series: vec![Series { labels: vec![], reading: Reading::Value(value) }],
        };
        let merged = merge([family(1.0), family(2.0)]);
        assert_eq!(encode(&merged), "# HELP x X.\n# TYPE x gauge\nx 1\nx 2\n");
    }
}
