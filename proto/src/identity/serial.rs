//! Serial numbers that tell for which host a certificate was signed.
//!
//! Control puts the beginning of the host's key fingerprint at the beginning of every serial number that it
//! signs for the host, whatever identity the certificate names. So one entry takes back all certificates of a host:
//! nobody has to remember which there are. The other eight octets are random.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The first eight octets of the serial numbers (RFC 5280, section 4.1.2.2) of one host's certificates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SerialPrefix([u8; SerialPrefix::LENGTH]);

impl SerialPrefix {
    /// Number of octets.
    pub const LENGTH: usize = 8;

    /// The prefix of the host whose key (SubjectPublicKeyInfo) has this SHA-256.
    #[must_use]
    pub fn of_key(fingerprint: &[u8; 32]) -> Self {
        let mut prefix = [0; Self::LENGTH];
        prefix.copy_from_slice(&fingerprint[..Self::LENGTH]);
        // A serial number is positive, and DER drops leading zeros.
        prefix[0] = prefix[0] & 0x7f | 0x40;
        Self(prefix)
    }

    /// The prefix of a certificate (DER); `None` when it cannot be read or its serial number is shorter.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        Self::try_from(certificate.serial().get(..Self::LENGTH)?).ok()
    }

    /// The octets.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        self.0
    }
}

/// Octets that are no serial prefix: not eight of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a serial prefix has {length} octets, not {0}", length = SerialPrefix::LENGTH)]
pub struct SerialPrefixError(usize);

impl TryFrom<&[u8]> for SerialPrefix {
    type Error = SerialPrefixError;
    fn try_from(octets: &[u8]) -> Result<Self, SerialPrefixError> {
        octets.try_into().map(Self).map_err(|_| SerialPrefixError(octets.len()))
    }
}

/// As it is displayed.
impl FromStr for SerialPrefix {
    type Err = SerialPrefixError;
    fn from_str(text: &str) -> Result<Self, SerialPrefixError> {
        let digits = Some(text).filter(|text| text.len() == 2 * Self::LENGTH && !text.starts_with('+'));
        let octets = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        octets.map(|octets| Self(octets.to_be_bytes())).ok_or(SerialPrefixError(text.len() / 2))
    }
}

impl fmt::Display for SerialPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for SerialPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_makes_a_positive_serial_number_without_leading_zeros() {
        for first in [0x00, 0x3f, 0x40, 0x7f, 0x80, 0xff] {
            let mut key = [7; 32];
            key[0] = first;
            let prefix = SerialPrefix::of_key(&key);
            assert!((0x40..0x80).contains(&prefix.to_bytes()[0]), "{prefix}");
            assert_eq!(SerialPrefix::try_from(&prefix.to_bytes()[..]), Ok(prefix));
            assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
        assert_eq!(SerialPrefix::try_from(&[1, 2, 3][..]), Err(SerialPrefixError(3)));
        for bad in ["", "41", "414141414141414g", "+414141414141414", "41414141414141414141"] {
            assert!(bad.parse::<SerialPrefix>().is_err(), "{bad}");
        }
        assert_eq!(SerialPrefix::of_key(&[0x41; 32]).to_string(), "4141414141414141");
    }
}
