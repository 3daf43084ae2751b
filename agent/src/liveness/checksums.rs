//! Datagrams to other hosts that try the checksums which devices of this host make: the shell around [`ChecksumCore`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::time::Instant;

use sealane_fabric::netlink::ChecksumProber;
use sealane_fabric::overlay::EchoAddr;
use sealane_proto::types::NodeName;

use super::PeerViews;
use super::core::{ChecksumCore, ChecksumProbe};
use super::words::{self, Lost, NAMED};
use crate::workload::Workloads;

/// The trial under way.
#[derive(Default)]
pub(super) struct Checksums {
    core: ChecksumCore,
    prober: Option<ChecksumProber>,
    wrong: BTreeSet<NodeName>,
    /// The same, with what there is to say of them.
    lost: Vec<Lost>,
}

impl Checksums {
    /// The namespace of echoes, or what is in it, is another one: the sockets are opened anew.
    pub(super) fn renew(&mut self) {
        self.prober = None;
    }

    /// Hears and sends what is due to peers that answer echoes; returns true if other peers than before get no checksums of this
    /// host's devices.
    pub(super) fn step<'a>(
        &mut self,
        workloads: &Workloads,
        (peers, names): (&BTreeMap<NodeName, EchoAddr>, &HashMap<Ipv6Addr, NodeName>),
        answering: impl Iterator<Item = &'a NodeName>,
        now: Instant,
    ) -> bool {
        if self.prober.is_none() && !peers.is_empty() {
            // The echoes' own socket says what keeps it from being opened.
            self.prober = workloads.kernel().overlay.checksum_prober().ok().flatten();
        }
        match self.prober.as_ref().map(ChecksumProber::receive) {
            None => {}
            Some(Ok(answers)) => answers.into_iter().for_each(|(from, token)| {
                if let Some(name) = names.get(&from) {
                    self.core.handle_answer(name, token);
                }
            }),
            Some(Err(error)) => {
                tracing::debug!(%error, "the sockets that try checksums have failed, others are opened");
                self.prober = None;
            }
        }
        let answering = answering.filter(|_| self.prober.is_some());
        for ChecksumProbe { to, token, by } in self.core.poll(answering, now, rand::random) {
            let (Some(prober), Some(at)) = (&self.prober, peers.get(&to)) else { continue };
            // One that is not sent is not answered: either both kinds are not, or the next look at the device tells why.
            let _ = prober.send(at.address, at.device, token, by);
        }
        let wrong: BTreeSet<NodeName> = self.core.wrong().cloned().collect();
        let news = wrong != self.wrong;
        self.wrong = wrong;
        news
    }

    /// Finds out by which devices packets to those peers leave.
    pub(super) async fn find_devices(&mut self, workloads: &Workloads, peers: &BTreeMap<NodeName, EchoAddr>) {
        let mut lost = Vec::new();
        let wrong = self.wrong.iter().filter_map(|name| Some((name, peers.get(name)?)));
        for (name, at) in wrong.take(NAMED) {
            let device = workloads.kernel().overlay.device_to(at.underlay.to_ip()).await;
            // It is named by how to find it where it cannot be found out.
            lost.push(Lost { node: name.clone(), underlay: at.underlay, device: device.ok().flatten() });
        }
        self.lost = lost;
    }

    /// Names the peers to which packets with checksums of this host's devices are lost.
    pub(super) fn sentences(&self) -> BTreeMap<String, String> {
        words::wrong(&self.lost, self.wrong.len())
    }

    /// Adds what is known of each peer.
    pub(super) fn show(&self, mut views: PeerViews) -> PeerViews {
        for (name, view) in &mut views {
            view.checksum_fault = self.core.fault(name);
        }
        views
    }
}
