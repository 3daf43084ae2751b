//! Telling a peer by which of its words this host works.

use std::collections::BTreeMap;

use sealane_proto::peer::PeerFrame;
use sealane_proto::resource::Edition;
use sealane_proto::types::NetworkName;

/// Editions of the peer's words by which this host works.
#[derive(Debug, Default)]
pub(super) struct Working {
    said: BTreeMap<NetworkName, Edition>,
    unsaid: BTreeMap<NetworkName, Edition>,
}

impl Working {
    /// The host works by these editions now. One that it has not come to again since the peer fell silent is none of them.
    pub(super) fn handle_works(&mut self, works: &BTreeMap<NetworkName, Edition>) {
        self.said.retain(|network, _| works.contains_key(network));
        let unsaid = works.iter().filter(|(network, edition)| self.said.get(*network) != Some(*edition));
        self.unsaid = unsaid.map(|(network, edition)| (network.clone(), *edition)).collect();
    }

    /// The next frame to send.
    pub(super) fn poll_frame(&mut self) -> Option<PeerFrame> {
        let (network, edition) = self.unsaid.pop_first()?;
        self.said.insert(network.clone(), edition);
        Some(PeerFrame::Works(network, edition))
    }
}
