//! Check that a workload of this host could join a network, without anything coming of the question.

use std::time::Duration;

use sealane_proto::resource::Network;
use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;

use super::{AttachError, Workloads};
use crate::attachment::{FailureKind, RequestFailure};
use crate::certs::{is_passing, words};

/// Limit for control's answer: whoever asks does so every few seconds.
const PATIENCE: Duration = Duration::from_secs(3);

impl Workloads {
    /// The network, if a workload of this host could join it now. One that the host carries needs no control for that.
    ///
    /// # Errors
    /// When there is none, it is not for this host, or only control knows and does not answer.
    pub(crate) async fn available(&self, name: &NetworkName) -> Result<Network, RequestFailure> {
        let link = self.context.host.views.link.borrow().clone();
        if link.refused {
            return Err(RequestFailure::new(FailureKind::Removed, &link.problem));
        }
        if let Some(carried) = self.carried_as(name) {
            return Ok(carried);
        }
        let away = |why: &str| {
            let text =
                format!("this host does not carry network {name} yet, and control does not answer: {why}");
            RequestFailure::new(FailureKind::Away, text)
        };
        let Some(channel) = link.channel.clone() else { return Err(away(link.why_silent())) };
        let mut control = v1::control_client::ControlClient::new(channel);
        let asked = control.may_carry(v1::MayCarryRequest { network: name.to_string() });
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => network(answer.into_inner()),
            Ok(Err(status)) if is_passing(status.code()) => Err(away(&words(&status))),
            Ok(Err(status)) => Err(AttachError::of_control(&status).into()),
            Err(_) => Err(away(&format!("nothing within {} s", PATIENCE.as_secs()))),
        }
    }
}

fn network(answer: v1::MayCarryResponse) -> Result<Network, RequestFailure> {
    let network = answer.network.ok_or("it names no network".to_owned());
    let network = network.and_then(|network| Network::try_from(network).map_err(|error| error.to_string()));
    network.map_err(|why| {
        RequestFailure::new(FailureKind::Broken, format!("control's answer cannot be read: {why}"))
    })
}
