//! The rules of service addresses and the names that a workload is told follow the network's state.

use super::Life;
use crate::host::DataPlane;

impl Life {
    /// Takes note of the newest state. Its names are told at once where rules and sidecar carry already what they lead to.
    pub(super) async fn note_newest(&mut self) {
        self.refused = false;
        self.take_newest();
        let effective = self.effective.borrow().clone();
        let table = effective.services.of(self.attachment.workload.sidecar);
        if self.plumbed.as_ref().is_some_and(|plumbed| plumbed.services.are_of(table)) {
            self.ruled = effective.sequence;
            self.report_rules().await;
        }
        self.publish_names();
    }

    /// Lets rules and names follow the newest state, in this order.
    pub(super) async fn follow(&mut self) {
        self.take_newest();
        let effective = self.effective.borrow().clone();
        if let Some(plumbed) = &mut self.plumbed {
            let table = effective.services.of(self.attachment.workload.sidecar);
            match plumbed.services.ensure(&plumbed.netns, table).await {
                Ok(_) => self.ruled = effective.sequence,
                Err(error) => {
                    self.refused = true;
                    tracing::error!(%error, workload = %self.id, "cannot balance service addresses, trying again");
                }
            }
        }
        self.report_rules().await;
        self.publish_names();
        if std::mem::take(&mut self.audit_due) {
            self.audit_services().await;
        }
    }

    fn take_newest(&mut self) {
        let effective = self.effective.borrow_and_update().clone();
        let table = effective.services.of(self.attachment.workload.sidecar).clone();
        self.waiting.push(effective.sequence, effective.zone.clone(), table);
    }

    async fn report_rules(&self) {
        let ruled = self.plumbed.as_ref().map(|_| self.ruled);
        self.context.host.applied(self.id.clone(), DataPlane::Rules, ruled).await;
    }

    /// Returns true if there is work for the kernel. What it refused is tried again later, or with the next change.
    pub(super) fn wants_turn(&self) -> bool {
        let is_behind = self.plumbed.is_some() && self.ruled < self.effective.borrow().sequence;
        !self.refused && (is_behind || self.audit_due)
    }

    /// Lets the workload's DNS answer by the newest state that its sidecar and its rules carry.
    pub(super) fn publish_names(&mut self) {
        let Some(plumbed) = &self.plumbed else { return };
        let applied = self.supervisor.as_ref().and_then(|supervisor| *supervisor.applied.borrow());
        let carried = |sequence, table: &_| {
            applied.is_none_or(|applied| applied >= sequence)
                && (self.ruled >= sequence || plumbed.services.lead_where(table))
        };
        if let Some(zone) = self.waiting.release(carried) {
            let (names, place) = &self.names;
            names.publish(*place, zone);
        }
    }
}
