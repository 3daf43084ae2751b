//! Descriptions of certificates, for people.

use rustls::pki_types::CertificateDer;
use sealane_proto::wire::v1;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::key::KeyError;

/// Named curves by the size of a coordinate (RFC 5480): this mesh signs for P-256 alone.
const P256_BITS: usize = 256;

/// Describes a certificate.
///
/// # Errors
/// When it cannot be parsed.
pub(crate) fn describe(certificate: &CertificateDer<'_>) -> Result<v1::CertificateDetail, KeyError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| KeyError::Certificate)?;
    let seconds = |instant: i64| instant.max(0).unsigned_abs();
    let validity = parsed.validity();
    Ok(v1::CertificateDetail {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial: parsed.raw_serial().iter().map(|octet| format!("{octet:02x}")).collect(),
        key_algorithm: key_algorithm(&parsed),
        not_before_unix_seconds: seconds(validity.not_before.timestamp()),
        not_after_unix_seconds: seconds(validity.not_after.timestamp()),
        authority: parsed.is_ca(),
    })
}

fn key_algorithm(certificate: &X509Certificate<'_>) -> String {
    let key = certificate.public_key();
    match key.parsed() {
        Ok(PublicKey::EC(point)) if point.key_size() == P256_BITS => "ECDSA P-256".to_owned(),
        Ok(PublicKey::EC(point)) => format!("ECDSA, {} bits", point.key_size()),
        Ok(PublicKey::RSA(rsa)) => format!("RSA, {} bits", rsa.key_size()),
        Ok(_) | Err(_) => key.algorithm.algorithm.to_id_string(),
    }
}
