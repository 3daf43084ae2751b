//! Other hosts as echoes show them, for scrapes and messages.

use std::time::Duration;

use sealane_base::metrics::{Family, Reading, Series};
use sealane_proto::peer::PeerCell;
use sealane_proto::types::NodeName;
use sealane_proto::wire::v1;

use super::{PeerView, PeerViews, Reach};

/// Number of peers with series of their own, the first by name; the others are counted in `sealane_agent_peers_seen`.
const MOST: usize = 256;

impl PeerView {
    /// Puts it into the message about its host.
    pub(crate) fn show(&self, view: &mut v1::NodeView) {
        self.reach.word().clone_into(&mut view.reach);
        let micros = self.round_trip.map_or(0, |round_trip| round_trip.as_micros());
        view.rtt_micros = u64::try_from(micros).unwrap_or(u64::MAX);
        view.loss_permille = self.loss.map(|loss| (loss * 1_000.0).round() as u32);
        view.path_mtu = self.path_mtu.unwrap_or_default();
    }
}

impl PeerView {
    /// A host as its echoes show it, for whoever asks for all of them; the channel to it is another room's.
    pub(crate) fn cell(&self, name: &NodeName) -> PeerCell {
        PeerCell {
            node: name.clone(),
            reach: self.reach,
            round_trip: self.round_trip,
            loss_permille: self.loss.map(|loss| (loss * 1_000.0).round() as u32),
            path_mtu: self.path_mtu,
            loses_long: self.narrow.is_some(),
            loses_checksums: self.checksum_fault == Some(true),
            channel_problem: None,
            heard: None,
        }
    }
}

/// Gathers the series of other hosts.
pub(crate) fn families(peers: &PeerViews) -> [Family; 6] {
    let of_peers = |reading: fn(&PeerView) -> Option<f64>| {
        let series = peers.iter().take(MOST).filter_map(|(name, peer)| Some(of_peer(name, reading(peer)?)));
        series.collect::<Vec<Series>>()
    };
    let count = |reach: Reach| {
        let count = peers.values().filter(|peer| peer.reach == reach).count();
        let labels = vec![("reach".to_owned(), reach.word().to_owned())];
        Series { labels, reading: Reading::Value(count as f64) }
    };
    [
        Family::gauge(
            "sealane_agent_peers_seen",
            "Hosts that share a network with this one, by reach (unknown, reachable, suspect, unreachable).",
            Reach::ALL.into_iter().map(count).collect(),
        ),
        Family::gauge(
            "sealane_agent_peer_reachable",
            "Whether a host counts as reachable from this one: 1 or 0.",
            of_peers(|peer| Some(f64::from(u8::from(peer.reach != Reach::Unreachable)))),
        ),
        Family::gauge(
            "sealane_agent_peer_rtt_seconds",
            "Time of an echo to a host and back, smoothed.",
            of_peers(|peer| peer.round_trip.as_ref().map(Duration::as_secs_f64)),
        ),
        Family::gauge(
            "sealane_agent_peer_loss_ratio",
            "The share of the last echoes to a host that got no answer.",
            of_peers(|peer| peer.loss),
        ),
        Family::gauge(
            "sealane_agent_peer_path_mtu_bytes",
            "The longest packets to a host that pass, with the outer headers, as echoes of that length have shown.",
            of_peers(|peer| peer.path_mtu.map(f64::from)),
        ),
        Family::gauge(
            "sealane_agent_peer_checksum_fault",
            "Whether packets to a host are lost whose checksums a network device of this host makes: 1 or 0.",
            of_peers(|peer| peer.checksum_fault.map(|fault| f64::from(u8::from(fault)))),
        ),
    ]
}

fn of_peer(name: &NodeName, value: f64) -> Series {
    Series { labels: vec![("peer".to_owned(), name.to_string())], reading: Reading::Value(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(reach: Reach) -> PeerView {
        let round_trip = Some(Duration::from_micros(150));
        PeerView {
            reach,
            round_trip,
            loss: Some(0.25),
            path_mtu: Some(1_500),
            narrow: None,
            checksum_fault: Some(true),
        }
    }

    #[test]
    fn series_of_peers_are_bounded_and_all_peers_are_counted() {
        let peers = (0..300).map(|number| {
            let reach = if number < 3 { Reach::Unreachable } else { Reach::Suspect };
            (format!("host-{number:03}").parse().unwrap(), peer(reach))
        });
        let [counts, reachable, rtt, loss, path, checksums] = families(&peers.collect());
        let value = |series: &Series| {
            let Reading::Value(value) = series.reading else { panic!("a gauge") };
            value
        };
        assert_eq!(counts.series.iter().map(value).collect::<Vec<_>>(), [0.0, 0.0, 297.0, 3.0]);
        assert_eq!((reachable.series.len(), rtt.series.len(), loss.series.len()), (MOST, MOST, MOST));
        assert_eq!(reachable.series.iter().map(value).sum::<f64>(), MOST as f64 - 3.0);
        assert_eq!((value(&rtt.series[0]), value(&loss.series[0])), (0.000_15, 0.25));
        assert_eq!((path.series.len(), value(&path.series[0])), (MOST, 1_500.0));
        assert_eq!((checksums.series.len(), value(&checksums.series[0])), (MOST, 1.0));
    }

    #[test]
    fn a_message_has_the_word_and_the_figures() {
        let mut view = v1::NodeView::default();
        peer(Reach::Suspect).show(&mut view);
        assert_eq!((view.reach.as_str(), view.rtt_micros, view.loss_permille), ("suspect", 150, Some(250)));
        assert_eq!(view.path_mtu, 1_500);
    }
}
