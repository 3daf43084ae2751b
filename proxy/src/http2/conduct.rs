//! Conduct of clients, by which some get connections of their own.
//!
//! A server that is asked and left over and over protects itself by ending the connection (CVE-2023-44487), with everybody
//! on it; and whoever asks for much and reads nothing fills the windows of a connection. So who gives up many requests is served
//! apart from the others, for as long as it goes on, and so is what somebody asks for beyond some tens of requests at a time.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use sealane_base::task::{self, Task};

use super::{Pool, Request};
use crate::memory::{Memory, Usage};

/// Number of requests that may be given up at once, and number per second.
const AT_ONCE: f64 = 16.0;
const PER_SECOND: f64 = 8.0;
/// Time for which somebody is served apart after that, and those who come meanwhile, who may be the same.
const APART: Duration = Duration::from_secs(10);

/// Time at which somebody of a crowd was last seen to give up too many requests.
pub(crate) type Unrest = Rc<Cell<Option<Instant>>>;

/// Number of requests that were given up lately. Pure.
#[derive(Debug, Default)]
struct Given {
    level: f64,
    at: Option<Instant>,
}

impl Given {
    /// A request was given up; whether that makes too many.
    fn handle_given_up(&mut self, now: Instant) -> bool {
        let since = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.level = (self.level - since * PER_SECOND).max(0.0) + 1.0;
        self.at = Some(now);
        self.level > AT_ONCE
    }
}

/// Record of one connection's conduct.
#[derive(Debug)]
pub(crate) struct Conduct {
    given: RefCell<Given>,
    apart_until: Cell<Option<Instant>>,
    unrest: Unrest,
    memory: Rc<Memory>,
    client: Rc<Usage>,
    /// Pool of its own, and the task that lets go of idle connections in it.
    apart: OnceCell<(Rc<Pool>, Task)>,
}

impl Conduct {
    /// Nothing is known of a new connection of this client, except that it may be one more of somebody's.
    pub(crate) fn new(memory: &Rc<Memory>, client: &Rc<Usage>, unrest: &Unrest, now: Instant) -> Self {
        let seen = unrest.get().filter(|&at| now.saturating_duration_since(at) < APART);
        Self {
            given: RefCell::default(),
            apart_until: Cell::new(seen.map(|_| now + APART)),
            unrest: unrest.clone(),
            memory: memory.clone(),
            client: client.clone(),
            apart: OnceCell::new(),
        }
    }

    /// The connections for this request, where it may not have those that all share.
    pub(crate) fn apart(&self, request: &Request) -> Option<&Rc<Pool>> {
        let rowdy = self.apart_until.get().is_some_and(|until| request.began < until);
        if !rowdy && !self.client.is_heavy() {
            return None;
        }
        let (pool, _) = self.apart.get_or_init(|| {
            let pool = Rc::new(Pool::new(self.memory.clone()));
            let swept = pool.clone();
            (pool, task::spawn_local(async move { swept.sweep().await }))
        });
        Some(pool)
    }

    /// A request has ended.
    pub(crate) fn handle_end(&self, request: &Request) {
        if !request.was_given_up() {
            return;
        }
        let now = Instant::now();
        if self.given.borrow_mut().handle_given_up(now) {
            self.apart_until.set(Some(now + APART));
            self.unrest.set(Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_requests_given_up_at_once_are_too_many_and_now_and_then_some_are_not() {
        let now = Instant::now();
        let mut given = Given::default();
        assert_eq!((0..20).position(|_| given.handle_given_up(now)), Some(16));
        let mut given = Given::default();
        assert!((0..1000).all(|n| !given.handle_given_up(now + n * Duration::from_millis(150))));
        assert!((0..1000).any(|n| given.handle_given_up(now + n * Duration::from_millis(50))));
    }
}
