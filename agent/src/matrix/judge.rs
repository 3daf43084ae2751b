//! Conclusions from the rows of several hosts: hosts that are down, ports that are blocked, and in which direction. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use sealane_fabric::overlay::narrow_remedy;
use sealane_proto::peer::{PeerCell, Reach};
use sealane_proto::types::NodeName;

use crate::peer::ObstacleKind;

/// The rows of hosts, or why one could not be asked for its own.
pub(crate) type Rows = BTreeMap<NodeName, Result<Vec<PeerCell>, String>>;

/// Ports of the two ways between hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    /// The UDP port of tunnels, by which echoes go.
    pub(crate) tunnels: u16,
    /// The TCP port of channels.
    pub(crate) channels: u16,
}

/// Longest round trip that a host is believed to have measured: it waits for answers much shorter than that.
const LONGEST: Duration = Duration::from_mins(10);
/// Lengths of packets that IP can have (RFC 791; the length field has 16 bits).
const LENGTHS: RangeInclusive<u32> = 576..=65_535;

/// Leaves of a host's row what it can know: one cell per other host that is known here, with numbers that can be.
pub(super) fn credible(from: &NodeName, row: Vec<PeerCell>, known: &BTreeSet<NodeName>) -> Vec<PeerCell> {
    let mut seen = BTreeSet::new();
    let told = row
        .into_iter()
        .filter(|cell| cell.node != *from && known.contains(&cell.node) && seen.insert(cell.node.clone()));
    told.map(|cell| PeerCell {
        round_trip: cell.round_trip.map(|time| time.min(LONGEST)),
        loss_permille: cell.loss_permille.map(|loss| loss.min(1_000)),
        path_mtu: cell.path_mtu.filter(|length| LENGTHS.contains(length)),
        ..cell
    })
    .collect()
}

/// Names what is wrong between hosts, with what to do about it, a sentence each.
pub(crate) fn problems(rows: &Rows, ports: Ports) -> Vec<String> {
    let names = names(rows);
    let down: BTreeSet<&NodeName> = names.iter().copied().filter(|name| is_down(rows, name)).collect();
    let mut said: Vec<String> = down
        .iter()
        .map(|name| {
            format!(
                "host {name} is down or cut off: it answers none of the hosts that were asked, neither at UDP port {} nor at TCP port \
                 {}; see that it runs and that its cable and its network are up",
                ports.tunnels, ports.channels
            )
        })
        .collect();
    for (place, a) in names.iter().enumerate() {
        for b in names.iter().skip(place + 1).filter(|_| !down.contains(a)) {
            if !down.contains(b) {
                said.extend(between(rows, (a, b), ports));
            }
        }
    }
    said
}

/// Tells more of a host that answers no echoes and has no channel.
pub(super) fn without_channel(kind: ObstacleKind, words: &str, ports: Ports) -> String {
    match kind {
        ObstacleKind::Refused => format!(
            "the host is there ({words}): see that its agent runs, which lets this host's packets in if this host is at another address \
             than before, and that UDP port {} passes in both directions",
            ports.tunnels
        ),
        ObstacleKind::Distrust => {
            format!("the host is there ({words}): let UDP port {} through in both directions", ports.tunnels)
        }
        ObstacleKind::New | ObstacleKind::Silent | ObstacleKind::Lost => format!(
            "its TCP port {} does not answer either: see that it runs, and that its cable and its network are up",
            ports.channels
        ),
    }
}

/// Tells what keeps the tunnels of two hosts from each other, whose channel stands; `None` when nothing does.
pub(super) fn blocked(rows: &Rows, (a, b): (&NodeName, &NodeName), ports: Ports) -> Option<String> {
    let away = [cell(rows, a, b), cell(rows, b, a)].into_iter().flatten().any(is_away);
    let both = [a, b].iter().all(|name| rows.get(*name).is_some_and(Result::is_ok));
    (away && both).then(|| direction(rows, (a, b), ports.tunnels))
}

fn names(rows: &Rows) -> Vec<&NodeName> {
    let seen = rows.values().flatten().flatten().map(|cell| &cell.node);
    rows.keys().chain(seen).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Finds how one host sees another one.
fn cell<'a>(rows: &'a Rows, from: &NodeName, to: &NodeName) -> Option<&'a PeerCell> {
    rows.get(from)?.as_ref().ok()?.iter().find(|cell| cell.node == *to)
}

fn is_away(cell: &PeerCell) -> bool {
    cell.reach == Reach::Unreachable
}

/// Returns true if nobody who was asked reaches the host in any way, and it could not be asked itself.
fn is_down(rows: &Rows, name: &NodeName) -> bool {
    let mut seen = rows.keys().filter_map(|from| cell(rows, from, name)).peekable();
    let is_asked = rows.get(name).is_some_and(Result::is_ok);
    !is_asked && seen.peek().is_some() && seen.all(|cell| is_away(cell) && cell.channel_problem.is_some())
}

/// Names what is wrong between two hosts that are there.
fn between(rows: &Rows, (a, b): (&NodeName, &NodeName), ports: Ports) -> Vec<String> {
    let cells = [cell(rows, a, b), cell(rows, b, a)];
    let known = || cells.iter().flatten();
    let away = known().any(|cell| is_away(cell));
    let stands = known().any(|cell| cell.channel_problem.is_none());
    let why = known().find_map(|cell| cell.channel_problem.as_ref());
    let mut said = Vec::new();
    match why.filter(|_| !stands) {
        Some(why) if away => said.push(format!(
            "nothing passes between {a} and {b}, neither UDP port {} nor TCP port {}: {why}; see that the networks of both lead to \
             each other and that no firewall drops these ports",
            ports.tunnels, ports.channels
        )),
        Some(why) => said.push(format!(
            "there is no channel between {a} and {b}, which answer each other's echoes: {why}; see that the agents of both run and that \
             TCP port {} passes in both directions",
            ports.channels
        )),
        None if away => said.push(direction(rows, (a, b), ports.tunnels)),
        None => {}
    }
    for (from, to, cell) in [(a, b, cells[0]), (b, a, cells[1])] {
        if cell.is_some_and(|cell| cell.loses_checksums && !is_away(cell)) {
            said.push(format!(
                "packets of TCP and UDP from {from} to {to} are lost where a network device of {from} is left to make their checksums, \
                 which are wrong when they arrive: `sealane status` on {from} has the line to type there"
            ));
        }
        if let Some(cell) = cell.filter(|cell| cell.loses_long && !is_away(cell)) {
            let most = cell.path_mtu.map(|most| format!(" (at most {most} bytes pass)")).unwrap_or_default();
            said.push(format!(
                "long packets from {from} to {to} are lost on the way{most}, short ones are not: {}",
                narrow_remedy(from.as_str(), None, cell.path_mtu)
            ));
        }
    }
    said
}

/// Directions in which the tunnels' port is blocked between two hosts, the first and the second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blockage {
    /// From the first to the second one.
    Forth,
    /// From the second to the first one.
    Back,
    /// In both directions.
    Both,
    /// In none: echoes come, their answers do not.
    Answers,
    /// Not both count echoes.
    Untold,
}

impl Blockage {
    /// Finds it by the echoes of each host that come to the other.
    fn between(rows: &Rows, (a, b): (&NodeName, &NodeName)) -> Self {
        let heard = |at: &NodeName, of: &NodeName| cell(rows, at, of).and_then(|cell| cell.heard);
        match (heard(b, a), heard(a, b)) {
            (Some(0), Some(0)) => Self::Both,
            (Some(0), Some(_)) => Self::Forth,
            (Some(_), Some(0)) => Self::Back,
            (Some(_), Some(_)) => Self::Answers,
            (None, _) | (_, None) => Self::Untold,
        }
    }
}

/// Tells which direction of the tunnels' port is blocked between two hosts.
fn direction(rows: &Rows, (a, b): (&NodeName, &NodeName), port: u16) -> String {
    let blocked = |from: &NodeName, to: &NodeName| {
        format!(
            "UDP port {port} is blocked from {from} to {to}: echoes of {to} come to {from}, none of {from} come to {to}, and their \
             channel stands; let the port through in that direction: see what {from} drops on its way out, {to} on its way in, and \
             the network between them"
        )
    };
    match Blockage::between(rows, (a, b)) {
        Blockage::Both => format!(
            "UDP port {port} is blocked between {a} and {b} in both directions: no echo of either comes to the other, and their channel \
             stands; let the port through on both hosts and in the network between them"
        ),
        Blockage::Forth => blocked(a, b),
        Blockage::Back => blocked(b, a),
        Blockage::Answers => format!(
            "echoes go between {a} and {b} in both directions and their answers do not, though their channel stands; look again, and \
             if it stays so, see which firewall drops some of UDP port {port}"
        ),
        Blockage::Untold => format!(
            "UDP port {port} is blocked between {a} and {b}, whose channel stands, in a direction that cannot be told, as not both count \
             echoes; let the port through in both directions"
        ),
    }
}

/// Tells what keeps the tunnels of a host that reaches nobody from all `others` whose channels to it stand; `None` when that is not
/// the same for each of them, or nothing.
pub(super) fn alone(rows: &Rows, own: &NodeName, others: &[&NodeName], port: u16) -> Option<String> {
    let (first, rest) = others.split_first()?;
    let of = |other: &NodeName| {
        let both = [own, other].iter().all(|name| rows.get(*name).is_some_and(Result::is_ok));
        both.then(|| Blockage::between(rows, (own, other)))
    };
    let blockage = of(first).filter(|blockage| rest.iter().all(|other| of(other) == Some(*blockage)))?;
    let names = others.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    match blockage {
        Blockage::Forth => Some(format!(
            "UDP port {port} is blocked from this host to {names}: their echoes come here, none of this host come to them, and the \
             channels to them stand; let the port through in that direction: see what {own} drops on its way out, and the network \
             between them"
        )),
        Blockage::Back => Some(format!(
            "UDP port {port} is blocked from {names} to this host: its echoes come to them, none of theirs come here, and the channels \
             to them stand; let the port through in that direction: see what {own} drops on its way in, and the network between them"
        )),
        Blockage::Both => Some(format!(
            "UDP port {port} is blocked between this host and {names} in both directions: no echo comes here or to them, and the \
             channels to them stand; let the port through on {own} in both directions, and in the network between them"
        )),
        Blockage::Answers | Blockage::Untold => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { tunnels: 4789, channels: 7444 };

    fn seen(node: &str, reach: Reach, channel: bool, heard: Option<u32>) -> PeerCell {
        PeerCell {
            node: node.parse().unwrap(),
            reach,
            round_trip: None,
            loss_permille: None,
            path_mtu: None,
            loses_long: false,
            loses_checksums: false,
            channel_problem: (!channel).then(|| sealane_proto::types::Finding::new("nobody answers")),
            heard,
        }
    }

    fn rows(all: &[(&str, Option<&[PeerCell]>)]) -> Rows {
        let row =
            |cells: &Option<&[PeerCell]>| cells.map(<[PeerCell]>::to_vec).ok_or("no channel".to_owned());
        all.iter().map(|(name, cells)| (name.parse().unwrap(), row(cells))).collect()
    }

    #[test]
    fn both_ends_together_tell_the_direction_that_is_blocked() {
        let away = |node, heard| [seen(node, Reach::Unreachable, true, heard)];
        let table = [
            (
                Some(0),
                Some(9),
                "UDP port 4789 is blocked from a to b: echoes of b come to a, none of a come to b",
            ),
            (Some(9), Some(0), "UDP port 4789 is blocked from b to a"),
            (Some(0), Some(0), "UDP port 4789 is blocked between a and b in both directions"),
            (Some(9), Some(9), "echoes go between a and b in both directions"),
            (
                None,
                Some(9),
                "UDP port 4789 is blocked between a and b, whose channel stands, in a direction that cannot",
            ),
        ];
        for (of_a_at_b, of_b_at_a, expected) in table {
            let (at_a, at_b) = (away("b", of_b_at_a), away("a", of_a_at_b));
            let said = problems(&rows(&[("a", Some(&at_a)), ("b", Some(&at_b))]), PORTS);
            assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
        }
        let at_a = away("b", Some(1));
        let said = problems(&rows(&[("a", Some(&at_a)), ("b", None)]), PORTS);
        assert!(said.len() == 1 && said[0].contains("in a direction that cannot be told"), "{said:?}");
    }

    #[test]
    fn a_host_that_reaches_nobody_is_told_the_direction_that_all_others_agree_on() {
        let away = |node, heard| seen(node, Reach::Unreachable, true, Some(heard));
        let said = |here: [u32; 2], there: [u32; 2]| {
            let at_c = [away("a", here[0]), away("b", here[1])];
            let (at_a, at_b) = ([away("c", there[0])], [away("c", there[1])]);
            let rows = rows(&[("a", Some(&at_a)), ("b", Some(&at_b)), ("c", Some(&at_c))]);
            let [a, b, c] = ["a", "b", "c"].map(|name| name.parse::<NodeName>().unwrap());
            alone(&rows, &c, &[&a, &b], 4789)
        };
        let table = [
            ([0, 0], [9, 9], "UDP port 4789 is blocked from a, b to this host: its echoes come to them"),
            ([9, 9], [0, 0], "UDP port 4789 is blocked from this host to a, b: their echoes come here"),
            ([0, 0], [0, 0], "UDP port 4789 is blocked between this host and a, b in both directions"),
        ];
        for (here, there, expected) in table {
            let said = said(here, there).unwrap();
            assert!(said.starts_with(expected), "{said}");
        }
        assert_eq!(said([0, 9], [9, 0]), None, "they do not agree");
        assert_eq!(said([9, 9], [9, 9]), None, "only answers are lost");
        let c: NodeName = "c".parse().unwrap();
        let at_c = [away("a", 0)];
        let silent = rows(&[("a", None), ("c", Some(&at_c))]);
        assert_eq!(alone(&silent, &c, &[&"a".parse().unwrap()], 4789), None, "it could not be asked");
    }

    #[test]
    fn a_row_tells_of_other_hosts_that_are_known_here_once_each_and_by_numbers_that_can_be() {
        let known = ["a", "b", "c"].map(|name| name.parse().unwrap()).into();
        let b = PeerCell {
            round_trip: Some(Duration::MAX),
            loss_permille: Some(u32::MAX),
            path_mtu: Some(u32::MAX),
            ..seen("b", Reach::Reachable, true, Some(5))
        };
        let can_be = PeerCell {
            round_trip: Some(Duration::from_mins(10)),
            loss_permille: Some(1_000),
            path_mtu: None,
            ..b.clone()
        };
        let c = PeerCell { path_mtu: Some(1_500), ..seen("c", Reach::Unreachable, false, Some(0)) };
        let [nobody, itself] = ["nobody", "a"].map(|name| seen(name, Reach::Unreachable, true, Some(0)));
        let again = seen("b", Reach::Unreachable, true, Some(0));
        let row = vec![nobody, b, itself, again, c.clone()];
        assert_eq!(credible(&"a".parse().unwrap(), row, &known), [can_be, c]);
    }

    #[test]
    fn a_host_that_answers_nobody_is_down_and_is_named_once() {
        use Reach::{Reachable, Unreachable};
        let at_a = [seen("b", Reachable, true, Some(5)), seen("c", Unreachable, false, Some(0))];
        let at_b = [seen("a", Reachable, true, Some(5)), seen("c", Unreachable, false, Some(0))];
        let said = problems(&rows(&[("a", Some(&at_a)), ("b", Some(&at_b)), ("c", None)]), PORTS);
        assert!(said.len() == 1 && said[0].starts_with("host c is down or cut off"), "{said:?}");
        // Another one reaches it: what is between these two is blocked.
        let at_b = [seen("a", Reachable, true, Some(5)), seen("c", Reachable, true, Some(5))];
        let said = problems(&rows(&[("a", Some(&at_a)), ("b", Some(&at_b)), ("c", None)]), PORTS);
        assert!(said.len() == 1 && said[0].starts_with("nothing passes between a and c"), "{said:?}");
    }

    #[test]
    fn channels_that_are_down_and_packets_that_are_lost_are_problems_and_a_doubt_is_none() {
        use Reach::{Reachable, Suspect};
        let at_a = [seen("b", Reachable, false, Some(5))];
        let said = problems(&rows(&[("a", Some(&at_a)), ("b", None)]), PORTS);
        assert!(
            said.len() == 1
                && said[0].contains(
                    "nobody answers; see that the agents of both run and that TCP port 7444 passes"
                ),
            "{said:?}"
        );
        let long = [PeerCell { loses_long: true, ..seen("b", Reachable, true, Some(5)) }];
        let said = problems(&rows(&[("a", Some(&long))]), PORTS);
        assert!(said.len() == 1 && said[0].starts_with("long packets from a to b are lost"), "{said:?}");
        let wrong = [PeerCell { loses_checksums: true, ..seen("b", Reachable, true, Some(5)) }];
        let said = problems(&rows(&[("a", Some(&wrong))]), PORTS);
        assert!(said.len() == 1 && said[0].starts_with("packets of TCP and UDP from a to b"), "{said:?}");
        let doubt = [seen("b", Suspect, true, Some(5))];
        assert_eq!(problems(&rows(&[("a", Some(&doubt))]), PORTS), Vec::<String>::new());
    }
}
