//! Refusal of connections.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Closing the stream from now on sends RST instead of FIN (SO_LINGER 0).
pub(crate) fn refuse(stream: &TcpStream) {
    // A socket that cannot be told so is closed either way.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
