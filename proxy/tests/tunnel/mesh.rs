//! A certificate authority for tests, and the identities that it gives out.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sealane_proto::identity::{Principal, SpiffeId};
use sealane_proto::sidecar::Identity;
use sealane_proxy::tls::TlsSource;

/// A mesh with one network, `shop`.
pub(crate) struct Mesh {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The principal of a service of the network `shop`.
pub(crate) fn service(name: &str) -> Principal {
    Principal::Service("shop".parse().unwrap(), name.parse().unwrap())
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// The identity of `principal`, valid from an hour ago until `not_after`.
    pub(crate) fn identity(&self, principal: Principal, not_after: SystemTime) -> Identity {
        let spiffe_id = SpiffeId { trust_domain: "sealane".parse().unwrap(), principal };
        let mut params = CertificateParams::default();
        let uri = spiffe_id.to_string().try_into().unwrap();
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = (not_after.min(SystemTime::now()) - Duration::from_secs(3600)).into();
        params.not_after = not_after.into();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            spiffe_id,
            chain: vec![leaf.der().clone()],
            roots: vec![self.issuer.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            not_after,
        }
    }

    /// A source with a good identity.
    pub(crate) fn tls(&self, name: &str) -> TlsSource {
        let tls = TlsSource::new();
        tls.set(self.identity(service(name), SystemTime::now() + Duration::from_secs(3600))).unwrap();
        tls
    }
}
