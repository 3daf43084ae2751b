//! The rules of service addresses and the names that a workload is told follow the network's state.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::Life;
use crate::host::DataPlane;
use crate::trouble::WorkloadTrouble;

/// Time that flows have to be freed before the workload counts as one that works by a state: a host with many of them walks long.
const FREED: Duration = Duration::from_secs(2);

/// A state by which the rules work, and the end of the walks through the flows before it.
pub(super) type FreeingState = (u64, Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

/// Waits for the end of walks; returns the state whose flows have been freed.
pub(super) async fn freed(freeing: Option<&mut FreeingState>) -> u64 {
    match freeing {
        Some((ruled, walks)) => {
            walks.await;
            *ruled
        }
        None => std::future::pending().await,
    }
}

impl Life {
    /// Takes note of the newest state. Its names are told at once where rules and sidecar carry already what they lead to.
    pub(super) async fn note_newest(&mut self) {
        self.take_newest();
        self.follow_subnet().await;
        let host_network = self.host_network.borrow().clone();
        let table = host_network.services.of(self.attachment.workload.sidecar);
        let carried = self.fixtures.as_ref().is_some_and(|fixtures| fixtures.services.are_of(table));
        self.rules.handle_newest(host_network.sequence, carried);
        self.publish_names();
        if carried {
            self.report_rules().await;
        }
    }

    /// Lets rules and names follow the newest state, in this order. The workload works by it once its flows do, too: whoever waits
    /// for a drain takes that for the end of calls to an instance.
    pub(super) async fn follow(&mut self) {
        self.take_newest();
        self.follow_subnet().await;
        let host_network = self.host_network.borrow().clone();
        if let Some(fixtures) = &mut self.fixtures {
            let table = host_network.services.of(self.attachment.workload.sidecar);
            let ensured = fixtures.services.ensure(&fixtures.netns, table).await;
            self.rules.handle_followed(host_network.sequence, ensured.is_ok(), Instant::now());
            let why = ensured.err().map(|error| error.to_string());
            self.context.troubles.set(&self.id, WorkloadTrouble::Services, why);
        }
        self.publish_names();
        if self.rules.poll_audit() {
            self.audit_services().await;
        }
        self.report_rules().await;
    }

    fn take_newest(&mut self) {
        let host_network = self.host_network.borrow_and_update().clone();
        let table = host_network.services.of(self.attachment.workload.sidecar).clone();
        self.waiting.push(host_network.sequence, host_network.zone.clone(), table);
    }

    /// Says by which state its rules work, as soon as its flows do.
    async fn report_rules(&mut self) {
        let ruled = self.fixtures.as_ref().map(|_| self.rules.ruled());
        match &self.fixtures {
            Some(fixtures) if !fixtures.services.is_freed() => {
                // What waits already goes first: it would never come to an end where changes do not.
                let freed = || Box::pin(tokio::time::timeout(FREED, fixtures.services.freed()).map(drop));
                self.freeing.get_or_insert_with(|| (self.rules.ruled(), freed()));
            }
            _ => {
                self.freeing = None;
                self.context.host.applied(self.id.clone(), DataPlane::Rules, ruled).await;
            }
        }
    }

    /// The flows of a state have been freed.
    pub(super) async fn handle_freed(&mut self, ruled: u64) {
        self.freeing = None;
        self.context.host.applied(self.id.clone(), DataPlane::Rules, Some(ruled)).await;
        if self.rules.ruled() > ruled {
            self.report_rules().await;
        }
    }

    /// Returns true if there is work for the kernel. What it refused is tried again later, or with the next change.
    pub(super) fn wants_turn(&self) -> bool {
        let newest = self.fixtures.as_ref().map_or(0, |_| self.host_network.borrow().sequence);
        self.rules.wants_turn(newest)
    }

    /// Lets the workload's DNS answer by the newest state that its sidecar and its rules carry.
    pub(super) fn publish_names(&mut self) {
        let Some(fixtures) = &self.fixtures else { return };
        let applied = self.supervisor.as_ref().and_then(|supervisor| *supervisor.applied.borrow());
        let carried = |sequence, table: &_| {
            applied.is_none_or(|applied| applied >= sequence)
                && (self.rules.ruled() >= sequence || fixtures.services.lead_where(table))
        };
        if let Some(zone) = self.waiting.release(carried) {
            let (names, place) = &self.names;
            names.publish(*place, zone);
        }
    }
}
