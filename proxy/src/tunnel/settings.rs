//! Settings of tunnels.

use std::time::Duration;

/// Limits and times of tunnels; the defaults suit sidecars.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Accepting: how many streams a tunnel may have open at once; further ones are refused.
    pub max_streams: u32,
    /// Connecting: from how many open streams on another tunnel to the same peer is made.
    pub streams_per_tunnel: u32,
    /// Connecting: how many tunnels to one peer at most.
    pub tunnels_per_peer: usize,
    /// Connecting: for TCP, TLS and the peer's greeting together. After half of it, the same is tried by short packets.
    pub connect_timeout: Duration,
    /// Connecting: the same to a peer whose host cannot be reached, as this host's agent knows.
    pub away_timeout: Duration,
    /// Accepting: for TLS.
    pub handshake_timeout: Duration,
    /// Connecting: a tunnel without streams is closed after this long.
    pub idle_timeout: Duration,
    /// Bounds of a peer's silence.
    pub patience: Patience,
    /// Patience with the tunnels of a peer that may be about to go.
    pub doubted: Patience,
    /// A tunnel takes no new streams after this long, so that keys and certificates are renewed.
    pub max_age: Duration,
    /// The same of a tunnel of short packets, which is made while longer ones may be lost.
    pub narrow_age: Duration,
}

/// Bounds of a peer's silence.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A peer that is silent this long is asked by PING.
    pub ping_after: Duration,
    /// A peer that is silent this long after a PING is lost.
    pub lost_after: Duration,
    /// Interval of looks at a tunnel on which nothing is expected.
    pub look_every: Duration,
}

impl Settings {
    /// The bounds of a peer's silence, which may be `doubted`.
    pub(super) fn patience(&self, doubted: bool) -> Patience {
        if doubted { self.doubted } else { self.patience }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_streams: 1000,
            streams_per_tunnel: 250,
            tunnels_per_peer: 8,
            connect_timeout: Duration::from_secs(2),
            away_timeout: Duration::from_millis(300),
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            patience: Patience {
                ping_after: Duration::from_secs(3),
                lost_after: Duration::from_secs(5),
                look_every: Duration::from_secs(2),
            },
            doubted: Patience {
                ping_after: Duration::from_millis(500),
                lost_after: Duration::from_secs(2),
                look_every: Duration::from_millis(500),
            },
            max_age: Duration::from_secs(24 * 3600),
            narrow_age: Duration::from_secs(30),
        }
    }
}
