//! A host that is somewhere else than before: its key says who it is, whatever its address.
//!
//! An address belongs to the host that comes with it. One that is connected keeps its own; one that has been away for a
//! while is displaced by who comes with the same address: from then on nobody is told where it is, so that nothing that
//! is meant for it goes to the other, until it comes itself.

use sealane_proto::resource::{Edition, Node};
use sealane_proto::types::{NodeName, UnderlayAddrs};

use super::edition::is_near;
use super::{Change, Command, Decision, NodeRecord, State, Timestamp, UnfitUnderlay, underlay};

/// A host tells where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocate {
    /// The host.
    pub name: NodeName,
    /// Place from now on.
    pub told: ToldPlace,
    /// The host that yields that address to who comes with it.
    pub gone: Option<NodeName>,
    /// Place that the displaced one has told, if it has: it gets that in the same moment, and two hosts that swap are both known to be
    /// somewhere all the time.
    pub meant: Option<ToldPlace>,
}

/// A host's word about its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldPlace {
    /// Underlay addresses.
    pub underlay: UnderlayAddrs,
    /// Age of the word; an agent of an earlier version does not say.
    pub placed: Option<Edition>,
}

impl ToldPlace {
    /// The record's edition with this word in it: words count in the order in which their host comes with them, and no edition is
    /// followed by a smaller one.
    #[must_use]
    pub fn after(self, known: Edition, now: Timestamp) -> Edition {
        match self.placed {
            Some(placed) if placed >= known && is_near(placed, Some(known), now) => placed,
            Some(_) | None if known == Edition::default() => known,
            Some(_) | None => known.closed(),
        }
    }
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

/// Moves a host that yields its address to where it has said that it is; `None` when it cannot be there while `came` is where it is
/// now.
fn move_along(
    state: &State,
    (name, meant): (&NodeName, ToldPlace),
    came: &Node,
    now: Timestamp,
) -> Option<Change> {
    let known = state.nodes.get(name)?;
    let is_taken =
        |other: &NodeRecord| ![name, &came.name].contains(&&other.node.name) && other.holds(meant.underlay);
    let fits = !meant.underlay.first().to_ip().is_loopback()
        && !meant.underlay.overlaps(came.underlay)
        && !state.nodes.values().any(is_taken)
        && underlay::check(state, name, meant.underlay).is_ok();
    fits.then(|| Change::put(known.moved(meant, now)))
}

impl NodeRecord {
    /// Returns true if this word says nothing that the record does not.
    #[must_use]
    pub fn says(&self, told: ToldPlace, now: Timestamp) -> bool {
        self.is_at(told.underlay) && told.after(self.placed, now) == self.placed
    }

    fn moved(&self, told: ToldPlace, now: Timestamp) -> Self {
        let mut record = Self { displaced: None, placed: told.after(self.placed, now), ..self.clone() };
        record.node.underlay = told.underlay;
        record
    }
}

impl Command for Relocate {
    /// The move, if the host was elsewhere before.
    type Outcome = Option<Relocated>;
    type Refusal = RelocateRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Option<Relocated>>, RelocateRefusal> {
        let Self { name, told, gone, meant } = self;
        let underlay = told.underlay;
        // Who is not known is told so elsewhere.
        let known = state.nodes.get(&name).filter(|known| !known.says(told, now));
        let Some(known) = known else { return Ok(Decision { changes: vec![], outcome: None }) };
        if known.is_at(underlay) {
            // It says anew where it is.
            return Ok(Decision { changes: vec![Change::put(known.moved(told, now))], outcome: None });
        }
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
        let record = known.moved(told, now);
        let moved = taken.as_ref().and(gone.as_ref()).zip(meant);
        let moved = moved.and_then(|(other, meant)| move_along(state, (other, meant), &record.node, now));
        let displaced = taken.as_ref().and(gone).filter(|_| moved.is_none());
        let changes = moved.or(taken).into_iter().chain([Change::put(record)]).collect();
        Ok(Decision { changes, outcome: Some(Relocated { before, displaced }) })
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::Block;

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
        let told = ToldPlace { underlay: underlay.parse().unwrap(), placed: None };
        let relocate = Relocate { name: name.parse().unwrap(), told, gone, meant: None };
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
        let carriers =
            |state: &State| state.hosts_of(&state.networks[&"net-0".parse().unwrap()]).carriers.len();
        assert_eq!(carriers(&state), 2, "it carries the network all the same");
        let stale = come(&mut state, "host-2", "192.0.2.2", None).unwrap_err();
        assert!(
            stale.starts_with("node host-1 came with underlay address 192.0.2.2 while node host-2 was away")
        );
        come(&mut state, "host-2", "192.0.2.1", None).unwrap().unwrap();
        assert_eq!(told(&state), ["host-1 192.0.2.2", "host-2 192.0.2.1"]);
        assert_eq!(carriers(&state), 2);
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
    fn hosts_that_have_both_said_where_they_are_swap_in_one_moment() {
        let mut state = two();
        let told = |underlay: &str, revision| ToldPlace {
            underlay: underlay.parse().unwrap(),
            placed: Some(Edition { incarnation: 7, revision }),
        };
        let swap = |meant| Relocate {
            name: "host-1".parse().unwrap(),
            told: told("192.0.2.2", 2),
            gone: Some("host-2".parse().unwrap()),
            meant: Some(meant),
        };
        for taken in ["192.0.2.2", "127.0.0.1", "224.0.0.1"] {
            let moved = model::run(&mut two(), swap(told(taken, 3)), Timestamp::default()).unwrap().unwrap();
            assert_eq!(moved.displaced, Some("host-2".parse().unwrap()), "{taken} cannot be its own");
        }
        let moved = model::run(&mut state, swap(told("192.0.2.1", 3)), Timestamp::default()).unwrap();
        assert_eq!(moved.unwrap().displaced, None);
        assert_eq!(told_hosts(&state), ["host-1 192.0.2.2 7.2", "host-2 192.0.2.1 7.3"]);
    }

    /// The hosts that everybody is told of, with the ages of their words.
    fn told_hosts(state: &State) -> Vec<String> {
        let placed = state.snapshot(&"net-0".parse().unwrap(), 1).unwrap().content.placed.unwrap();
        let editions = placed.values().map(ToString::to_string);
        told(state).into_iter().zip(editions).map(|(host, edition)| format!("{host} {edition}")).collect()
    }

    #[test]
    fn the_age_of_a_hosts_word_never_falls_whatever_agents_come() {
        let edition = |incarnation, revision| Edition { incarnation, revision };
        let told = |placed| ToldPlace { underlay: "192.0.2.1".parse().unwrap(), placed };
        let (known, now) = (edition(7, 2), Timestamp::from_unix(100));
        assert_eq!(told(Some(edition(7, 3))).after(known, now), edition(7, 3));
        assert_eq!(told(Some(known)).after(known, now), known);
        assert_eq!(told(None).after(Edition::default(), now), Edition::default(), "it has never told any");
        for earlier in [None, Some(edition(7, 1)), Some(edition(1 << 40, 1))] {
            let closed = told(earlier).after(known, now);
            assert!(closed > edition(8, 9), "what it has told to other hosts counts no more");
            assert_eq!(told(earlier).after(closed, now), closed);
        }
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
