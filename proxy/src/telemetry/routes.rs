//! Counts of requests that rules of routes were for, and of copies.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::{CLASSES, OTHER, counter};

/// The most routes that have series of their own.
const MAX_ROUTES: usize = 500;

/// Counts of all routes.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    requests: IntCounterVec,
    known: Mutex<HashMap<String, Arc<RouteTraffic>>>,
    /// Copies of requests, by what became of them.
    pub(crate) copies: IntCounterVec,
}

/// Handles for one route.
#[derive(Debug)]
pub(crate) struct RouteTraffic {
    requests: IntCounterVec,
    route: String,
    classes: [OnceLock<IntCounter>; 6],
}

impl RouteMetrics {
    /// Counts of nothing.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            requests: counter(
                registry,
                "sealane_route_requests_total",
                "HTTP requests that a rule of the route was for, and that were answered.",
                &["route", "code_class"],
            )?,
            known: Mutex::default(),
            copies: counter(
                registry,
                "sealane_request_copies_total",
                "Copies of requests for mirrors.",
                &["outcome"],
            )?,
        })
    }

    /// The handles for a route of this name.
    pub(crate) fn route(&self, name: &str) -> Arc<RouteTraffic> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(name) {
            return known.clone();
        }
        let name = if known.len() >= MAX_ROUTES { OTHER } else { name };
        let fresh = || {
            let (requests, route) = (self.requests.clone(), name.to_owned());
            Arc::new(RouteTraffic { requests, route, classes: Default::default() })
        };
        known.entry(name.to_owned()).or_insert_with(fresh).clone()
    }

    /// Forgets routes that are there no more; `names` are those that are.
    pub(crate) fn retain<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            return;
        }
        let names: HashSet<&str> = names.collect();
        known.retain(|name, traffic| {
            let stays = name == OTHER || names.contains(name.as_str());
            if !stays {
                traffic.forget();
            }
            stays
        });
    }
}

impl RouteTraffic {
    /// A request was answered with this status.
    pub(crate) fn answered(&self, status: u16) {
        let class = usize::from(status / 100);
        let class = if class < CLASSES.len() { class } else { 0 };
        let make = || self.requests.with_label_values(&[self.route.as_str(), CLASSES[class]]);
        self.classes[class].get_or_init(make).inc();
    }

    fn forget(&self) {
        for class in CLASSES {
            // What was never made is not there to be removed.
            let _ = self.requests.remove_label_values(&[self.route.as_str(), class]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(registry: &Registry) -> Vec<(String, f64)> {
        use sealane_base::metrics::Reading;
        let families = sealane_base::metrics::gather(registry);
        let family = families.into_iter().find(|family| family.name == "sealane_route_requests_total");
        let series = family.into_iter().flat_map(|family| family.series);
        let label = |labels: &[(String, String)]| {
            labels.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" ")
        };
        series
            .map(|series| match series.reading {
                Reading::Value(value) => (label(&series.labels), value),
                Reading::Histogram { .. } => panic!("a counter"),
            })
            .collect()
    }

    #[test]
    fn requests_are_counted_by_route_and_class_until_the_route_is_gone() {
        let registry = Registry::new();
        let metrics = RouteMetrics::new(&registry).unwrap();
        metrics.route("shop/a").answered(200);
        metrics.route("shop/a").answered(204);
        metrics.route("shop/b").answered(503);
        let expected = [("2xx shop/a".to_owned(), 2.0), ("5xx shop/b".to_owned(), 1.0)];
        assert_eq!(series(&registry), expected);
        metrics.retain(["shop/b"].into_iter());
        assert_eq!(series(&registry), expected[1..]);
    }

    #[test]
    fn beyond_a_number_routes_share_a_series() {
        let registry = Registry::new();
        let metrics = RouteMetrics::new(&registry).unwrap();
        (0..MAX_ROUTES + 10).for_each(|n| metrics.route(&format!("shop/{n}")).answered(200));
        assert_eq!(series(&registry).len(), MAX_ROUTES + 1);
    }
}
