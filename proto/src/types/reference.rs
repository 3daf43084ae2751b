//! References by which people name the members of a network.

use std::fmt;
use std::str::FromStr;

use super::{NameError, NetworkName, ServiceName, WorkloadName};

/// `NAME`, or `NAME.NETWORK` where a name is in several networks; as in DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref<N> {
    /// Name of the member.
    pub name: N,
    /// Network of the member, where one is given.
    pub network: Option<NetworkName>,
}

/// A workload, as people name it.
pub type WorkloadRef = Ref<WorkloadName>;
/// A service, as people name it.
pub type ServiceRef = Ref<ServiceName>;

/// A name that says one network, beside a flag that says another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reference} names network {own}, and --network says {other}; hint: leave one of them out")]
pub struct TwoNetworks {
    reference: String,
    own: NetworkName,
    other: NetworkName,
}

impl<N: Clone + fmt::Display> Ref<N> {
    /// The same in `network`, where that is said beside it.
    ///
    /// # Errors
    /// When it names another network itself.
    pub fn within(&self, network: Option<&NetworkName>) -> Result<Self, TwoNetworks> {
        match (&self.network, network) {
            (Some(own), Some(other)) if own != other => {
                Err(TwoNetworks { reference: self.to_string(), own: own.clone(), other: other.clone() })
            }
            (own, said) => Ok(Self { name: self.name.clone(), network: own.as_ref().or(said).cloned() }),
        }
    }
}

impl<N: FromStr<Err = NameError>> FromStr for Ref<N> {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('.') {
            Some((name, network)) => Ok(Self { name: name.parse()?, network: Some(network.parse()?) }),
            None => Ok(Self { name: text.parse()?, network: None }),
        }
    }
}

impl<N: fmt::Display> fmt::Display for Ref<N> {
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

    #[test]
    fn a_network_is_said_in_the_name_or_beside_it_and_never_two() {
        let within = |text: &str, network: Option<&str>| {
            let network = network.map(|network| network.parse().unwrap());
            text.parse::<ServiceRef>().unwrap().within(network.as_ref()).map(|named| named.to_string())
        };
        for (text, network, expected) in [
            ("api", None, "api"),
            ("api.shop", None, "api.shop"),
            ("api", Some("shop"), "api.shop"),
            ("api.shop", Some("shop"), "api.shop"),
        ] {
            assert_eq!(within(text, network).as_deref(), Ok(expected));
        }
        let error = within("api.shop", Some("office")).unwrap_err().to_string();
        assert!(error.starts_with("api.shop names network shop, and --network says office"), "{error}");
    }
}
