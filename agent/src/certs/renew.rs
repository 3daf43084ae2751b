//! The loop that renews: the node's own certificate and its workloads'.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sealane_proto::client::TlsIdentity;
use sealane_proto::wire::v1;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::key::{KeyError, NewKey, Validity};
use super::{CertError, Certs};
use crate::disk::{Folder, NodeIdentity};
use crate::node;

/// How often due certificates are looked for; a failed renewal is tried again as often.
const EVERY: Duration = Duration::from_secs(30);

/// What the loop keeps up to date beside the workloads' certificates.
#[derive(Debug)]
pub(crate) struct RenewedNode {
    /// The stored identity.
    pub(crate) identity: NodeIdentity,
    /// Where it is stored.
    pub(crate) folder: Folder,
    /// Who else uses it.
    pub(crate) published: watch::Sender<Arc<TlsIdentity>>,
}

/// Renews what is due, for ever. `control` holds a channel while control is there.
pub(crate) async fn run(
    certs: Arc<Certs>,
    mut node: RenewedNode,
    mut control: watch::Receiver<Option<Channel>>,
) {
    loop {
        let channel = match control.wait_for(Option::is_some).await {
            Ok(channel) => channel.clone(),
            Err(_) => return,
        };
        if let Some(channel) = channel {
            if let Err(error) = node.renew(channel.clone()).await {
                tracing::warn!(%error, node = %node.identity.node.name, "cannot renew the node certificate");
            }
            for principal in certs.due(SystemTime::now()) {
                if let Err(error) = certs.sign(&principal, channel.clone()).await {
                    tracing::warn!(%error, ?principal, "cannot renew a certificate");
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

impl RenewedNode {
    async fn renew(&mut self, channel: Channel) -> Result<(), CertError> {
        let leaf = self.identity.chain.first().ok_or(KeyError::Certificate)?;
        if !Validity::of(leaf)?.is_due(SystemTime::now()) {
            return Ok(());
        }
        let csr = NewKey::from_private(&self.identity.key)?.request()?;
        let answer = v1::control_client::ControlClient::new(channel).renew(v1::RenewRequest { csr }).await;
        let answer = answer.map_err(|status| CertError::Unreachable(status.message().to_owned()))?;
        let (chain, roots) = answer.into_inner().certificate.unwrap_or_default().into_parts();
        Validity::of(chain.first().ok_or(KeyError::Certificate)?)?;
        (self.identity.chain, self.identity.roots) = (chain, roots);
        node::store(&self.folder, &self.identity)?;
        if let Ok(identity) = node::tls_identity(&self.identity) {
            self.published.send_replace(identity);
        }
        tracing::info!(node = %self.identity.node.name, "node certificate renewed");
        Ok(())
    }
}
