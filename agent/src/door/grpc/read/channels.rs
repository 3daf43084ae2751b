//! The channels to other hosts in words. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealane_proto::types::NodeName;
use sealane_proto::wire::v1;

use crate::peer::{Channels, ObstacleKind, PeerState};

/// Time for which a channel may be down before somebody is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Adds the state of the channel to a host to its view.
pub(super) fn describe(view: &mut v1::NodeView, channels: &Channels) {
    let state = channels
        .peers
        .iter()
        .find(|(name, _)| view.node.as_ref().is_some_and(|node| node.name == name.as_str()));
    let Some((_, state)) = state else { return };
    match &state.down {
        None => {
            let since = state.since.duration_since(UNIX_EPOCH).unwrap_or_default();
            view.channel_since_unix_seconds = since.as_secs();
        }
        Some(obstacle) => view.channel_problem.clone_from(&obstacle.words),
    }
}

/// The number of hosts that share a network with this one, and of those to which the channel stands.
pub(super) fn counts(channels: &Channels) -> (usize, usize) {
    (channels.peers.len(), channels.peers.values().filter(|state| state.down.is_none()).count())
}

/// Problems with channels, a sentence for each kind; hosts that are `told` to be away are left out.
pub(super) fn problems(
    channels: &Channels,
    told: impl Fn(&NodeName) -> bool,
    now: SystemTime,
) -> Vec<String> {
    let of = |kind| sentence(channels, kind, &told, now);
    let kinds = [ObstacleKind::Silent, ObstacleKind::Distrust];
    channels.unserved.values().cloned().chain(kinds.into_iter().filter_map(of)).collect()
}

/// Things to know about channels: hosts that answer, and have no such channel.
pub(super) fn notes(
    channels: &Channels,
    told: impl Fn(&NodeName) -> bool,
    now: SystemTime,
) -> Option<String> {
    sentence(channels, ObstacleKind::Refused, &told, now)
}

fn sentence(
    channels: &Channels,
    kind: ObstacleKind,
    told: impl Fn(&NodeName) -> bool,
    now: SystemTime,
) -> Option<String> {
    let lasts = |state: &PeerState| now.duration_since(state.since).is_ok_and(|down| down >= PATIENCE);
    let concerned = channels.peers.iter().filter(|(name, state)| lasts(state) && !told(name));
    let mut concerned = concerned.filter_map(|(name, state)| {
        let obstacle = state.down.as_ref().filter(|obstacle| obstacle.kind == kind)?;
        Some((name, &obstacle.words))
    });
    let (first, words) = concerned.next()?;
    let others = match concerned.count() {
        0 => String::new(),
        1 => " and another host".to_owned(),
        many => format!(" and {many} other hosts"),
    };
    Some(format!(
        "there is no channel to {first}{others} ({words}): while control is away, this host does not learn what starts or ends there"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::peer::Obstacle;

    fn state(kind: Option<ObstacleKind>, down_for: u64, now: SystemTime) -> PeerState {
        let down = kind.map(|kind| Obstacle { kind, words: "192.0.2.2:7444: nobody answers".to_owned() });
        PeerState { since: now - Duration::from_secs(down_for), down }
    }

    fn channels(states: &[(&str, PeerState)]) -> Channels {
        let peers = states.iter().map(|(name, state)| (name.parse().unwrap(), state.clone()));
        Channels { peers: peers.collect(), unserved: BTreeMap::new() }
    }

    #[test]
    fn hosts_without_a_channel_are_summed_up_in_a_line_for_each_kind() {
        let now = SystemTime::now();
        let silent = |down_for| state(Some(ObstacleKind::Silent), down_for, now);
        let known = channels(&[
            ("host-1", state(None, 99, now)),
            ("host-2", silent(6)),
            ("host-3", silent(4)),
            ("host-4", silent(99)),
            ("host-5", silent(99)),
            ("host-6", state(Some(ObstacleKind::Refused), 99, now)),
        ]);
        let lost = |name: &NodeName| name.as_str() == "host-5";
        let said = problems(&known, lost, now);
        let expected =
            "there is no channel to host-2 and another host (192.0.2.2:7444: nobody answers): while";
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
        assert!(notes(&known, lost, now).unwrap().starts_with("there is no channel to host-6 (192.0.2.2"));
        assert_eq!(counts(&known), (6, 1));
        assert_eq!(problems(&channels(&[]), lost, now), Vec::<String>::new());
    }

    #[test]
    fn a_host_is_shown_with_the_state_of_its_channel() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let known = channels(&[
            ("host-1", state(None, 99, now)),
            ("host-2", state(Some(ObstacleKind::Lost), 9, now)),
        ]);
        let view = |name: &str| {
            let node = v1::Node { name: name.to_owned(), ..Default::default() };
            let mut view = v1::NodeView { node: Some(node), ..Default::default() };
            describe(&mut view, &known);
            (view.channel_since_unix_seconds, view.channel_problem)
        };
        assert_eq!(view("host-1"), (901, String::new()));
        assert_eq!(view("host-2"), (0, "192.0.2.2:7444: nobody answers".to_owned()));
        assert_eq!(view("host-3"), (0, String::new()));
    }
}
