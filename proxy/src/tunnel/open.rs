//! Opening of a stream.

use std::net::{IpAddr, SocketAddr};

use sealane_proto::types::{Port, ServiceName};

const SERVICE: u8 = 1;
const ORIGINAL_DESTINATION: u8 = 2;
const CLIENT: u8 = 3;
const PROTOCOL: u8 = 4;
const CONNECTION: u8 = 5;
/// HTTP/2 by its ALPN name (RFC 9113, section 3.1).
const HTTP2: &[u8] = b"h2";

/// Kind of the bytes on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The bytes of one TCP connection.
    Opaque,
    /// An HTTP/1 exchange: a request and its response.
    Http1,
}

/// Statement of the connecting side about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenHeader {
    /// Kind of its bytes.
    pub kind: Kind,
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
    /// True if the bytes are an HTTP/2 connection, so that the receiver may serve its requests one by one.
    pub http2: bool,
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
    pub fn new(kind: Kind, port: Port) -> Self {
        Self {
            kind,
            port,
            service: None,
            original_destination: None,
            client: None,
            connection: None,
            http2: false,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.kind {
            Kind::Opaque => 0,
            Kind::Http1 => 1,
        });
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
        if self.http2 {
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
        let kind = match kind {
            0 => Kind::Opaque,
            1 => Kind::Http1,
            unknown => return Err(OpenHeaderError::Kind(unknown)),
        };
        let port = Port::try_from(u16::from_be_bytes([high, low])).map_err(|_| OpenHeaderError::Port)?;
        let mut header = Self::new(kind, port);
        while let Some((&[kind, length], rest)) = fields.split_first_chunk() {
            let malformed = OpenHeaderError::Field(kind);
            let (value, rest) = rest.split_at_checked(length.into()).ok_or(malformed)?;
            match kind {
                SERVICE => header.service = Some(service(value).ok_or(malformed)?),
                ORIGINAL_DESTINATION => {
                    header.original_destination = Some(address(value).ok_or(malformed)?);
                }
                CLIENT => header.client = Some(address(value).ok_or(malformed)?),
                PROTOCOL => header.http2 = value == HTTP2,
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
