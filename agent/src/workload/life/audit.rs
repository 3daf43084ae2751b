//! Audit of a workload's namespace: anything that somebody else took away or changed comes back.

use sealane_fabric::nft;
use tokio::time::Instant;

use super::super::meddling::Meddling;
use super::super::plumbing;
use super::Life;

impl Life {
    /// Looks at the workload's rules, and rests then.
    pub(super) async fn audit(&mut self, meddling: &mut Meddling) {
        let began = Instant::now();
        self.audit_rules().await;
        meddling.looked(began);
        self.rules.handle_doubt();
    }

    /// Puts back rules that somebody else took away; without them calls would pass the sidecar by.
    pub(super) async fn audit_rules(&self) {
        let Some(fixtures) = self.fixtures.as_ref().filter(|_| self.attachment.workload.sidecar) else {
            return;
        };
        let network = self.host_network.borrow().snapshot.network.clone();
        let (hopper, netns, ports) =
            (&self.context.kernel.hopper, &fixtures.netns, self.context.sidecars.ports);
        let context = &self.context;
        let redirects = plumbing::redirects(&network, &self.attachment, ports);
        let changed = nft::ensure_sidecar_rules(hopper, netns, redirects).await;
        match changed {
            Ok(false) => {}
            Ok(true) => {
                context.kernel.overlay.count_rules_drift(&self.id);
            }
            Err(error) => tracing::error!(%error, workload = %self.id, "cannot see to the sidecar's rules"),
        }
    }

    /// The same of the rules of service addresses.
    pub(super) async fn audit_services(&mut self) {
        let Some(fixtures) = &mut self.fixtures else { return };
        match fixtures.services.audit(&fixtures.netns).await {
            Ok(false) => {}
            Ok(true) => {
                self.context.kernel.overlay.count_rules_drift(&self.id);
            }
            Err(error) => {
                self.rules.handle_unknown();
                tracing::error!(%error, workload = %self.id, "cannot see to the rules of service addresses");
            }
        }
    }
}
