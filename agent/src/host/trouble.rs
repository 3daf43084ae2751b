//! Problems of a network on this host, in words.

use sealane_proto::types::NetworkName;

/// Kind of a network's problem.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// The network cannot be set up.
    Kernel,
    /// There is no way out of it.
    Egress,
    /// The kernel does not take what control says of other hosts' workloads.
    Rows,
    /// The network's packets are too long for this host's ways to the others.
    Packets,
    /// Workloads have lost their way into it.
    CutOff,
    /// The network cannot be kept on disk.
    Disk,
    /// Control knows nothing of it.
    Unknown,
}

impl Trouble {
    /// Describes it for `status`.
    pub(super) fn sentence(self, network: &NetworkName, error: &str) -> String {
        match self {
            Self::Kernel => format!("network {network} cannot be set up: {error}"),
            Self::Egress => {
                format!("workloads of network {network} may not reach the world outside: {error}")
            }
            Self::Rows => format!(
                "workloads of network {network} on another host are not reached from here: {error}; `sealane node ls` shows the \
                 hosts' addresses: give that host another --underlay, or remove it"
            ),
            Self::Packets => format!(
                "packets of network {network} are too long for this host's ways to the others: {error}; large ones are \
                 lost: raise the MTU beneath, or create the network again with a smaller --mtu or without"
            ),
            Self::CutOff => format!(
                "workloads of network {network} are cut off, somebody removed their interfaces and the handles of \
                 their namespaces: {error}; end them and start them again"
            ),
            Self::Disk => format!("what control said of network {network} cannot be kept: {error}"),
            Self::Unknown => format!(
                "control knows no network {network}; its workloads here go on as they are and hear of no others: \
                 end them, or create the network again"
            ),
        }
    }
}
