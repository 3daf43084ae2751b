//! Plain connections to other workloads, which end when the host at their other end cannot be reached.
//!
//! A kernel keeps a connection whose other end is silent for a quarter of an hour. Where an answer is awaited, whoever waits is told
//! as soon as the agent has told of the host, as in a tunnel (`tunnel::liveness`). A connection on which none is awaited stays, for
//! the host may return.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use rustix::io::ioctl_fionread;
use rustix::net::connect_unspec;
use sealane_sys::tcp::TcpTraffic;
use tokio::net::TcpStream;

use crate::tunnel::Away;

/// Time that a peer has for a sign of life whose host is said to be away.
const AWAY: Duration = Duration::from_millis(200);

/// Number of connections from which on those that have ended are forgotten.
const FEW: usize = 64;

/// Sign that an answer is awaited on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaits {
    /// Whoever holds it awaits one.
    Always,
    /// Something was sent since the last segment with data came, or was not acknowledged.
    AfterWords,
}

/// The open connections of one worker.
#[derive(Debug, Default)]
pub(super) struct OpenConnections {
    entries: RefCell<Vec<Entry>>,
    /// Number of entries at which those that have ended are forgotten.
    full: Cell<usize>,
}

#[derive(Debug)]
struct Entry {
    peer: SocketAddr,
    stream: Weak<TcpStream>,
    awaits: Awaits,
    /// Segments that had come at the last look, when an answer was awaited and the host was away.
    doubted: Option<u32>,
}

impl OpenConnections {
    /// Takes in a connection that has just come up.
    pub(super) fn enter(&self, peer: SocketAddr, stream: &Rc<TcpStream>, awaits: Awaits) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= self.full.get() {
            entries.retain(|entry| entry.stream.strong_count() > 0);
            self.full.set(FEW.max(entries.len() * 2));
        }
        entries.push(Entry { peer, stream: Rc::downgrade(stream), awaits, doubted: None });
    }

    /// Bytes of another protocol follow on this connection.
    pub(super) fn set_upgraded(&self, stream: &Rc<TcpStream>) {
        let stream = Rc::downgrade(stream);
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.iter_mut().rfind(|entry| entry.stream.ptr_eq(&stream)) {
            entry.awaits = Awaits::AfterWords;
        }
    }

    /// Ends the connections whose hosts are away, and where an answer was awaited at the last two looks and nothing came between them.
    fn look(&self, away: &Away) {
        self.entries.borrow_mut().retain_mut(|entry| {
            let Some(stream) = entry.stream.upgrade() else { return false };
            let seen = if away.has(entry.peer.ip()) { silent(&stream, entry.awaits) } else { None };
            if seen.is_some() && seen == entry.doubted {
                tracing::debug!(peer = %entry.peer, "a connection ends: its host cannot be reached");
                // Both of its ends read that the connection was reset. One that is dead already reads its own error.
                let _ = connect_unspec(&*stream);
                return false;
            }
            entry.doubted = seen;
            true
        });
    }

    /// Looks after the connections while hosts are away, as long as it is polled.
    pub(super) async fn watch(&self, away: &Away) {
        let mut word = away.watch();
        loop {
            while word.has_any() {
                self.look(away);
                tokio::time::sleep(AWAY).await;
            }
            // Nobody is in doubt any more.
            self.look(away);
            word.changed().await;
        }
    }
}

/// Segments with data that have come so far, where an answer is awaited and all that has come was read.
fn silent(stream: &TcpStream, awaits: Awaits) -> Option<u32> {
    let traffic = TcpTraffic::of(stream).ok()??;
    let waits = match awaits {
        Awaits::Always => true,
        Awaits::AfterWords => traffic.awaits_answer(),
    };
    (waits && ioctl_fionread(stream).is_ok_and(|unread| unread == 0)).then_some(traffic.received)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::dial::{Dialer, FirstWord};

    const PEER: [u8; 4] = [127, 0, 0, 2];

    /// A connection through a dialer, and its other end.
    async fn connected(dialer: &Dialer, awaits: Awaits) -> (Rc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind((IpAddr::from(PEER), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) =
            tokio::join!(dialer.connect(address, (FirstWord::Anyones, awaits)), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// The error that a reader gets within a second; `None` when it still waits then.
    async fn broken(stream: &TcpStream) -> Option<std::io::ErrorKind> {
        let reading = stream.async_io(tokio::io::Interest::READABLE, || stream.try_read(&mut [0; 16]));
        let read = tokio::time::timeout(Duration::from_secs(1), reading).await.ok()?;
        Some(read.expect_err("nobody has said anything").kind())
    }

    fn away(peers: &[[u8; 4]]) -> crate::tunnel::AwayPeers {
        std::sync::Arc::new(peers.iter().map(|&peer| IpAddr::from(peer)).collect())
    }

    #[tokio::test]
    async fn who_waits_for_a_host_that_is_away_is_told_and_who_does_not_is_left_alone() {
        let dialer = Dialer::default();
        let (asked, _far) = connected(&dialer, Awaits::Always).await;
        let (idle, _idle_far) = connected(&dialer, Awaits::AfterWords).await;
        let (said, _said_far) = connected(&dialer, Awaits::AfterWords).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        said.try_write(b"a question").unwrap();
        let began = Instant::now();
        dialer.set_away(&away(&[PEER]));
        let reset = Some(std::io::ErrorKind::ConnectionReset);
        let all = async { tokio::join!(broken(&asked), broken(&said), broken(&idle)) };
        tokio::select! {
            () = dialer.run() => unreachable!("it goes on"),
            seen = all => assert_eq!(seen, (reset, reset, None)),
        }
        assert!(began.elapsed() >= Duration::from_secs(1), "the idle one was waited for");
    }

    #[tokio::test]
    async fn a_host_that_speaks_or_returns_keeps_its_connections() {
        let dialer = Dialer::default();
        let (speaking, mut far) = connected(&dialer, Awaits::Always).await;
        let (other, _other_far) = connected(&dialer, Awaits::Always).await;
        dialer.set_away(&away(&[[127, 0, 0, 3]]));
        let talk = async {
            assert_eq!(broken(&other).await, None, "another host is away");
            dialer.set_away(&away(&[PEER]));
            for _ in 0..10 {
                far.write_all(b"x").await.unwrap();
                speaking.readable().await.unwrap();
                assert_eq!(speaking.try_read(&mut [0; 16]).unwrap(), 1);
                tokio::time::sleep(AWAY / 4).await;
            }
            dialer.set_away(&away(&[]));
            assert_eq!(broken(&speaking).await, None);
        };
        tokio::select! {
            () = dialer.run() => unreachable!("it goes on"),
            () = talk => {}
        }
    }

    #[tokio::test]
    async fn what_has_come_and_was_not_read_is_not_lost() {
        let dialer = Dialer::default();
        let (near, mut far) = connected(&dialer, Awaits::Always).await;
        far.write_all(b"the first part").await.unwrap();
        dialer.set_away(&away(&[PEER]));
        let slow = tokio::time::timeout(4 * AWAY, dialer.run()).await;
        assert!(slow.is_err());
        let mut seen = [0; 64];
        near.readable().await.unwrap();
        assert_eq!(near.try_read(&mut seen).unwrap(), 14);
    }

    #[tokio::test]
    async fn one_that_was_upgraded_awaits_an_answer_after_words_alone() {
        let dialer = Dialer::default();
        let (near, mut far) = connected(&dialer, Awaits::Always).await;
        near.try_write(b"GET").unwrap();
        let mut seen = [0; 3];
        far.read_exact(&mut seen).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        far.write_all(b"101").await.unwrap();
        near.readable().await.unwrap();
        near.try_read(&mut seen).unwrap();
        dialer.set_upgraded(&near);
        dialer.set_away(&away(&[PEER]));
        tokio::select! {
            () = dialer.run() => unreachable!("it goes on"),
            seen = broken(&near) => assert_eq!(seen, None),
        }
    }

    #[tokio::test]
    async fn connections_that_have_ended_are_forgotten() {
        let dialer = Dialer::default();
        for _ in 0..3 * FEW {
            drop(connected(&dialer, Awaits::Always).await);
        }
        assert!(dialer.open.entries.borrow().len() <= FEW + 1);
    }
}
