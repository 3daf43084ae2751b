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
    pub(super) async fn audit_rules(&mut self) {
        if self.ensure_redirects().await == Some(true) {
            self.context.kernel.overlay.count_rules_drift(&self.id);
        }
    }

    /// Leads the calls to all of the network's addresses through the sidecar, where it has grown.
    pub(super) async fn follow_subnet(&mut self) {
        if self.host_network.borrow().snapshot.network.subnet != self.subnet {
            self.ensure_redirects().await;
        }
    }

    /// Ensures the rules that lead calls through the sidecar; returns true if they were others, `None` if there are none.
    async fn ensure_redirects(&mut self) -> Option<bool> {
        let network = self.host_network.borrow().snapshot.network.clone();
        let fixtures = self.fixtures.as_ref().filter(|_| self.attachment.workload.sidecar)?;
        let (hopper, netns, ports) =
            (&self.context.kernel.hopper, &fixtures.netns, self.context.sidecars.ports);
        let redirects = plumbing::redirects(&network, &self.attachment, ports);
        let changed = nft::ensure_sidecar_rules(hopper, netns, redirects).await;
        let complain =
            |error: &_| tracing::error!(%error, workload = %self.id, "cannot see to the sidecar's rules");
        let changed = changed.inspect_err(complain).ok()?;
        let grown = std::mem::replace(&mut self.subnet, network.subnet) != network.subnet;
        Some(changed && !grown)
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
