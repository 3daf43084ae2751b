//! Shape of a mesh, the load on it, and the places of files, as the command line gives them.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// First of the hosts' underlay addresses. All of 172.16.0.0/12 is local where this runs.
const UNDERLAYS: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 0);
/// The most hosts that fit behind it.
const MOST_HOSTS: usize = 1 << 18;
/// Addresses that a host has beside those of its endpoints: changes take them in turn.
const SPARE: usize = 4;

/// Shape, load and places.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// Binary whose control plane is measured.
    pub(crate) sealane: PathBuf,
    /// Folder of control's store.
    pub(crate) data: PathBuf,
    /// Folder of control's socket.
    pub(crate) run: PathBuf,
    /// File for control's log.
    pub(crate) log: PathBuf,
    /// Number of hosts. Each carries one network.
    pub(crate) hosts: usize,
    /// Number of networks, which hosts share out among them.
    pub(crate) networks: usize,
    /// Number of endpoints on all hosts together.
    pub(crate) endpoints: usize,
    /// Number of services of each network.
    pub(crate) services: usize,
    /// Prefix length of each network's subnet.
    pub(crate) prefix: u8,
    /// Changes a second, one run after another.
    pub(crate) rates: Vec<f64>,
    /// Length of each run.
    pub(crate) seconds: f64,
    /// Limit in seconds for whatever is waited for.
    pub(crate) patience: f64,
    /// True to serve real hosts beside the simulated ones, with rates from standard input.
    #[serde(default)]
    pub(crate) serves: bool,
}

/// Reasons for which a plan is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// It is not JSON of the right form.
    #[error("the plan cannot be read: {0}")]
    Form(#[from] serde_json::Error),
    /// A field has no sensible value.
    #[error("the plan's {field} is {given}: it must be {wanted}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Value as given.
        given: String,
        /// Words for sensible values.
        wanted: &'static str,
    },
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn parse(text: &str) -> Result<Self, PlanError> {
        let plan: Self = serde_json::from_str(text)?;
        let check = |field, given: String, fits: bool, wanted| {
            if fits { Ok(()) } else { Err(PlanError::Field { field, given, wanted }) }
        };
        let Self { hosts, networks, endpoints, services, prefix, seconds, patience, .. } = plan;
        check("hosts", hosts.to_string(), (1..=MOST_HOSTS).contains(&hosts), "1 to 262144")?;
        let fits = (1..=hosts).contains(&networks);
        check("networks", networks.to_string(), fits, "1 to the number of hosts")?;
        check("endpoints", endpoints.to_string(), endpoints >= hosts, "one for each host at least")?;
        check("services", services.to_string(), services > 0, "1 at least")?;
        check("prefix", prefix.to_string(), (8..=24).contains(&prefix), "8 to 24")?;
        check("seconds", seconds.to_string(), seconds > 0.0, "more than 0")?;
        check("patience", patience.to_string(), patience > 0.0, "more than 0")?;
        let slow = plan.rates.iter().find(|rate| **rate <= 0.0).map(f64::to_string);
        check("rates", slow.clone().unwrap_or_default(), slow.is_none(), "more than 0 each")?;
        Ok(plan)
    }

    /// Name of a host.
    pub(crate) fn host(index: usize) -> String {
        format!("host-{index:05}")
    }

    /// Underlay address of a host.
    pub(crate) fn underlay(index: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(UNDERLAYS.to_bits() + u32::try_from(index).unwrap_or_default())
    }

    /// Name of a network.
    pub(crate) fn network(index: usize) -> String {
        format!("net-{index:03}")
    }

    /// The network of a host.
    pub(crate) fn network_of(&self, host: usize) -> String {
        Self::network(host % self.networks)
    }

    /// Number of endpoints of each host.
    pub(crate) fn endpoints_of_host(&self) -> usize {
        self.endpoints / self.hosts
    }

    /// Number of addresses that each host needs.
    pub(crate) fn addresses_of_host(&self) -> usize {
        self.endpoints_of_host() + SPARE
    }

    /// The service of a host's endpoint: those of a network are served by about as many endpoints each.
    pub(crate) fn service_of(&self, host: usize, endpoint: usize) -> String {
        let in_network = host / self.networks * self.endpoints_of_host() + endpoint;
        format!("service-{:04}", in_network % self.services)
    }

    /// Limit for whatever is waited for.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.patience)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Plan;

    /// Plan of four hosts in two networks.
    pub(crate) fn small() -> Plan {
        Plan {
            sealane: "sealane".into(),
            data: "data".into(),
            run: "run".into(),
            log: "log".into(),
            hosts: 4,
            networks: 2,
            endpoints: 12,
            services: 4,
            prefix: 16,
            rates: vec![],
            seconds: 1.0,
            patience: 1.0,
            serves: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_cannot_be_is_refused_by_field() {
        let text = |hosts: u32, networks: u32, extra: &str| {
            format!(
                r#"{{"sealane":"s","data":"d","run":"r","log":"l","hosts":{hosts},"networks":{networks},"endpoints":10,
                "services":2,"prefix":16,"rates":[1],"seconds":1,"patience":5{extra}}}"#
            )
        };
        assert!(Plan::parse(&text(5, 1, "")).is_ok());
        let refused = |text: String| Plan::parse(&text).unwrap_err().to_string();
        assert_eq!(refused(text(5, 6, "")), "the plan's networks is 6: it must be 1 to the number of hosts");
        assert_eq!(
            refused(text(11, 1, "")),
            "the plan's endpoints is 10: it must be one for each host at least"
        );
        assert!(refused(text(5, 1, r#","host":3"#)).contains("unknown field `host`"));
    }

    #[test]
    fn endpoints_of_a_network_are_shared_out_among_its_services() {
        let plan = testing::small();
        let of = |host| (0..3).map(|endpoint| plan.service_of(host, endpoint)).collect::<Vec<_>>();
        assert_eq!(of(0), ["service-0000", "service-0001", "service-0002"]);
        assert_eq!(of(0), of(1), "networks have services of their own");
        assert_eq!(of(2), ["service-0003", "service-0000", "service-0001"]);
    }
}
