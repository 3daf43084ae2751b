//! The host itself: rights, kernel, limits, clock, the network beneath, disk.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::{FsFlags, statvfs};
use sealane_fabric::netlink::{NetlinkError, Socket};
use sealane_fabric::overlay::{Underlay, UnderlayChoice, UnderlayError, preflight, source_towards};
use sealane_proto::types::{Mtu, UnderlayAddr};
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, clock as kernel_clock};

use super::Finding;

/// Number of descriptors that a host with some hundred workloads needs.
const DESCRIPTORS: u64 = 20_000;
/// Room that the state of a mesh may want, in bytes.
const ROOM: u64 = 100 << 20;
/// The smallest inner MTU of a network.
const SMALLEST_MTU: u32 = Mtu::MIN as u32;
/// The smallest inner MTU of a network with IPv6.
const SMALLEST_MTU_IPV6: u32 = Mtu::MIN_IPV6 as u32;

pub(super) fn privileges() -> Vec<Finding> {
    if nix::unistd::geteuid().is_root() {
        return vec![Finding::ok("privileges", "root")];
    }
    let hint = crate::failure::as_root(std::env::args_os());
    vec![Finding::problem("privileges", "not root: nothing of the kernel can be tried", hint)]
}

pub(super) fn kernel() -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let tried = match Hopper::start() {
        Ok(hopper) => preflight::check(&hopper),
        Err(error) => return vec![Finding::told("kernel", &format!("cannot enter namespaces: {error}"))],
    };
    match tried {
        Ok(()) => {
            let what = "network namespaces, vxlan, bridge, veth, nf_tables";
            vec![Finding::ok("kernel", format!("Linux {}: {what}", release.trim()))]
        }
        Err(missing) => missing.iter().map(|missing| Finding::told("kernel", &missing.to_string())).collect(),
    }
}

pub(super) fn limits() -> Vec<Finding> {
    let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Vec::new() };
    if most >= DESCRIPTORS {
        return vec![Finding::ok("limits", format!("{most} open files"))];
    }
    let finding = format!("only {most} open files are allowed: enough for about {} workloads", most / 40);
    vec![Finding::warning("limits", finding, "raise LimitNOFILE= of the unit, or `ulimit -n`")]
}

pub(super) fn clock() -> Vec<Finding> {
    match kernel_clock::is_synchronised() {
        Ok(true) => vec![Finding::ok("clock", "synchronised")],
        Ok(false) => vec![Finding::warning(
            "clock",
            "no time service keeps it right: certificates are checked by it",
            "install one (`apt-get install chrony`)",
        )],
        Err(error) => {
            vec![Finding::warning("clock", format!("cannot be judged: {error}"), "see adjtimex(2)")]
        }
    }
}

/// The device that carries the outer packets, and what fits into them.
pub(super) fn underlay(choice: &UnderlayChoice) -> Vec<Finding> {
    match chosen(choice) {
        Err(error) => vec![Finding::told("underlay", &error.to_string())],
        Ok(underlay) => {
            let (inner, device) = (underlay.inner_mtu(), &underlay.device);
            let text = format!("{} on {device}, MTU {}, {inner} inside", underlay.address, underlay.mtu);
            if inner >= SMALLEST_MTU_IPV6 {
                vec![Finding::ok("underlay", text)]
            } else if inner >= SMALLEST_MTU {
                // Where there is such a network, the agent names it.
                let text =
                    format!("{text}: enough for networks without IPv6, which takes {SMALLEST_MTU_IPV6}");
                vec![Finding::ok("underlay", text)]
            } else {
                let hint = format!("raise it (`ip link set {device} mtu 1500`), on every host");
                vec![Finding::problem("underlay", text, hint)]
            }
        }
    }
}

fn chosen(choice: &UnderlayChoice) -> Result<Underlay, UnderlayError> {
    let (own, hopper) = (NetNs::current()?, Hopper::start().map_err(NetlinkError::from)?);
    let address = match choice.resolve(&hopper, None, None)? {
        Some(address) => address,
        // Where an agent without --underlay looks: towards some address far away; nothing is sent.
        None => source_to_elsewhere()?,
    };
    Underlay::find(&mut Socket::open(&hopper, &own)?, address)
}

/// The source address of packets to far away, of IPv4 where there is a way, else of IPv6.
fn source_to_elsewhere() -> Result<UnderlayAddr, UnderlayError> {
    let v6 = SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), 7443);
    let found = source_towards(SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 7443));
    found.or_else(|error| source_towards(v6).map_err(|_| error))
}

pub(super) fn disk(data_dir: &Path) -> Vec<Finding> {
    let there = data_dir.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let (shown, Ok(space)) = (data_dir.display(), statvfs(there)) else { return Vec::new() };
    let free = space.blocks_available() * space.fragment_size();
    let text = format!("{} MiB free for {shown}", free >> 20);
    if space.flags().contains(FsFlags::ST_RDONLY) {
        let text = format!("{shown} is mounted read-only");
        return vec![Finding::problem(
            "disk",
            text,
            "nothing new is taken in: see why in the kernel's log, and mount it anew",
        )];
    }
    if free >= ROOM {
        vec![Finding::ok("disk", text)]
    } else {
        vec![Finding::problem("disk", text, "nothing new is taken in when it is full: make room")]
    }
}
