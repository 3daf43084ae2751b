//! VXLAN network identifiers.

use std::fmt;

/// A VXLAN network identifier (RFC 7348, section 5): 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

/// A number of more than 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("VNI {0} does not fit in 24 bits")]
pub struct VniError(u32);

impl Vni {
    /// The largest VNI.
    pub const MAX: Self = Self(0x00ff_ffff);
    /// The first VNI that networks get: Docker Swarm's start at 4096, Calico's is 4096.
    pub const FIRST: Self = Self(0x0010_0000);
    /// The VNI of the echoes that hosts send each other, the last one: no network gets it.
    pub const ECHO: Self = Self::MAX;

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;
    fn try_from(number: u32) -> Result<Self, VniError> {
        if number <= Self::MAX.0 { Ok(Self(number)) } else { Err(VniError(number)) }
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
