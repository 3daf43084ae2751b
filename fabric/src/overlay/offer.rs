//! Pairs of devices for runtimes that move a container's interface themselves: made in the host's namespace, where the
//! runtime takes the inner end from; the outer end becomes the workload's port when it is attached.

use sealane_proto::types::{MacAddr, NetworkName};
use sealane_sys::NetNs;

use super::pass::Pass;
use super::plan::Port;
use super::port::is_port;
use super::{KernelAccess, Overlay, OverlayError, Table, blocking};
use crate::netlink::{Link, LinkRequest, Socket};
use crate::seat::DeviceName;

/// Prefix of the outer ends' names.
const OUTER: &str = "slo";
/// And the inner ends'.
const INNER: &str = "sli";

/// A pair that is made for a runtime. No other one of the host has its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceOffer {
    /// Number of the offer, of which the lower 48 bits count.
    pub number: u64,
    /// The inner end's Ethernet address.
    pub mac: MacAddr,
    /// Of both ends, in bytes.
    pub mtu: u32,
}

fn name(prefix: &str, number: u64) -> String {
    format!("{prefix}{:012x}", number & 0xffff_ffff_ffff)
}

fn number(device: &str) -> Option<u64> {
    let digits = device.strip_prefix(OUTER).filter(|digits| digits.len() == 12)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Returns true if both are ends of one pair.
fn are_ends(outer: &Link, inner: &Link) -> bool {
    is_port(outer) && is_port(inner) && outer.peer == Some(inner.index) && inner.peer == Some(outer.index)
}

impl InterfaceOffer {
    /// The device that the runtime is to take.
    #[must_use]
    pub fn source(&self) -> String {
        name(INNER, self.number)
    }
}

impl Overlay {
    /// Makes the pair in the host's namespace, unless it is there or taken already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn offer(&self, offer: InterfaceOffer) -> Result<(), OverlayError> {
        let kernel = self.kernel.clone();
        blocking(move || {
            let mut host = Socket::open(&kernel.hopper, &kernel.host)?;
            let outer = name(OUTER, offer.number);
            if host.link(&outer)?.is_some() {
                return Ok(());
            }
            let inner = LinkRequest::named(&offer.source()).mtu(offer.mtu).mac(offer.mac);
            let pair = LinkRequest::named(&outer).mtu(offer.mtu).veth(inner).create();
            Ok(host.request(pair, || format!("make {outer} for a container"))?)
        })
        .await
    }

    /// Removes a pair that nobody attached, wherever its inner end is. One that is gone is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn withdraw(&self, number: u64) -> Result<(), OverlayError> {
        let kernel = self.kernel.clone();
        blocking(move || {
            let mut host = Socket::open(&kernel.hopper, &kernel.host)?;
            for name in [name(OUTER, number), name(INNER, number)] {
                host.remove_link(&name, || format!("remove {name}"))?;
            }
            Ok(())
        })
        .await
    }

    /// The numbers of the pairs that nobody has attached yet.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn offers(&self) -> Result<Vec<u64>, OverlayError> {
        let kernel = self.kernel.clone();
        blocking(move || {
            let links = Socket::open(&kernel.hopper, &kernel.host)?.links()?;
            Ok(links.iter().filter_map(|link| number(&link.name)).collect())
        })
        .await
    }

    /// The name that the runtime gave the inner end in `netns`; `None` before it is there. The outer one may be in the network's
    /// namespace already: what was to make it a port has failed, or ended.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn taken(
        &self,
        number: u64,
        netns: &NetNs,
        network: &NetworkName,
    ) -> Result<Option<DeviceName>, OverlayError> {
        let (kernel, netns, network) = (self.kernel.clone(), netns.try_clone()?, self.network_netns(network));
        blocking(move || {
            let find = |place: &NetNs| Socket::open(&kernel.hopper, place)?.link(&name(OUTER, number));
            let outer = match (find(&kernel.host)?, network) {
                (None, Ok(network)) => find(&network)?,
                (found, _) => found,
            };
            let inside = Socket::open(&kernel.hopper, &netns)?.links()?;
            let inner = outer.and_then(|outer| inside.into_iter().find(|inner| are_ends(&outer, inner)));
            Ok(inner.filter(|inner| inner.up).and_then(|inner| inner.name.parse().ok()))
        })
        .await
    }
}

impl KernelAccess {
    /// The outer end of the pair that `inner` is of, in the host's namespace.
    fn offered(&self, inner: &Link) -> Result<Option<(Socket, u32)>, OverlayError> {
        let mut host = Socket::open(&self.hopper, &self.host)?;
        let outer =
            host.links()?.into_iter().find(|outer| number(&outer.name).is_some() && are_ends(outer, inner));
        Ok(outer.map(|outer| (host, outer.index)))
    }
}

impl Pass<'_> {
    /// Makes the outer end of an offered pair the workload's port, where its inner end is `inside` by the port's
    /// interface and Ethernet address; whether that is so. The port carries nothing yet.
    pub(super) fn take_up(&mut self, port: &Port, inside: &mut Socket) -> Result<bool, OverlayError> {
        let mut inner = || -> Result<Option<Link>, OverlayError> {
            let found = inside.link(&port.interface.to_string())?;
            Ok(found.filter(|found| found.mac == Some(port.mac)))
        };
        let Some(offered) = inner()? else { return Ok(false) };
        if let Some((mut host, index)) = self.kernel.offered(&offered)? {
            let moved = LinkRequest::of(index).in_namespace(&self.ns).change();
            host.request(moved, || format!("move the port of workload {}", port.workload))?;
        }
        self.refresh()?;
        // Where the network had a device of that number, the moved one has got another.
        let Some(inner) = inner()? else { return Ok(false) };
        let here = self.links.iter().find(|outer| number(&outer.name).is_some() && are_ends(outer, &inner));
        let Some(index) = here.map(|outer| outer.index) else { return Ok(false) };
        let named = LinkRequest::of(index).rename(&port.name).alias(port.workload.to_string());
        self.socket.request(named.change(), || format!("name the port of workload {}", port.workload))?;
        self.applied.count(Table::Link, 1);
        self.refresh()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_known_by_its_number() {
        let offer = InterfaceOffer {
            number: 0xffff_0123_4567_89ab,
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
            mtu: 1450,
        };
        assert_eq!(offer.source(), "sli0123456789ab");
        assert_eq!(number("slo0123456789ab"), Some(0x0123_4567_89ab));
        assert_eq!(number("slo0"), None);
        assert_eq!(number("sli0123456789ab"), None);
    }
}
