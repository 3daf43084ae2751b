//! The series of one pair of parties, made when they are first moved.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Families;
use crate::protocol::Protocol;

/// The name that parties share when there are too many; no service's or workload's name has an underscore.
pub(super) const OTHER: &str = "_other";
/// Values of `code_class`, by a status' first digit.
pub(super) const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Values of `protocol`.
const PROTOCOLS: [&str; 3] = ["http", "tcp", "http2"];
/// Values of `flow`.
const FLOWS: [&str; 2] = ["sent", "received"];

/// Direction of a call, as the sidecar sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// To the workload.
    Inbound {
        /// By mutual TLS, so that it is known who calls.
        tls: bool,
    },
    /// From the workload.
    Outbound,
}

/// Caller and called of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Parties {
    /// Role of the sidecar's workload among them.
    pub(crate) direction: Direction,
    /// The caller's service, or what all callers without one share.
    pub(crate) source: String,
    /// The called service.
    pub(crate) destination: String,
}

/// Handles for one pair of parties.
#[derive(Debug)]
pub(crate) struct Traffic {
    families: Families,
    labels: [String; 4],
    requests: [OnceLock<IntCounter>; 6],
    first_byte: OnceLock<Histogram>,
    duration: OnceLock<Histogram>,
    connections: [OnceLock<(IntCounter, IntGauge)>; 3],
    bytes: OnceLock<(IntCounter, IntCounter)>,
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(IntGauge);

impl OpenConnection {
    pub(super) fn count(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Parties {
    /// The pair that shares its series with all that came when there were too many.
    pub(super) fn beyond_the_bound(self) -> Self {
        Self { direction: self.direction, source: OTHER.to_owned(), destination: OTHER.to_owned() }
    }
}

impl Traffic {
    pub(super) fn new(families: &Families, parties: &Parties) -> Self {
        // A label without a value is none.
        let (direction, tls) = match parties.direction {
            Direction::Inbound { tls: true } => ("inbound", "true"),
            Direction::Inbound { tls: false } => ("inbound", "false"),
            Direction::Outbound => ("outbound", ""),
        };
        let families = Families {
            requests: families.requests.clone(),
            first_byte: families.first_byte.clone(),
            duration: families.duration.clone(),
            connections: families.connections.clone(),
            open: families.open.clone(),
            bytes: families.bytes.clone(),
        };
        Self {
            families,
            labels: [direction, &parties.source, &parties.destination, tls].map(str::to_owned),
            requests: Default::default(),
            first_byte: OnceLock::new(),
            duration: OnceLock::new(),
            connections: Default::default(),
            bytes: OnceLock::new(),
        }
    }

    fn counter(&self, family: &IntCounterVec, last: &str) -> IntCounter {
        family.with_label_values(&self.labels_and(last))
    }

    fn labels_and<'a>(&'a self, last: &'a str) -> [&'a str; 5] {
        let [direction, source, destination, tls] = self.labels.each_ref().map(String::as_str);
        [direction, source, destination, tls, last]
    }

    fn gauge(&self, family: &IntGaugeVec, last: &str) -> IntGauge {
        family.with_label_values(&self.labels_and(last))
    }

    /// A request was answered with this status, the first byte of it after `latency`.
    pub(crate) fn answered(&self, status: u16, latency: Duration) {
        let class = usize::from(status / 100);
        let class = if class < CLASSES.len() { class } else { 0 };
        self.requests[class].get_or_init(|| self.counter(&self.families.requests, CLASSES[class])).inc();
        let family = &self.families.first_byte;
        let first_byte = self.first_byte.get_or_init(|| family.with_label_values(&self.labels));
        first_byte.observe(latency.as_secs_f64());
    }

    /// The response came to its end, this long after the request's head.
    pub(crate) fn finished(&self, took: Duration) {
        let duration = self.duration.get_or_init(|| self.families.duration.with_label_values(&self.labels));
        duration.observe(took.as_secs_f64());
    }

    /// The sidecar answered in place of the service, this long after the request's head.
    pub(crate) fn answered_here(&self, status: u16, took: Duration) {
        self.answered(status, took);
        self.finished(took);
    }

    /// A connection was opened.
    pub(crate) fn connected(&self, protocol: Protocol) -> OpenConnection {
        let index = match protocol {
            Protocol::Http1 => 0,
            Protocol::Tls | Protocol::Opaque => 1,
            Protocol::Http2 => 2,
        };
        let name = PROTOCOLS[index];
        let (total, open) = self.connections[index].get_or_init(|| {
            (self.counter(&self.families.connections, name), self.gauge(&self.families.open, name))
        });
        total.inc();
        OpenConnection::count(open)
    }

    /// A number that grows with whatever passes.
    pub(super) fn moved(&self) -> u64 {
        let requests = self.requests.iter().filter_map(OnceLock::get).map(IntCounter::get);
        let connections = self.connections.iter().filter_map(OnceLock::get).map(|(total, _)| total.get());
        let bytes = self.bytes.get().map_or(0, |(sent, received)| sent.get() + received.get());
        requests.chain(connections).sum::<u64>() + bytes
    }

    /// Takes the series out of their families.
    pub(super) fn forget(&self) {
        let with = |last| self.labels_and(last);
        // What was never made is not there to be removed.
        let families = &self.families;
        for class in CLASSES {
            let _ = families.requests.remove_label_values(&with(class));
        }
        for family in [&families.first_byte, &families.duration] {
            let _ = family.remove_label_values(&self.labels.each_ref());
        }
        for protocol in PROTOCOLS {
            let _ = families.connections.remove_label_values(&with(protocol));
            let _ = families.open.remove_label_values(&with(protocol));
        }
        for flow in FLOWS {
            let _ = families.bytes.remove_label_values(&with(flow));
        }
    }

    /// Counters of the bytes that the calling side sent and received.
    pub(crate) fn bytes(&self) -> &(IntCounter, IntCounter) {
        self.bytes.get_or_init(|| {
            let family = &self.families.bytes;
            let [sent, received] = FLOWS;
            (self.counter(family, sent), self.counter(family, received))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sealane_base::metrics::encode;

    use super::super::{KEPT, Telemetry};
    use super::*;

    #[test]
    fn what_passes_between_two_parties_is_counted_under_their_names() {
        let telemetry = Telemetry::new().unwrap();
        let parties =
            Parties { direction: Direction::Outbound, source: "web".into(), destination: "api".into() };
        let traffic = telemetry.traffic(parties.clone());
        traffic.answered(204, Duration::from_millis(3));
        telemetry.traffic(parties).answered_here(204, Duration::from_millis(3));
        traffic.finished(Duration::from_millis(30));
        let open = traffic.connected(Protocol::Opaque);
        traffic.bytes().0.inc_by(7);
        let labels = "direction=\"outbound\"";
        let text = encode(&telemetry.gather());
        for expected in [
            format!(
                "sealane_requests_total{{code_class=\"2xx\",destination_service=\"api\",{labels},source_service=\"web\"}} 2"
            ),
            format!(
                "sealane_connections_open{{destination_service=\"api\",{labels},protocol=\"tcp\",source_service=\"web\"}} 1"
            ),
            format!(
                "sealane_bytes_total{{destination_service=\"api\",{labels},flow=\"sent\",source_service=\"web\"}} 7"
            ),
            format!(
                "sealane_request_first_byte_seconds_bucket{{destination_service=\"api\",{labels},source_service=\"web\",le=\"0.005\"}} 2"
            ),
            format!(
                "sealane_request_duration_seconds_bucket{{destination_service=\"api\",{labels},source_service=\"web\",le=\"0.005\"}} 1"
            ),
            format!(
                "sealane_request_duration_seconds_sum{{destination_service=\"api\",{labels},source_service=\"web\"}} 0.033"
            ),
        ] {
            assert!(text.contains(&expected), "{expected}\n{text}");
        }
        drop(open);
        assert!(encode(&telemetry.gather()).contains("protocol=\"tcp\",source_service=\"web\"} 0"));
    }

    #[test]
    fn calls_by_mutual_tls_are_told_apart_from_plain_ones() {
        let telemetry = Telemetry::new().unwrap();
        for tls in [true, false] {
            let direction = Direction::Inbound { tls };
            let parties = Parties { direction, source: "web".into(), destination: "api".into() };
            telemetry.traffic(parties).answered(200, Duration::ZERO);
        }
        let text = encode(&telemetry.gather());
        for tls in ["true", "false"] {
            let series = format!(
                "sealane_requests_total{{code_class=\"2xx\",destination_service=\"api\",direction=\"inbound\",\
                 source_service=\"web\",tls=\"{tls}\"}} 1"
            );
            assert!(text.contains(&series), "{series}\n{text}");
        }
    }

    #[test]
    fn series_end_when_nobody_holds_them_and_nothing_passes_for_long() {
        let telemetry = Telemetry::new().unwrap();
        let parties = |source: &str| Parties {
            direction: Direction::Inbound { tls: true },
            source: source.into(),
            destination: "api".into(),
        };
        let held = telemetry.traffic(parties("held"));
        held.answered(200, Duration::ZERO);
        telemetry.traffic(parties("job")).answered(200, Duration::ZERO);
        let sources = |after: Duration| {
            telemetry.expire(Instant::now() + after);
            let text = encode(&sealane_base::metrics::gather(&telemetry.registry));
            ["held", "job"].map(|source| text.contains(&format!("source_service=\"{source}\"")))
        };
        assert_eq!(sources(KEPT / 2), [true, true]);
        assert_eq!(sources(KEPT), [true, true], "it passed half that time ago, as far as was seen");
        assert_eq!(sources(KEPT * 2), [true, false]);
        drop(held);
        assert_eq!(sources(KEPT * 3), [false, false]);
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let telemetry = Telemetry::new().unwrap();
        for n in 0..super::super::MAX_PARTIES + 100 {
            let (source, destination) = (format!("s{n}"), "api".to_owned());
            telemetry
                .traffic(Parties { direction: Direction::Inbound { tls: false }, source, destination })
                .answered(200, Duration::ZERO);
        }
        let requests = telemetry.gather().into_iter().find(|family| family.name == "sealane_requests_total");
        assert_eq!(requests.unwrap().series.len(), super::super::MAX_PARTIES + 1);
    }
}
