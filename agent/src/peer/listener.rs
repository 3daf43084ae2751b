//! The port at which peers call: handshakes beside each other, each within deadlines; strangers get no further.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sealane_base::admission::{self, Limits, Place, Places};
use sealane_base::places::source_of;
use sealane_base::task;
use sealane_base::text::plain;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::credentials::{Credentials, Secured};
use super::metrics::PeerMetrics;
use super::states::Shown;

/// Handshakes under way from addresses of peers.
const KNOWN: Limits = Limits { total: 1_024, each: 8 };
/// And from anywhere else: a host may call from an address that is not its underlay address.
const OTHERS: Limits = Limits { total: 64, each: 8 };
/// Pause before an address that cannot be had is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Answers calls.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    /// Identity that this host shows, and the hosts it trusts.
    pub(super) credentials: watch::Receiver<Arc<Credentials>>,
    /// Addresses of peers.
    pub(super) known: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    /// Takes connections whose handshake is done.
    pub(super) ready: mpsc::Sender<Secured>,
    /// Place in which obstacles are shown.
    pub(super) shown: Shown,
    /// Counts.
    pub(super) metrics: PeerMetrics,
}

impl Listener {
    /// Listens at this address for ever; tries again for as long as it cannot.
    pub(super) async fn run(self, address: SocketAddr) {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    self.shown.unserved(address, None);
                    self.accept(listener).await;
                }
                Err(error) => {
                    let said = unserved(address, &error);
                    tracing::debug!("{said}");
                    self.shown.unserved(address, Some(said));
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn accept(&self, listener: TcpListener) {
        let [known, others] = [KNOWN, OTHERS].map(Places::new);
        loop {
            let (stream, from) = admission::accept(&listener).await;
            let source = source_of(from.ip());
            let is_known = self.known.borrow().contains(&source);
            let places = if is_known { &known } else { &others };
            let greeting = self.clone().greet(stream, places.enter(source));
            task::spawn("peer-handshake", Box::pin(greeting)).detach();
        }
    }

    async fn greet(self, stream: TcpStream, place: Place<IpAddr>) {
        let credentials = self.credentials.borrow().clone();
        match admission::greet(place, stream, |stream| async move { credentials.accept(stream).await }).await
        {
            // An error means that the agent ends.
            Ok(Some(secured)) => drop(self.ready.send(secured).await),
            Ok(None) => {}
            Err(turned) => {
                tracing::debug!(?turned, "a caller is no peer");
                self.metrics.refuse(turned.as_str());
            }
        }
    }
}

fn unserved(address: SocketAddr, error: &io::Error) -> String {
    let (why, fix) = if error.kind() == ErrorKind::AddrNotAvailable {
        ("no device of this host has that address".to_owned(), "give one that `ip addr` shows to --underlay")
    } else if error.kind() == ErrorKind::AddrInUse {
        let fix = "`ss -ltnp` says which: end it, or choose another --peer-port on all hosts";
        ("another process listens there".to_owned(), fix)
    } else {
        (plain(error), "it is tried again")
    };
    format!("other hosts cannot call this one on {address}: {why}; {fix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_had_is_told_with_what_to_do() {
        let address = "192.0.2.1:7444".parse().unwrap();
        // errno(3) of Linux: EADDRNOTAVAIL, EADDRINUSE, EACCES.
        for (number, expected) in [
            (99, "no device of this host has that address; give one"),
            (98, "another process listens there; `ss -ltnp` says which"),
            (13, "Permission denied; it is tried again"),
        ] {
            let said = unserved(address, &io::Error::from_raw_os_error(number));
            let start = format!("other hosts cannot call this one on 192.0.2.1:7444: {expected}");
            assert!(said.starts_with(&start) && !said.contains("os error"), "{said}");
        }
    }
}
