//! rustls configurations for tunnels.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use sealane_proto::identity::{Expected, PeerVerifier, Trust};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The protocol inside.
pub(crate) const ALPN: &[u8] = b"sealane/1";
/// Number of peers' sessions that are kept per called principal.
const SESSIONS: usize = 32;

pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519, kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    }
}

pub(super) fn client(
    provider: Arc<CryptoProvider>,
    trust: Trust,
    expected: Expected,
    identity: Arc<SingleCertAndKey>,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = PeerVerifier::new(trust, expected, &provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(identity);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    // Peers are called by address: there is no name to send.
    config.enable_sni = false;
    Ok(config)
}

pub(super) fn server(
    provider: Arc<CryptoProvider>,
    trust: Trust,
    expected: Expected,
    identity: Arc<SingleCertAndKey>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = PeerVerifier::new(trust, expected, &provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Returns the end of the leaf of a chain; `None` without a chain that can be read.
pub(crate) fn leaf_expiry(chain: Option<&[CertificateDer<'_>]>) -> Option<SystemTime> {
    let (_, leaf) = X509Certificate::from_der(chain?.first()?).ok()?;
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
