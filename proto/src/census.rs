//! Services as series: how many instances each has and how many are ready, for control and agents alike. Pure.

use sealane_base::metrics::{Family, Reading, Series};

use crate::wire::v1::ServiceView;

/// The most services with series of their own; further ones are added up under [`OTHER`].
const MAX_SERVICES: usize = 1000;
/// The network and service of what several services share; no name of one has an underscore.
const OTHER: &str = "_other";

/// The numbers of a service, or of several together.
#[derive(Default)]
struct Row {
    network: String,
    service: String,
    instances: f64,
    /// `None` of a service without ports, which nobody calls.
    ready: Option<f64>,
}

/// The families `<prefix>_service_instances`, and `<prefix>_service_ready_instances` of services with ports, by network and
/// service.
#[must_use]
pub fn services(prefix: &str, views: impl IntoIterator<Item = ServiceView>) -> [Family; 2] {
    let (mut named, mut beyond) = (Vec::new(), None::<Row>);
    for view in views {
        let service = view.service.unwrap_or_default();
        let ready = (!service.ports.is_empty()).then(|| f64::from(view.ready));
        let instances = f64::from(view.instances);
        if named.len() < MAX_SERVICES {
            named.push(Row { network: view.network, service: service.name, instances, ready });
        } else {
            let other = || Row { network: OTHER.to_owned(), service: OTHER.to_owned(), ..Row::default() };
            let sum = beyond.get_or_insert_with(other);
            sum.instances += instances;
            sum.ready = [sum.ready, ready].into_iter().flatten().reduce(|sum, more| sum + more);
        }
    }
    named.extend(beyond);
    let family = |name: &str, help: &str, value: fn(&Row) -> Option<f64>| {
        let series = named.iter().filter_map(|row| {
            let labels = [("network", &row.network), ("service", &row.service)];
            let labels = labels.map(|(label, value)| (label.to_owned(), value.clone())).to_vec();
            Some(Series { labels, reading: Reading::Value(value(row)?) })
        });
        Family::gauge(&format!("{prefix}_service_{name}"), help, series.collect())
    };
    [
        family("instances", "Instances of a service, ready or not.", |row| Some(row.instances)),
        family(
            "ready_instances",
            "Instances of a service with ports that are ready and not drained, on hosts that are not lost; none while no such one offers one of its ports.",
            |row| row.ready,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::{Service, ServicePort};

    fn view(network: &str, name: &str, ready: u32, instances: u32) -> ServiceView {
        let ports = vec![ServicePort { port: 80, ..ServicePort::default() }];
        let service = Some(Service { name: name.to_owned(), ports, ..Service::default() });
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
    fn a_service_without_ports_is_nobody_s_to_be_ready_for() {
        let mut batch = view("shop", "batch", 0, 1);
        batch.service.as_mut().unwrap().ports.clear();
        let [instances, ready] = services("x", [batch, view("shop", "api", 1, 1)]);
        assert_eq!((instances.series.len(), ready.series.len()), (2, 1));
        assert_eq!(ready.series[0].labels[1].1, "api");
    }

    #[test]
    fn services_beyond_the_bound_are_added_up() {
        let mut many: Vec<_> = (0..MAX_SERVICES + 5).map(|n| view("shop", &format!("s{n}"), 1, 2)).collect();
        let mut batch = view("shop", "batch", 0, 0);
        batch.service.as_mut().unwrap().ports.clear();
        many.push(batch);
        let [instances, ready] = services("x", many);
        assert_eq!(ready.series.len(), MAX_SERVICES + 1);
        let last = |family: &Family| family.series.last().map(|series| series.reading.clone());
        assert_eq!((last(&instances), last(&ready)), (Some(Reading::Value(10.0)), Some(Reading::Value(5.0))));
    }
}
