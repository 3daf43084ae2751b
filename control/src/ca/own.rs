//! Control's own certificate: made at each start, renewed by itself, its key never written down.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sealane_proto::identity::Principal;

use super::{Authority, AuthorityError, DAY, new_key};
use crate::core::Timestamp;

/// A certificate with less time left than this is renewed.
const RENEW_BEFORE: Duration = DAY.saturating_mul(10);
/// A certificate that was made so much later than now is renewed as well: the clock was ahead then, and hosts would not take it before its time.
const AHEAD: Duration = Duration::from_secs(60);

/// Certificate that the server presents: the newest one, chain to the authority included.
#[derive(Debug)]
pub(crate) struct OwnCertificate {
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    made: Timestamp,
    expires: Timestamp,
}

/// Reasons for which control has no certificate of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnError {
    /// Signing failed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The new key is of no use to TLS.
    #[error("the key of control's own certificate cannot be used: {0}")]
    Key(#[from] rustls::Error),
}

impl OwnCertificate {
    /// A fresh certificate.
    pub(crate) fn new(
        authority: &Authority,
        provider: &CryptoProvider,
        now: Timestamp,
    ) -> Result<Self, OwnError> {
        Ok(Self { current: ArcSwap::from_pointee(issue(authority, provider, now)?) })
    }

    /// Makes a new one when the time has come; whether it did.
    pub(crate) fn renew(
        &self,
        authority: &Authority,
        provider: &CryptoProvider,
        now: Timestamp,
    ) -> Result<bool, OwnError> {
        let was_ahead = self.current.load().made > now.after(AHEAD);
        if self.expires() > now.after(RENEW_BEFORE) && !was_ahead {
            return Ok(false);
        }
        self.current.store(Arc::new(issue(authority, provider, now)?));
        Ok(true)
    }

    /// Returns the end of the current one.
    pub(crate) fn expires(&self) -> Timestamp {
        self.current.load().expires
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().key.clone())
    }
}

fn issue(authority: &Authority, provider: &CryptoProvider, now: Timestamp) -> Result<Current, OwnError> {
    let key = new_key()?;
    let signed = authority.sign_key(&key, Principal::Control, None, now)?;
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = CertifiedKey::new(signed.chain, provider.key_provider.load_private_key(private)?);
    Ok(Current { key: Arc::new(key), made: now, expires: signed.expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_certificate_is_renewed_ten_days_before_its_end() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let domain = "sealane".parse().unwrap();
        let start = Timestamp::from_unix(1_000_000);
        let record = Authority::generate(&domain, start).unwrap();
        let authority = Authority::load(domain, record).unwrap();
        let own = OwnCertificate::new(&authority, &provider, start).unwrap();
        assert!(!own.renew(&authority, &provider, start.after(DAY * 19)).unwrap());
        let later = start.after(DAY * 20);
        assert!(own.renew(&authority, &provider, later).unwrap());
        assert_eq!(own.expires(), later.after(DAY * 30));
    }

    #[test]
    fn a_certificate_of_a_clock_that_was_ahead_is_renewed_once_that_is_set_back() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let domain = "sealane".parse().unwrap();
        let now = Timestamp::from_unix(1_000_000);
        let authority =
            Authority::load(domain, Authority::generate(&"sealane".parse().unwrap(), now).unwrap()).unwrap();
        for (ahead, renewed) in
            [(Duration::from_secs(60), false), (Duration::from_secs(61), true), (DAY, true)]
        {
            let own = OwnCertificate::new(&authority, &provider, now.after(ahead)).unwrap();
            assert_eq!(own.renew(&authority, &provider, now).unwrap(), renewed, "{ahead:?}");
            assert!(!own.renew(&authority, &provider, now).unwrap(), "once");
        }
    }
}
