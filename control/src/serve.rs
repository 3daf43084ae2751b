//! Sockets: TLS for hosts, a unix socket for root.

mod proof;
mod tls;
mod unix;

use std::net::SocketAddr;

use sealane_proto::identity::SpiffeId;

pub(crate) use proof::Proof;
pub(crate) use tls::{Connection, TlsError, accept, config};
pub(crate) use unix::{Socket, SocketError};

/// Who is at the other end of a connection from a host.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Where it connects from.
    pub(crate) addr: SocketAddr,
    /// Who its certificate says it is; none while it joins.
    pub(crate) identity: Option<SpiffeId>,
    /// What else its certificate says.
    pub(crate) proof: Option<Proof>,
}
