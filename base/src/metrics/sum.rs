//! Adding up series: several sources of one series become one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Family, MetricKind, Reading, Series};

/// Joins families of the same name and adds up their series that have the same labels, in any order. The first
/// family's help and kind stand, series of another kind are left out. A histogram's series with other bounds than
/// the first one's is left out as well: such counts cannot be added.
#[must_use]
pub fn sum(sources: impl IntoIterator<Item = Family>) -> Vec<Family> {
    let mut families: BTreeMap<String, Summed> = BTreeMap::new();
    for Family { name, help, kind, series } in sources {
        let into = families.entry(name).or_insert_with(|| Summed { help, kind, series: BTreeMap::new() });
        if into.kind != kind {
            continue;
        }
        for Series { mut labels, reading } in series {
            labels.sort();
            match into.series.entry(labels) {
                Entry::Vacant(place) => drop(place.insert(reading)),
                Entry::Occupied(mut known) => known.get_mut().add(&reading),
            }
        }
    }
    let family = |(name, Summed { help, kind, series }): (String, Summed)| {
        let series = series.into_iter().map(|(labels, reading)| Series { labels, reading }).collect();
        Family { name, help, kind, series }
    };
    families.into_iter().map(family).collect()
}

struct Summed {
    help: String,
    kind: MetricKind,
    series: BTreeMap<Vec<(String, String)>, Reading>,
}

impl Reading {
    /// Adds another reading of the same series; one of another shape changes nothing.
    fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Value(value), Self::Value(more)) => *value += more,
            (
                Self::Histogram { buckets, sum, count },
                Self::Histogram { buckets: more, sum: more_sum, count: more_count },
            ) if buckets.iter().map(|(bound, _)| bound).eq(more.iter().map(|(bound, _)| bound)) => {
                for ((_, count), (_, more)) in buckets.iter_mut().zip(more) {
                    *count += more;
                }
                *sum += more_sum;
                *count += more_count;
            }
            (Self::Value(_) | Self::Histogram { .. }, Self::Value(_) | Self::Histogram { .. }) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(labels: &[(&str, &str)], value: f64) -> Family {
        let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let series = vec![Series { labels, reading: Reading::Value(value) }];
        Family { name: "calls_total".into(), help: "Calls.".into(), kind: MetricKind::Counter, series }
    }

    fn waits(buckets: Vec<(f64, u64)>, sum: f64) -> Family {
        let count = buckets.last().map_or(0, |(_, count)| *count);
        let series = vec![Series { labels: vec![], reading: Reading::Histogram { buckets, sum, count } }];
        Family { name: "wait_seconds".into(), help: "Waits.".into(), kind: MetricKind::Histogram, series }
    }

    #[test]
    fn series_of_the_same_labels_are_one() {
        let a = counter(&[("to", "api"), ("from", "web")], 2.0);
        let b = counter(&[("from", "web"), ("to", "api")], 3.0);
        let other = counter(&[("from", "job"), ("to", "api")], 7.0);
        let summed = sum([a, b, other]);
        let values: Vec<_> = summed[0].series.iter().map(|series| &series.reading).collect();
        assert_eq!(values, [&Reading::Value(7.0), &Reading::Value(5.0)]);
    }

    #[test]
    fn histograms_are_added_by_bucket_and_only_to_their_like() {
        let summed = sum([
            waits(vec![(0.1, 1), (1.0, 3)], 1.5),
            waits(vec![(0.1, 2), (1.0, 2)], 0.5),
            waits(vec![(0.2, 9)], 9.0),
        ]);
        let expected = Reading::Histogram { buckets: vec![(0.1, 3), (1.0, 5)], sum: 2.0, count: 5 };
        assert_eq!(summed[0].series[0].reading, expected);
    }

    #[test]
    fn a_family_of_another_kind_is_left_out() {
        let gauge = Family { kind: MetricKind::Gauge, ..counter(&[], 5.0) };
        assert_eq!(sum([counter(&[], 1.0), gauge])[0].series[0].reading, Reading::Value(1.0));
    }
}
