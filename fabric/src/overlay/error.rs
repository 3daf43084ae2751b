//! Reasons for which the kernel does not have what a network needs.

use std::io;

use sealane_proto::types::{NetworkName, Vni, WorkloadName};
use sealane_sys::NetNsError;

use super::underlay::UnderlayError;
use crate::netlink::{NetlinkError, SysctlError};
use crate::nft::NftError;
use crate::seat::Interface;

/// Reasons for which a network or workload could not be brought to its state. All but [`OverlayError::VniTaken`],
/// [`OverlayError::PortTaken`], [`OverlayError::InterfaceTaken`] and [`OverlayError::NoSuchDevice`] may pass by themselves: try again.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A namespace could not be opened, made or removed.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// The kernel refused, or could not be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A setting could not be made.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The host has not the underlay address.
    #[error(transparent)]
    Underlay(#[from] UnderlayError),
    /// Another VXLAN device of this host has the number.
    #[error(
        "network {network}: VNI {vni} on UDP port {port} is in use by another VXLAN device of this host, maybe \
         of a second agent or of a namespace that a process keeps alive; stop that, or give this agent another \
         --vxlan-port (the same on every host)"
    )]
    VniTaken {
        /// The network.
        network: NetworkName,
        /// Number of the network.
        vni: Vni,
        /// The UDP port.
        port: u16,
    },
    /// Another program of this host has the tunnels' port.
    #[error(
        "network {network}: UDP port {port}, by which its tunnels come in, is in use by another program of this host: `ss -lunp \
         sport = :{port}` shows which; stop that, or give this agent another --vxlan-port (the same on every host)"
    )]
    PortTaken {
        /// The network.
        network: NetworkName,
        /// The UDP port.
        port: u16,
    },
    /// Another VXLAN device of this host has the VNI of echoes.
    #[error(
        "VNI {} on UDP port {port} is in use by another VXLAN device of this host, maybe of a second agent; stop that, or give \
         this agent another --vxlan-port (the same on every host)",
        Vni::ECHO
    )]
    EchoInUse {
        /// The UDP port.
        port: u16,
    },
    /// The workload's namespace has an interface of that name, of somebody else's.
    #[error(
        "workload {workload}: its namespace has an interface {interface} already; attach another namespace"
    )]
    InterfaceTaken {
        /// The workload.
        workload: WorkloadName,
        /// The interface.
        interface: Interface,
    },
    /// The kernel lacks a kind of device.
    #[error("this kernel has no {kind} devices: load the module with `modprobe {kind}`")]
    NoSuchDevice {
        /// vxlan, bridge or veth.
        kind: &'static str,
    },
    /// The network's rules.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// A thread of this process failed.
    #[error("cannot do the work: {0}")]
    Thread(#[from] io::Error),
}

impl OverlayError {
    /// Returns true if it concerns the one workload that was worked on, and says nothing of its neighbours.
    pub(super) fn is_of_one_workload(&self) -> bool {
        match self {
            Self::InterfaceTaken { .. }
            | Self::Sysctl(_)
            | Self::Thread(_)
            | Self::Netlink(NetlinkError::Refused { .. }) => true,
            // The system's own errors, such as that of too many open files, have a number.
            Self::Netlink(NetlinkError::Socket(error)) => error.raw_os_error().is_none(),
            Self::Namespace(_)
            | Self::Underlay(_)
            | Self::VniTaken { .. }
            | Self::PortTaken { .. }
            | Self::EchoInUse { .. }
            | Self::NoSuchDevice { .. }
            | Self::Nft(_) => false,
        }
    }
}
