//! Services as series: how many instances each has and how many are ready, for control and agents alike. Pure.

use sealane_base::metrics::{Family, Reading, Series};

use crate::wire::v1::ServiceView;

/// The most services with series of their own; further ones are added up under [`OTHER`].
const MAX_SERVICES: usize = 1000;
/// The network and service of what several services share; no name of one has an underscore.
const OTHER: &str = "_other";

/// The families `<prefix>_service_instances` and `<prefix>_service_ready_instances`, by network and service.
#[must_use]
pub fn services(prefix: &str, views: impl IntoIterator<Item = ServiceView>) -> [Family; 2] {
    let (mut named, mut beyond) = (Vec::new(), None::<(f64, f64)>);
    for view in views {
        let (instances, ready) = (f64::from(view.instances), f64::from(view.ready));
        if named.len() < MAX_SERVICES {
            let name = view.service.map(|service| service.name).unwrap_or_default();
            named.push((view.network, name, instances, ready));
        } else {
            let (all, able) = beyond.unwrap_or_default();
            beyond = Some((all + instances, able + ready));
        }
    }
    let other = beyond.map(|(instances, ready)| (OTHER.to_owned(), OTHER.to_owned(), instances, ready));
    named.extend(other);
    let family = |name: &str, help: &str, value: fn(&(String, String, f64, f64)) -> f64| {
        let series = named.iter().map(|row| Series {
            labels: vec![("network".to_owned(), row.0.clone()), ("service".to_owned(), row.1.clone())],
            reading: Reading::Value(value(row)),
        });
        Family::gauge(&format!("{prefix}_service_{name}"), help, series.collect())
    };
    [
        family("instances", "Instances of a service, ready or not.", |row| row.2),
        family(
            "ready_instances",
            "Instances of a service that are ready and not drained, on hosts that are not lost; none while no such one offers one of its ports.",
            |row| row.3,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::Service;

    fn view(network: &str, name: &str, ready: u32, instances: u32) -> ServiceView {
        let service = Some(Service { name: name.to_owned(), ..Service::default() });
        ServiceView { network: network.to_owned(), service, ready, instances, ..Default::default() }
    }

    #[test]
    fn a_service_is_named_with_its_network_and_one_without_instances_says_zero() {
        let [instances, ready] = services("x", [view("shop", "api", 1, 3), view("office", "api", 0, 0)]);
        assert_eq!(
            (instances.name.as_str(), ready.name.as_str()),
            ("x_service_instances", "x_service_ready_instances")
        );
        let rows = |family: &Family| -> Vec<_> {
            let row = |series: &Series| {
                (series.labels[0].1.clone(), series.labels[1].1.clone(), series.reading.clone())
            };
            family.series.iter().map(row).collect()
        };
        let row = |network: &str, value| (network.to_owned(), "api".to_owned(), Reading::Value(value));
        assert_eq!(rows(&instances), [row("shop", 3.0), row("office", 0.0)]);
        assert_eq!(rows(&ready), [row("shop", 1.0), row("office", 0.0)]);
    }

    #[test]
    fn services_beyond_the_bound_are_added_up() {
        let many = (0..MAX_SERVICES + 5).map(|n| view("shop", &format!("s{n}"), 1, 2));
        let [instances, ready] = services("x", many);
        assert_eq!(ready.series.len(), MAX_SERVICES + 1);
        let last = |family: &Family| family.series.last().map(|series| series.reading.clone());
        assert_eq!((last(&instances), last(&ready)), (Some(Reading::Value(10.0)), Some(Reading::Value(5.0))));
    }
}
