//! Requirements on this host, tried by really making everything in a namespace that goes right away.

use std::fs::OpenOptions;
use std::io;

use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan};
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::gate;
use crate::netlink::{LinkRequest, NetlinkError, Socket, VXLAN_PORT};
use crate::nft::{self, NftError};
use crate::services::{self, ServiceError};

/// Something that this host lacks, with the fix.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// No right to make network namespaces.
    #[error(
        "no right to make network namespaces ({0}); run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN"
    )]
    Privilege(String),
    /// A kind of device.
    #[error("the kernel cannot make a {kind} device ({reason}); load it with `modprobe {kind}`")]
    Device {
        /// vxlan, bridge or veth.
        kind: &'static str,
        /// Error of the kernel.
        reason: String,
    },
    /// nftables, the program or the kernel's part.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The gate that keeps strangers out of tunnels cannot be made.
    #[error(
        "the gate of tunnels cannot be made: {0}; load what it needs with `modprobe nf_tables nft_fib_inet nft_objref`"
    )]
    Gate(#[source] NetlinkError),
    /// The rules that balance service addresses cannot be made.
    #[error(transparent)]
    Services(#[from] ServiceError),
    /// Kernel settings cannot be written.
    #[error("/proc/sys cannot be written ({0}); mount it read-write, as in a privileged container")]
    Sysctl(io::Error),
}

/// Checks that everything is there that overlay networks and sidecars need. Blocks for some milliseconds.
///
/// # Errors
/// With everything that is missing.
pub fn check(hopper: &Hopper) -> Result<(), Vec<Missing>> {
    let ns = NetNs::anonymous().map_err(|error| vec![Missing::Privilege(error.to_string())])?;
    let mut socket =
        Socket::open(hopper, &ns).map_err(|error| vec![Missing::Privilege(error.to_string())])?;
    let vxlan = vec![InfoVxlan::Id(1), InfoVxlan::Port(VXLAN_PORT)];
    let devices = [
        ("bridge", LinkRequest::named("probe0").kind(InfoKind::Bridge)),
        ("vxlan", LinkRequest::named("probe1").data(InfoKind::Vxlan, InfoData::Vxlan(vxlan))),
        ("veth", LinkRequest::named("probe2").veth(LinkRequest::named("probe3"))),
    ];
    let mut missing: Vec<Missing> = devices
        .into_iter()
        .filter_map(|(kind, device)| {
            let outcome: Result<(), NetlinkError> =
                socket.request(device.create(), || format!("make a {kind} device"));
            outcome.err().map(|error| Missing::Device { kind, reason: error.to_string() })
        })
        .collect();
    missing.extend(nft::probe(hopper, &ns).err().map(Missing::from));
    missing.extend(gate::probe(hopper, &ns).err().map(Missing::Gate));
    missing.extend(services::probe(hopper, &ns).err().map(Missing::from));
    let writable = hopper
        .run(&ns, || OpenOptions::new().write(true).open("/proc/sys/net/ipv4/ip_forward").map(drop))
        .and_then(|outcome| outcome);
    missing.extend(writable.err().map(Missing::Sysctl));
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}
