//! The series of this host's sidecars, bounded: workloads come and go, and their names with them. Pure.
//!
//! Up to [`MAX_NAMED`] workloads have series of their own; those beyond share the label value [`OTHER`]. What a
//! workload counted is added to the series of [`OTHER`] when it ends, so that sums over a service do not fall
//! with its instances; there it stays until nothing was added for [`KEPT`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sealane_base::metrics::{self, Family, MetricKind, Reading, Series};

use crate::attachment::AttachmentId;

/// The most workloads with series of their own.
const MAX_NAMED: usize = 500;
/// The most series that are kept of workloads that ended.
const MAX_KEPT: usize = 5000;
/// Time for which the series of workloads that ended are kept when nothing is added.
const KEPT: Duration = Duration::from_secs(3600);
/// The workload of series that several share; no workload's name has an underscore.
pub(super) const OTHER: &str = "_other";

/// Series that are remembered between scrapes.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    named: BTreeSet<AttachmentId>,
    ended: BTreeMap<Id, Ended>,
}

/// A series: its family's name and its labels, sorted.
type Id = (String, Vec<(String, String)>);

#[derive(Debug)]
struct Ended {
    help: String,
    kind: MetricKind,
    reading: Reading,
    added: Instant,
}

impl Ledger {
    /// Adds what a workload counted until its end, and forgets the workload. Gauges end with it.
    pub(super) fn retire(&mut self, id: &AttachmentId, last: Vec<Family>, now: Instant) {
        self.named.remove(id);
        let last = last.into_iter().filter(|family| family.kind != MetricKind::Gauge);
        let last = labelled(last.collect(), id, OTHER);
        let touched: BTreeSet<Id> = ids(&last).collect();
        for family in metrics::sum(last.into_iter().chain(self.kept())) {
            for Series { labels, reading } in family.series {
                let id = (family.name.clone(), labels);
                let known = self.ended.get(&id);
                if known.is_none() && self.ended.len() >= MAX_KEPT {
                    continue;
                }
                let untouched = known.filter(|_| !touched.contains(&id));
                let added = untouched.map_or(now, |known| known.added);
                let ended = Ended { help: family.help.clone(), kind: family.kind, reading, added };
                self.ended.insert(id, ended);
            }
        }
    }

    /// Merges the series to show: those of sidecars that answered, each with its network and workload, and those that
    /// are kept of sidecars that ended.
    pub(super) fn expose(&mut self, live: Vec<(AttachmentId, Vec<Family>)>, now: Instant) -> Vec<Family> {
        self.ended.retain(|_, ended| now.duration_since(ended.added) < KEPT);
        let mut shown = Vec::new();
        for (id, families) in live {
            if !self.named.contains(&id) && self.named.len() < MAX_NAMED {
                self.named.insert(id.clone());
            }
            let workload = if self.named.contains(&id) { id.workload.as_str() } else { OTHER };
            shown.extend(labelled(families, &id, workload));
        }
        metrics::sum(shown.into_iter().chain(self.kept()))
    }

    fn kept(&self) -> Vec<Family> {
        let kept = self.ended.iter().map(|((name, labels), ended)| Family {
            name: name.clone(),
            help: ended.help.clone(),
            kind: ended.kind,
            series: vec![Series { labels: labels.clone(), reading: ended.reading.clone() }],
        });
        kept.collect()
    }
}

fn ids(families: &[Family]) -> impl Iterator<Item = Id> + '_ {
    families.iter().flat_map(|family| {
        family.series.iter().map(|series| {
            let mut labels = series.labels.clone();
            labels.sort();
            (family.name.clone(), labels)
        })
    })
}

fn labelled(mut families: Vec<Family>, id: &AttachmentId, workload: &str) -> Vec<Family> {
    for series in families.iter_mut().flat_map(|family| &mut family.series) {
        series.labels.push(("network".to_owned(), id.network.to_string()));
        series.labels.push(("workload".to_owned(), workload.to_owned()));
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(workload: &str) -> AttachmentId {
        AttachmentId { network: "shop".parse().unwrap(), workload: workload.parse().unwrap() }
    }

    fn counted(value: f64) -> Vec<Family> {
        let family = |name: &str, kind| {
            let series = Series { labels: vec![("to".into(), "api".into())], reading: Reading::Value(value) };
            Family { name: name.into(), help: String::new(), kind, series: vec![series] }
        };
        vec![family("calls_total", MetricKind::Counter), family("open", MetricKind::Gauge)]
    }

    /// The values of a family by workload.
    fn shown(families: &[Family], name: &str) -> Vec<(String, f64)> {
        let family = families.iter().filter(|family| family.name == name);
        let series = family.flat_map(|family| &family.series).map(|series| {
            let workload = series.labels.iter().find(|(label, _)| label == "workload").unwrap().1.clone();
            let Reading::Value(value) = series.reading else { panic!("a histogram") };
            (workload, value)
        });
        series.collect()
    }

    #[test]
    fn what_a_workload_counted_outlives_it_under_a_shared_name() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let families = ledger.expose(vec![(id("a"), counted(3.0)), (id("b"), counted(4.0))], now);
        assert_eq!(shown(&families, "calls_total"), [("a".into(), 3.0), ("b".into(), 4.0)]);
        ledger.retire(&id("a"), counted(5.0), now);
        ledger.retire(&id("b"), counted(6.0), now);
        let families = ledger.expose(vec![(id("c"), counted(1.0))], now);
        assert_eq!(shown(&families, "calls_total"), [(OTHER.into(), 11.0), ("c".into(), 1.0)]);
        assert_eq!(shown(&families, "open"), [("c".into(), 1.0)], "a gauge ends with its workload");
    }

    #[test]
    fn what_is_kept_of_the_ended_expires_when_nothing_is_added() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        ledger.retire(&id("a"), counted(1.0), start);
        let later = start + KEPT / 2;
        ledger.retire(&id("b"), counted(1.0), later);
        let at = |ledger: &mut Ledger, now| shown(&ledger.expose(vec![], now), "calls_total").len();
        assert_eq!(at(&mut ledger, start + KEPT), 1, "something was added since");
        assert_eq!(at(&mut ledger, later + KEPT), 0);
    }

    #[test]
    fn the_number_of_names_is_bounded_and_places_are_given_back() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let live = || (0..MAX_NAMED + 10).map(|n| (id(&format!("w{n}")), counted(1.0))).collect();
        let families = ledger.expose(live(), now);
        let calls = shown(&families, "calls_total");
        assert_eq!(calls.len(), MAX_NAMED + 1);
        assert!(calls.contains(&(OTHER.into(), 10.0)));
        ledger.retire(&id("w0"), vec![], now);
        let families = ledger.expose(vec![(id("new"), counted(1.0))], now);
        assert!(shown(&families, "calls_total").contains(&("new".into(), 1.0)));
    }

    #[test]
    fn the_series_of_the_ended_are_bounded() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for n in 0..12 {
            let series = (0..500).map(|m| Series {
                labels: vec![("to".into(), format!("s{n}-{m}"))],
                reading: Reading::Value(1.0),
            });
            let family = Family {
                name: "calls_total".into(),
                help: String::new(),
                kind: MetricKind::Counter,
                series: series.collect(),
            };
            ledger.retire(&id("a"), vec![family], now);
        }
        assert_eq!(ledger.expose(vec![], now)[0].series.len(), MAX_KEPT);
    }
}
