//! Errors of tunnels and their streams.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::frame::ResetCode;

/// Reasons for which a stream cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A side reset it.
    #[error("the stream was reset: {0}")]
    Reset(ResetCode),
    /// A side reset it, and says why.
    #[error("the stream was reset: {reason}")]
    Explained {
        /// Kind of the reason.
        code: ResetCode,
        /// In words.
        reason: Rc<str>,
    },
    /// The connection beneath died.
    #[error("the tunnel was lost: {reason}")]
    TunnelLost {
        /// True if not a byte of the stream was given to the connection.
        never_sent: bool,
        /// Cause of the loss.
        reason: Rc<str>,
    },
}

impl StreamError {
    /// Returns true if the receiving application has certainly seen nothing of the stream, so that a retry repeats
    /// nothing.
    #[must_use]
    pub fn never_processed(&self) -> bool {
        match self {
            Self::Reset(code) | Self::Explained { code, .. } => code.never_processed(),
            Self::TunnelLost { never_sent, .. } => *never_sent,
        }
    }
}

/// Reasons for which no stream was opened. Whichever it is: nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// TCP: refused, unreachable.
    #[error("no connection to {peer}: {source}")]
    Connect {
        /// The sidecar that was called.
        peer: SocketAddr,
        /// Error of the kernel.
        source: Rc<io::Error>,
    },
    /// No TCP connection, TLS handshake or greeting in time.
    #[error("no tunnel to {peer} within {after:?}")]
    Timeout {
        /// The sidecar that was called.
        peer: SocketAddr,
        /// The limit.
        after: Duration,
    },
    /// The peer is not who was called, or its certificate is no good.
    #[error("the identity of {peer} is not accepted: {reason}")]
    Identity {
        /// The sidecar that was called.
        peer: SocketAddr,
        /// Peer that came and the one that was expected, or the fault of the certificate.
        reason: Rc<str>,
    },
    /// No tunnel in the short time that there is for a peer whose host cannot be reached.
    #[error("the host of {peer} cannot be reached")]
    Away {
        /// The sidecar that was called.
        peer: SocketAddr,
    },
    /// The peer does not answer on the tunnels that there are.
    #[error("{peer} does not answer")]
    Silent {
        /// The sidecar that was called.
        peer: SocketAddr,
    },
    /// TLS or the protocol failed otherwise; also when the peer does not accept our identity.
    #[error("no tunnel to {peer}: {reason}")]
    Handshake {
        /// The sidecar that was called.
        peer: SocketAddr,
        /// Cause of the failure.
        reason: Rc<str>,
    },
    /// All tunnels that the peer may have are full.
    #[error("all {tunnels} tunnels to {peer} are full")]
    Saturated {
        /// The sidecar that was called.
        peer: SocketAddr,
        /// Number of tunnels.
        tunnels: usize,
    },
    /// The peer ends every tunnel as it comes up.
    #[error("{peer} ends every tunnel as it comes up")]
    Closing {
        /// The sidecar that was called.
        peer: SocketAddr,
    },
    /// We have no identity yet.
    #[error("this sidecar has no identity yet; its agent hands it one")]
    NoIdentity,
    /// This sidecar is ending.
    #[error("this sidecar is ending")]
    Draining,
}
