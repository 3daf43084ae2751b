//! A host that is somewhere else than before: its key says who it is, whatever its address.
//!
//! An address belongs to the host that comes with it. One that is connected keeps its own; one that has been away for a
//! while is displaced by who comes with the same address: from then on nobody is told where it is, so that nothing that
//! is meant for it goes to the other, until it comes itself.

use sealane_proto::types::{NodeName, UnderlayAddrs};

use super::{Change, Command, Decision, NodeRecord, State, Timestamp, UnfitUnderlay, underlay};

/// A host tells where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocate {
    /// The host.
    pub name: NodeName,
    /// Underlay addresses from now on.
    pub underlay: UnderlayAddrs,
    /// The host that yields that address to who comes with it.
    pub gone: Option<NodeName>,
}

/// A move of a host to another address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocated {
    /// The address that it had before; the same one where another host had displaced it.
    pub before: UnderlayAddrs,
    /// The host that had the address.
    pub displaced: Option<NodeName>,
}

/// Reasons for which a host cannot be there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelocateRefusal {
    /// Another host has the address.
    #[error(
        "underlay address {underlay} of node {name} is in use by node {other}; give {name} another --underlay, or end the \
         agent of {other}: a host that has been disconnected for 5 s, or says that it is elsewhere, yields its address"
    )]
    InUse {
        /// The address.
        underlay: UnderlayAddrs,
        /// Host that came.
        name: NodeName,
        /// Host that has it.
        other: NodeName,
    },
    /// The address was this host's until another one came with it.
    #[error(
        "node {other} came with underlay address {underlay} while node {name} was away, and has it now; start the agent of \
         {name} with --underlay and the address that its host has now"
    )]
    Displaced {
        /// The address.
        underlay: UnderlayAddrs,
        /// The host that came back.
        name: NodeName,
        /// The host that has the address now.
        other: NodeName,
    },
    /// Nobody else could reach it there.
    #[error(
        "underlay address {underlay} of node {name} leads back to whoever uses it, and the mesh has other hosts; start its \
         agent with --underlay and an interface or address that they reach, as `ip -br addr` shows them"
    )]
    Loopback {
        /// The address.
        underlay: UnderlayAddrs,
        /// Host that came.
        name: NodeName,
    },
    /// The address is none that a host can have.
    #[error(transparent)]
    Unfit(#[from] UnfitUnderlay),
}

/// Displaces another host that has the address with which `name` comes, if it is the one that is `gone`.
///
/// # Errors
/// The other host, which keeps the address.
pub(super) fn displace(
    state: &State,
    name: &NodeName,
    underlay: UnderlayAddrs,
    gone: Option<&NodeName>,
) -> Result<Option<Change>, NodeName> {
    let others = state.nodes.values().filter(|other| other.node.name != *name && other.holds(underlay));
    let (yielding, staying): (Vec<_>, Vec<_>) = others.partition(|other| gone == Some(&other.node.name));
    match (yielding.first(), staying.first()) {
        (_, Some(other)) => Err(other.node.name.clone()),
        (None, None) => Ok(None),
        (Some(other), None) => {
            Ok(Some(Change::put(NodeRecord { displaced: Some(name.clone()), ..(*other).clone() })))
        }
    }
}

impl Command for Relocate {
    /// The move, if the host was elsewhere before.
    type Outcome = Option<Relocated>;
    type Refusal = RelocateRefusal;

    fn decide(self, state: &State, _now: Timestamp) -> Result<Decision<Option<Relocated>>, RelocateRefusal> {
        let Self { name, underlay, gone } = self;
        // Who is not known is told so elsewhere.
        let known = state.nodes.get(&name).filter(|known| !known.is_at(underlay));
        let Some(known) = known else { return Ok(Decision { changes: vec![], outcome: None }) };
        underlay::check(state, &name, underlay)?;
        if underlay.first().to_ip().is_loopback() && state.nodes.keys().any(|other| *other != name) {
            return Err(RelocateRefusal::Loopback { underlay, name });
        }
        let before = known.node.underlay;
        let refusal = |other, name| {
            if before == underlay {
                RelocateRefusal::Displaced { underlay, name, other }
            } else {
                RelocateRefusal::InUse { underlay, name, other }
            }
        };
        let taken = displace(state, &name, underlay, gone.as_ref());
        let taken = taken.map_err(|other| refusal(other, name))?;
        let displaced = taken.as_ref().and(gone);
        let mut record = NodeRecord { displaced: None, ..known.clone() };
        record.node.underlay = underlay;
        let changes = taken.into_iter().chain([Change::put(record)]).collect();
        Ok(Decision { changes, outcome: Some(Relocated { before, displaced }) })
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::{Block, Node};

    use super::*;
    use crate::core::model;

    /// Two hosts that carry a network, the second of which is drained.
    fn two() -> State {
        let mut state = State::default();
        let [change] = model::decide(&state, &model::Step::CreateNetwork(0, 0)).try_into().unwrap();
        state.apply(&change);
        for n in 1..=2_u8 {
            let name: NodeName = format!("host-{n}").parse().unwrap();
            let underlay = format!("192.0.2.{n}").parse().unwrap();
            let joined = Timestamp::default();
            let known = NodeRecord::new(Node { name: name.clone(), underlay, mtu: None }, [n; 32], joined);
            state.apply(&Change::put(NodeRecord { drained: n == 2, ..known }));
            let range = format!("10.0.0.{}/28", n * 16).parse().unwrap();
            let (network, block) = ("net-0".parse().unwrap(), Block { node: Some(name), range });
            state.apply(&Change::put_in(&network, block));
        }
        state
    }

    /// A host comes with an address while another one is gone.
    fn come(
        state: &mut State,
        name: &str,
        underlay: &str,
        gone: Option<&str>,
    ) -> Result<Option<Relocated>, String> {
        let gone = gone.map(|name| name.parse().unwrap());
        let relocate = Relocate { name: name.parse().unwrap(), underlay: underlay.parse().unwrap(), gone };
        model::run(state, relocate, Timestamp::default()).map_err(|refusal| refusal.to_string())
    }

    /// The hosts of the network with the addresses that everybody is told.
    fn told(state: &State) -> Vec<String> {
        let nodes = state.snapshot(&"net-0".parse().unwrap(), 1).unwrap().content.nodes;
        nodes.iter().map(|node| format!("{} {}", node.name, node.underlay)).collect()
    }

    #[test]
    fn a_host_that_moved_keeps_everything_but_its_address() {
        let mut state = two();
        let moved = come(&mut state, "host-2", "192.0.2.52", None).unwrap();
        assert_eq!(moved, Some(Relocated { before: "192.0.2.2".parse().unwrap(), displaced: None }));
        assert_eq!(told(&state), ["host-1 192.0.2.1", "host-2 192.0.2.52"]);
        assert!(state.nodes[&"host-2".parse().unwrap()].drained);
        assert_eq!(come(&mut state, "host-2", "192.0.2.52", None), Ok(None), "it is where it was");
        assert_eq!(come(&mut state, "host-9", "192.0.2.9", None), Ok(None), "nobody knows it");
    }

    #[test]
    fn an_address_of_another_host_or_of_loopback_is_refused_with_what_to_do() {
        let refused = |underlay: &str, gone| come(&mut two(), "host-2", underlay, gone).unwrap_err();
        assert!(refused("192.0.2.1", None).contains("in use by node host-1"));
        assert!(
            refused("192.0.2.1", Some("host-3")).contains("in use by node host-1"),
            "another one is gone"
        );
        assert!(refused("127.0.0.1", None).contains("--underlay"));
    }

    #[test]
    fn hosts_that_swap_their_addresses_are_never_told_to_be_at_one_place() {
        let mut state = two();
        let moved = come(&mut state, "host-1", "192.0.2.2", Some("host-2")).unwrap().unwrap();
        assert_eq!(moved.displaced, Some("host-2".parse().unwrap()));
        assert_eq!(told(&state), ["host-1 192.0.2.2"], "nobody knows where the other one is");
        let network: sealane_proto::types::NetworkName = "net-0".parse().unwrap();
        assert_eq!(state.displaced_carriers(&network), ["host-2".parse().unwrap()].into());
        let stale = come(&mut state, "host-2", "192.0.2.2", None).unwrap_err();
        assert!(
            stale.starts_with("node host-1 came with underlay address 192.0.2.2 while node host-2 was away")
        );
        come(&mut state, "host-2", "192.0.2.1", None).unwrap().unwrap();
        assert_eq!(told(&state), ["host-1 192.0.2.2", "host-2 192.0.2.1"]);
        assert!(state.displaced_carriers(&network).is_empty());
    }

    #[test]
    fn a_displaced_host_that_comes_back_displaces_who_went_away_in_the_meantime() {
        let mut state = two();
        come(&mut state, "host-1", "192.0.2.2", Some("host-2")).unwrap();
        let back = come(&mut state, "host-2", "192.0.2.2", Some("host-1")).unwrap();
        let displaced = Some("host-1".parse().unwrap());
        assert_eq!(back, Some(Relocated { before: "192.0.2.2".parse().unwrap(), displaced }));
        assert_eq!(told(&state), ["host-2 192.0.2.2"]);
    }

    #[test]
    fn an_instance_on_a_displaced_host_is_offered_to_nobody() {
        let mut state = two();
        let undrained =
            Change::put(NodeRecord { drained: false, ..state.nodes[&"host-2".parse().unwrap()].clone() });
        state.apply(&undrained);
        let report = model::Step::Report(2, vec![(0, 1, 33, 1)]);
        for change in model::decide(&state, &report) {
            state.apply(&change);
        }
        let ready = |state: &State| state.snapshot(&"net-0".parse().unwrap(), 1).unwrap().workloads[0].ready;
        assert!(ready(&state));
        come(&mut state, "host-1", "192.0.2.2", Some("host-2")).unwrap();
        assert!(!ready(&state));
        come(&mut state, "host-2", "192.0.2.1", None).unwrap();
        assert!(ready(&state));
    }
}
