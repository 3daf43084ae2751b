//! Audit of a workload's namespace: anything that somebody else took away or changed comes back.

use sealane_fabric::nft::{self, NftError};
use tokio::time::Instant;

use super::super::meddling::Meddling;
use super::super::plumbing;
use super::Life;
use crate::trouble::WorkloadTrouble;

impl Life {
    /// Looks at the workload's rules, and rests then.
    pub(super) async fn audit(&mut self, meddling: &mut Meddling) {
        let began = Instant::now();
        let mended = self.audit_rules().await;
        // Those of services follow in their turn; what came of it the last time counts now.
        meddling.looked(began, mended | std::mem::take(&mut self.services_mended));
        self.rules.handle_doubt();
    }

    /// Puts back rules that somebody else took away; without them calls would pass the sidecar by. Answers whether there was
    /// something to mend, or to fail at.
    pub(super) async fn audit_rules(&mut self) -> bool {
        let changed = self.ensure_redirects().await.unwrap_or(Ok(false));
        if changed.as_ref().is_ok_and(|changed| *changed) {
            self.context.kernel.overlay.count_rules_drift(&self.id);
        }
        changed.unwrap_or(true)
    }

    /// Leads the calls to all of the network's addresses through the sidecar, where it has grown.
    pub(super) async fn follow_subnet(&mut self) {
        if self.host_network.borrow().snapshot.network.subnet != self.subnet {
            self.ensure_redirects().await;
        }
    }

    /// Ensures the rules that lead calls through the sidecar; returns true if they were others, `None` if there are none.
    async fn ensure_redirects(&mut self) -> Option<Result<bool, NftError>> {
        let network = self.host_network.borrow().snapshot.network.clone();
        let fixtures = self.fixtures.as_ref().filter(|_| self.attachment.workload.sidecar)?;
        let (hopper, netns, ports) =
            (&self.context.kernel.hopper, &fixtures.netns, self.context.sidecars.ports);
        let redirects = plumbing::redirects(&network, &self.attachment, ports);
        let changed = nft::ensure_sidecar_rules(hopper, netns, redirects).await;
        let why = changed.as_ref().err().map(ToString::to_string);
        self.context.troubles.set(&self.id, WorkloadTrouble::Redirect, why);
        Some(changed.map(|changed| {
            let grown = std::mem::replace(&mut self.subnet, network.subnet) != network.subnet;
            changed && !grown
        }))
    }

    /// The same of the rules of service addresses.
    pub(super) async fn audit_services(&mut self) {
        let Some(fixtures) = &mut self.fixtures else { return };
        let changed = fixtures.services.audit(&fixtures.netns).await;
        match &changed {
            Ok(false) => {}
            Ok(true) => self.context.kernel.overlay.count_rules_drift(&self.id),
            Err(_) => self.rules.handle_unknown(std::time::Instant::now()),
        }
        let why = changed.as_ref().err().map(ToString::to_string);
        self.context.troubles.set(&self.id, WorkloadTrouble::Services, why);
        self.services_mended = changed.unwrap_or(true);
    }
}
