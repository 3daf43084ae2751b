//! Connections between two requests.
//!
//! An application may close an idle connection at any moment, also at that at which a request is sent. A request
//! that may be repeated then simply is; for one that may not, only a connection that was used within half a second is taken,
//! which is less than any server's idle time, and only of an application that was seen to keep connections: some close
//! behind each answer without saying so.
//!
//! Remains of one caller reach nobody else: connections are kept per tunnel, and one on which something may have been left (nobody
//! but the application knows what it has read) serves no other connection than that of the client's which has used it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::tunnel::TunnelPeer;

const MAX_IDLE: Duration = Duration::from_secs(3);
const MAX_IDLE_UNREPEATABLE: Duration = Duration::from_millis(500);
/// Time that a connection must have stayed open for it to be known that the application keeps connections.
const KEPT: Duration = Duration::from_millis(20);
/// Time for which an application that has closed a connection just used is taken for one that does so.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Number of connections that are kept for one caller of one address: of those that serve anybody there and of those that serve one client.
const MAX_PER_KEY: usize = 128;
/// Number of connections that are kept in all.
const MAX_IN_ALL: usize = 4096;

/// The idle connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct IdleConnections {
    by_key: RefCell<HashMap<IdleKey, Shelf>>,
    habits: RefCell<HashMap<SocketAddr, Habit>>,
    count: Cell<usize>,
    filled: Notify,
}

/// Caller whose requests a connection carries, and its destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct IdleKey {
    /// Tunnel of the caller; `None` for the workload itself.
    pub(crate) peer: Option<TunnelPeer>,
    /// The called address.
    pub(crate) address: SocketAddr,
}

/// A connection of a client, by the number that its sidecar has given it; `None` when that has told none.
pub(crate) type Client = Option<u64>;

/// A connection that has carried requests.
#[derive(Debug)]
pub(crate) struct Used {
    /// The connection.
    pub(crate) stream: Rc<TcpStream>,
    /// True if something may have been left on it, so that it serves one client alone.
    pub(crate) in_doubt: bool,
}

/// The connections of one key.
#[derive(Debug, Default)]
struct Shelf {
    clean: Vec<Idle>,
    /// With the client that each of them serves, oldest first.
    in_doubt: Vec<(u64, Idle)>,
}

/// Habit of an application with connections between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Keeps,
    /// The application has closed one, at this time.
    Closes(Instant),
}

#[derive(Debug)]
struct Idle {
    stream: Rc<TcpStream>,
    since: Instant,
}

impl IdleConnections {
    /// Takes the connection that was used last, if it is fit for this client's request, which may be repeated or not.
    pub(crate) fn take(&self, key: &IdleKey, client: Client, repeatable: bool) -> Option<Used> {
        let limit = if repeatable { MAX_IDLE } else { MAX_IDLE_UNREPEATABLE };
        let mut by_key = self.by_key.borrow_mut();
        let shelf = by_key.get_mut(key)?;
        let now = Instant::now();
        if !repeatable && !self.keeps(key.address, shelf.oldest(), now) {
            return None;
        }
        while let Some((last, in_doubt)) = shelf.pop(client, now, limit) {
            self.count.update(|count| count - 1);
            if is_silent(&last.stream) {
                return Some(Used { stream: last.stream, in_doubt });
            }
            if now.saturating_duration_since(last.since) < MAX_IDLE_UNREPEATABLE {
                self.note_closed(key.address, now);
            }
        }
        None
    }

    /// Returns true if the application at this address is known to keep connections, as the oldest one may show.
    fn keeps(&self, address: SocketAddr, oldest: Option<&Idle>, now: Instant) -> bool {
        let mut habits = self.habits.borrow_mut();
        match habits.get(&address) {
            Some(Habit::Keeps) => return true,
            Some(Habit::Closes(at)) if now.saturating_duration_since(*at) < REMEMBERED => return false,
            Some(Habit::Closes(_)) | None => {}
        }
        let shown = oldest.is_some_and(|oldest| {
            now.saturating_duration_since(oldest.since) >= KEPT && is_silent(&oldest.stream)
        });
        if shown {
            habits.insert(address, Habit::Keeps);
        }
        shown
    }

    /// The application at this address has closed a connection that had just been used.
    pub(crate) fn note_closed(&self, address: SocketAddr, now: Instant) {
        self.habits.borrow_mut().insert(address, Habit::Closes(now));
    }

    /// Keeps a connection whose last message is complete on both sides, for this client alone when it is in doubt.
    pub(crate) fn put(&self, key: IdleKey, client: Client, used: Used) {
        let Used { stream, in_doubt } = used;
        if self.count.get() >= MAX_IN_ALL || (in_doubt && client.is_none()) {
            return;
        }
        let idle = Idle { stream, since: Instant::now() };
        let mut by_key = self.by_key.borrow_mut();
        let shelf = by_key.entry(key).or_default();
        match client.filter(|_| in_doubt) {
            Some(client) => {
                if shelf.in_doubt.len() >= MAX_PER_KEY {
                    // Its client is gone, most likely.
                    shelf.in_doubt.remove(0);
                    self.count.update(|count| count - 1);
                }
                shelf.in_doubt.push((client, idle));
            }
            None if shelf.clean.len() < MAX_PER_KEY => shelf.clean.push(idle),
            None => return,
        }
        self.count.update(|count| count + 1);
        drop(by_key);
        self.filled.notify_one();
    }

    fn forget(&self, now: Instant) {
        let mut by_key = self.by_key.borrow_mut();
        let mut left = 0;
        by_key.retain(|_, shelf| {
            shelf.clean.retain(|one| now.saturating_duration_since(one.since) < MAX_IDLE);
            shelf.in_doubt.retain(|(_, one)| now.saturating_duration_since(one.since) < MAX_IDLE);
            let kept = shelf.clean.len() + shelf.in_doubt.len();
            left += kept;
            kept > 0
        });
        self.count.set(left);
        self.habits.borrow_mut().retain(|address, habit| match habit {
            Habit::Keeps => by_key.keys().any(|key| key.address == *address),
            Habit::Closes(at) => now.saturating_duration_since(*at) < REMEMBERED,
        });
    }

    /// Closes what has been idle for too long, as long as it is polled.
    pub(crate) async fn sweep(&self) {
        loop {
            self.filled.notified().await;
            while !self.by_key.borrow().is_empty() {
                tokio::time::sleep(MAX_IDLE / 3).await;
                let now = Instant::now();
                self.forget(now);
            }
        }
    }
}

impl Shelf {
    /// The client's own that was used last, else the last one that serves anybody, if that was less than `limit` ago; and
    /// whether it is in doubt.
    fn pop(&mut self, client: Client, now: Instant, limit: Duration) -> Option<(Idle, bool)> {
        let fresh = |one: &Idle| now.saturating_duration_since(one.since) < limit;
        if let Some(client) = client
            && let Some(at) = self.in_doubt.iter().rposition(|(whose, one)| *whose == client && fresh(one))
        {
            return Some((self.in_doubt.remove(at).1, true));
        }
        self.clean.pop_if(|last| fresh(last)).map(|last| (last, false))
    }

    fn oldest(&self) -> Option<&Idle> {
        let in_doubt = self.in_doubt.first().map(|(_, idle)| idle);
        self.clean.first().into_iter().chain(in_doubt).min_by_key(|idle| idle.since)
    }
}

/// Returns true if nothing was said on the connection since: neither bytes, which nobody asked for, nor its end.
fn is_silent(stream: &TcpStream) -> bool {
    if stream.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending() {
        return true;
    }
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
