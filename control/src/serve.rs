//! Sockets: TLS for hosts, a unix socket for root.

mod connection;
mod peer;
mod proof;
mod source;
mod tls;
mod unix;

pub(crate) use connection::Connection;
pub(crate) use peer::{CertifiedHost, Peer};
pub(crate) use proof::Proof;
pub(crate) use tls::{Acceptor, Ready, TlsError, config};
pub(crate) use unix::{Socket, SocketError};
