//! How people name a workload of a host.

use std::fmt;
use std::str::FromStr;

use super::{NameError, NetworkName, WorkloadName};

/// `NAME`, or `NAME.NETWORK` where a name is in several networks; as in DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadRef {
    /// Its name.
    pub name: WorkloadName,
    /// One of its networks.
    pub network: Option<NetworkName>,
}

impl FromStr for WorkloadRef {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('.') {
            Some((name, network)) => Ok(Self { name: name.parse()?, network: Some(network.parse()?) }),
            None => Ok(Self { name: text.parse()?, network: None }),
        }
    }
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.network {
            Some(network) => write!(f, "{}.{network}", self.name),
            None => self.name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_named_with_or_without_its_network() {
        for text in ["web-1", "web-1.shop"] {
            assert_eq!(text.parse::<WorkloadRef>().unwrap().to_string(), text);
        }
        for text in ["", "web.", ".shop", "web.shop.example"] {
            assert!(text.parse::<WorkloadRef>().is_err(), "{text}");
        }
    }
}
