//! Ports of services: `[NAME=]PORT[/PROTO]`.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Mtls;

/// A TCP or UDP port, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u16")]
pub struct Port(NonZeroU16);

impl Port {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.get()
    }
}

impl TryFrom<u16> for Port {
    type Error = ParseServicePortError;
    fn try_from(number: u16) -> Result<Self, Self::Error> {
        NonZeroU16::new(number).map(Self).ok_or_else(|| ParseServicePortError::Port("0".into()))
    }
}

impl TryFrom<u32> for Port {
    type Error = ParseServicePortError;
    fn try_from(number: u32) -> Result<Self, Self::Error> {
        u16::try_from(number)
            .ok()
            .and_then(NonZeroU16::new)
            .map(Self)
            .ok_or_else(|| ParseServicePortError::Port(number.to_string()))
    }
}

impl FromStr for Port {
    type Err = ParseServicePortError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.map(Self).ok_or_else(|| ParseServicePortError::Port(text.to_owned()))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The name of a port within its service: 1 to 15 lower-case letters, digits and inner hyphens, at least one
/// letter (RFC 6335, section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortName(Arc<str>);

impl PortName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PortName {
    type Err = ParseServicePortError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let good = (1..=15).contains(&text.len())
            && text.chars().all(allowed)
            && text.contains(|c: char| c.is_ascii_lowercase())
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--");
        if good { Ok(Self(text.into())) } else { Err(ParseServicePortError::Name(text.to_owned())) }
    }
}

impl TryFrom<String> for PortName {
    type Error = ParseServicePortError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PortName> for String {
    fn from(name: PortName) -> Self {
        name.as_str().to_owned()
    }
}

/// Protocol that is spoken on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Found out per connection from its first bytes.
    #[default]
    Auto,
    /// HTTP/1.
    Http,
    /// HTTP/2, with prior knowledge or by ALPN.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// Opaque bytes over TCP.
    Tcp,
    /// The application's own TLS, passed through.
    Tls,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// All of them, with the names that the command line and documents use.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("auto", Self::Auto),
        ("http", Self::Http),
        ("http2", Self::Http2),
        ("grpc", Self::Grpc),
        ("tcp", Self::Tcp),
        ("tls", Self::Tls),
        ("udp", Self::Udp),
    ];
}

/// Transport of a protocol. A number may be one service's port over each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// Returns the transport that carries it.
    #[must_use]
    pub const fn transport(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            Self::Auto | Self::Http | Self::Http2 | Self::Grpc | Self::Tcp | Self::Tls => Transport::Tcp,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = ParseServicePortError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|&(_, protocol)| protocol).ok_or_else(|| ParseServicePortError::Protocol(text.to_owned()))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, protocol)| protocol == self).map_or("?", |(name, _)| name);
        f.pad(name)
    }
}

/// A port that a service offers and its instances listen on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServicePort {
    /// The name, when it has one.
    pub name: Option<PortName>,
    /// The number, the same at the service's address and at its instances.
    pub port: Port,
    /// Protocol that is spoken there.
    pub protocol: Protocol,
    /// Callers that it accepts; `None`: as its service says.
    #[serde(default)]
    pub mtls: Option<Mtls>,
}

impl ServicePort {
    /// Returns the key that tells it from the other ports of its service.
    #[must_use]
    pub const fn key(&self) -> (Port, Transport) {
        (self.port, self.protocol.transport())
    }
}

/// Reasons for which a text is not `[NAME=]PORT[/PROTO]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseServicePortError {
    /// Not a number from 1 to 65535.
    #[error("port {0:?} is not a number from 1 to 65535")]
    Port(String),
    /// Not a port name.
    #[error("port name {0:?} must be 1 to 15 lower-case letters, digits and inner hyphens, with a letter")]
    Name(String),
    /// Not a protocol.
    #[error("protocol {0:?} is none of auto, http, http2, grpc, tcp, tls, udp")]
    Protocol(String),
}

impl FromStr for ServicePort {
    type Err = ParseServicePortError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, rest) = match text.split_once('=') {
            Some((name, rest)) => (Some(name.parse()?), rest),
            None => (None, text),
        };
        let (port, protocol) = match rest.split_once('/') {
            Some((port, protocol)) => (port, protocol.parse()?),
            None => (rest, Protocol::Auto),
        };
        Ok(Self { name, port: port.parse()?, protocol, mtls: None })
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{}=", name.as_str())?;
        }
        write!(f, "{}", self.port)?;
        if self.protocol == Protocol::Auto { Ok(()) } else { write!(f, "/{}", self.protocol) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_ports_round_trip() {
        for text in ["8080", "80/http", "web=8080", "db=5432/tcp", "65535/udp"] {
            assert_eq!(text.parse::<ServicePort>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_number_is_another_port_over_another_transport() {
        let key = |text: &str| text.parse::<ServicePort>().unwrap().key();
        assert_eq!(key("53/tcp"), key("53"));
        assert_ne!(key("53/tcp"), key("53/udp"));
    }

    #[test]
    fn bad_ports_are_named() {
        let table = [
            ("0", "port \"0\""),
            ("65536", "port \"65536\""),
            ("+80", "port \"+80\""),
            ("", "port \"\""),
            ("80/sctp", "protocol \"sctp\""),
            ("Web=80", "port name \"Web\""),
        ];
        for (text, expected) in table {
            let error = text.parse::<ServicePort>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
