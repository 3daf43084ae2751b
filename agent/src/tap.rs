//! Virtual machines as workloads: a TAP device for the emulator (`-netdev tap,ifname=NAME`), on which DHCP tells the machine the
//! address that it was given when it was attached. Its port is guarded as any.
//!
//! The machine is what its namespace, a room that nobody else enters, has at the other end of a wire. It lives until it is dismissed
//! (`detach`), whatever becomes of the emulator.

mod device;
mod dhcp;
mod frame;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod metrics;
mod serve;

use std::io;
use std::sync::Arc;

use sealane_base::task::{self, Task};
use sealane_fabric::seat::DeviceName;
use sealane_proto::types::MacAddr;
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, RunDir};

use crate::attachment::{AttachmentId, Hold, Seated};
use crate::trouble::Troubles;
pub(crate) use device::{TapError, exists, is_ours, room};
use device::{TapWire, all, tear_down};
pub(crate) use metrics::TapMetrics;
use serve::Machine;

/// Prefix of the names of machines' holders.
const HOLDER: &str = "tap/";

/// The holder of a device's machine.
#[must_use]
pub(crate) fn holder(device: &DeviceName) -> Option<Hold> {
    format!("{HOLDER}{device}").parse().ok()
}

/// The device of a holder's machine, if it is one's.
#[must_use]
pub(crate) fn device_of(hold: &Hold) -> Option<DeviceName> {
    hold.as_str().strip_prefix(HOLDER)?.parse().ok()
}

/// A TAP device that stands, and answers DHCP until this is dropped.
#[derive(Debug)]
pub(crate) struct Tap {
    _task: Task,
}

/// The devices of this host's virtual machines.
#[derive(Debug)]
pub(crate) struct Machines {
    hopper: Arc<Hopper>,
    run_dir: RunDir,
    metrics: TapMetrics,
    troubles: Arc<Troubles>,
}

impl Machines {
    /// Machines whose rooms are below `run_dir`, and whose problems are `troubles`.
    #[must_use]
    pub(crate) fn new(
        hopper: Arc<Hopper>,
        run_dir: RunDir,
        metrics: TapMetrics,
        troubles: Arc<Troubles>,
    ) -> Self {
        Self { hopper, run_dir, metrics, troubles }
    }

    /// Makes the device of a machine that is attached with `seat`, whose interface is in `room`, or finds it; the network's own
    /// Ethernet address is `gateway_mac`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn lay(
        self: &Arc<Self>,
        id: &AttachmentId,
        (device, room): (DeviceName, &NetNs),
        (seat, gateway_mac): (&Seated, MacAddr),
    ) -> Result<Tap, TapError> {
        let (host, room) = (NetNs::current()?, room.try_clone()?);
        let way = Arc::new(TapWire { device, host, room, interface: seat.interface.clone() });
        let (hopper, laid) = (self.hopper.clone(), way.clone());
        let stands = task::blocking(move || laid.ensure(&hopper, None, true)).await??;
        let machine = Machine::new(self.clone(), id.clone(), way, seat, gateway_mac);
        Ok(Tap { _task: task::spawn("tap", machine.serve(stands)) })
    }

    /// Removes a machine's device and room; what is gone already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn remove(&self, device: DeviceName) -> Result<(), TapError> {
        let (hopper, run_dir) = (self.hopper.clone(), self.run_dir.clone());
        let host = NetNs::current()?;
        task::blocking(move || tear_down(&hopper, &host, &run_dir, &device)).await?
    }
}

/// Removes what an agent of before has left of machines that are not `known`; answers their devices.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn sweep(
    hopper: &Hopper,
    run_dir: &RunDir,
    known: impl Fn(&DeviceName) -> bool,
) -> Result<Vec<DeviceName>, TapError> {
    let host = NetNs::current()?;
    let unknown: Vec<DeviceName> = all(run_dir)?.into_iter().filter(|device| !known(device)).collect();
    for device in &unknown {
        tracing::info!(%device, "removing the TAP device of a machine that is gone");
        tear_down(hopper, &host, run_dir, device)?;
    }
    Ok(unknown)
}

/// Removes every TAP device and room, for a host without a trace of us. Blocks; answers what was removed.
///
/// # Errors
/// When the kernel refuses.
pub fn clean(run_dir: &RunDir) -> io::Result<Vec<String>> {
    let devices = sweep(&Hopper::start()?, run_dir, |_| false).map_err(io::Error::other)?;
    Ok(devices.iter().map(|device| format!("TAP device {device}")).collect())
}
