//! Policy on calls to the workload: decided here, at the receiver, for an application can go around its own sidecar.
//! Pure.
//!
//! A decision goes by a [`Call`]: who calls, as mutual TLS has proved it, from where, and which port. Where the sidecar reads requests,
//! each of them is decided, too, by its [`RequestView`]. Rules about callers and requests belong here.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use sealane_proto::identity::Principal;
use sealane_proto::resource::Service;
use sealane_proto::sidecar::Config;
use sealane_proto::types::{Mtls, NetworkName, Transport};

use crate::request::RequestView;
use crate::route;

/// The rules of one configuration.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// The ports that the workload offers, each with its mode and who says so.
    offered: HashMap<u16, (Mtls, Voice)>,
    /// The mode of all others.
    others: (Mtls, Voice),
    callee: Callee,
    /// A rule about requests, to see that all of them are decided.
    #[cfg(test)]
    pub(crate) requests: Option<RequestRule>,
}

/// Rule about requests: `None` stands for bytes that are not read as requests.
#[cfg(test)]
pub(crate) type RequestRule = fn(Call<'_>, Option<RequestView<'_>>) -> Result<(), Denial>;

/// The party that is called, for the words in which a call is refused.
#[derive(Clone, Debug)]
struct Callee {
    /// The workload's service, else the workload.
    name: String,
    network: NetworkName,
    service: Option<OwnService>,
}

#[derive(Clone, Debug)]
struct OwnService {
    /// The sign of a document that has the last word on it.
    declared: bool,
    /// All ports for connections, whoever of its instances offers them.
    ports: HashSet<u16>,
}

/// Caller of the workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    /// Identity by a certificate that was verified; `None`: nobody knows, the call is plain.
    pub(crate) principal: Option<&'a Principal>,
    /// Address that the call comes from.
    pub(crate) address: IpAddr,
}

/// A call to the workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// Party that calls.
    pub(crate) caller: Caller<'a>,
    /// The port that is called.
    pub(crate) port: u16,
}

/// The source of the word that a port takes calls by mutual TLS alone, or that only offered ones are reachable: the nearest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// The network.
    Network,
    /// The service.
    Service,
    /// The port itself.
    Port,
}

/// Reasons for which a call may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// The call is plain, and the port takes calls by mutual TLS alone.
    Plain(Voice),
    /// The workload does not offer the port.
    NotOffered(Voice),
}

impl Policy {
    /// The rules for the workload of this configuration.
    pub(crate) fn new(config: &Config) -> Self {
        let (network, own) = (config.of_own(), &config.workload);
        let service = network.service_of(own);
        let spoken = |service: &Service| if service.mtls.is_some() { Voice::Service } else { Voice::Network };
        let voice = service.map_or(Voice::Network, spoken);
        let of_port = |key| {
            let port = service.and_then(|service| service.port(key));
            if port.is_some_and(|port| port.mtls.is_some()) { Voice::Port } else { voice }
        };
        let others = network.mtls_of(own);
        let offered = network.offered(own);
        let offered = offered.filter(|port| port.protocol.transport() == Transport::Tcp);
        let offered =
            offered.map(|port| (port.port.get(), (port.mtls.unwrap_or(others), of_port(port.key()))));
        Self {
            offered: offered.collect(),
            others: (others, voice),
            callee: Callee {
                name: route::label(own.service.as_ref(), &own.name).to_owned(),
                network: network.network.name.clone(),
                service: own.service.as_ref().map(|_| OwnService {
                    declared: service.is_some_and(|service| service.declared),
                    ports: service.map(tcp_ports).unwrap_or_default(),
                }),
            },
            #[cfg(test)]
            requests: None,
        }
    }

    /// Decides if the call may pass.
    ///
    /// # Errors
    /// Says why it may not.
    pub(crate) fn decide(&self, call: Call<'_>) -> Result<(), Denial> {
        match (self.offered.get(&call.port), call.caller.principal) {
            (None, _) if self.others.0.is_strict() => Err(Denial::NotOffered(self.others.1)),
            (Some(&(Mtls::Strict, voice)), None) => Err(Denial::Plain(voice)),
            (None | Some(_), _) => Ok(()),
        }
    }

    /// Decides if a request of a call that may pass may do so; `None` stands for bytes that the sidecar does not read as requests.
    ///
    /// No rule is about requests: each of them passes.
    ///
    /// # Errors
    /// Says why it may not.
    pub(crate) fn decide_request(
        &self,
        call: Call<'_>,
        request: Option<RequestView<'_>>,
    ) -> Result<(), Denial> {
        #[cfg(test)]
        if let Some(rule) = self.requests {
            return rule(call, request);
        }
        let _ = (call, request);
        Ok(())
    }

    /// Tells the caller of `port` of its refusal, in one line: who refuses, and where that is changed.
    pub(crate) fn text(&self, denial: Denial, port: u16) -> String {
        let (callee, name) = (&self.callee, &self.callee.name);
        match denial {
            Denial::Plain(voice) => format!(
                "{name} takes calls to port {port} by mutual TLS alone (mtls: strict), as {}, and this one is plain; call \
                 from a workload with a sidecar, or {}",
                callee.says(voice),
                callee.permit(voice)
            ),
            Denial::NotOffered(voice) => {
                let (lack, fix) = callee.lack(port);
                format!(
                    "{name} does not offer port {port}: {lack}, and with mtls: strict, as {}, only offered ports are \
                     reachable; {fix}, or {}",
                    callee.says(voice),
                    callee.permit(voice)
                )
            }
        }
    }
}

fn tcp_ports(service: &Service) -> HashSet<u16> {
    route::carried(&service.ports).map(|port| port.port.get()).collect()
}

impl Callee {
    fn says(&self, voice: Voice) -> String {
        match voice {
            Voice::Network => format!("network {} says", self.network),
            Voice::Service => format!("service {} says", self.name),
            Voice::Port => format!("service {} says of this port", self.name),
        }
    }

    /// Says how plain calls and other ports are let in.
    fn permit(&self, voice: Voice) -> String {
        let declared = self.service.as_ref().is_some_and(|service| service.declared);
        match voice {
            Voice::Network => {
                let network = &self.network;
                format!("run `sealane network set {network} --mtls permissive` on the control host")
            }
            Voice::Service => format!("set spec.mtls: permissive in the document of service {}", self.name),
            Voice::Port if declared => {
                format!("set mtls: permissive on that port in the document of service {}", self.name)
            }
            Voice::Port => "start its instances with --mtls permissive".to_owned(),
        }
    }

    /// Says why a port is not offered, and what offers it.
    fn lack(&self, port: u16) -> (String, String) {
        let name = &self.name;
        let Some(service) = &self.service else {
            let fix = format!("start it with --service and --port {port}");
            return ("it is no instance of a service".to_owned(), fix);
        };
        if service.ports.contains(&port) {
            let lack = format!("service {name} has that port, but this instance was started without it");
            return (lack, format!("start the instance with --port {port}"));
        }
        let fix = if service.declared {
            format!("add it to spec.ports of the service's document and start instances with --port {port}")
        } else {
            format!("start its instances with --port {port}")
        };
        (format!("service {name} has no such port"), fix)
    }
}

impl std::fmt::Display for Caller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.principal {
            Some(principal) => write!(f, "{principal} at {}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

impl Denial {
    /// For metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Plain(_) => "plain",
            Self::NotOffered(_) => "not_offered",
        }
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::Workload;

    use super::*;
    use crate::testing::{config, service, workload};

    fn call(principal: Option<&Principal>, port: u16) -> Call<'_> {
        Call { caller: Caller { principal, address: [10, 42, 0, 9].into() }, port }
    }

    /// Modes of network, service and port.
    type Modes = [Option<Mtls>; 3];

    /// Computes the decisions on plain and on mutual TLS calls to an offered port, and on both to another one.
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
        let decide = |principal, port| policy.decide(call(principal, port));
        let other = if offers { 9999 } else { 80 };
        [decide(None, 80), decide(Some(&caller), 80), decide(None, other), decide(Some(&caller), other)]
    }

    #[test]
    fn the_nearest_word_counts_and_where_it_is_strict_only_offered_ports_are_there() {
        const P: Option<Mtls> = Some(Mtls::Permissive);
        const S: Option<Mtls> = Some(Mtls::Strict);
        let plain = |voice| Err(Denial::Plain(voice));
        let absent = |voice| Err(Denial::NotOffered(voice));
        let (network, service, port) = (Voice::Network, Voice::Service, Voice::Port);
        let table: [(Modes, [Result<(), Denial>; 4]); 9] = [
            ([None, None, None], [Ok(()); 4]),
            ([P, None, None], [Ok(()); 4]),
            ([S, None, None], [plain(network), Ok(()), absent(network), absent(network)]),
            ([S, P, None], [Ok(()); 4]),
            ([S, None, P], [Ok(()), Ok(()), absent(network), absent(network)]),
            ([S, P, S], [plain(port), Ok(()), Ok(()), Ok(())]),
            ([P, S, None], [plain(service), Ok(()), absent(service), absent(service)]),
            ([P, None, S], [plain(port), Ok(()), Ok(()), Ok(())]),
            ([None, S, P], [Ok(()), Ok(()), absent(service), absent(service)]),
        ];
        for (modes, expected) in table {
            assert_eq!(decisions(true, modes), expected, "{modes:?}");
        }
    }

    #[test]
    fn a_workload_of_no_service_offers_nothing() {
        assert_eq!(
            decisions(false, [Some(Mtls::Strict), None, None]),
            [Err(Denial::NotOffered(Voice::Network)); 4]
        );
        assert_eq!(decisions(false, [Some(Mtls::Permissive), None, None]), [Ok(()); 4]);
    }

    #[test]
    fn a_port_of_datagrams_is_none_for_connections() {
        let own = workload("dns-1", "10.42.0.2", Some("dns"), &["53/udp"]);
        let mut config = config(own.clone(), vec![service("dns", "10.42.255.1", &["53/udp"])], vec![own]);
        config.network.network.mtls = Some(Mtls::Strict);
        let decided = Policy::new(&config).decide(call(None, 53));
        assert_eq!(decided, Err(Denial::NotOffered(Voice::Network)));
    }

    #[test]
    fn callers_are_told_who_refuses_and_where_that_is_changed() {
        const S: Option<Mtls> = Some(Mtls::Strict);
        const P: Option<Mtls> = Some(Mtls::Permissive);
        let mut api = service("api", "10.42.255.1", &["80", "81"]);
        let instance = workload("api-1", "10.42.0.2", Some("api"), &["80"]);
        let lone = workload("job", "10.42.0.3", None, &[]);
        let told = |own: &Workload, api: &Service, network: Option<Mtls>, port: u16| {
            let mut config = config(own.clone(), vec![api.clone()], vec![own.clone()]);
            config.network.network.mtls = network;
            let policy = Policy::new(&config);
            let denial = policy.decide(call(None, port)).unwrap_err();
            policy.text(denial, port)
        };
        let check = |text: String, whose: &str, fix: &str| {
            assert!(text.contains(whose) && text.ends_with(fix) && !text.contains('\n'), "{text}");
        };
        let network = "or run `sealane network set shop --mtls permissive` on the control host";
        for (own, port, whose) in [
            (
                &instance,
                80,
                "api takes calls to port 80 by mutual TLS alone (mtls: strict), as network shop says",
            ),
            (&lone, 80, "job does not offer port 80: it is no instance of a service, and"),
            (&instance, 81, "service api has that port, but this instance was started without it"),
            (&instance, 99, "service api has no such port, and with mtls: strict, as network shop says"),
        ] {
            check(told(own, &api, S, port), whose, network);
        }
        assert!(told(&instance, &api, S, 99).contains("; start its instances with --port 99, or"));
        api.ports[0].mtls = S;
        check(
            told(&instance, &api, P, 80),
            "as service api says of this port",
            "or start its instances with --mtls permissive",
        );
        api.declared = true;
        assert!(told(&instance, &api, S, 99).contains("add it to spec.ports of the service's document"));
        check(
            told(&instance, &api, P, 80),
            "as service api says of this port",
            "on that port in the document of service api",
        );
        api.ports[0].mtls = None;
        api.mtls = S;
        let service = "or set spec.mtls: permissive in the document of service api";
        check(told(&instance, &api, P, 80), "as service api says, and this one is plain", service);
        check(told(&instance, &api, P, 99), "as service api says, only offered ports", service);
    }

    #[test]
    fn the_network_says_it_where_nobody_has_told_of_the_service_yet() {
        let own = workload("api-1", "10.42.0.2", Some("api"), &["80"]);
        let mut config = config(own.clone(), vec![], vec![own]);
        config.network.network.mtls = Some(Mtls::Strict);
        let policy = Policy::new(&config);
        assert_eq!(policy.decide(call(None, 80)), Err(Denial::Plain(Voice::Network)));
        let told = policy.text(Denial::NotOffered(Voice::Network), 99);
        assert!(told.contains("; start its instances with --port 99, or"), "{told}");
    }

    #[test]
    fn refusals_are_logged_with_the_caller_and_counted_by_their_reason() {
        let principal = Principal::Service("shop".parse().unwrap(), "web".parse().unwrap());
        let known = call(Some(&principal), 80).caller.to_string();
        assert_eq!(known, format!("{principal} at 10.42.0.9"));
        assert_eq!(call(None, 80).caller.to_string(), "10.42.0.9");
        let denials = [Denial::Plain(Voice::Port), Denial::NotOffered(Voice::Port)];
        assert_eq!(denials.map(Denial::reason), ["plain", "not_offered"]);
    }
}
