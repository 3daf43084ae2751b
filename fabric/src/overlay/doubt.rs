//! Networks that somebody else has changed, as the kernel's notices tell, and the host's ends of their links.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use sealane_base::task;
use sealane_proto::types::NetworkName;
use tokio::sync::watch;

use super::plan::Base;
use super::{KernelAccess, NetworkCache, Overlay, lock};
use crate::egress::link::{self, Ends};
use crate::netlink::{Address, Link, NetlinkError, Route, Socket};

/// The host, as far as links to networks are concerned.
struct HostLinks {
    links: Vec<Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
}

impl Overlay {
    /// The networks in which something was found changed that no look has begun to mend: they should be looked at as a whole.
    #[must_use]
    pub fn doubted(&self) -> watch::Receiver<BTreeSet<NetworkName>> {
        self.ears.doubted.subscribe()
    }

    /// Looks whether the host's ends of the links are as the passes have left them; answers whether one is not.
    pub(super) async fn look_at_links(&self) -> bool {
        let known =
            |(name, carried): (&NetworkName, &Arc<Mutex<NetworkCache>>)| (name.clone(), carried.clone());
        let carried: Vec<_> = lock(&self.carried).iter().map(known).collect();
        let kernel = self.kernel.clone();
        let changed = task::blocking(move || kernel.changed_links(&carried)).await;
        match changed.map_err(NetlinkError::from).and_then(|changed| changed) {
            Ok(changed) if changed.is_empty() => false,
            Ok(changed) => {
                self.ears.doubt(changed);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the links between the host and its networks cannot be looked at");
                false
            }
        }
    }
}

impl KernelAccess {
    fn changed_links(
        &self,
        carried: &[(NetworkName, Arc<Mutex<NetworkCache>>)],
    ) -> Result<BTreeSet<NetworkName>, NetlinkError> {
        // First what is wanted: a link that is made meanwhile is there then.
        let wanted = carried.iter().filter_map(|(name, carried)| {
            let base = lock(carried).settled.as_ref()?.base();
            (!base.egress.is_denied()).then_some((name, base))
        });
        let wanted: Vec<(&NetworkName, Base)> = wanted.collect();
        if wanted.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut host = Socket::open(&self.hopper, &self.host)?;
        let found = HostLinks { links: host.links()?, addresses: host.addresses()?, routes: host.routes()? };
        let changed = wanted.into_iter().filter(|(_, base)| !found.has(base, self.config.vxlan_port));
        Ok(changed.map(|(name, _)| name.clone()).collect())
    }
}

impl HostLinks {
    fn has(&self, base: &Base, vxlan_port: u16) -> bool {
        let name = link::host_name(base.vni, vxlan_port);
        let right = |link: &&Link| link.name == name && link.up && link.mtu == base.mtu;
        let Some(link) = self.links.iter().find(right) else { return false };
        let mut ends = self.addresses.iter().filter(|known| known.index == link.index).filter_map(|known| {
            match known.address {
                IpAddr::V4(address) => Ends::of_host(address),
                IpAddr::V6(_) => None,
            }
        });
        ends.any(|ends| {
            let leads = |route: &Route| route.index == link.index && route.destination == ends.net();
            self.routes.iter().any(leads)
        })
    }
}
