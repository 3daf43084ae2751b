//! Changes that a pass over a network made in the kernel.

use sealane_proto::types::WorkloadName;

/// The kernel's tables that the overlay writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Devices and their settings.
    Link,
    /// Addresses of devices.
    Address,
    /// Remote MACs: the VXLAN device's forwarding table.
    Fdb,
    /// Remote addresses: neighbours of the VXLAN device.
    Neighbour,
    /// Local MACs: the bridge's forwarding table.
    BridgeFdb,
    /// Ways of networks and workloads to elsewhere.
    Route,
    /// nftables rules.
    Rules,
    /// Rules in the host's iptables.
    Iptables,
    /// Sockets that listen for a sidecar.
    Listener,
    /// Names of namespaces in the run directory.
    Handle,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Link,
        Self::Address,
        Self::Fdb,
        Self::Neighbour,
        Self::BridgeFdb,
        Self::Route,
        Self::Rules,
        Self::Iptables,
        Self::Listener,
        Self::Handle,
    ];

    /// Describes its content, for people.
    #[must_use]
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Link => "devices and settings",
            Self::Address => "addresses",
            Self::Fdb => "forwarding rows",
            Self::Neighbour => "neighbour rows",
            Self::BridgeFdb => "bridge rows",
            Self::Route => "routes",
            Self::Rules => "nft rules",
            Self::Iptables => "iptables rules",
            Self::Listener => "listening sockets of the sidecar",
            Self::Handle => "the namespace handle",
        }
    }

    /// The label of its series.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Address => "address",
            Self::Fdb => "fdb",
            Self::Neighbour => "neighbour",
            Self::BridgeFdb => "bridge_fdb",
            Self::Route => "route",
            Self::Rules => "nft",
            Self::Iptables => "iptables",
            Self::Listener => "listener",
            Self::Handle => "handle",
        }
    }
}

/// Changes of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    changes: [u64; Table::ALL.len()],
    /// Local workloads that have no port and whose namespace is not at its path: to be attached again.
    pub unattached: Vec<WorkloadName>,
    /// Reason for which workloads of the network may not reach the world outside. Inside, all is well.
    pub egress_problem: Option<String>,
    /// Rows of other hosts' workloads that the kernel does not take, and why: those are not reached, all others are.
    pub refused_rows: Option<String>,
    /// Explanation why the network's packets, as long as it was created with, do not fit into this host's ways to the
    /// others.
    pub too_long: Option<String>,
}

impl Applied {
    /// Returns the number of changes in `table`.
    #[must_use]
    pub fn changes(&self, table: Table) -> u64 {
        self.changes[table as usize]
    }

    /// Returns the number of all changes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.changes.iter().sum()
    }

    pub(super) fn count(&mut self, table: Table, changes: usize) {
        self.changes[table as usize] += changes as u64;
    }
}
