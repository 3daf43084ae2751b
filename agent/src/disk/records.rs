//! Content of the files, as domain types.

use std::collections::BTreeSet;
use std::fmt::Display;

use ipnet::Ipv4Net;
use prost::Message;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sealane_fabric::overlay::{ParseChoiceError, UnderlayChoice, UnderlayChoices};
use sealane_proto::identity::SpiffeId;
use sealane_proto::resource::{NetworkDelta, NetworkSnapshot, Node};
use sealane_proto::types::{TrustDomain, UnderlayAddrs};
use sealane_proto::wire::v1;

use super::messages::{IdentityMessage, NodeMessage, OffersMessage};

/// A file whose checksum is good but whose content does not say what it should: another version's.
#[derive(Debug, thiserror::Error)]
#[error("the stored {kind} cannot be read: {reason}")]
pub struct RecordError {
    kind: &'static str,
    reason: String,
}

pub(super) fn unreadable(kind: &'static str) -> impl Fn(&dyn Display) -> RecordError {
    move |reason| RecordError { kind, reason: reason.to_string() }
}

/// This host's own identity.
#[derive(Debug)]
pub(crate) struct NodeIdentity {
    /// Name and address of this host.
    pub(crate) node: Node,
    /// Choices of the underlay addresses.
    pub(crate) choices: UnderlayChoices,
    /// The mesh.
    pub(crate) trust_domain: TrustDomain,
    /// The private key.
    pub(crate) key: PrivateKeyDer<'static>,
    /// The certificate's chain, leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The mesh's roots.
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

/// The identity of a service or workload on this host.
#[derive(Debug)]
pub(crate) struct StoredIdentity {
    /// Name in the certificate.
    pub(crate) spiffe_id: SpiffeId,
    /// The private key.
    pub(crate) key: PrivateKeyDer<'static>,
    /// The certificate's chain, leaf first; empty until control has signed.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The mesh's roots.
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

fn certs(bytes: Vec<Vec<u8>>) -> Vec<CertificateDer<'static>> {
    bytes.into_iter().map(CertificateDer::from).collect()
}

fn bytes(certs: &[CertificateDer<'_>]) -> Vec<Vec<u8>> {
    certs.iter().map(|cert| cert.to_vec()).collect()
}

impl NodeIdentity {
    /// For [`super::Folder::write`].
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (underlay, underlay_other) = self.node.underlay.to_wire();
        let message = NodeMessage {
            name: self.node.name.to_string(),
            underlay,
            underlay_other,
            trust_domain: self.trust_domain.to_string(),
            key: self.key.secret_der().to_vec(),
            chain: bytes(&self.chain),
            roots: bytes(&self.roots),
            choice: self.choices.first.to_string(),
            choice_other: self.choices.other.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        message.encode_to_vec()
    }

    /// From [`super::Folder::read`].
    ///
    /// # Errors
    /// When another version wrote it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let fail = unreadable("node identity");
        let message = NodeMessage::decode(bytes).map_err(|error| fail(&error))?;
        let choice = |text: &str| -> Result<Option<UnderlayChoice>, RecordError> {
            let text = Some(text).filter(|text| !text.is_empty());
            text.map(str::parse).transpose().map_err(|error: ParseChoiceError| fail(&error))
        };
        Ok(Self {
            node: Node {
                name: message.name.parse().map_err(|error| fail(&error))?,
                underlay: UnderlayAddrs::of_wire(&message.underlay, &message.underlay_other)
                    .map_err(|error| fail(&error))?,
                mtu: None,
            },
            choices: UnderlayChoices {
                first: choice(&message.choice)?.unwrap_or_default(),
                other: choice(&message.choice_other)?,
            },
            trust_domain: message.trust_domain.parse().map_err(|error| fail(&error))?,
            key: PrivatePkcs8KeyDer::from(message.key).into(),
            chain: certs(message.chain),
            roots: certs(message.roots),
        })
    }
}

impl StoredIdentity {
    /// For [`super::Folder::write`].
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let message = IdentityMessage {
            spiffe_id: self.spiffe_id.to_string(),
            key: self.key.secret_der().to_vec(),
            chain: bytes(&self.chain),
            roots: bytes(&self.roots),
        };
        message.encode_to_vec()
    }

    /// From [`super::Folder::read`].
    ///
    /// # Errors
    /// When another version wrote it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let fail = unreadable("identity");
        let message = IdentityMessage::decode(bytes).map_err(|error| fail(&error))?;
        Ok(Self {
            spiffe_id: message.spiffe_id.parse().map_err(|error| fail(&error))?,
            key: PrivatePkcs8KeyDer::from(message.key).into(),
            chain: certs(message.chain),
            roots: certs(message.roots),
        })
    }
}

/// A network's state for [`super::Folder::write`], with the ranges of this host's blocks that it gives back.
#[must_use]
pub(crate) fn network_to_bytes(snapshot: &NetworkSnapshot, offered: &BTreeSet<Ipv4Net>) -> Vec<u8> {
    let mut bytes = v1::NetworkState::from(snapshot).encode_to_vec();
    // Messages one behind the other are one with the fields of both.
    let offered = offered.iter().map(ToString::to_string).collect();
    bytes.extend(OffersMessage { offered }.encode_to_vec());
    bytes
}

/// A delta of a network for [`super::Folder::append`].
#[must_use]
pub(crate) fn delta_to_bytes(delta: &NetworkDelta) -> Vec<u8> {
    v1::NetworkDelta::from(delta).encode_to_vec()
}

/// Leads a network's state on by the records of [`super::Folder::records`], as far as they follow from it; those that were
/// written before the state do not.
#[must_use]
pub(crate) fn led_on(snapshot: NetworkSnapshot, records: &[Vec<u8>]) -> NetworkSnapshot {
    let read = |record: &Vec<u8>| v1::NetworkDelta::decode(record.as_slice()).ok()?.try_into().ok();
    let mut way: Option<NetworkDelta> = None;
    for delta in records.iter().filter_map(read) {
        match &mut way {
            None if NetworkDelta::leads_from(&delta, snapshot.generation) => way = Some(delta),
            Some(way) if delta.leads_from(way.to) => way.extend(&delta),
            None | Some(_) => {}
        }
    }
    match way.map(|way| way.applied(&snapshot)) {
        Some(Ok(led)) => led,
        None | Some(Err(_)) => snapshot,
    }
}

/// A network's state from [`super::Folder::read`].
///
/// # Errors
/// When another version wrote it.
pub(crate) fn network_from_bytes(bytes: &[u8]) -> Result<(NetworkSnapshot, BTreeSet<Ipv4Net>), RecordError> {
    let fail = unreadable("network");
    let message = v1::NetworkState::decode(bytes).map_err(|error| fail(&error))?;
    let offers = OffersMessage::decode(bytes).map_err(|error| fail(&error))?;
    let offered = offers.offered.iter().map(|range| range.parse()).collect::<Result<_, _>>();
    let snapshot = NetworkSnapshot::try_from(message).map_err(|error| fail(&error))?.checked();
    Ok((snapshot, offered.map_err(|error| fail(&error))?))
}
