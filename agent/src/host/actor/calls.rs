//! Events of the link to control, and calls that the task makes because of them.

use std::time::{Duration, Instant};

use sealane_base::task;
use sealane_proto::client::LinkEvent;
use sealane_proto::resource::ControlAddr;
use sealane_proto::wire::v1::{CarryRequest, control_client::ControlClient};
use tonic::Request;
use tonic::transport::Channel;

use super::HostActor;
use crate::certs::words;
use crate::host::LinkState;
use crate::host::fabric::Fabric;

/// Limit for an answer of control.
const PATIENCE: Duration = Duration::from_secs(30);

impl<F: Fabric> HostActor<F> {
    pub(super) fn handle_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { channel, address, roots: _, takes_blocks } => {
                tracing::info!(control = %address, "connected to control");
                self.find_control(&address);
                self.core.handle_up(takes_blocks);
                self.shown.reported(&self.core);
                self.shown.control.send_replace(Some(channel.clone()));
                let (channel, address) = (Some(channel), Some(address));
                self.shown.link.send_replace(LinkState { channel, address, ..LinkState::default() });
            }
            LinkEvent::Down { reason, refused } => {
                let link = &self.shown.link;
                if link.borrow().channel.is_some() || link.borrow().problem.is_empty() {
                    tracing::warn!(%reason, "there is no stream to control; everything goes on without it");
                }
                self.core.handle_down();
                self.shown.control.send_replace(None);
                link.send_modify(|link| *link = link.down(reason, refused, Instant::now()));
            }
            LinkEvent::Clocks(pair) => {
                let known = self.shown.clocks.send_replace(Some(pair));
                if pair.is_off() && !known.is_some_and(|known| known.is_off()) {
                    tracing::warn!("this host's clock {pair}, as control sees it; set it right (NTP)");
                }
            }
            LinkEvent::Lost(lost) => {
                self.shown.link.send_if_modified(|link| link.lost.replace(lost.clone()) != Some(lost));
            }
            LinkEvent::State(snapshot) => {
                self.core.handle_state(*snapshot);
                self.shown.outside(&self.core);
            }
            LinkEvent::Delta(delta) => {
                self.core.handle_delta(*delta);
                self.shown.outside(&self.core);
            }
            LinkEvent::Gone(network) => {
                self.core.handle_gone(&network);
                self.shown.outside(&self.core);
            }
            LinkEvent::Reported { version, refused } => {
                self.core.handle_reported(version, refused);
                self.shown.reported(&self.core);
                self.ask_again();
            }
            LinkEvent::Settled { version } => {
                self.core.handle_settled(version);
                self.shown.reported(&self.core);
            }
        }
    }

    /// Workloads do not reach control, wherever its name leads.
    fn find_control(&self, address: &ControlAddr) {
        if address.literal.is_none() {
            let (overlay, text) = (self.overlay.clone(), address.text.clone());
            let find = async move {
                match tokio::net::lookup_host(&text).await {
                    Ok(found) => overlay.learn_control(found.collect()),
                    Err(error) => tracing::debug!(%error, control = text, "cannot look up where control is"),
                }
            };
            // The look-up ends by itself.
            task::spawn("find-control", find).detach();
        }
    }

    /// Asks control anew for the networks of workloads that it does not accept.
    pub(super) fn ask_again(&mut self) {
        let channel = self.shown.link.borrow().channel.clone();
        for network in self.core.poll_carry(channel.is_some(), Instant::now()) {
            let Some(channel) = channel.clone() else { return };
            ask(channel, CarryRequest { network: network.to_string(), blocks_held: 0, ahead: false });
        }
    }

    /// Asks control for addresses before they are needed.
    pub(super) fn ask_ahead(&mut self) {
        let Some(channel) = self.shown.link.borrow().channel.clone() else { return };
        for (network, blocks) in self.core.poll_ahead(Instant::now()) {
            let blocks_held = u32::try_from(blocks).unwrap_or(u32::MAX);
            ask(channel.clone(), CarryRequest { network: network.to_string(), blocks_held, ahead: true });
        }
    }
}

/// Asks for addresses. Those that control leases come with the network's state.
fn ask(channel: Channel, request: CarryRequest) {
    let asking = async move {
        let network = request.network.clone();
        let mut request = Request::new(request);
        request.set_timeout(PATIENCE);
        if let Err(status) = ControlClient::new(channel).carry(request).await {
            tracing::debug!(network, reason = words(&status), "control leases no addresses");
        }
    };
    // It ends by its patience.
    task::spawn("carry-again", asking).detach();
}
