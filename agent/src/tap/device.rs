//! The devices between a virtual machine and its network: a TAP device in the host's namespace, which the machine's emulator
//! opens; a pair of devices; and the workload's interface in a namespace of its own, its room. Wires of rules join them, so that
//! neither the host nor the room sees the machine's frames. Safe to repeat.

use std::io;
use std::path::PathBuf;

use sealane_base::disk;
use sealane_fabric::netlink::{InfoKind, Link, LinkRequest, NetlinkError, Socket, Sysctl, SysctlError};
use sealane_fabric::nft::{self, HOST_LINK, NftError};
use sealane_fabric::seat::{self, DeviceName};
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, NetNsError, RunDir, tap};

/// Prefix of the names of pairs' outer ends.
const OUTER: &str = "slt";
/// The pair's end in the room.
const INNER: &str = "tap0";
const IN_ROOM: &str = "sealane-tap";

/// Reasons for which a device does not stand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TapError {
    /// The device is no TAP device of ours.
    #[error("there is a device {0} on this host already; hint: choose another name with --tap")]
    Taken(DeviceName),
    /// The kernel makes none.
    #[error(
        "cannot make TAP device {device}: {}; it needs /dev/net/tun (`modprobe tun`)",
        sealane_base::text::plain(source)
    )]
    Device {
        /// The device.
        device: DeviceName,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The workload's interface is not there.
    #[error("interface {0} is not there")]
    NoInterface(String),
    /// The kernel could not be asked or told.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A setting.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The rules.
    #[error("its wires: {0}; they need `modprobe nft_fwd_netdev`")]
    Nft(#[from] NftError),
    /// A namespace.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// A namespace could not be entered.
    #[error(transparent)]
    Enter(#[from] io::Error),
}

/// The way from a TAP device to a workload's interface.
#[derive(Debug)]
pub(super) struct TapWire {
    pub(super) device: DeviceName,
    pub(super) host: NetNs,
    pub(super) room: NetNs,
    /// The workload's interface in the room.
    pub(super) interface: String,
}

/// Parts of a device that stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TapState {
    /// The number of the pair's end in the room.
    pub(super) inner: u32,
    /// Of all the devices, in bytes.
    pub(super) mtu: u32,
    /// By which they are known to be the same ones.
    known: [u32; 4],
}

pub(crate) fn room(run_dir: &RunDir, device: &DeviceName) -> PathBuf {
    run_dir.taps().join(device.as_str())
}

/// A number for the device's pair and table that no other device's has: 48 bits of that of its name.
fn number(device: &str) -> String {
    format!("{:012x}", seat::number(device) & 0xffff_ffff_ffff)
}

/// Returns true if a device of this name would be taken for one that agents make on the host: rules and removals know those by how their
/// names begin.
#[must_use]
pub(crate) fn is_ours(device: &DeviceName) -> bool {
    [HOST_LINK, OUTER].into_iter().any(|ours| device.as_str().starts_with(ours))
}

/// Returns true if the host has a device of this name.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn exists(hopper: &Hopper, host: &NetNs, device: &DeviceName) -> Result<bool, TapError> {
    Ok(Socket::open(hopper, host)?.link(device.as_str())?.is_some())
}

impl TapWire {
    /// Makes what is missing; rules are put in when something was, or `anew`.
    pub(super) fn ensure(
        &self,
        hopper: &Hopper,
        before: Option<TapState>,
        anew: bool,
    ) -> Result<TapState, TapError> {
        let (mut host, mut room) = (Socket::open(hopper, &self.host)?, Socket::open(hopper, &self.room)?);
        let device = self.device.as_str();
        let interface = room.link(&self.interface)?;
        let interface = interface.ok_or_else(|| TapError::NoInterface(self.interface.clone()))?;
        let tap = self.ensure_tap(hopper, &mut host)?;
        let outer = format!("{OUTER}{}", number(device));
        let (outer, inner) = self.ensure_pair(&mut host, &mut room, &outer, interface.mtu)?;
        let known = [interface.index, tap.index, outer.index, inner.index];
        let stands = TapState { inner: inner.index, mtu: interface.mtu, known };
        if before.is_none_or(|before| before.known != known) || anew {
            self.quiet(hopper, &outer.name)?;
            let table = format!("{IN_ROOM}-{}", number(device));
            nft::ensure_wire(hopper, &self.host, &table, [device, &outer.name], false)?;
            nft::ensure_wire(hopper, &self.room, IN_ROOM, [INNER, &self.interface], true)?;
        }
        // Not before the wires lead them.
        for link in [&tap, &outer] {
            set_up(&mut host, link, interface.mtu)?;
        }
        set_up(&mut room, &inner, interface.mtu)?;
        Ok(stands)
    }

    fn ensure_tap(&self, hopper: &Hopper, host: &mut Socket) -> Result<Link, TapError> {
        let device = self.device;
        if host.link(device.as_str())?.is_none() {
            let made = hopper.run(&self.host, move || tap::persist(device.as_str()))?;
            made.map_err(|source| TapError::Device { device, source })?;
        }
        let link = host.link(device.as_str())?.filter(|link| link.kind == Some(InfoKind::Tun));
        link.ok_or(TapError::Taken(device))
    }

    fn ensure_pair(
        &self,
        host: &mut Socket,
        room: &mut Socket,
        outer: &str,
        mtu: u32,
    ) -> Result<(Link, Link), TapError> {
        if let (Some(out), Some(inside)) = (host.link(outer)?, room.link(INNER)?)
            && out.peer == Some(inside.index)
            && inside.peer == Some(out.index)
        {
            return Ok((out, inside));
        }
        remove(host, outer)?;
        let inner = LinkRequest::named(INNER).mtu(mtu).in_namespace(&self.room);
        let pair = LinkRequest::named(outer).mtu(mtu).veth(inner).create();
        host.request(pair, || format!("make {outer} for {}", self.device))?;
        match (host.link(outer)?, room.link(INNER)?) {
            (Some(outer), Some(inner)) => Ok((outer, inner)),
            (_, _) => Err(TapError::NoInterface(outer.to_owned())),
        }
    }

    /// The host and the room say nothing of their own to the machine.
    fn quiet(&self, hopper: &Hopper, outer: &str) -> Result<(), TapError> {
        let silent = |name: &str| Sysctl::optional(format!("net/ipv6/conf/{name}/disable_ipv6"), "1");
        let settings = vec![silent(self.device.as_str()), silent(outer)];
        Sysctl::ensure(hopper, &self.host, settings)??;
        Sysctl::ensure(hopper, &self.room, vec![silent(INNER)])??;
        Ok(())
    }
}

fn set_up(socket: &mut Socket, link: &Link, mtu: u32) -> Result<(), TapError> {
    if !link.up || link.mtu != mtu {
        let request = LinkRequest::of(link.index).mtu(mtu).up();
        socket.request(request.change(), || format!("set up {}", link.name))?;
    }
    Ok(())
}

fn remove(socket: &mut Socket, name: &str) -> Result<(), TapError> {
    Ok(socket.remove_link(name, || format!("remove {name}"))?)
}

/// Removes everything that was made for a device; what is gone already is no error.
pub(super) fn tear_down(
    hopper: &Hopper,
    host: &NetNs,
    run_dir: &RunDir,
    device: &DeviceName,
) -> Result<(), TapError> {
    let mut socket = Socket::open(hopper, host)?;
    let number = number(device.as_str());
    // One that is no TAP device is not ours, whatever its name is.
    if socket.link(device.as_str())?.is_some_and(|link| link.kind == Some(InfoKind::Tun)) {
        remove(&mut socket, device.as_str())?;
    }
    remove(&mut socket, &format!("{OUTER}{number}"))?;
    nft::remove_wire(hopper, host, &format!("{IN_ROOM}-{number}"))?;
    Ok(NetNs::remove_at(room(run_dir, device))?)
}

/// The devices that have rooms.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn all(run_dir: &RunDir) -> io::Result<Vec<DeviceName>> {
    let rooms = disk::listed(&run_dir.taps())?;
    Ok(rooms.iter().filter_map(|room| room.file_name()?.to_str()?.parse().ok()).collect())
}
