//! The check of a workload, followed while it runs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sealane_base::task::Task;
use sealane_fabric::health::Families;
use sealane_fabric::transition;
use sealane_proto::types::{Check, Transport};
use tokio::net::TcpSocket;
use tokio::sync::watch;

use super::super::pulse::next;
use super::{Life, PortWatch};
use crate::check::{self, Health, Shell, Subject};
use crate::trouble::WorkloadTrouble;

/// A watch over the health of a workload.
struct CheckWatch {
    check: Check,
    seen: watch::Receiver<Option<Health>>,
    _task: Task,
}

/// The watches over a workload's readiness.
pub(super) struct Watches {
    pub(super) ports: Option<PortWatch>,
    check: Option<CheckWatch>,
}

impl Watches {
    /// Returns when one of them has news: with where it listens, or nothing when its health is another one. Cancel safe.
    pub(super) async fn news(&mut self) -> Option<Families> {
        tokio::select! {
            listens = next(self.ports.as_mut().map(|ports| &mut ports.seen)) => Some(listens),
            _health = next(self.check.as_mut().map(|check| &mut check.seen)) => None,
        }
    }
}

impl Life {
    /// Watches its ports, and its health by its check; one that is `known` is as it was until the first verdict.
    pub(super) fn watch_both(&self, any_port: bool, known: bool) -> Watches {
        let ports = self.watch_ports(any_port);
        let check = self.watch_check(ports.as_ref(), known);
        Watches { ports, check }
    }

    /// Watches its ports anew, if another number of them is enough.
    pub(super) fn renew_ports(&self, watches: &mut Watches, any_port: bool) {
        if watches.ports.as_ref().is_some_and(|known| known.any_port != any_port) {
            *watches = self.watch_both(any_port, true);
        }
    }

    /// Follows another check of its service, or that it has none any more; returns what [`Life::note_health`] does.
    pub(super) fn renew_check(&self, watches: &mut Watches) -> Option<bool> {
        let before = watches.check.as_ref().map(|watched| &watched.check);
        if before != self.check().as_ref() {
            watches.check = self.watch_check(watches.ports.as_ref(), true);
        }
        self.note_health(watches)
    }

    /// Says in `status` what its check has found; returns true if that keeps no calls from it, and nothing while it is as it was.
    pub(super) fn note_health(&self, watches: &Watches) -> Option<bool> {
        let health = match &watches.check {
            Some(watched) => watched.seen.borrow().clone(),
            None => Some(Health::Healthy),
        };
        let (healthy, reason, trouble) = match health {
            None => (None, None, None),
            Some(Health::Healthy) => (Some(true), None, None),
            Some(Health::Starting(why)) => {
                let said = why.unwrap_or_else(|| "its check has not passed yet".to_owned());
                (Some(false), Some(said), None)
            }
            Some(Health::Unhealthy(why)) => (Some(false), Some(why.clone()), Some(why)),
        };
        self.context.roster.reasons.set(&self.id, reason);
        self.context.troubles.set(&self.id, WorkloadTrouble::Check, trouble);
        healthy
    }

    /// The workload's check: its own, or else its service's.
    fn check(&self) -> Option<Check> {
        let of_service = || {
            let host_network = self.host_network.borrow();
            let service = self.attachment.workload.service.as_ref()?;
            let known = transition::service(&host_network.snapshot, service);
            known?.external.check.clone()
        };
        self.own_check.clone().or_else(of_service)
    }

    fn watch_check(&self, ports: Option<&PortWatch>, known: bool) -> Option<CheckWatch> {
        let check = self.check()?;
        let workload = &self.attachment.workload;
        let netns = &self.fixtures.as_ref()?.netns;
        let first = workload.ports.iter().find(|port| port.protocol.transport() == Transport::Tcp);
        let subnet6 = self.host_network.borrow().snapshot.network.subnet6;
        let open: Box<dyn Fn(IpAddr) -> io::Result<TcpSocket> + Send + Sync> = match self.machine {
            true => Box::new(self.context.kernel.caller(&self.id.network)),
            false => {
                let (netns, hopper) = (netns.try_clone().ok()?, self.context.kernel.hopper.clone());
                Box::new(move |called| hopper.run(&netns, || from_loopback(called))?)
            }
        };
        let subject = Subject {
            port: check.port.or(first.map(|port| port.port)),
            check: check.clone(),
            addresses: (
                workload.address.to_ipv4().into(),
                subnet6.map(|subnet6| subnet6.address(workload.address).into()),
            ),
            open,
            shell: Shell {
                binary: self.context.sidecars.binary.clone(),
                run_dir: self.context.kernel.run_dir.clone(),
                workload: format!("{}.{}", workload.shown(), workload.network),
            },
            listening: ports.map(|ports| ports.seen.clone()),
            known,
        };
        let (seen, task) = check::watch(subject, self.context.checks.clone());
        Some(CheckWatch { check, seen, _task: task })
    }
}

/// A socket of the namespace that the thread is in, at a loopback address, from where no caller calls.
fn from_loopback(called: IpAddr) -> io::Result<TcpSocket> {
    let (socket, own) = match called {
        IpAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::from(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::from(Ipv6Addr::LOCALHOST)),
    };
    socket.bind((own, 0).into())?;
    Ok(socket)
}
