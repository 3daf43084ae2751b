//! Frames of a request, written and read.

use std::net::{Ipv4Addr, SocketAddr};

use sealane_proto::types::Port;

use super::{Decoder, encode};
use crate::protocol::Protocol;
use crate::tunnel::OpenHeader;

/// Both ends of a tunnel, without the encryption between.
#[derive(Debug)]
pub struct Framing {
    opening: OpenHeader,
    decoder: Decoder,
    wire: Vec<u8>,
}

impl Framing {
    /// A tunnel for calls to this port.
    #[must_use]
    pub fn to(port: Port) -> Self {
        let opening = OpenHeader {
            protocol: Protocol::Http1,
            port,
            service: None,
            original_destination: Some(SocketAddr::new(Ipv4Addr::new(10, 42, 255, 1).into(), 8080)),
            client: None,
            connection: Some(7),
        };
        Self { opening, decoder: Decoder::default(), wire: Vec::new() }
    }

    /// Carries a request as a stream of its own; returns the number of events that the other end sees.
    pub fn carry(&mut self, request: &[u8]) -> usize {
        self.wire.clear();
        encode::open(&mut self.wire, 1, &self.opening);
        encode::data(&mut self.wire, 1, request);
        encode::end(&mut self.wire, 1);
        let (mut input, mut events) = (&self.wire[..], 0);
        while let Ok(Some(_)) = self.decoder.next(&mut input) {
            events += 1;
        }
        events
    }
}
