//! Which calls to the workload may pass: decided here, at the receiver, for an application can go around its own sidecar.
//! Pure.
//!
//! What a decision may go by is in [`Call`]: who calls, as mutual TLS has proved it, and which port. Rules about callers
//! belong here.

use std::collections::HashMap;

use sealane_proto::identity::Principal;
use sealane_proto::sidecar::Config;
use sealane_proto::types::{Mtls, Transport};

/// The rules of one configuration.
#[derive(Debug)]
pub(crate) struct Policy {
    /// The ports that the workload offers.
    offered: HashMap<u16, Mtls>,
    /// The mode of all others.
    others: Mtls,
}

/// A call to the workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// Who calls, by a certificate that was verified; `None`: nobody knows, the call is plain.
    pub(crate) caller: Option<&'a Principal>,
    /// The port that is called.
    pub(crate) port: u16,
}

/// Why a call may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// It is plain, and the port takes calls by mutual TLS alone.
    Plain,
    /// The workload does not offer the port.
    NotOffered,
}

impl Policy {
    /// The rules for the workload of this configuration.
    pub(crate) fn new(config: &Config) -> Self {
        let offered = config.network.offered(&config.workload);
        let offered = offered.filter(|port| port.protocol.transport() == Transport::Tcp);
        let others = config.network.mtls_of(&config.workload);
        Self { offered: offered.map(|port| (port.port.get(), port.mtls.unwrap_or(others))).collect(), others }
    }

    /// Whether the call may pass.
    ///
    /// # Errors
    /// Says why it may not.
    pub(crate) fn decide(&self, call: Call<'_>) -> Result<(), Denial> {
        match (self.offered.get(&call.port), call.caller) {
            (None, _) if self.others.is_strict() => Err(Denial::NotOffered),
            (Some(Mtls::Strict), None) => Err(Denial::Plain),
            (None | Some(_), _) => Ok(()),
        }
    }
}

impl Denial {
    /// For metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::NotOffered => "not_offered",
        }
    }

    /// What the caller is told who called `port` of `target`, in one line.
    pub(crate) fn text(self, target: &str, port: u16) -> String {
        match self {
            Self::Plain => format!(
                "{target} takes calls to port {port} by mutual TLS alone (mtls: strict), and this one is plain; call from \
                 a workload with a sidecar, or set mtls: permissive on the port, its service or its network"
            ),
            Self::NotOffered => format!(
                "{target} does not offer port {port}, and with mtls: strict only offered ports are reachable; offer it \
                 with --port {port}, or set mtls: permissive on the service or its network"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{config, service, workload};

    /// Modes of network, service and port.
    type Modes = [Option<Mtls>; 3];

    /// What becomes of plain and of mutual TLS calls to an offered port, and of both to another one.
    fn decisions(offers: bool, [network, of_service, of_port]: Modes) -> [Result<(), Denial>; 4] {
        let mut api = service("api", "10.42.255.1", &["80", "53/udp"]);
        api.mtls = of_service;
        api.ports[0].mtls = of_port;
        let own = if offers {
            workload("api-1", "10.42.0.2", Some("api"), &["80", "53/udp"])
        } else {
            workload("job", "10.42.0.2", None, &[])
        };
        let mut config = config(own.clone(), vec![api], vec![own]);
        config.network.network.mtls = network;
        let policy = Policy::new(&config);
        let caller = Principal::Service("shop".parse().unwrap(), "web".parse().unwrap());
        let decide = |caller, port| policy.decide(Call { caller, port });
        let other = if offers { 9999 } else { 80 };
        [decide(None, 80), decide(Some(&caller), 80), decide(None, other), decide(Some(&caller), other)]
    }

    #[test]
    fn the_nearest_word_counts_and_where_it_is_strict_only_offered_ports_are_there() {
        const P: Option<Mtls> = Some(Mtls::Permissive);
        const S: Option<Mtls> = Some(Mtls::Strict);
        let (plain, absent) = (Err(Denial::Plain), Err(Denial::NotOffered));
        let table: [(Modes, [Result<(), Denial>; 4]); 9] = [
            ([None, None, None], [Ok(()); 4]),
            ([P, None, None], [Ok(()); 4]),
            ([S, None, None], [plain, Ok(()), absent, absent]),
            ([S, P, None], [Ok(()); 4]),
            ([S, None, P], [Ok(()), Ok(()), absent, absent]),
            ([S, P, S], [plain, Ok(()), Ok(()), Ok(())]),
            ([P, S, None], [plain, Ok(()), absent, absent]),
            ([P, None, S], [plain, Ok(()), Ok(()), Ok(())]),
            ([None, S, P], [Ok(()), Ok(()), absent, absent]),
        ];
        for (modes, expected) in table {
            assert_eq!(decisions(true, modes), expected, "{modes:?}");
        }
    }

    #[test]
    fn a_workload_of_no_service_offers_nothing() {
        assert_eq!(decisions(false, [Some(Mtls::Strict), None, None]), [Err(Denial::NotOffered); 4]);
        assert_eq!(decisions(false, [Some(Mtls::Permissive), None, None]), [Ok(()); 4]);
    }

    #[test]
    fn a_port_of_datagrams_is_none_for_connections() {
        let own = workload("dns-1", "10.42.0.2", Some("dns"), &["53/udp"]);
        let mut config = config(own.clone(), vec![service("dns", "10.42.255.1", &["53/udp"])], vec![own]);
        config.network.network.mtls = Some(Mtls::Strict);
        let decided = Policy::new(&config).decide(Call { caller: None, port: 53 });
        assert_eq!(decided, Err(Denial::NotOffered));
    }

    #[test]
    fn callers_are_told_what_port_it_is_and_what_to_do() {
        for (denial, words) in [
            (Denial::Plain, "with a sidecar, or set mtls: permissive"),
            (Denial::NotOffered, "--port 80, or"),
        ] {
            let text = denial.text("api", 80);
            assert!(text.contains("api") && text.contains("port 80") && text.contains(words), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }
}
