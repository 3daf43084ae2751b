//! Reading the Prometheus text format, as much of it as Sealane writes.

use std::collections::BTreeMap;

/// The samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<Sample>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Parses the result of a scrape.
    ///
    /// # Panics
    /// When a line is no sample.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect())
    }

    /// The sum of all series with this name and these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// Returns true if there is a series with this name and these labels.
    #[must_use]
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| {
            let has = |(name, value): &(&str, &str)| sample.labels.get(*name).is_some_and(|own| own == value);
            sample.name == name && labels.iter().all(has)
        })
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let mut rest = labels.strip_suffix('}')?;
    let mut labels = BTreeMap::new();
    while let Some((label, after)) = rest.split_once("=\"") {
        let (text, after) = after.split_once('"')?;
        labels.insert(label.to_owned(), text.to_owned());
        rest = after.trim_start_matches(',');
    }
    Some(Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_labels() {
        let text = "# HELP a b\na{x=\"1\",y=\"p\"} 2\na{x=\"1\",y=\"q\"} 3\na{x=\"2\",y=\"q\"} 4\nb 5.5\n";
        let metrics = Metrics::parse(text);
        let sums = [
            metrics.sum("a", &[]),
            metrics.sum("a", &[("x", "1")]),
            metrics.sum("a", &[("y", "q"), ("x", "2")]),
            metrics.sum("b", &[]),
        ];
        assert_eq!(sums, [9.0, 5.0, 4.0, 5.5]);
        assert!(!metrics.has("c", &[]) && !metrics.has("b", &[("x", "1")]));
    }
}
