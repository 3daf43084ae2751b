//! SPIFFE identities of the mesh (SPIFFE-ID specification, section 2).

use std::fmt;
use std::str::FromStr;

use crate::types::{NetworkName, NodeName, ServiceName, TrustDomain, WorkloadName};

/// `spiffe://<trust-domain>/<path>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// Subject within the trust domain.
    pub principal: Principal,
}

/// Subject that an identity names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// The control plane: `/control`.
    Control,
    /// A host: `/node/<name>`.
    Node(NodeName),
    /// Every instance of a service: `/net/<network>/svc/<service>`.
    Service(NetworkName, ServiceName),
    /// A workload that is no instance of a service: `/net/<network>/wl/<workload>`.
    Workload(NetworkName, WorkloadName),
}

impl Principal {
    /// The network that the principal lives in; hosts and control live in none.
    #[must_use]
    pub fn network(&self) -> Option<&NetworkName> {
        match self {
            Self::Service(network, _) | Self::Workload(network, _) => Some(network),
            Self::Control | Self::Node(_) => None,
        }
    }
}

/// A text that is not an identity of a mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an identity like spiffe://sealane/net/shop/svc/api")]
pub struct ParseSpiffeIdError(String);

impl FromStr for SpiffeId {
    type Err = ParseSpiffeIdError;
    fn from_str(text: &str) -> Result<Self, ParseSpiffeIdError> {
        let parse = || {
            let (domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
            let parts: Vec<&str> = path.split('/').collect();
            let principal = match parts.as_slice() {
                ["control"] => Principal::Control,
                ["node", name] => Principal::Node(name.parse().ok()?),
                ["net", network, "svc", name] => {
                    Principal::Service(network.parse().ok()?, name.parse().ok()?)
                }
                ["net", network, "wl", name] => {
                    Principal::Workload(network.parse().ok()?, name.parse().ok()?)
                }
                _ => return None,
            };
            Some(Self { trust_domain: domain.parse().ok()?, principal })
        };
        parse().ok_or_else(|| ParseSpiffeIdError(text.to_owned()))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.trust_domain, self.principal)
    }
}

/// The path of the identity.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => write!(f, "control"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Service(network, name) => write!(f, "net/{network}/svc/{name}"),
            Self::Workload(network, name) => write!(f, "net/{network}/wl/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_round_trip() {
        for text in [
            "spiffe://sealane/control",
            "spiffe://mesh.example/node/host-1",
            "spiffe://sealane/net/shop/svc/api",
            "spiffe://sealane/net/shop/wl/web-1",
        ] {
            assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_an_identity_of_a_mesh_is_refused() {
        for text in [
            "",
            "https://sealane/control",
            "spiffe://sealane",
            "spiffe:///control",
            "spiffe://sealane/control/",
            "spiffe://sealane/net/shop/svc/",
            "spiffe://sealane/net/shop/svc/api/x",
            "spiffe://SEALANE/control",
            "spiffe://sealane/node/..",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
