//! Obstacles to a channel in words for people, with what to do about them.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use rustls::CertificateError;
use sealane_base::text::plain;
use sealane_proto::types::UnderlayAddrs;

use super::conversation::Ended;
use super::session::Fault;
use super::states::{Obstacle, ObstacleKind};

/// Tells what keeps a call from being answered.
pub(super) fn of_connecting(address: SocketAddr, error: &io::Error) -> Obstacle {
    let (kind, why) = if error.kind() == ErrorKind::ConnectionRefused {
        let why = "nobody listens there: its agent does not run, is of a version without this channel, or has another --peer-port";
        (ObstacleKind::Refused, why.to_owned())
    } else if error.kind() == ErrorKind::TimedOut {
        let (port, why) =
            (address.port(), "nobody answers: the host is down, or a firewall drops TCP to port");
        (ObstacleKind::Silent, format!("{why} {port}; let it pass between all hosts"))
    } else if [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable].contains(&error.kind()) {
        (ObstacleKind::Silent, format!("no way leads there; see `ip route get {}`", address.ip()))
    } else {
        (ObstacleKind::Silent, plain(error))
    };
    Obstacle::new(kind, format!("{address}: {why}"))
}

/// Tells that a host is nowhere else than where this one is.
pub(super) fn of_own_address(here: UnderlayAddrs) -> Obstacle {
    let words = format!(
        "this host is at {here} now, where the other one was, and nobody says where that is: it is found when control is back or \
         another host has found it"
    );
    Obstacle::new(ObstacleKind::Lost, words)
}

/// Tells what keeps the two sides from trusting each other.
pub(super) fn of_handshake(address: SocketAddr, error: &io::Error) -> Obstacle {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let why = match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(ours))) => ours.0.to_string(),
        Some(rustls::Error::InvalidCertificate(CertificateError::Revoked)) => {
            "it was removed from the mesh".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidYetContext { .. } | CertificateError::ExpiredContext { .. },
        )) => "its certificate is not valid now by this host's clock; compare the clocks of both (NTP)"
            .to_owned(),
        Some(rustls::Error::InvalidMessage(_)) => {
            "what answers there speaks no TLS: see that --peer-port is the same on all hosts".to_owned()
        }
        Some(_) | None if error.kind() == ErrorKind::TimedOut => "the handshake takes too long".to_owned(),
        Some(_) | None => plain(error),
    };
    Obstacle::new(ObstacleKind::Distrust, format!("{address}: {why}"))
}

impl ObstacleKind {
    /// The kind of what ended a connection.
    pub(super) fn of(ended: &Ended) -> Self {
        match ended {
            Ended::Fault(Fault::Silent) | Ended::Stuck => Self::Silent,
            Ended::Fault(
                Fault::Malformed(_)
                | Fault::Protocol(_)
                | Fault::Unexpected
                | Fault::TooMuch
                | Fault::Disagrees,
            )
            | Ended::Revoked => Self::Distrust,
            Ended::Broken(_) | Ended::Closed | Ended::Expired | Ended::Moved => Self::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_kernel_says_people_read_what_to_do() {
        let address = "192.0.2.2:7444".parse().unwrap();
        // errno(3) of Linux: ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ECONNRESET.
        for (number, kind, expected) in [
            (111, ObstacleKind::Refused, "nobody listens there: its agent does not run"),
            (
                110,
                ObstacleKind::Silent,
                "nobody answers: the host is down, or a firewall drops TCP to port 7444",
            ),
            (113, ObstacleKind::Silent, "no way leads there; see `ip route get 192.0.2.2`"),
            (104, ObstacleKind::Silent, "Connection reset by peer"),
        ] {
            let obstacle = of_connecting(address, &io::Error::from_raw_os_error(number));
            assert_eq!(obstacle.kind, kind);
            let said = obstacle.words;
            assert!(
                said.starts_with(&format!("192.0.2.2:7444: {expected}")) && !said.contains("os error"),
                "{said}"
            );
        }
    }
}
