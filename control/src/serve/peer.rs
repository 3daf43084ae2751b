//! Peers at the other end of connections from hosts.

use std::net::SocketAddr;

use sealane_base::admission::Spoke;
use sealane_proto::identity::{Principal, SpiffeId};
use sealane_proto::types::NodeName;
use tonic::Status;

use super::Proof;
use crate::core::NodeRecord;
use crate::registry::Directory;
use crate::status::not_a_node;

/// Facts about it since the handshake.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Address that it connects from.
    pub(crate) addr: SocketAddr,
    /// Identity by its certificate; none while it joins.
    pub(crate) identity: Option<SpiffeId>,
    /// Further facts in its certificate.
    pub(crate) proof: Option<Proof>,
    /// Mark that it has made a call.
    pub(crate) spoke: Spoke,
}

/// A host with a good certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertifiedHost {
    pub(crate) node: NodeName,
    /// Address that it connects from.
    pub(crate) addr: SocketAddr,
    /// SHA-256 of its certificate's public key.
    pub(crate) key: [u8; 32],
    /// Of one without a record, which a restored store may have forgotten: what it proves itself by.
    pub(crate) newcomer: Option<Proof>,
}

impl CertifiedHost {
    /// The host of this certificate, as far as it is known.
    ///
    /// # Errors
    /// The status for one that is no part of the mesh (any more).
    pub(crate) fn known(
        node: &NodeName,
        addr: SocketAddr,
        proof: Proof,
        directory: &Directory,
    ) -> Result<Self, Status> {
        let host = |newcomer| Self { node: node.clone(), addr, key: proof.key, newcomer };
        // By key, not by name alone: a removed host's certificate names whoever has its name now.
        match directory.nodes.get(node) {
            Some(record) if record.key == proof.key => Ok(host(None)),
            Some(record) if NodeRecord::is_admitted(record) => {
                Err(not_a_node(directory, node, Some(proof.key)))
            }
            Some(_) | None if directory.removed.values().any(|removed| removed.key == proof.key) => {
                Err(not_a_node(directory, node, Some(proof.key)))
            }
            Some(_) | None => Ok(host(Some(proof))),
        }
    }
}

impl Peer {
    /// Returns true if it is a control plane.
    pub(crate) fn is_control(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.principal == Principal::Control)
    }

    /// The host that this is: one of the mesh, or one of which nothing is known.
    pub(crate) fn host(&self, directory: &Directory) -> Result<CertifiedHost, Status> {
        let principal = self.identity.as_ref().map(|identity| &identity.principal);
        let (Some(Principal::Node(node)), Some(proof)) = (principal, self.proof) else {
            return Err(Status::unauthenticated(
                "this call needs a node certificate; join with a token first",
            ));
        };
        CertifiedHost::known(node, self.addr, proof, directory)
    }

    /// The host of the mesh that this is.
    pub(crate) fn member(&self, directory: &Directory) -> Result<NodeName, Status> {
        match self.host(directory)? {
            CertifiedHost { node, newcomer: None, .. } => Ok(node),
            CertifiedHost { node, key, newcomer: Some(_), .. } => {
                Err(not_a_node(directory, &node, Some(key)))
            }
        }
    }
}
