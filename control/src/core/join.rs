//! Hosts that join the mesh.

use std::time::Duration;

use sealane_proto::resource::Node;
use sealane_proto::token::TokenSecret;
use sealane_proto::types::{NodeName, UnderlayAddrs};
use subtle::ConstantTimeEq;

use super::relocate::displace;
use super::timestamp::Span;
use super::{
    Change, Command, Decision, NodeRecord, State, Timestamp, TokenRecord, TokenStanding, UnfitUnderlay,
};
use super::{edition, hosts, underlay};

/// A host asks to be part of the mesh. Asking again with the same key is the same host (its first answer was
/// lost, or it was reinstalled on its old data), perhaps at a new address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinNode {
    /// Public name of its token.
    pub token: String,
    /// Secret that proves the token.
    pub secret: TokenSecret,
    /// Name and place.
    pub node: Node,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// The host that yields its underlay address to who comes with it.
    pub gone: Option<NodeName>,
}

/// A host that is part of the mesh from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Record of the host.
    pub record: NodeRecord,
    /// The host that had its underlay address.
    pub displaced: Option<NodeName>,
}

/// Reasons for which a host may not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// No such token.
    #[error("token {0} is not known to this control plane; create one with `sealane token create`")]
    UnknownToken(String),
    /// The token's secret is another one.
    #[error("the secret of token {0} is wrong; copy the whole token as `sealane token create` printed it")]
    WrongSecret(String),
    /// The token's time is over.
    #[error("token {id} expired {} ago; create a new one with `sealane token create`", Span(*.ago))]
    Expired {
        /// The token.
        id: String,
        /// Since when.
        ago: Duration,
    },
    /// Somebody took the token back.
    #[error("token {id} was revoked {} ago; create a new one with `sealane token create`", Span(*.ago))]
    Revoked {
        /// The token.
        id: String,
        /// Since when.
        ago: Duration,
    },
    /// The token has admitted as many hosts as it may.
    #[error(
        "token {id} is used up: it was made for {}; create a new one with `sealane token create`",
        hosts(*.uses)
    )]
    UsedUp {
        /// The token.
        id: String,
        /// Number of hosts that it was made for.
        uses: u32,
    },
    /// The token is for a host of another name.
    #[error(
        "token {id} is for node {node}, not {wanted}; join with --name {node}, or create a token for {wanted}"
    )]
    OtherNode {
        /// The token.
        id: String,
        /// Host that it is for.
        node: NodeName,
        /// Host that came.
        wanted: NodeName,
    },
    /// The host was removed.
    #[error(
        "the key of this host was revoked when node {name} was removed; \
         run `sealane clean` on it, then join again with a new token"
    )]
    Removed {
        /// Former name.
        name: NodeName,
    },
    /// Another host has the name.
    #[error(
        "node name {name} is in use by the host at {underlay}, which joined with another key; \
         choose another with --name, or give this host the data directory of that node; if it is gone for good, as \
         after `sealane clean`, `sealane node rm {name}` frees the name; where `sealane up` ends with these words, \
         run `sealane control` in its place for that"
    )]
    NameInUse {
        /// The name.
        name: NodeName,
        /// Address of the name's holder.
        underlay: UnderlayAddrs,
    },
    /// Others could not reach this host.
    #[error(
        "underlay address {underlay} of node {name} leads back to whoever uses it, and the mesh has other hosts; join with \
         --underlay and an interface or address that they reach, as `ip -br addr` shows them"
    )]
    Loopback {
        /// The address.
        underlay: UnderlayAddrs,
        /// Host that came.
        name: NodeName,
    },
    /// This host could not reach another.
    #[error(
        "node {node} has the underlay address {underlay}, where no other host reaches it; on that host, start \
         `sealane up --listen 0.0.0.0:7443` again, or its agent with --underlay and an interface or address that others reach, as \
         `ip -br addr` shows them, then join"
    )]
    LoopbackOf {
        /// The address.
        underlay: UnderlayAddrs,
        /// Host that has it.
        node: NodeName,
    },
    /// Nobody has an address of its family.
    #[error(
        "underlay address {underlay} of node {name} is of {of}, and all other hosts of the mesh are at addresses of {others} alone, \
         as {there} is: join with --underlay {underlay} --underlay and an {others} address of {name}, or start the agent of one of \
         them again with an {of} address besides its own, as in --underlay {there} --underlay 'and that'",
        of = .underlay.first().family(), others = .underlay.first().family().other()
    )]
    NoFamily {
        /// The address.
        underlay: UnderlayAddrs,
        /// Host that came.
        name: NodeName,
        /// Address of a host of the mesh.
        there: UnderlayAddrs,
    },
    /// Another host has the address.
    #[error(
        "underlay address {underlay} is in use by node {node}; choose another with --underlay, or end the agent of {node}: a \
         host that has been disconnected for 5 s yields its address"
    )]
    UnderlayInUse {
        /// The address.
        underlay: UnderlayAddrs,
        /// Host that has it.
        node: NodeName,
    },
    /// The address is none that a host can have.
    #[error(transparent)]
    Unfit(#[from] UnfitUnderlay),
}

fn hosts(uses: u32) -> String {
    if uses == 1 { "1 host".to_owned() } else { format!("{uses} hosts") }
}

impl JoinRefusal {
    /// The reason in a word, for metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::UnknownToken(_) => "unknown_token",
            Self::WrongSecret(_) => "wrong_secret",
            Self::Expired { .. } => "token_expired",
            Self::Revoked { .. } => "token_revoked",
            Self::UsedUp { .. } => "token_used_up",
            Self::OtherNode { .. } => "token_for_other_node",
            Self::Removed { .. } => "removed",
            Self::NameInUse { .. } => "name_in_use",
            Self::UnderlayInUse { .. } => "underlay_in_use",
            Self::NoFamily { .. } => "no_common_family",
            Self::Loopback { .. } | Self::LoopbackOf { .. } => "loopback_underlay",
            Self::Unfit(_) => "unfit_underlay",
        }
    }
}

impl Command for JoinNode {
    type Outcome = Joined;
    type Refusal = JoinRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<Joined>, JoinRefusal> {
        let Some(token) = state.tokens.get(&self.token) else {
            return Err(JoinRefusal::UnknownToken(self.token));
        };
        if !bool::from(token.hash.ct_eq(&self.secret.hash())) {
            return Err(JoinRefusal::WrongSecret(self.token));
        }
        if let Some(removed) = state.removed.values().find(|removed| removed.key == self.key) {
            return Err(JoinRefusal::Removed { name: removed.name.clone() });
        }
        let known = state.nodes.get(&self.node.name).filter(|known| known.is_admitted());
        let again = known.is_some_and(|known| known.key == self.key);
        self.check_token(token, again, now)?;
        if let Some(known) = known.filter(|known| known.key != self.key) {
            return Err(JoinRefusal::NameInUse { name: self.node.name, underlay: known.node.underlay });
        }
        self.check_reach(state)?;
        underlay::check(state, &self.node.name, self.node.underlay)?;
        let at = self.node.underlay;
        let taken = displace(state, &self.node.name, at, self.gone.as_ref())
            .map_err(|node| JoinRefusal::UnderlayInUse { underlay: at, node })?;
        let displaced = taken.as_ref().and(self.gone);
        let joined = known.map_or(now, |known| known.joined);
        let node = Node { mtu: known.and_then(|known| known.node.mtu), ..self.node };
        let (drained, echoes) = known.map_or_else(Default::default, |known| (known.drained, known.echoes));
        let (by, networks) = (Some(token.id.clone()), token.networks.clone());
        let placed = known.map_or_else(|| edition::begun(state, &node.name), |known| known.placed);
        let record = NodeRecord {
            node,
            key: self.key,
            joined,
            drained,
            token: by,
            networks,
            displaced: None,
            echoes,
            placed,
        };
        let mut changes = hosts::given_up(state, &record, now);
        changes.extend(taken);
        if known != Some(&record) {
            changes.push(Change::put(record.clone()));
        }
        if !again {
            changes.extend(edition::reopened(state, &record.node.name));
            // In one commit with the host: no answer without a use, no use without a host.
            changes.push(Change::put(TokenRecord { used: token.used.saturating_add(1), ..token.clone() }));
        }
        Ok(Decision { changes, outcome: Joined { record, displaced } })
    }
}

impl JoinNode {
    /// A mesh of one host may live on loopback; with a second one, each must reach the other.
    fn check_reach(&self, state: &State) -> Result<(), JoinRefusal> {
        let others =
            || state.nodes.values().map(|other| &other.node).filter(|other| other.name != self.node.name);
        let Node { name, underlay, mtu: _ } = self.node.clone();
        if underlay.first().to_ip().is_loopback() && others().next().is_some() {
            return Err(JoinRefusal::Loopback { underlay, name });
        }
        let alone = others().find(|other| other.underlay.first().to_ip().is_loopback());
        if let Some(Node { name, underlay, mtu: _ }) = alone {
            return Err(JoinRefusal::LoopbackOf { underlay: *underlay, node: name.clone() });
        }
        let reached = others().any(|other| underlay.way_to(other.underlay).is_some());
        match others().next().filter(|_| !reached) {
            Some(other) => Err(JoinRefusal::NoFamily { underlay, name, there: other.underlay }),
            None => Ok(()),
        }
    }

    /// Checks that the token admits this host. One that it has admitted `again` already takes no further use.
    fn check_token(&self, token: &TokenRecord, again: bool, now: Timestamp) -> Result<(), JoinRefusal> {
        let id = || self.token.clone();
        match token.standing(now) {
            TokenStanding::Good => {}
            TokenStanding::UsedUp if again => {}
            TokenStanding::UsedUp => {
                return Err(JoinRefusal::UsedUp { id: id(), uses: token.uses.unwrap_or_default() });
            }
            TokenStanding::Expired => {
                return Err(JoinRefusal::Expired { id: id(), ago: now.since(token.expires) });
            }
            TokenStanding::Revoked => {
                let ago = now.since(token.revoked.unwrap_or(now));
                return Err(JoinRefusal::Revoked { id: id(), ago });
            }
        }
        match &token.node {
            Some(node) if *node != self.node.name => {
                let wanted = self.node.name.clone();
                Err(JoinRefusal::OtherNode { id: id(), node: node.clone(), wanted })
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::Edition;

    use super::*;
    use crate::core::{Told, ToldPlace, model};

    const NOW: Timestamp = Timestamp::from_unix(10_000);

    fn state() -> State {
        let mut state = State::default();
        let token = |id: &str, expires| TokenRecord {
            id: id.to_owned(),
            hash: TokenSecret::new([7; 20]).hash(),
            created: Timestamp::default(),
            expires: Timestamp::from_unix(expires),
            uses: None,
            used: 0,
            node: None,
            networks: Default::default(),
            revoked: None,
        };
        let named = Some("host-9".parse().unwrap());
        let tokens = [
            token("goodgood", 20_000),
            token("pastpast", 9_000),
            TokenRecord { uses: Some(1), ..token("oneonone", 20_000) },
            TokenRecord { uses: Some(3), used: 3, ..token("threethr", 20_000) },
            TokenRecord { revoked: Some(Timestamp::from_unix(9_400)), ..token("gonegone", 20_000) },
            TokenRecord { node: named, ..token("namename", 20_000) },
        ];
        tokens.map(Change::put).iter().for_each(|change| state.apply(change));
        let first = join("goodgood", 7, "host-1", "192.0.2.1", 1).decide(&state, NOW).unwrap();
        first.changes.iter().for_each(|change| state.apply(change));
        state
    }

    fn join(token: &str, secret: u8, name: &str, underlay: &str, key: u8) -> JoinNode {
        JoinNode {
            token: token.to_owned(),
            secret: TokenSecret::new([secret; 20]),
            node: Node { name: name.parse().unwrap(), underlay: underlay.parse().unwrap(), mtu: None },
            key: [key; 32],
            gone: None,
        }
    }

    #[test]
    fn each_reason_not_to_join_is_named() {
        let table = [
            (join("nonenone", 7, "host-2", "192.0.2.2", 2), "token nonenone is not known"),
            (join("goodgood", 8, "host-2", "192.0.2.2", 2), "secret of token goodgood is wrong"),
            (join("pastpast", 7, "host-2", "192.0.2.2", 2), "token pastpast expired 16 min ago"),
            (
                join("threethr", 7, "host-2", "192.0.2.2", 2),
                "token threethr is used up: it was made for 3 hosts",
            ),
            (join("gonegone", 7, "host-2", "192.0.2.2", 2), "token gonegone was revoked 10 min ago"),
            (join("namename", 7, "host-2", "192.0.2.2", 2), "token namename is for node host-9, not host-2"),
            (
                join("goodgood", 7, "host-1", "192.0.2.2", 2),
                "node name host-1 is in use by the host at 192.0.2.1",
            ),
            (join("goodgood", 7, "host-2", "192.0.2.1", 2), "192.0.2.1 is in use by node host-1"),
        ];
        for (command, expected) in table {
            let error = command.decide(&state(), NOW).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_host_on_loopback_is_alone() {
        let refused = |state: &State, command: JoinNode| command.decide(state, NOW).unwrap_err().to_string();
        let said = refused(&state(), join("goodgood", 7, "host-2", "127.0.0.1", 2));
        assert!(said.contains("127.0.0.1 of node host-2 leads back"), "{said}");
        let mut alone = State { nodes: Default::default(), ..state() };
        let first = join("goodgood", 7, "host-1", "127.0.0.1", 1).decide(&alone, NOW).unwrap();
        first.changes.iter().for_each(|change| alone.apply(change));
        let said = refused(&alone, join("goodgood", 7, "host-2", "192.0.2.2", 2));
        assert!(
            said.contains("node host-1 has the underlay address 127.0.0.1") && said.contains("--underlay"),
            "{said}"
        );
    }

    #[test]
    fn a_use_is_taken_with_the_host_and_not_again_by_the_same_one() {
        let mut state = state();
        let first = join("oneonone", 7, "host-2", "192.0.2.2", 2);
        first.clone().decide(&state, NOW).unwrap().changes.iter().for_each(|change| state.apply(change));
        assert_eq!(state.tokens["oneonone"].used, 1);
        assert_eq!(first.decide(&state, NOW).unwrap().changes, [], "its answer was lost");
        let second = join("oneonone", 7, "host-3", "192.0.2.3", 3).decide(&state, NOW).unwrap_err();
        assert_eq!(second, JoinRefusal::UsedUp { id: "oneonone".into(), uses: 1 });
    }

    #[test]
    fn the_same_key_joins_again_even_from_another_address() {
        let state = state();
        let again = join("goodgood", 7, "host-1", "192.0.2.1", 1).decide(&state, NOW).unwrap();
        assert_eq!(again.changes, []);
        let moved = join("goodgood", 7, "host-1", "192.0.2.9", 1).decide(&state, NOW).unwrap();
        assert_eq!(moved.changes.len(), 1);
    }

    #[test]
    fn a_host_whose_name_was_joined_anew_many_times_can_say_where_it_is() {
        let mut state = state();
        let created = model::decide(&state, &model::Step::CreateNetwork(0, 0));
        created.iter().for_each(|change| state.apply(change));
        let network = state.networks.keys().next().unwrap().clone();
        let node: NodeName = "host-9".parse().unwrap();
        // As eight joinings leave it.
        let edition = Edition { incarnation: NOW.unix() + (8 << 32), revision: 0 };
        state.apply(&Change::put_in(&network, Told { node: node.clone(), edition }));
        let joined = join("goodgood", 7, "host-9", "192.0.2.99", 9).decide(&state, NOW).unwrap();
        let known = joined.outcome.record.placed;
        assert!(known >= edition, "{known:?}");
        let next = Edition { incarnation: known.incarnation + 1, revision: 1 };
        let told = ToldPlace { underlay: "192.0.2.98".parse().unwrap(), placed: Some(next) };
        assert_eq!(told.after(known, NOW), next);
    }

    #[test]
    fn a_host_displaces_another_one_and_never_itself() {
        let displaced = |name: &str, key| {
            let gone = Some("host-1".parse().unwrap());
            let join = JoinNode { gone, ..join("goodgood", 7, name, "192.0.2.1", key) };
            join.decide(&state(), NOW).unwrap().outcome.displaced
        };
        assert_eq!(displaced("host-2", 2), Some("host-1".parse().unwrap()));
        assert_eq!(displaced("host-1", 1), None, "it was away, and joins again where it was");
    }
}
