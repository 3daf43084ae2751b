//! Protocol of a connection: the one word for it from detection to the opening of a tunnel's stream.

/// Protocol that a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1: requests and responses, each passed on by itself.
    Http1,
    /// HTTP/2: requests as streams, each passed on by itself.
    Http2,
    /// TLS of the application's own, passed on as its bytes.
    Tls,
    /// Anything else, passed on as its bytes.
    Opaque,
}

impl Protocol {
    /// Returns true if the sidecar passes single requests on, in place of a connection's bytes.
    #[must_use]
    pub fn has_requests(self) -> bool {
        match self {
            Self::Http1 | Self::Http2 => true,
            Self::Tls | Self::Opaque => false,
        }
    }
}
