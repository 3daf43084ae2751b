//! The loop that renews: the node's own certificate and its workloads'.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prometheus::IntCounterVec;
use sealane_proto::client::TlsIdentity;
use sealane_proto::types::UnderlayAddrs;
use sealane_proto::wire::v1;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::certs::key::{KeyError, NewKey, Validity};
use crate::certs::{CertError, Certs, words};
use crate::disk::{Folder, NodeIdentity};
use crate::node;

/// Least time between two removals of certificates that have ended and are nobody's any more.
const DISCARD: Duration = Duration::from_secs(3600);

/// The host's own certificate, which the loop keeps up to date beside the workloads'.
#[derive(Debug)]
pub(crate) struct RenewedNode {
    /// The stored identity.
    pub(crate) identity: NodeIdentity,
    /// Folder in which it is stored.
    pub(crate) folder: Folder,
    /// True while it is stored otherwise: at another address or by another choice, until control has taken the one that it has now.
    pub(crate) unsaved: bool,
    /// Address that the host has now.
    pub(crate) underlay: watch::Receiver<UnderlayAddrs>,
    /// Channel to its other users.
    pub(crate) published: watch::Sender<Arc<TlsIdentity>>,
}

/// Renews what is due, for ever. `control` holds a channel while control is there.
pub(crate) async fn run(
    certs: Arc<Certs>,
    mut node: RenewedNode,
    mut control: watch::Receiver<Option<Channel>>,
    renewals: IntCounterVec,
) {
    let mut looked = Instant::now();
    loop {
        let channel = match control.wait_for(Option::is_some).await {
            Ok(channel) => channel.clone(),
            Err(_) => return,
        };
        if let Some(channel) = channel {
            node.keep();
            if looked.elapsed() >= DISCARD {
                looked = Instant::now();
                if let Err(error) = certs.discard_ended(SystemTime::now()) {
                    tracing::warn!(%error, "cannot remove certificates that have ended");
                }
            }
            let count = |kind, result| renewals.with_label_values(&[kind, result]).inc();
            match node.renew(channel.clone()).await {
                Ok(true) => count("node", "renewed"),
                Ok(false) => {}
                Err(error) => {
                    count("node", "failed");
                    tracing::warn!(%error, node = %node.identity.node.name, "cannot renew the node certificate");
                }
            }
            for principal in certs.due(SystemTime::now()) {
                match certs.renew(&principal, channel.clone()).await {
                    Ok(()) => count("workload", "renewed"),
                    Err(error) => {
                        count("workload", "failed");
                        tracing::warn!(%error, ?principal, "cannot renew a certificate");
                    }
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(certs.next_look(SystemTime::now())) => {}
            () = certs.published() => {}
            Ok(()) = control.changed() => {}
        }
    }
}

impl RenewedNode {
    /// Stores where the host is now that control has welcomed it there: an address that it refuses is not what the next start
    /// begins with. A certificate that could not be stored goes with it.
    fn keep(&mut self) {
        let now = *self.underlay.borrow();
        self.unsaved |= std::mem::replace(&mut self.identity.node.underlay, now) != now;
        if self.unsaved {
            match node::store(&self.folder, &self.identity) {
                Ok(()) => self.unsaved = false,
                Err(error) => {
                    tracing::error!(%error, "cannot store this host's identity and underlay address")
                }
            }
        }
    }

    /// Renews the certificate if that is due; whether it was.
    async fn renew(&mut self, channel: Channel) -> Result<bool, CertError> {
        let leaf = self.identity.chain.first().ok_or(KeyError::Certificate)?;
        if !Validity::of(leaf)?.is_due(SystemTime::now()) {
            return Ok(false);
        }
        let csr = NewKey::from_private(&self.identity.key)?.request()?;
        let answer = v1::control_client::ControlClient::new(channel).renew(v1::RenewRequest { csr }).await;
        let answer = answer.map_err(|status| CertError::Unreachable(words(&status)))?;
        let (chain, roots) = answer.into_inner().certificate.unwrap_or_default().into_parts();
        Validity::of(chain.first().ok_or(KeyError::Certificate)?)?;
        (self.identity.chain, self.identity.roots) = (chain, roots);
        // It is used all the same: a disk may be full for longer than a certificate lives.
        if let Err(error) = node::store(&self.folder, &self.identity) {
            tracing::error!(%error, "this host's new certificate is in memory alone");
            self.unsaved = true;
        }
        if let Ok(identity) = node::tls_identity(&self.identity) {
            self.published.send_replace(identity);
        }
        tracing::info!(node = %self.identity.node.name, "node certificate renewed");
        Ok(true)
    }
}
