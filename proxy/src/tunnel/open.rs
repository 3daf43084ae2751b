//! Opening of a stream.

use std::net::{IpAddr, SocketAddr};

use sealane_proto::types::{Port, ServiceName};

use crate::protocol::Protocol;

const SERVICE: u8 = 1;
const ORIGINAL_DESTINATION: u8 = 2;
const CLIENT: u8 = 3;
const PROTOCOL: u8 = 4;
const CONNECTION: u8 = 5;
/// HTTP/2 by its ALPN name (RFC 9113, section 3.1).
const HTTP2: &[u8] = b"h2";
/// Kinds of streams: the bytes of one TCP connection, or an HTTP/1 exchange.
const OPAQUE: u8 = 0;
const HTTP1: u8 = 1;

/// Statement of the connecting side about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenHeader {
    /// Protocol of its bytes. TLS is not told from other opaque bytes by the receiver.
    pub protocol: Protocol,
    /// The application's port at the receiver.
    pub port: Port,
    /// The service that was called.
    pub service: Option<ServiceName>,
    /// The address that the application called.
    pub original_destination: Option<SocketAddr>,
    /// Address of the caller, where the receiver should know.
    pub client: Option<SocketAddr>,
    /// Number of the client's connection that an exchange belongs to, which no other one of this tunnel has.
    pub connection: Option<u64>,
}

/// An OPEN that says nothing usable; its stream is reset, the tunnel goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenHeaderError {
    #[error("an OPEN without kind and port")]
    Short,
    #[error("an OPEN of unknown kind {0}")]
    Kind(u8),
    #[error("an OPEN for port 0")]
    Port,
    #[error("an OPEN with a malformed field {0}")]
    Field(u8),
}

impl OpenHeader {
    /// A header without the optional fields.
    #[must_use]
    pub fn new(protocol: Protocol, port: Port) -> Self {
        Self { protocol, port, service: None, original_destination: None, client: None, connection: None }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind_of(self.protocol));
        out.extend_from_slice(&self.port.get().to_be_bytes());
        if let Some(service) = &self.service {
            field(out, SERVICE, &[service.as_str().as_bytes()]);
        }
        for (kind, address) in [(ORIGINAL_DESTINATION, self.original_destination), (CLIENT, self.client)] {
            let Some(address) = address else { continue };
            let port = address.port().to_be_bytes();
            match address.ip() {
                IpAddr::V4(ip) => field(out, kind, &[&ip.octets(), &port]),
                IpAddr::V6(ip) => field(out, kind, &[&ip.octets(), &port]),
            }
        }
        if self.protocol == Protocol::Http2 {
            field(out, PROTOCOL, &[HTTP2]);
        }
        if let Some(number) = self.connection {
            field(out, CONNECTION, &[&number.to_be_bytes()]);
        }
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, OpenHeaderError> {
        let Some((&[kind, high, low], mut fields)) = payload.split_first_chunk() else {
            return Err(OpenHeaderError::Short);
        };
        let protocol = match kind {
            OPAQUE => Protocol::Opaque,
            HTTP1 => Protocol::Http1,
            unknown => return Err(OpenHeaderError::Kind(unknown)),
        };
        let port = Port::try_from(u16::from_be_bytes([high, low])).map_err(|_| OpenHeaderError::Port)?;
        let mut header = Self::new(protocol, port);
        while let Some((&[kind, length], rest)) = fields.split_first_chunk() {
            let malformed = OpenHeaderError::Field(kind);
            let (value, rest) = rest.split_at_checked(length.into()).ok_or(malformed)?;
            match kind {
                SERVICE => header.service = Some(service(value).ok_or(malformed)?),
                ORIGINAL_DESTINATION => {
                    header.original_destination = Some(address(value).ok_or(malformed)?);
                }
                CLIENT => header.client = Some(address(value).ok_or(malformed)?),
                PROTOCOL if kind_of(header.protocol) == OPAQUE => {
                    header.protocol = if value == HTTP2 { Protocol::Http2 } else { Protocol::Opaque };
                }
                CONNECTION => {
                    let number = value.try_into().map_err(|_| malformed)?;
                    header.connection = Some(u64::from_be_bytes(number));
                }
                _ => {}
            }
            fields = rest;
        }
        Ok(header)
    }
}

/// Returns the kind of a stream with this protocol. Whoever does not know better passes the bytes of HTTP/2 on as they are.
fn kind_of(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Http1 => HTTP1,
        Protocol::Http2 | Protocol::Tls | Protocol::Opaque => OPAQUE,
    }
}

/// Values are names and addresses: shorter than 256 bytes by their types.
fn field(out: &mut Vec<u8>, kind: u8, value: &[&[u8]]) {
    let length: usize = value.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&[kind, u8::try_from(length).unwrap_or(u8::MAX)]);
    value.iter().for_each(|part| out.extend_from_slice(part));
}

fn service(value: &[u8]) -> Option<ServiceName> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn address(value: &[u8]) -> Option<SocketAddr> {
    let (ip, &port) = value.split_last_chunk::<2>()?;
    let ip = match ip.len() {
        4 => IpAddr::from(*ip.first_chunk::<4>()?),
        16 => IpAddr::from(*ip.first_chunk::<16>()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
}
