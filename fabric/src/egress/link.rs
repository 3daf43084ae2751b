//! Names and addresses of the links between networks and the host. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sealane_proto::types::Vni;

use crate::netlink::VXLAN_PORT;
use crate::nft;

/// The first address of the links: link-local (RFC 3927), so that they are nobody's on a real network, and away from
/// 169.254.169.254 and its like, behind which clouds keep what is meant for the host.
const FIRST: Ipv4Addr = Ipv4Addr::new(169, 254, 192, 0);
/// Number of links that there is room for, four addresses each: up to 169.254.254.255.
const LINKS: u32 = 63 * 64;
/// Each link's prefix.
pub(crate) const PREFIX_LEN: u8 = 30;

/// The two ends of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The host's: the network's way out.
    pub(crate) host: Ipv4Addr,
    /// The network's.
    pub(crate) network: Ipv4Addr,
}

impl Ends {
    /// The first link, from the place on that the network's number has, that is not `taken`.
    pub(crate) fn choose(vni: Vni, taken: impl Fn(Ipv4Net) -> bool) -> Option<Self> {
        let start = vni.get().wrapping_sub(Vni::FIRST.get()) % LINKS;
        let links = (0..LINKS).map(|step| Self::nth((start + step) % LINKS));
        links.into_iter().find(|ends| !taken(ends.net()))
    }

    /// The link whose host's end this is.
    pub(crate) fn of_host(address: Ipv4Addr) -> Option<Self> {
        let offset = address.to_bits().checked_sub(FIRST.to_bits())?;
        (offset / 4 < LINKS && offset % 4 == 1).then(|| Self::nth(offset / 4))
    }

    /// Both ends and the addresses beside them.
    pub(crate) fn net(self) -> Ipv4Net {
        Ipv4Net::new_assert(self.host, PREFIX_LEN).trunc()
    }

    fn nth(number: u32) -> Self {
        let base = FIRST.to_bits() + 4 * number;
        Self { host: Ipv4Addr::from_bits(base + 1), network: Ipv4Addr::from_bits(base + 2) }
    }
}

/// The name of the host's end, the same as long as network and port are. A second agent of one host has another
/// port for its VXLAN, or its networks have other numbers.
pub(crate) fn host_name(vni: Vni, vxlan_port: u16) -> String {
    let [_, agent] = vxlan_port.wrapping_sub(VXLAN_PORT).to_be_bytes();
    format!("{}{agent:02x}{:06x}", nft::HOST_LINK, vni.get())
}

/// Returns true if a device of the host is an end of a link, of whatever agent.
pub(crate) fn is_of_host(name: &str) -> bool {
    name.strip_prefix(nft::HOST_LINK).is_some_and(|rest| rest.len() == 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vni(above_first: u32) -> Vni {
        Vni::try_from(Vni::FIRST.get() + above_first).unwrap()
    }

    #[test]
    fn links_of_different_networks_do_not_meet() {
        let ends = |above| Ends::choose(vni(above), |_| false).unwrap();
        assert_eq!(ends(0).host, Ipv4Addr::new(169, 254, 192, 1));
        assert_eq!(ends(1).network, Ipv4Addr::new(169, 254, 192, 6));
        assert_eq!(ends(LINKS - 1).network, Ipv4Addr::new(169, 254, 254, 254));
        let first = ends(0);
        assert_eq!(Ends::choose(vni(LINKS), |net| net == first.net()), Some(ends(1)));
        assert_eq!(Ends::choose(vni(0), |_| true), None);
    }

    #[test]
    fn a_link_is_known_by_its_hosts_address() {
        for number in [0, 1, 77, LINKS - 1] {
            let ends = Ends::nth(number);
            assert_eq!(Ends::of_host(ends.host), Some(ends));
            assert_eq!(Ends::of_host(ends.network), None);
        }
        assert_eq!(Ends::of_host(Ipv4Addr::new(169, 254, 169, 253)), None);
        assert_eq!(Ends::of_host(Ipv4Addr::new(169, 254, 255, 1)), None);
    }

    #[test]
    fn names_fit_the_kernel_and_are_recognised() {
        let name = host_name(Vni::FIRST, VXLAN_PORT);
        assert_eq!(name, "sealane00100000");
        assert!(name.len() <= 15 && is_of_host(&name) && !is_of_host("sealane0"));
        assert_ne!(host_name(Vni::FIRST, 14789), name);
    }
}
