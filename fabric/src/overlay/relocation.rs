//! Move of this host to another underlay address while its networks stand: tunnels, gate and the neighbours beneath follow.

use std::time::Duration;

use sealane_proto::types::{MacAddr, UnderlayAddr, UnderlayAddrs};
use tokio::sync::watch;

use super::announce::{REPEATS, announcements};
use super::kernel::KernelAccess;
use super::{Overlay, OverlayError, Underlay, blocking};
use crate::netlink::{NetlinkError, Notices, PacketSocket, Socket, Subject};

impl Overlay {
    /// Returns this host's underlay addresses, which may become others at any time.
    #[must_use]
    pub fn underlay(&self) -> watch::Receiver<UnderlayAddrs> {
        self.kernel.underlay.subscribe()
    }

    /// Moves this host to others of its addresses: the gate knows their devices, and whoever looks at [`Overlay::underlay`]
    /// hears of it. The tunnels of each network follow with its next pass.
    ///
    /// # Errors
    /// When the host has not the main address: nothing is changed then. Or when the kernel refuses the gate, which the next look at
    /// the host takes up.
    pub async fn relocate(&self, addresses: UnderlayAddrs) -> Result<(), OverlayError> {
        let kernel = self.kernel.clone();
        blocking(move || kernel.relocate(addresses)).await
    }

    /// Tells the hosts beneath on the same wire that this host has its underlay address now: of one that was another's before,
    /// they would send to that one's Ethernet address for up to a minute. Ends early when the address is another one.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn announce_underlay(&self) -> Result<(), OverlayError> {
        let addresses = self.kernel.underlay();
        for wait in [Duration::ZERO].into_iter().chain(REPEATS) {
            tokio::time::sleep(wait).await;
            let kernel = self.kernel.clone();
            if kernel.underlay() != addresses {
                return Ok(());
            }
            blocking(move || addresses.iter().try_for_each(|address| kernel.announce(address))).await?;
        }
        Ok(())
    }

    /// Listens to what the kernel says of links, addresses and routes of the host.
    ///
    /// # Errors
    /// When the kernel cannot be listened to.
    pub fn underlay_notices(&self) -> Result<Notices, NetlinkError> {
        Ok(Notices::open(&self.kernel.hopper, &self.kernel.host, Subject::Links)?)
    }
}

impl KernelAccess {
    /// Underlay addresses of this host as they are now.
    pub(super) fn underlay(&self) -> UnderlayAddrs {
        *self.underlay.borrow()
    }

    fn relocate(&self, addresses: UnderlayAddrs) -> Result<(), OverlayError> {
        let mut socket = Socket::open(&self.hopper, &self.host)?;
        Underlay::find(&mut socket, addresses.first())?;
        // Before anybody hears of it: whoever does looks at the new ones.
        self.underlay.send_if_modified(|known| {
            *known = addresses;
            false
        });
        let looked = self.measure_ways().and_then(|_| Ok(self.ensure_gate()?));
        self.underlay.send_replace(addresses);
        looked.map(drop)
    }

    fn announce(&self, address: UnderlayAddr) -> Result<(), OverlayError> {
        let mut socket = Socket::open(&self.hopper, &self.host)?;
        let device = Underlay::find(&mut socket, address)?.index;
        let links = socket.links()?;
        let mac = links.iter().find(|link| link.index == device).and_then(|link| link.mac);
        // Loopback and tunnels have no Ethernet address, or one of zeros.
        let Some(mac) = mac.filter(|mac: &MacAddr| mac.is_unicast()) else { return Ok(()) };
        let frames = announcements(address.to_ip(), mac)?;
        let socket = PacketSocket::open(&self.hopper, &self.host)?;
        frames.iter().try_for_each(|frame| socket.send(device, frame)).or_else(|error| {
            // A cable that is just out needs no announcement.
            tracing::debug!(%error, %address, "cannot announce the underlay address");
            Ok(())
        })
    }
}
