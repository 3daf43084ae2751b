//! Verdicts about checksums that a device of this host makes: the peers to which packets with them are lost. Pure.
//!
//! A peer gets a datagram with a checksum of the device's now and then. When it does not answer one, it gets both kinds, until it
//! answers one of the device's. A peer that answers the kernel's alone, often enough that it is no chance, gets nothing of TCP or
//! UDP from here. One that answers neither says nothing: its agent is older, or its kernel answers nobody.
//!
//! Chance alone, at one packet in five lost each way, makes three tries in four that say something say that all is well: twenty
//! others in a row come once in 10^11 doubts. The device's datagram goes first, so that a kernel that answers one datagram alone
//! answers that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sealane_fabric::netlink::ChecksumBy;
use sealane_proto::types::NodeName;

use super::SAMPLE;

/// Interval of datagrams to a peer that answers those of the device.
const CALM: Duration = Duration::from_secs(10);
/// Interval in doubt. A kernel answers four times a second and host, and six times at once (`net.ipv6.icmp.ratelimit`).
const DOUBT: Duration = Duration::from_secs(1);
/// Interval once a device's checksums are known to be wrong.
const KNOWN: Duration = Duration::from_secs(5);
/// Rest after a peer has answered neither kind.
const REST: Duration = Duration::from_secs(60);
/// Tries of which the kernel's datagram alone was answered, that make the device's checksums wrong.
const MISSING: u32 = 20;
/// Tries in a row without any answer that say that the peer answers no such datagrams.
const UNANSWERED: u32 = 8;

/// Datagram that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct ChecksumProbe {
    pub(in super::super) to: NodeName,
    /// Token that the answer repeats.
    pub(in super::super) token: u64,
    pub(in super::super) by: ChecksumBy,
}

/// The datagram of the kernel's in a try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ByKernel {
    #[default]
    NotSent,
    UnderWay(u64),
    Answered,
}

/// One peer.
#[derive(Debug)]
struct Known {
    /// Token of the device's datagrams until one is answered, however late; `None` before the first and once answered.
    by_device: Option<u64>,
    by_kernel: ByKernel,
    sent: Instant,
    due: Instant,
    /// Tries in which the kernel's alone was answered, since one of the device's was.
    missing: u32,
    /// Tries in a row in which neither was.
    unanswered: u32,
    /// True if the device's checksums are wrong, false if they are right; `None` while nothing is known.
    fault: Option<bool>,
}

/// The peers of one host.
#[derive(Debug, Default)]
pub(in super::super) struct ChecksumCore {
    peers: BTreeMap<NodeName, Known>,
}

impl ChecksumCore {
    /// The datagrams that are due now to these peers, which answer echoes; tries that are over are judged, and whatever has come was
    /// handled before. Peers that are not among them are forgotten.
    pub(in super::super) fn poll<'a>(
        &mut self,
        peers: impl Iterator<Item = &'a NodeName>,
        now: Instant,
        mut token: impl FnMut() -> u64,
    ) -> Vec<ChecksumProbe> {
        let peers: BTreeSet<&NodeName> = peers.collect();
        self.peers.retain(|name, _| peers.contains(name));
        for name in peers {
            if !self.peers.contains_key(name) {
                self.peers.insert(name.clone(), Known::new(now));
            }
        }
        let mut due: Vec<(&NodeName, &mut Known)> =
            self.peers.iter_mut().filter(|(_, known)| now >= known.due).collect();
        due.sort_by_key(|(_, known)| known.due);
        let mut probes = Vec::new();
        for (name, known) in due.into_iter().take(SAMPLE) {
            let sent = known.begin_try(now, &mut token);
            probes.extend(sent.into_iter().flatten().map(|(by, token)| ChecksumProbe {
                to: name.clone(),
                token,
                by,
            }));
        }
        probes
    }

    /// A peer has answered the datagram with this token.
    pub(in super::super) fn handle_answer(&mut self, from: &NodeName, token: u64) {
        let Some(known) = self.peers.get_mut(from) else { return };
        if known.by_device == Some(token) {
            known.calm();
        } else if known.by_kernel == ByKernel::UnderWay(token) {
            known.by_kernel = ByKernel::Answered;
        }
    }

    /// Returns true if packets to the peer are lost that have checksums of the device's, false if they are not; `None` while nothing
    /// is known.
    pub(in super::super) fn fault(&self, peer: &NodeName) -> Option<bool> {
        self.peers.get(peer)?.fault
    }

    /// The peers to which packets with checksums of the device's are lost.
    pub(in super::super) fn wrong(&self) -> impl Iterator<Item = &NodeName> {
        self.peers.iter().filter(|(_, known)| known.fault == Some(true)).map(|(name, _)| name)
    }
}

impl Known {
    fn new(now: Instant) -> Self {
        let by_kernel = ByKernel::NotSent;
        Self { by_device: None, by_kernel, sent: now, due: now, missing: 0, unanswered: 0, fault: None }
    }

    /// One of the device's has arrived: nothing is doubtful.
    fn calm(&mut self) {
        let (sent, due) = (self.sent, self.sent + CALM);
        *self = Self { due, fault: Some(false), ..Self::new(sent) };
    }

    /// Judges the try that is over, and begins the next one; returns what to send.
    fn begin_try(&mut self, now: Instant, token: &mut impl FnMut() -> u64) -> [Option<(ChecksumBy, u64)>; 2] {
        let Some(by_device) = self.by_device else {
            let by_device = token();
            (self.by_device, self.sent, self.due) = (Some(by_device), now, now + DOUBT);
            return [Some((ChecksumBy::Device, by_device)), None];
        };
        match self.by_kernel {
            ByKernel::NotSent => {}
            ByKernel::Answered => (self.missing, self.unanswered) = (self.missing + 1, 0),
            ByKernel::UnderWay(_) => self.unanswered += 1,
        }
        if self.unanswered >= UNANSWERED {
            *self = Self { due: now + REST, ..Self::new(now) };
            return [None, None];
        }
        if self.missing >= MISSING {
            (self.missing, self.fault) = (MISSING, Some(true));
        }
        let by_kernel = token();
        let wait = if self.fault == Some(true) { KNOWN } else { DOUBT };
        (self.by_kernel, self.sent, self.due) = (ByKernel::UnderWay(by_kernel), now, now + wait);
        [Some((ChecksumBy::Device, by_device)), Some((ChecksumBy::Kernel, by_kernel))]
    }
}

#[cfg(test)]
mod tests;
