//! The task of one machine: it answers DHCP and sees to it that the devices stand.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_base::rate_limit::RateLimit;
use sealane_base::task;
use sealane_fabric::netlink::PacketListener;
use sealane_proto::types::{MacAddr, NetworkName};
use tokio::io::unix::AsyncFd;

use super::device::{TapState, TapWire};
use super::dhcp::{Answer, Lease, MessageType, Outcome};
use super::{Machines, TapError, frame};
use crate::attachment::{AttachmentId, Seated};
use crate::trouble::WorkloadTrouble;

/// Interval at which it is looked at whether the devices stand, and the number of such looks until the rules are put in
/// anew.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS: u32 = 60;
/// Number of questions that are answered in a second; a client asks once in several.
const PACE: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);
/// After this long, a machine asks again: what it was told may have changed.
const LEASE: u32 = 3_600;
/// The longest message that clients send by Ethernet.
const LONGEST: usize = 2_048;

/// A machine and what it is told.
#[derive(Debug)]
pub(super) struct Machine {
    machines: Arc<Machines>,
    id: AttachmentId,
    way: Arc<TapWire>,
    network: NetworkName,
    lease: Lease,
    gateway_mac: MacAddr,
    /// Questions that may be answered.
    pace: RateLimit,
}

impl Machine {
    pub(super) fn new(
        machines: Arc<Machines>,
        id: AttachmentId,
        way: Arc<TapWire>,
        seat: &Seated,
        gateway_mac: MacAddr,
    ) -> Self {
        let lease = Lease {
            mac: seat.mac,
            address: seat.address.addr(),
            mask: seat.address.netmask(),
            gateway: seat.gateway,
            mtu: 0,
            domain: seat.network.to_string(),
            seconds: LEASE,
        };
        let network = seat.network.clone();
        Self { machines, id, way, network, lease, gateway_mac, pace: RateLimit::new(PACE, SECOND) }
    }

    /// Serves for ever.
    pub(super) async fn serve(mut self, mut stands: TapState) {
        let mut look = tokio::time::interval(LOOK);
        let (mut looks, mut socket) = (0_u32, self.listen(stands));
        loop {
            tokio::select! {
                heard = hear(socket.as_ref()) => match heard {
                    Ok(frames) => frames.iter().for_each(|frame| self.handle(frame, socket.as_ref())),
                    Err(error) => {
                        // The device went; the next look makes it again.
                        tracing::debug!(%error, device = %self.way.device, "cannot hear a machine");
                        socket = None;
                    }
                },
                _ = look.tick() => {
                    looks += 1;
                    match self.ensure(stands, looks.is_multiple_of(LOOKS)).await {
                        Ok(now) => {
                            if now != stands || socket.is_none() {
                                socket = self.listen(now);
                            }
                            stands = now;
                            self.trouble(WorkloadTrouble::Tap, None);
                        }
                        Err(error) => self.trouble(WorkloadTrouble::Tap, Some(error.to_string())),
                    }
                }
            }
        }
    }

    async fn ensure(&self, before: TapState, anew: bool) -> Result<TapState, TapError> {
        let (way, hopper) = (self.way.clone(), self.machines.hopper.clone());
        task::blocking(move || way.ensure(&hopper, Some(before), anew)).await?
    }

    fn listen(&mut self, stands: TapState) -> Option<AsyncFd<PacketListener>> {
        self.lease.mtu = u16::try_from(stands.mtu).unwrap_or(u16::MAX);
        let filter = frame::filter();
        let opened = PacketListener::open(&self.machines.hopper, &self.way.room, stands.inner, filter);
        let watched = opened.and_then(PacketListener::watched);
        let complain =
            |error| tracing::error!(%error, device = %self.way.device, "cannot answer a machine's DHCP");
        watched.map_err(complain).ok()
    }

    fn trouble(&self, trouble: WorkloadTrouble, why: Option<String>) {
        self.machines.troubles.set(&self.id, trouble, why);
    }

    fn handle(&self, asked: &[u8], socket: Option<&AsyncFd<PacketListener>>) {
        let Some(message) = frame::payload(asked) else { return };
        let network = self.network.as_str();
        let metrics = &self.machines.metrics;
        if self.pace.pass(Instant::now()).is_none() {
            return metrics.unanswered(network, "pace");
        }
        match self.lease.handle(message) {
            Outcome::Answer(answer) => {
                metrics.answered(network, word(answer.kind));
                self.trouble(WorkloadTrouble::Stranger, None);
                self.answer(&answer, socket);
            }
            Outcome::Ignored => metrics.unanswered(network, "ignored"),
            Outcome::Stranger(mac) => {
                metrics.unanswered(network, "stranger");
                let (device, own) = (self.way.device, self.lease.mac);
                self.trouble(
                    WorkloadTrouble::Stranger,
                    Some(format!(
                        "the machine at {device} has the Ethernet address {mac}, and nothing passes but from {own}: start it with \
                         mac={own}, or attach it again with --mac {mac}"
                    )),
                );
            }
        }
    }

    fn answer(&self, answer: &Answer, socket: Option<&AsyncFd<PacketListener>>) {
        let from: (MacAddr, Ipv4Addr) = (self.gateway_mac, self.lease.gateway);
        let sent = frame::answer(from, (self.lease.mac, answer.to), &answer.message)
            .zip(socket)
            .map(|(frame, socket)| socket.get_ref().send(&frame));
        if let Some(Err(error)) = sent {
            tracing::debug!(%error, device = %self.way.device, "cannot answer a machine");
        }
    }
}

fn word(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Offer => "offer",
        MessageType::Ack => "ack",
        MessageType::Nak => "nak",
        MessageType::Discover | MessageType::Request | MessageType::Inform => "none",
    }
}

/// The frames that wait, once there are some.
async fn hear(socket: Option<&AsyncFd<PacketListener>>) -> std::io::Result<Vec<Vec<u8>>> {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut ready = socket.readable().await?;
    let mut frames = Vec::new();
    // As many as are answered in a second: more wait in the socket, or are lost there.
    while frames.len() < PACE as usize {
        let mut frame = vec![0; LONGEST];
        match ready.try_io(|socket| socket.get_ref().receive(&mut frame)) {
            Ok(Ok(length)) => {
                frame.truncate(length);
                frames.push(frame);
            }
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => break,
        }
    }
    Ok(frames)
}
