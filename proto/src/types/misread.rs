//! Names that are labels of DNS and yet lead nowhere: programs read them as something else before they ask for them.

use std::net::Ipv4Addr;

/// Things that a name is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misread {
    /// The machine itself (RFC 6761, section 6.3).
    #[error("every machine takes this name for itself and asks nobody for it (RFC 6761); take another one")]
    Itself,
    /// An address, as inet_aton(3) reads numbers: decimal, octal or hexadecimal.
    #[error("programs read this name as the address {0} and ask nobody for it; take one with a letter in it")]
    Address(Ipv4Addr),
}

impl Misread {
    /// Tells what a single label is taken for; `None` for one that is asked for.
    ///
    /// Such names parse: meshes may have some from before they were refused. Whoever makes a new one asks here.
    #[must_use]
    pub fn of(label: &str) -> Option<Self> {
        if label == "localhost" {
            return Some(Self::Itself);
        }
        let (digits, radix) = if let Some(hexadecimal) = label.strip_prefix("0x") {
            (hexadecimal, 16)
        } else if let Some(octal) = label.strip_prefix('0').filter(|rest| !rest.is_empty()) {
            (octal, 8)
        } else {
            (label, 10)
        };
        // A sign would be read, and is in no label's beginning.
        let number = u32::from_str_radix(digits, radix).ok()?;
        Some(Self::Address(number.into()))
    }

    /// Checks that a label may be made a name.
    ///
    /// # Errors
    /// With what it is taken for.
    pub fn check(label: &str) -> Result<(), Self> {
        Self::of(label).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_inet_aton_reads_them() {
        let address = |text: &str| Some(Misread::Address(text.parse().unwrap()));
        for (label, expected) in [
            ("localhost", Some(Misread::Itself)),
            ("0", address("0.0.0.0")),
            ("10", address("0.0.0.10")),
            ("4294967295", address("255.255.255.255")),
            ("010", address("0.0.0.8")),
            ("0x7f000001", address("127.0.0.1")),
            ("4294967296", None),
            ("08", None),
            ("0x", None),
            ("0xg", None),
            ("752947911111", None),
            ("10a", None),
            ("localhosts", None),
            ("gateway", None),
            ("api", None),
        ] {
            assert_eq!(Misread::of(label), expected, "{label}");
        }
    }
}
