//! Messages of values that resources share, to domain types and back.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;

use super::fields::{Fields, WireError, text};
use super::v1;
use crate::types::{
    Check, Generation, Interval, NodeName, Port, Probe, ServicePort, StatusRange, Threshold, Weight,
    WeightError,
};

impl v1::Certificate {
    /// The chain, leaf first, and the mesh's roots.
    #[must_use]
    pub fn into_parts(self) -> (Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>) {
        let certs = |certs: Vec<Vec<u8>>| certs.into_iter().map(CertificateDer::from).collect();
        (certs(self.chain), certs(self.roots))
    }
}

impl v1::Heartbeat {
    /// With what this host's clock says.
    #[must_use]
    pub fn now() -> Self {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self { unix_millis: millis.try_into().unwrap_or(u64::MAX), ..Self::default() }
    }

    /// Returns the time of the sender's clock; `None`: it did not say.
    #[must_use]
    pub fn instant(&self) -> Option<SystemTime> {
        let instant = UNIX_EPOCH.checked_add(Duration::from_millis(self.unix_millis));
        instant.filter(|_| self.unix_millis != 0)
    }

    /// The hosts that control has lost, and since when, as far as it knows; `None`: it does not tell. What is no name
    /// is left out.
    #[must_use]
    pub fn lost_hosts(&self) -> Option<BTreeMap<NodeName, Option<SystemTime>>> {
        let instant = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|_| seconds != 0);
        let lost = self.lost.iter();
        let lost = lost.filter_map(|host| Some((host.name.parse().ok()?, instant(host.since_unix_seconds))));
        self.tells_lost.then(|| lost.collect())
    }
}

impl From<v1::Generation> for Generation {
    fn from(message: v1::Generation) -> Self {
        Self { epoch: message.epoch, revision: message.revision }
    }
}

impl From<Generation> for v1::Generation {
    fn from(generation: Generation) -> Self {
        Self { epoch: generation.epoch, revision: generation.revision }
    }
}

impl TryFrom<v1::ServicePort> for ServicePort {
    type Error = WireError;
    fn try_from(message: v1::ServicePort) -> Result<Self, WireError> {
        let at = Fields("ServicePort");
        let protocol = at.parse_option("protocol", &message.protocol)?.unwrap_or_default();
        let port = Port::try_from(message.port).map_err(|error| at.invalid("port", &error))?;
        let name = at.parse_option("name", &message.name)?;
        let mtls = at.parse_option("mtls", &message.mtls)?;
        Ok(Self { name, port, protocol, mtls })
    }
}

impl From<&ServicePort> for v1::ServicePort {
    fn from(port: &ServicePort) -> Self {
        Self {
            name: port.name.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default(),
            port: port.port.get().into(),
            protocol: port.protocol.to_string(),
            mtls: text(&port.mtls),
        }
    }
}

/// The probe of a check; of one that asks several things, none is taken for all.
fn probe(at: &Fields, message: &v1::Check) -> Result<Probe, WireError> {
    let v1::Check { http, grpc, exec, status, .. } = message;
    match (http.is_empty(), grpc, exec.is_empty()) {
        (true, None, true) => Ok(Probe::Tcp),
        (false, None, true) => {
            Ok(Probe::Http(at.parse("http", http)?, at.parse_option("status", status)?.unwrap_or_default()))
        }
        (true, Some(service), true) => Ok(Probe::Grpc(at.parse("grpc", service)?)),
        (true, None, false) => Ok(Probe::Exec(at.parse("exec", exec)?)),
        (_, _, _) => Err(at.invalid("http", &"it is one of http, grpc and exec")),
    }
}

impl TryFrom<v1::Check> for Check {
    type Error = WireError;
    fn try_from(message: v1::Check) -> Result<Self, WireError> {
        let at = Fields("Check");
        let time = |field, millis: u32| {
            Interval::try_from(Duration::from_millis(millis.into()))
                .map_err(|error| at.invalid(field, &error))
        };
        let some = |field, millis: u32| (millis != 0).then(|| time(field, millis)).transpose();
        let count = |field, number: u32| {
            let count = (number != 0).then(|| Threshold::try_from(number)).transpose();
            count.map_err(|error| at.invalid(field, &error))
        };
        let port = (message.port != 0).then(|| Port::try_from(message.port)).transpose();
        Ok(Self {
            probe: probe(&at, &message)?,
            port: port.map_err(|error| at.invalid("port", &error))?,
            interval: time("interval_millis", message.interval_millis)?,
            timeout: some("timeout_millis", message.timeout_millis)?,
            healthy: count("healthy", message.healthy)?,
            unhealthy: count("unhealthy", message.unhealthy)?,
            start_period: some("start_period_millis", message.start_period_millis)?,
        })
    }
}

impl From<&Check> for v1::Check {
    fn from(check: &Check) -> Self {
        let millis = |time: Option<Interval>| time.map_or(0, Interval::millis);
        let count = |count: Option<Threshold>| count.map_or(0, |count| count.get().into());
        let mut message = Self {
            interval_millis: check.interval.millis(),
            port: check.port.map_or(0, |port| port.get().into()),
            timeout_millis: millis(check.timeout),
            healthy: count(check.healthy),
            unhealthy: count(check.unhealthy),
            start_period_millis: millis(check.start_period),
            ..Self::default()
        };
        match &check.probe {
            Probe::Tcp => {}
            Probe::Http(path, status) => {
                message.http = path.to_string();
                message.status =
                    if *status == StatusRange::default() { String::new() } else { status.to_string() };
            }
            Probe::Grpc(service) => message.grpc = Some(service.to_string()),
            Probe::Exec(command) => message.exec = command.to_string(),
        }
        message
    }
}

/// A weight as messages carry it: older peers do not, and mean one.
///
/// # Errors
/// When it is out of range.
pub fn weight(number: Option<u32>) -> Result<Weight, WeightError> {
    number.map_or(Ok(Weight::default()), Weight::try_from)
}
