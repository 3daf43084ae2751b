//! The addresses that Docker asks for and gives back.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_proto::types::{NetworkName, OverlayIp};
use sealane_sys::NetNs;
use serde_json::{Value, json};

use super::book::{Endpoint, Past};
use super::core::{AddressPlan, EndpointPlan};
use super::wire::OfAddress;
use super::{Docker, bounded, core, full};
use crate::attachment::{Claim, FailureKind, Hold, RequestFailure, Reservation};

/// Time for which an address is waited for that a container which has left still has.
const LEAVING: Duration = Duration::from_secs(5);
/// Interval at which it is asked for.
const LOOK: Duration = Duration::from_millis(50);

impl Docker {
    /// An address that Docker asks for.
    pub(super) async fn request_address(&self, request: &OfAddress) -> Result<Value, RequestFailure> {
        let plan = core::address(request, &*self.book.lock().await)?;
        let (name, address) = match plan {
            AddressPlan::Mark => {
                return Ok(json!({"Address": format!("{}/32", request.address), "Data": {}}));
            }
            AddressPlan::Gateway(network) => {
                let network = self.carry(&network).await?;
                return Ok(core::address_answer(network.subnet.gateway(), &network));
            }
            AddressPlan::Mark6(mark) => return Ok(json!({"Address": format!("{mark}/128"), "Data": {}})),
            AddressPlan::Endpoint6(network, address) => {
                return self.request_address6(&network, address).await;
            }
            AddressPlan::Endpoint(network, address) => (network, address),
        };
        let network = self.carry(&name).await?;
        let address = self.address_for(&request.pool_id, &name, address).await?;
        if network.subnet6.is_some() {
            self.last.lock().await.insert(name, address);
        }
        Ok(core::address_answer(address, &network))
    }

    /// Finds an address of a network for an end of the network of Docker's with this pool.
    async fn address_for(
        &self,
        pool: &str,
        name: &NetworkName,
        address: Option<OverlayIp>,
    ) -> Result<OverlayIp, RequestFailure> {
        if let Some(address) = address
            && self.end_at(name, address).await.is_some()
        {
            // dockerd may have forgotten that it has it. An end of another container is refused it later.
            return Ok(address);
        }
        let again = if address.is_none() { self.again(name).await } else { None };
        if let Some(again) = again {
            return Ok(again.address);
        }
        let of_endpoint = self.book.lock().await.networks().any(|(_, known)| known.pool == pool);
        let hold = core::hold(rand::random(), of_endpoint)?;
        match address {
            Some(address) => self.take(hold, name, address).await,
            None => {
                let claim = Claim { hold, network: name.clone(), address, mac: None, from: None };
                Ok(self.reserve(claim).await?.address)
            }
        }
    }

    /// Reserves a certain address: one that is kept for a container that does not run, or that one is leaving, too.
    async fn take(
        &self,
        hold: Hold,
        name: &NetworkName,
        address: OverlayIp,
    ) -> Result<OverlayIp, RequestFailure> {
        let had = |past: &&Past| past.network == *name && past.address == address && past.hold.is_some();
        let past = self.book.lock().await.past().find(had).cloned();
        let from = past.as_ref().and_then(Past::hold);
        let claim = Claim { hold, network: name.clone(), address: Some(address), mac: None, from };
        let began = Instant::now();
        let taken = loop {
            match self.reserve(claim.clone()).await {
                Err(failure)
                    if failure.kind == FailureKind::InUse
                        && began.elapsed() < LEAVING
                        && self.are_leaving().await =>
                {
                    tokio::time::sleep(LOOK).await;
                }
                reserved => break reserved?.address,
            }
        };
        if let Some(past) = past {
            self.book.lock().await.forget(&past).map_err(full)?;
        }
        Ok(taken)
    }

    /// Returns true if there are workloads of containers that have left: they have their addresses until every host has heard.
    async fn are_leaving(&self) -> bool {
        let book = self.book.lock().await;
        let of_end = |hold: &Hold| book.endpoints().any(|(_, known)| known.hold == hold.as_str());
        self.workloads.held().iter().any(|held| held.hold.is_of_docker() && !of_end(&held.hold))
    }

    /// Finds the end that has an address.
    async fn end_at(&self, name: &NetworkName, address: OverlayIp) -> Option<(String, Endpoint)> {
        let book = self.book.lock().await;
        let mut ends = book.endpoints();
        let has = ends.find(|(_, known)| known.network == *name && known.address == address);
        has.map(|(id, known)| (id.clone(), known.clone()))
    }

    /// Refuses a new end an address that one of a container's that runs has; one that was forgotten gives way.
    pub(super) async fn make_way(&self, id: &str, plan: &EndpointPlan) -> Result<(), RequestFailure> {
        let other = self.end_at(&plan.network, plan.address).await.filter(|(other, _)| other != id);
        let Some((other, end)) = other else { return Ok(()) };
        let runs = end.sandbox.as_ref().is_some_and(|sandbox| NetNs::open(sandbox).is_ok());
        // Its container may be about to join.
        let lives = runs || self.young.ids().contains(&other);
        if !lives {
            self.forget(&end);
            if let Some(hold) = end.hold() {
                // What is left of it goes by itself.
                let _ = tokio::time::timeout(LEAVING, self.dismantle(&other, &hold)).await;
            }
            return self.book.lock().await.remove_endpoint(&other).map(drop).map_err(full);
        }
        let name =
            end.owner.map_or_else(|| "another container".to_owned(), |own| format!("container {}", own.name));
        let text =
            format!("sealane: address {} of network {} is in use by {name}", plan.address, plan.network);
        Err(RequestFailure::new(FailureKind::InUse, text)
            .hint("choose another one, or remove that container"))
    }

    async fn request_address6(
        &self,
        name: &NetworkName,
        asked: Option<Ipv6Addr>,
    ) -> Result<Value, RequestFailure> {
        let network = self.carry(name).await?;
        let before = self.last.lock().await.remove(name);
        let book = self.book.lock().await;
        let known = book.endpoints().filter(|(_, known)| known.network == *name);
        let known: Vec<OverlayIp> = known.map(|(_, known)| known.address).collect();
        core::ipv6::answer(&network, asked, before, &known)
    }

    /// Reserves an address, as long as dockerd may wait.
    pub(super) async fn reserve(&self, claim: Claim) -> Result<Reservation, RequestFailure> {
        bounded(async |progress| self.workloads.reserve(claim, &progress).await).await
    }

    /// An address that Docker gives back.
    pub(super) async fn release_address(
        self: &Arc<Self>,
        request: &OfAddress,
    ) -> Result<Value, RequestFailure> {
        let plan = core::address(request, &*self.book.lock().await);
        if let Ok(AddressPlan::Endpoint(network, Some(address))) = plan
            // An end has it that Docker has not deleted.
            && self.end_at(&network, address).await.is_none()
        {
            let kept = self.workloads.host().reserved(network, address).await;
            if let Some(kept) = kept.filter(|kept| kept.hold.is_of_docker())
                && !self.keeps(&kept.hold).await
            {
                self.workloads.release(&kept.hold).await?;
            }
        }
        Ok(json!({}))
    }
}
