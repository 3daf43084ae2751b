//! Names of network devices.

use std::fmt;
use std::str::FromStr;

/// The longest name that the kernel takes, in bytes (IFNAMSIZ without the final zero).
const LONGEST: usize = 15;

/// The name of a network device, as the kernel takes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    bytes: [u8; LONGEST],
    len: u8,
}

/// Reason for which a text is not the name of a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceNameError {
    /// The kernel does not take it, or rules cannot hold it.
    #[error(
        "{0:?} is no name of an interface: it has 1 to 15 ASCII letters, digits and signs, none of them `/`, `:`, `\"` or `\\`, and \
         is not `.` or `..`"
    )]
    Unfit(String),
    /// The kernel makes another name of it, or rules mean others by it.
    #[error(
        "{0:?} is a pattern for names of interfaces, which `%` and `*` make of it; give a name without these"
    )]
    Pattern(String),
    /// The kernel, or every namespace, has it already.
    #[error("{0:?} is the kernel's own name ({owner}); give the interface another", owner = owner(.0))]
    Taken(String),
}

/// The owner of a name in every namespace.
fn owner(name: &str) -> &'static str {
    if name == "lo" { "every namespace's loopback" } else { "the settings of all interfaces" }
}

impl DeviceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It was made of text.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl FromStr for DeviceName {
    type Err = DeviceNameError;
    fn from_str(text: &str) -> Result<Self, DeviceNameError> {
        let fits = |c: u8| c.is_ascii_graphic() && c != b'/' && c != b':' && c != b'"' && c != b'\\';
        let refused = || DeviceNameError::Unfit(text.chars().take(64).collect());
        if text.is_empty() || text.len() > LONGEST || [".", ".."].contains(&text) || !text.bytes().all(fits) {
            return Err(refused());
        }
        if text.contains(['%', '*']) {
            return Err(DeviceNameError::Pattern(text.to_owned()));
        }
        // The last two are folders in /proc/sys/net/ipv4/conf, beside those of the interfaces.
        if ["lo", "all", "default"].contains(&text) {
            return Err(DeviceNameError::Taken(text.to_owned()));
        }
        let mut bytes = [0; LONGEST];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, len: u8::try_from(text.len()).map_err(|_| refused())? })
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// A number that a name has for itself among as many as there are on a host, for devices that are named by it: its FNV-1a hash.
#[must_use]
pub fn number(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_kernel_takes_as_they_are_and_no_more() {
        for good in ["eth0", "net1", "a", "fifteen-letters", "eth0.100", "vlan@5"] {
            assert_eq!(good.parse::<DeviceName>().unwrap().to_string(), good);
        }
        for wrong in ["", ".", "..", "sixteen-letters-", "a b", "a/b", "a:b", "é", "a\"b", "a\nb"] {
            let unfit = matches!(wrong.parse::<DeviceName>(), Err(DeviceNameError::Unfit(_)));
            assert!(unfit, "{wrong}");
        }
        for pattern in ["%d", "veth%d", "eth*", "a%%b", "%s"] {
            let refused = pattern.parse::<DeviceName>();
            assert_eq!(refused, Err(DeviceNameError::Pattern(pattern.to_owned())));
        }
        for taken in ["lo", "all", "default"] {
            assert_eq!(taken.parse::<DeviceName>(), Err(DeviceNameError::Taken(taken.to_owned())));
        }
    }
}
