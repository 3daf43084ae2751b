//! The address of a control plane.

use std::net::SocketAddr;

use crate::types::Port;

/// A control plane address as given on the command line: host or address, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlAddr {
    /// `HOST:PORT` as it was written.
    pub text: String,
    /// The address, where it needs no resolving.
    pub literal: Option<SocketAddr>,
}

impl std::str::FromStr for ControlAddr {
    type Err = ControlAddrError;
    fn from_str(text: &str) -> Result<Self, ControlAddrError> {
        let literal = text.parse().ok();
        let named = text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(':') && port.parse::<Port>().is_ok()
        });
        if literal.is_some() || named {
            Ok(Self { text: text.to_owned(), literal })
        } else {
            Err(ControlAddrError(text.to_owned()))
        }
    }
}

impl std::fmt::Display for ControlAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.text)
    }
}

/// A text that is not `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("control address {0:?} is not HOST:PORT like 192.0.2.10:7443")]
pub struct ControlAddrError(String);
