//! Keeps asking.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use sealane_base::task::{self, Task};
use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::ServicePort;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use tokio::sync::watch;

use super::families::Families;
use super::listening::Listening;
use super::pace::Pace;

/// Ports that must be listened on for a workload to be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// The workload's address.
    pub address: Ipv4Addr,
    /// The one that is made from it, in a network with IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The ports it offers; without any it is ready at once.
    pub ports: Vec<ServicePort>,
    /// True if one of them is enough.
    pub any_port: bool,
    /// The ports of its sidecar, which listens on them from the start: they never make the application ready.
    pub sidecar: Option<SidecarPorts>,
}

impl ProbeTarget {
    fn is_reachable(&self) -> bool {
        let taken = |port: &ServicePort| self.sidecar.is_some_and(|own| own.has(port));
        !self.ports.iter().any(taken)
    }
}

/// Watches at which addresses `target` is ready, in `ns`: while it starts after 1, 2, 4, 8 and 16 ms, then every 20 ms, at most
/// 30 s, then every 250 ms; every 500 ms while it is ready. A look costs two system calls per port and family (a few microseconds);
/// 500 ready workloads of one port take some 2,000 system calls a second.
///
/// Starts as not ready. The task holds a socket in `ns`: drop it before the namespace is to go. Blocks for the hop
/// into the namespace, well under a millisecond.
///
/// # Errors
/// When the namespace cannot be entered, or at the limit of open files.
///
/// # Panics
/// Outside a tokio runtime.
pub fn watch(
    hopper: &Hopper,
    ns: &NetNs,
    target: ProbeTarget,
) -> io::Result<(watch::Receiver<Families>, Task)> {
    let listening = Listening::open(hopper, ns)?;
    let (ready, seen) = watch::channel(Families::default());
    Ok((seen, task::spawn("health", keep_asking(listening, target, ready))))
}

async fn keep_asking(listening: Listening, target: ProbeTarget, ready: watch::Sender<Families>) {
    let mut pace = Pace::new(Instant::now());
    let mut failing = false;
    loop {
        let look = || listening.listening(&target);
        let seen = if target.is_reachable() { look() } else { Ok(Families::default()) };
        match &seen {
            Err(error) if !failing => {
                tracing::warn!(address = %target.address, %error, "cannot see whether a workload listens");
            }
            Ok(_) | Err(_) => {}
        }
        failing = seen.is_err();
        // What cannot be seen is taken to be as it was.
        let now_ready = seen.unwrap_or(*ready.borrow());
        ready.send_if_modified(|known| std::mem::replace(known, now_ready) != now_ready);
        let wait = pace.handle(now_ready.any(), Instant::now());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = ready.closed() => return,
        }
    }
}
