//! Admission of connections to a port that everybody can reach: nothing before authentication costs more than a little.
//!
//! There are so many [`Places`] in all, and so many for each source. By [`Places::enter`], nobody waits and no newcomer is refused: at a
//! limit the source's oldest silent place is taken away. So who comes to talk gets in, however many sit there and say nothing. By
//! [`Places::turn`], those who talk wait for each other: of many who come at once none loses what it has begun.
//! Handshakes have deadlines ([`greet`]).

mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::mutex::lock;
use queue::Queue;

/// Time for which a client may be silent at first: clients speak first, and have nothing to wait for.
const FIRST_BYTE: Duration = Duration::from_secs(1);
/// Limit for its handshake then.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Limit for the wait for a place, which clients do not wait for much longer either.
const TURN: Duration = Duration::from_secs(10);
/// Pause when no connection can be accepted.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A limited number of places.
#[derive(Clone, Debug)]
pub struct Places<S: Ord + Clone> {
    inner: Arc<Mutex<Inner<S>>>,
}

/// Limits on places.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub total: usize,
    /// For one source.
    pub each: usize,
}

/// Holding of a place, given back on drop.
#[derive(Debug)]
pub struct Place<S: Ord + Clone> {
    id: u64,
    source: S,
    spoke: Spoke,
    taken_away: oneshot::Receiver<()>,
    inner: Arc<Mutex<Inner<S>>>,
}

/// Mark of a holder that has said what it came for: then others lose their places first.
#[derive(Clone, Debug, Default)]
pub struct Spoke(Arc<AtomicBool>);

/// Reasons for which a newcomer was turned away.
#[derive(Debug)]
pub enum Turned {
    /// The client said nothing.
    Silent,
    /// The handshake failed.
    Failed(io::Error),
    /// The handshake took too long.
    Late,
    /// The client's place was given to somebody else.
    Displaced,
}

#[derive(Debug)]
struct Inner<S: Ord + Clone> {
    limits: Limits,
    next: u64,
    occupants: BTreeMap<u64, Occupant>,
    sources: BTreeMap<S, BTreeSet<u64>>,
    queue: Queue<S>,
}

#[derive(Debug)]
struct Occupant {
    spoke: Spoke,
    take_away: oneshot::Sender<()>,
}

/// Accepts the next connection. While there are no descriptors, it waits for those who hold some to end.
///
/// # Cancel safety
/// Safe.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

/// Waits for a newcomer's first word, unless its place is taken meanwhile.
async fn hear<S: Ord + Clone>(place: &mut Place<S>, stream: &TcpStream) -> Result<(), Turned> {
    let spoke = place.spoke().clone();
    tokio::select! {
        said = first_word(stream, &spoke) => said,
        () = place.taken() => Err(Turned::Displaced),
    }
}

/// Shakes hands with a newcomer, who has a second to say something and five for its handshake, and holds the place as long.
///
/// # Errors
/// When it is turned away.
pub async fn greet<S: Ord + Clone, T, F: Future<Output = io::Result<T>>>(
    mut place: Place<S>,
    stream: TcpStream,
    shake_hands: impl FnOnce(TcpStream) -> F,
) -> Result<T, Turned> {
    hear(&mut place, &stream).await?;
    finish(place, shake_hands(stream)).await
}

/// As [`greet`], but once it has said something it gives its place up and waits for one of `turns`, in which it shakes hands.
///
/// # Errors
/// When it is turned away.
pub async fn greet_in_turn<S: Ord + Clone, T, F: Future<Output = io::Result<T>>>(
    mut place: Place<S>,
    turns: &Places<S>,
    stream: TcpStream,
    shake_hands: impl FnOnce(TcpStream) -> F,
) -> Result<T, Turned> {
    hear(&mut place, &stream).await?;
    let source = place.source.clone();
    drop(place);
    let turn = timeout(TURN, turns.turn(source)).await.map_err(|_| Turned::Late)?;
    finish(turn.ok_or(Turned::Displaced)?, shake_hands(stream)).await
}

/// Waits for the first byte of a client, and notes that it came.
async fn first_word(stream: &TcpStream, spoke: &Spoke) -> Result<(), Turned> {
    // Not `readable`, which may return although there is nothing.
    match timeout(FIRST_BYTE, stream.peek(&mut [0])).await {
        Ok(Ok(_)) => spoke.note(),
        Ok(Err(error)) => return Err(Turned::Failed(error)),
        Err(_) => return Err(Turned::Silent),
    }
    Ok(())
}

async fn finish<S: Ord + Clone, T>(
    mut place: Place<S>,
    shaking: impl Future<Output = io::Result<T>>,
) -> Result<T, Turned> {
    tokio::select! {
        shaken = timeout(HANDSHAKE, shaking) => match shaken {
            Ok(shaken) => shaken.map_err(Turned::Failed),
            Err(_) => Err(Turned::Late),
        },
        () = place.taken() => Err(Turned::Displaced),
    }
}

impl Turned {
    /// The reason in a word, for a label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Failed(_) => "failed",
            Self::Late => "timeout",
            Self::Displaced => "displaced",
        }
    }
}

impl Spoke {
    /// Notes it.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S: Ord + Clone> Places<S> {
    /// So many places, all free.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::with_queue(limits, Limits { total: 0, each: 0 })
    }

    /// A place for somebody from there.
    #[must_use]
    pub fn enter(&self, source: S) -> Place<S> {
        let mut inner = lock(&self.inner);
        if inner.is_full_for(&source) {
            inner.vacate(&source);
        } else if inner.is_full()
            && let Some(largest) = inner.largest()
        {
            inner.vacate(&largest);
        }
        inner.occupy(&self.inner, source)
    }
}

impl<S: Ord + Clone> Inner<S> {
    fn is_full(&self) -> bool {
        self.occupants.len() >= self.limits.total
    }

    /// Returns true if the source has all the places that it may have.
    fn is_full_for(&self, source: &S) -> bool {
        self.count(source) >= self.limits.each
    }

    /// Returns the number of places that a source has.
    fn count(&self, source: &S) -> usize {
        self.sources.get(source).map_or(0, BTreeSet::len)
    }

    /// Gives a place, whatever the limits are.
    fn occupy(&mut self, shared: &Arc<Mutex<Self>>, source: S) -> Place<S> {
        let id = self.next;
        self.next += 1;
        let (take_away, taken_away) = oneshot::channel();
        let spoke = Spoke::default();
        self.occupants.insert(id, Occupant { spoke: spoke.clone(), take_away });
        self.sources.entry(source.clone()).or_default().insert(id);
        Place { id, source, spoke, taken_away, inner: shared.clone() }
    }

    /// Returns the source with the most places.
    fn largest(&self) -> Option<S> {
        let largest = self.sources.iter().max_by_key(|(_, own)| own.len());
        largest.map(|(source, _)| source.clone())
    }

    /// Takes a place from a source: the oldest where nothing has been said, or else the oldest.
    fn vacate(&mut self, source: &S) {
        let Some(own) = self.sources.get(source) else { return };
        let silent = |id: &&u64| self.occupants.get(id).is_some_and(|occupant| !occupant.spoke.is_noted());
        let Some(id) = own.iter().find(silent).or_else(|| own.first()).copied() else { return };
        if let Some(occupant) = self.remove(source, id) {
            // Its holder may be leaving already.
            let _ = occupant.take_away.send(());
        }
    }

    fn remove(&mut self, source: &S, id: u64) -> Option<Occupant> {
        let own = self.sources.get_mut(source)?;
        own.remove(&id);
        if own.is_empty() {
            self.sources.remove(source);
        }
        self.occupants.remove(&id)
    }
}

impl<S: Ord + Clone> Place<S> {
    /// Returns the mark that its holder has spoken.
    #[must_use]
    pub fn spoke(&self) -> &Spoke {
        &self.spoke
    }

    /// Ready when the place has been taken away.
    pub fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.taken_away).poll(cx).map(|_| ())
    }

    /// Returns when the place has been taken away.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn taken(&mut self) {
        std::future::poll_fn(|cx| self.poll_taken(cx)).await;
    }
}

impl<S: Ord + Clone> Drop for Place<S> {
    fn drop(&mut self) {
        lock(&self.inner).remove(&self.source, self.id);
        queue::pass_on(&self.inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(place: &mut Place<u8>) -> bool {
        place.poll_taken(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn at_its_limit_a_source_loses_its_oldest_silent_place() {
        let places = Places::new(Limits { total: 8, each: 2 });
        let (mut first, mut second) = (places.enter(1), places.enter(1));
        first.spoke().note();
        let mut other = places.enter(2);
        let third = places.enter(1);
        assert!(is_taken(&mut second) && !is_taken(&mut first) && !is_taken(&mut other));
        third.spoke().note();
        let _fourth = places.enter(1);
        assert!(is_taken(&mut first), "when all have spoken, the oldest goes");
    }

    #[test]
    fn when_all_places_are_taken_whoever_has_most_loses_one() {
        let places = Places::new(Limits { total: 4, each: 4 });
        let mut quiet = places.enter(1);
        let mut many: Vec<_> = (0..3).map(|_| places.enter(2)).collect();
        let _newcomer = places.enter(3);
        assert!(is_taken(&mut many[0]) && !is_taken(&mut quiet));
        assert_eq!(lock(&places.inner).occupants.len(), 4);
    }

    #[test]
    fn places_are_given_back() {
        let places = Places::new(Limits { total: 2, each: 1 });
        for _ in 0..5 {
            let mut place = places.enter(1);
            assert!(!is_taken(&mut place));
        }
        let inner = lock(&places.inner);
        assert!(inner.occupants.is_empty() && inner.sources.is_empty());
    }
}
