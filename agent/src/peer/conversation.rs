//! Frames over one connection, until it ends.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use sealane_proto::peer::PeerFrame;
use sealane_proto::types::NodeName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};
use tokio_rustls::TlsStream;

use super::credentials::Secured;
use super::intake::Intake;
use super::metrics::{Direction, PeerMetrics};
use super::session::{Fault, Session};
use super::{PeerHint, PeerWord};

/// Octets that are written together, at least: the next frame is made when there are fewer.
const TOGETHER: usize = 16 << 10;
/// Octets that are read together.
const AT_ONCE: usize = 8 << 10;
/// Limit for a peer to read something of what is sent.
const STUCK: Duration = Duration::from_secs(10);
/// Least time between two words of a peer that are passed on, and between two hints: changes within it are one.
const PACE: Duration = Duration::from_millis(20);

/// Reasons for which a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The conversation cannot go on.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The connection broke.
    #[error("the connection broke: {}", sealane_base::text::plain(.0))]
    Broken(#[source] io::Error),
    /// The other side closed it.
    #[error("the other side closed the connection")]
    Closed,
    /// The other side reads nothing.
    #[error("it reads nothing")]
    Stuck,
    /// The peer's certificate has come to its end.
    #[error("its certificate has ended")]
    Expired,
    /// The host was removed from the mesh.
    #[error("it was removed from the mesh")]
    Revoked,
    /// The address of the connection is this host's no more.
    #[error("this host has another underlay address")]
    Moved,
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        // A process that ends does not say so in TLS.
        let is_end = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset].contains(&error.kind());
        if is_end { Self::Closed } else { Self::Broken(error) }
    }
}

impl Ended {
    /// The reason in a word, for a label.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.as_str(),
            Self::Broken(_) => "broken",
            Self::Closed => "closed",
            Self::Stuck => "stuck",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Moved => "moved",
        }
    }
}

/// One connection and the conversation over it.
#[derive(Debug)]
pub(super) struct Conversation {
    peer: NodeName,
    /// Addresses of the connection: this host's, and the other one's.
    pub(super) way: (IpAddr, IpAddr),
    /// Time of its beginning.
    pub(super) begun: Instant,
    /// The conversation.
    pub(super) session: Session,
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
    coming: BytesMut,
    intake: Intake,
    going: BytesMut,
    /// True while TLS may hold octets back.
    unflushed: bool,
    /// Time at which something was last taken of what is sent.
    moved: Instant,
    /// Time from which on the next word is passed on, and the next hint.
    next_word: Instant,
    next_hint: Instant,
    ends: SystemTime,
    words: mpsc::Sender<(NodeName, PeerWord)>,
    hinted: mpsc::Sender<PeerHint>,
    metrics: PeerMetrics,
}

impl Conversation {
    pub(super) fn new(
        secured: Secured,
        session: Session,
        (words, hinted): (mpsc::Sender<(NodeName, PeerWord)>, mpsc::Sender<PeerHint>),
        metrics: PeerMetrics,
    ) -> Self {
        let Secured { stream, peer, ends, way, .. } = secured;
        let ((reader, writer), now) = (split(stream), Instant::now());
        Self {
            peer,
            way,
            begun: now,
            session,
            reader,
            writer,
            coming: BytesMut::new(),
            intake: Intake::new(),
            going: BytesMut::new(),
            unflushed: false,
            moved: now,
            next_word: now,
            next_hint: now,
            ends,
            words,
            hinted,
            metrics,
        }
    }

    /// Carries what is to be said and what was heard, until something changes outside: returns after each step.
    ///
    /// # Errors
    /// When the connection ends.
    ///
    /// # Cancel safety
    /// Safe: no octet is lost.
    pub(super) async fn step(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        self.session.handle_time(now)?;
        self.pass_hints_on(now);
        self.pass_words_on(now).await;
        self.fill(now);
        let busy = !self.going.is_empty() || self.unflushed;
        if busy && now.saturating_duration_since(self.moved) >= STUCK {
            return Err(Ended::Stuck);
        }
        let left = self.ends.duration_since(SystemTime::now()).map_err(|_| Ended::Expired)?;
        let rest = self.intake.rest(now);
        let wake = self.wake(busy, now);
        let wake = if rest.is_zero() { wake } else { wake.min(now + rest) };
        self.coming.reserve(AT_ONCE);
        tokio::select! {
            read = self.reader.read_buf(&mut self.coming), if rest.is_zero() => {
                let count = read?;
                self.metrics.count_bytes(Direction::Received, count);
                if count == 0 {
                    return Err(Ended::Closed);
                }
                self.hear()
            }
            written = send(&mut self.writer, &mut self.going), if busy => {
                let count = written?;
                if count == 0 && !self.going.is_empty() {
                    return Err(Ended::Closed);
                }
                self.metrics.count_bytes(Direction::Sent, count);
                self.moved = Instant::now();
                // After the last octet comes a flush.
                self.unflushed = count > 0;
                Ok(())
            }
            () = sleep_until(wake.into()) => Ok(()),
            () = sleep(left) => Err(Ended::Expired),
        }
    }

    /// The time of the next step, if nothing happens.
    fn wake(&self, busy: bool, now: Instant) -> Instant {
        let due = if busy { now + Duration::from_secs(1) } else { self.session.due() };
        let due = if self.session.has_news() { due.min(self.next_word) } else { due };
        if self.session.has_hints() { due.min(self.next_hint) } else { due }
    }

    fn fill(&mut self, now: Instant) {
        if !self.going.is_empty() || self.unflushed {
            return;
        }
        while self.going.len() < TOGETHER
            && let Some(frame) = self.session.poll_frame(now)
        {
            if let PeerFrame::Facts(_) = &frame {
                self.metrics.count_facts(Direction::Sent);
            }
            frame.encode(&mut self.going);
            self.moved = now;
        }
    }

    fn hear(&mut self) -> Result<(), Ended> {
        let (now, mut frames, before) = (Instant::now(), 0, self.coming.len());
        while let Some(frame) = PeerFrame::take(&mut self.coming).map_err(Fault::from)? {
            if let PeerFrame::Facts(_) = &frame {
                self.metrics.count_facts(Direction::Received);
            }
            self.session.handle_frame(frame, now)?;
            frames += 1;
        }
        self.intake.count(frames, before - self.coming.len(), now);
        self.metrics.facts_refused.inc_by(self.session.take_refused());
        self.metrics.disagreements.inc_by(self.session.take_disagreements());
        Ok(())
    }

    /// Passes on what the peer has hinted at, together where there was much; what nobody takes now is of no use later.
    fn pass_hints_on(&mut self, now: Instant) {
        if now >= self.next_hint && self.session.has_hints() {
            self.next_hint = now + PACE;
            let _ = self.hinted.try_send((self.peer.clone(), self.session.take_hints()));
        }
    }

    async fn pass_words_on(&mut self, now: Instant) {
        if now < self.next_word || !self.session.has_news() {
            return;
        }
        self.next_word = now + PACE;
        // What is taken is passed on at once: nothing is lost when this is cancelled.
        while let Ok(permit) = self.words.reserve().await {
            let Some(facts) = self.session.poll_heard() else { return };
            permit.send((self.peer.clone(), PeerWord::Facts(facts)));
        }
    }
}

/// Writes some of it, or flushes what TLS still holds when there is nothing to write.
async fn send(writer: &mut WriteHalf<TlsStream<TcpStream>>, going: &mut BytesMut) -> io::Result<usize> {
    if going.is_empty() { writer.flush().await.map(|()| 0) } else { writer.write_buf(going).await }
}
