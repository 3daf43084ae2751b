//! The gate of this host's tunnels in the kernel: who may send into which network.
//!
//! What is there from an agent before this one stays until this one knows better: no network is open in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use sealane_proto::resource::Network;
use sealane_proto::types::{NetworkName, Vni};
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, RunDir};

use super::plan::Desired;
use super::{KernelAccess, lock};
use crate::netlink::NetlinkError;
use crate::nft::change::Changes;
use crate::nft::client::{self, Tables};
use crate::nft::gate::{Carried, Carriers, Gate, tunnels_of};
use crate::nft::ruleset::{Family, TableName};

/// Purposes of transactions, for their errors.
const REMOVE: &str = "remove the gate of tunnels";
const WHAT: &str = "let nobody but the hosts of a network into its tunnels";

/// The table of the agent with this run directory: every agent of a host has its own.
fn table_name(run_dir: &RunDir) -> TableName {
    let run_dir: std::path::PathBuf = run_dir.path().components().collect();
    let hash = crc32fast::hash(run_dir.as_os_str().as_encoded_bytes());
    TableName::new(Family::Inet, format!("sealane-tunnels-{hash:08x}"))
}

fn removal(table: &TableName) -> Changes {
    let mut changes = Changes::default();
    changes.remove(table.clone());
    changes
}

/// The gate of one agent.
#[derive(Debug)]
pub(super) struct HostGate {
    table: TableName,
    wanted: Gate,
    /// True once the remains of an agent before this one were seen.
    adopted: bool,
    /// Gate that the kernel has; nothing is known after a start or a failure.
    known: Option<Gate>,
    /// The ruleset's generation when that was so.
    generation: Option<u32>,
}

/// The namespace of the host whose tunnels are guarded, and the way into it.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostNamespace<'a> {
    pub(super) hopper: &'a Hopper,
    pub(super) host: &'a NetNs,
}

impl HostGate {
    pub(super) fn new(run_dir: &RunDir, port: u16) -> Self {
        let wanted = Gate { port, devices: None, tunnels: BTreeMap::new() };
        Self { table: table_name(run_dir), wanted, adopted: false, known: None, generation: None }
    }

    /// Lets these hosts into the tunnel, and nobody else. What is known to be so is not looked at.
    pub(super) fn admit(
        &mut self,
        namespace: HostNamespace<'_>,
        tunnel: &Carried,
        carriers: Carriers,
    ) -> Result<(), NetlinkError> {
        self.adopt(namespace)?;
        // A number is one network's: of an older one that is still here, packets are not told apart.
        self.wanted.tunnels.retain(|other, known| other == tunnel || known.vni != carriers.vni);
        self.wanted.tunnels.insert(tunnel.clone(), carriers);
        if self.known.as_ref() == Some(&self.wanted) { Ok(()) } else { self.ensure(namespace).map(drop) }
    }

    /// Lets nobody into a network of which no hosts are known yet.
    pub(super) fn close(
        &mut self,
        namespace: HostNamespace<'_>,
        network: &NetworkName,
        vni: Vni,
    ) -> Result<(), NetlinkError> {
        self.adopt(namespace)?;
        let tunnel = Carried::Network(network.clone());
        let known = self.wanted.tunnels.get(&tunnel).filter(|known| known.vni == vni);
        let hosts = known.map(|known| known.hosts.clone()).unwrap_or_default();
        self.admit(namespace, &tunnel, Carriers { vni, hosts })
    }

    /// Forgets the tunnels that are none of `kept`; with the last one the table goes.
    pub(super) fn retain(
        &mut self,
        namespace: HostNamespace<'_>,
        kept: impl Fn(&Carried) -> bool,
    ) -> Result<(), NetlinkError> {
        self.adopt(namespace)?;
        self.wanted.tunnels.retain(|tunnel, _| kept(tunnel));
        if self.known.as_ref() == Some(&self.wanted) { Ok(()) } else { self.ensure(namespace).map(drop) }
    }

    /// Makes the table what it should be, unless it is that by the ruleset's generation; answers whether somebody else had
    /// changed it.
    pub(super) fn ensure(&mut self, namespace: HostNamespace<'_>) -> Result<bool, NetlinkError> {
        self.adopt(namespace)?;
        let HostNamespace { hopper, host } = namespace;
        let before = client::generation(hopper, host)?;
        // Nothing is known until all is done.
        let known = self.known.take();
        let unchanged = self.generation == Some(before);
        if unchanged && known.as_ref() == Some(&self.wanted) {
            self.known = known;
            return Ok(false);
        }
        let (there, drifted) = if unchanged && known.is_some() {
            (known, false)
        } else {
            // The gate is read as the one that was made: what is wanted may have got another device since.
            let made = known.as_ref().unwrap_or(&self.wanted);
            let found = match self.read(namespace, made) {
                Ok(found) => found,
                Err(error) => {
                    // What was changed meanwhile is still drift at the next look.
                    self.known = known;
                    return Err(error);
                }
            };
            let drifted = known.is_some() && known != found;
            (found, drifted)
        };
        let changes = there.as_ref() != Some(&self.wanted);
        if changes {
            self.put(namespace, there)?;
        }
        let now = client::generation(hopper, host)?;
        self.known = Some(self.wanted.clone());
        // Any other number says that somebody else was at it, too.
        self.generation = (now == before.wrapping_add(u32::from(changes))).then_some(now);
        Ok(drifted)
    }

    fn put(
        &self,
        HostNamespace { hopper, host }: HostNamespace<'_>,
        there: Option<Gate>,
    ) -> Result<(), NetlinkError> {
        let commit = |changes: &Changes, what| client::commit(hopper, host, changes, what);
        if self.wanted.tunnels.is_empty() {
            return commit(&removal(&self.table), REMOVE);
        }
        if let Some(there) = there.filter(|there| !there.tunnels.is_empty()) {
            match commit(&self.wanted.difference(&self.table, &there), WHAT) {
                Err(NetlinkError::Refused { refusal, .. }) => {
                    tracing::debug!(%refusal, "the gate of tunnels is made anew");
                }
                outcome => return outcome,
            }
        }
        commit(&self.wanted.replacement(&self.table), WHAT)
    }

    /// Takes over what an agent before this one has left: those networks stay guarded until they are told of, or forgotten.
    fn adopt(&mut self, HostNamespace { hopper, host }: HostNamespace<'_>) -> Result<(), NetlinkError> {
        if self.adopted {
            return Ok(());
        }
        let listed = Tables::open(hopper, host)?.read(&self.table)?.unwrap_or_default();
        for (tunnel, carriers) in tunnels_of(listed) {
            self.wanted.tunnels.entry(tunnel).or_insert(carriers);
        }
        self.adopted = true;
        Ok(())
    }

    /// Reads the kernel's gate, when it is one of the port and device of `made` and nothing else; none at all is one without
    /// networks.
    fn read(
        &self,
        HostNamespace { hopper, host }: HostNamespace<'_>,
        made: &Gate,
    ) -> Result<Option<Gate>, NetlinkError> {
        Ok(match Tables::open(hopper, host)?.read(&self.table)? {
            Some(listed) => Gate::read(listed, made),
            None => Some(Gate { tunnels: BTreeMap::new(), ..made.clone() }),
        })
    }
}

impl KernelAccess {
    fn namespace(&self) -> HostNamespace<'_> {
        HostNamespace { hopper: &self.hopper, host: &self.host }
    }

    /// Acts on the gate, which knows the devices with the underlay addresses by then. While no device has it, none is trusted: the
    /// number of one that is gone may become another's, as of a container's link that is moved here.
    fn with_gate<T>(&self, act: impl FnOnce(&mut HostGate) -> T) -> T {
        let devices = self.devices_beneath();
        let mut gate = lock(&self.gate);
        gate.wanted.devices = devices;
        act(&mut gate)
    }

    /// Lets the hosts that carry the network into it, before there is a way.
    pub(super) fn admit_carriers(&self, network: &Network, desired: &Desired) -> Result<(), NetlinkError> {
        let carriers = Carriers { vni: network.vni, hosts: (*desired.carriers).clone() };
        let tunnel = Carried::Network(network.name.clone());
        self.with_gate(|gate| gate.admit(self.namespace(), &tunnel, carriers))
    }

    /// Lets the echoes of these hosts in, before there is a device for them; of nobody any more without one.
    pub(super) fn admit_echoes(&self, hosts: BTreeSet<IpAddr>) -> Result<(), NetlinkError> {
        let namespace = self.namespace();
        if hosts.is_empty() {
            return lock(&self.gate).retain(namespace, |tunnel| *tunnel != Carried::Echo);
        }
        let carriers = Carriers { vni: Vni::ECHO, hosts };
        self.with_gate(|gate| gate.admit(namespace, &Carried::Echo, carriers))
    }

    /// Lets nobody into the network of whom nothing was said.
    pub(super) fn close_to_strangers(&self, network: &Network) -> Result<(), NetlinkError> {
        self.with_gate(|gate| gate.close(self.namespace(), &network.name, network.vni))
    }

    pub(super) fn forget_carriers(&self, kept: impl Fn(&NetworkName) -> bool) -> Result<(), NetlinkError> {
        let kept = |tunnel: &Carried| match tunnel {
            Carried::Network(network) => kept(network),
            Carried::Echo => true,
        };
        lock(&self.gate).retain(self.namespace(), kept)
    }

    /// Packets that were refused so far, by their counters.
    pub(super) fn gate_counters(&self) -> Result<Vec<(String, u64)>, NetlinkError> {
        let table = lock(&self.gate).table.clone();
        client::counters(&self.hopper, &self.host, &table.name)
    }

    /// Makes the gate what it should be; answers whether somebody else had changed it.
    pub(super) fn ensure_gate(&self) -> Result<bool, NetlinkError> {
        self.with_gate(|gate| gate.ensure(self.namespace()))
    }
}

/// Removes the gate of the agent with this run directory from the host whose namespace the calling thread is in; answers
/// whether there was one. For a host that is cleaned: no network of that agent may be there any more.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_gate(run_dir: &RunDir) -> Result<bool, NetlinkError> {
    let hopper = Hopper::start()?;
    let host = NetNs::current().map_err(io::Error::other)?;
    let table = table_name(run_dir);
    let mut tables = Tables::open(&hopper, &host)?;
    if !tables.has(&table)? {
        return Ok(false);
    }
    tables.commit(&removal(&table), REMOVE).map(|()| true)
}

/// Tries in `ns` whether the kernel has everything that the gate uses; leaves nothing behind.
///
/// # Errors
/// With what is missing.
pub(super) fn probe(hopper: &Hopper, ns: &NetNs) -> Result<(), NetlinkError> {
    let Ok(network) = "probe".parse::<NetworkName>() else { return Ok(()) };
    let mut gate = HostGate::new(&RunDir::from("/probe"), crate::netlink::VXLAN_PORT);
    let namespace = HostNamespace { hopper, host: ns };
    gate.close(namespace, &network, Vni::FIRST)?;
    gate.retain(namespace, |_| false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_with_different_run_directories_have_different_tables() {
        let name = |path: &str| table_name(&RunDir::from(path));
        assert_eq!(name("/run/sealane"), name("/run//sealane/"));
        assert_ne!(name("/run/sealane"), name("/run/sealane-2"));
    }
}
