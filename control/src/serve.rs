//! Sockets: TLS for hosts, a unix socket for root.

mod connection;
mod peer;
mod proof;
mod source;
mod standby;
mod tls;
mod unix;

use std::time::Duration;

use sealane_base::task::Task;

pub(crate) use peer::{CertifiedHost, Peer};
pub(crate) use proof::Proof;
pub(crate) use standby::{Leader, Refusing, is_refusal, refusal};
pub(crate) use tls::{Acceptor, Connections, Ready, TlsError, config};
pub(crate) use unix::{Socket, SocketError};

/// Time in which a server that drains ends.
const END: Duration = Duration::from_millis(500);

/// Waits for servers that drain, and ends those that do not end by themselves.
pub(crate) async fn ended(servers: Vec<Task>) {
    for server in servers {
        // One that is late is aborted.
        let _ = tokio::time::timeout(END, server).await;
    }
}
