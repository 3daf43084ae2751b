//! The task that owns a tunnel's connection: reads, demultiplexes, coalesces, writes.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::{Interval, MissedTickBehavior};

use super::core::{Core, Counts, Opened};
use super::kin::Kin;
use super::link::{Link, LinkError};
use super::liveness::{Liveness, Look, Verdict};
use super::piece;
use super::settings::Settings;
use super::share::{Member, Turn};
use super::stats::TunnelStats;

/// Bytes that are encrypted and written at once: whole records. From so much output on it goes out without waiting for
/// tasks that are ready to run. More would make the allocator give pages back and fault them in again.
const BATCH: usize = 4 * 16_384;
/// Time for which a closed tunnel waits for the peer's close.
const LINGER: Duration = Duration::from_secs(1);

/// Parts that a tunnel runs with.
#[derive(Debug)]
pub(super) struct Driver {
    core: Rc<RefCell<Core>>,
    share: Member,
    peer: SocketAddr,
    settings: Rc<Settings>,
    stats: Arc<TunnelStats>,
    liveness: Liveness,
    kin: Kin,
    born: Instant,
    expires: Option<SystemTime>,
    tick: Interval,
    /// Tidings of the peer that the last look knew: it may be about to go, its host is away.
    tidings: (bool, bool),
    heard: bool,
    yielded: bool,
    /// Output of the core on its way, of which `sealed` bytes are encrypted.
    plain: Vec<u8>,
    sealed: usize,
    /// True if streams wait to send more as soon as there is room.
    more: bool,
}

impl Driver {
    /// For a tunnel of `share` with this peer, whose certificates end at `expires`, and which has these relatives.
    pub(super) fn new(
        core: Rc<RefCell<Core>>,
        (share, peer): (Member, SocketAddr),
        settings: Rc<Settings>,
        stats: Arc<TunnelStats>,
        expires: Option<SystemTime>,
        kin: Kin,
    ) -> Self {
        let now = Instant::now();
        let mut tick = tokio::time::interval(settings.patience.look_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        stats.tunnels_opened.increment();
        let liveness = Liveness::new(now);
        let connecting = core.borrow().is_connecting();
        Self {
            core,
            share,
            peer,
            settings,
            stats,
            liveness,
            kin,
            born: now,
            expires: expires.map(|expires| if connecting { in_good_time(expires) } else { expires }),
            tick,
            tidings: (false, false),
            heard: false,
            yielded: false,
            plain: Vec::new(),
            sealed: 0,
            more: false,
        }
    }

    /// Runs the tunnel to its end; then every stream that is left knows of it.
    pub(super) async fn run(mut self, mut link: Link, mut on_opened: impl FnMut(Opened)) {
        let ended = poll_fn(|cx| self.poll(cx, &mut link, &mut on_opened)).await;
        if let Err(error) = ended {
            let unused = self.core.borrow().stream_count() == 0;
            if error.is_flood() {
                self.stats.floods.increment();
                tracing::warn!(peer = %self.peer, %error, "tunnel ended");
            }
            if !(unused && matches!(error, LinkError::Closed)) {
                self.stats.tunnels_lost.increment();
                tracing::debug!(%error, "tunnel lost");
            }
            self.core.borrow_mut().lose(&error.to_string());
            return;
        }
        let farewell = async {
            link.close();
            poll_fn(|cx| link.poll_flush(cx, false)).await?;
            link.shut_down().await;
            Ok::<_, LinkError>(())
        };
        // Nothing depends on the outcome: there are no streams any more.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        on_opened: &mut impl FnMut(Opened),
    ) -> Poll<Result<(), LinkError>> {
        self.core.borrow_mut().register_driver(cx);
        let read = self.poll_reads(cx, link);
        let paced = self.announce(on_opened);
        read?;
        paced?;
        self.poll_look(cx, link)?;
        if let Err(error) = self.poll_writes(cx, link) {
            // What the peer said before it went (GOAWAY, RESET) still counts.
            let _ = self.poll_reads(cx, link);
            return Poll::Ready(Err(error));
        }
        let written = self.sealed == self.plain.len();
        if written && self.core.borrow().is_done() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_reads(&mut self, cx: &mut Context<'_>, link: &mut Link) -> Result<(), LinkError> {
        let mut turn = self.share.turn();
        while !turn.is_over() {
            let core = &self.core;
            let handle =
                |plain: &[u8], turn: &mut Turn| Ok(core.borrow_mut().handle(plain, turn, piece::keep)?);
            match link.poll_read(cx, &mut turn, handle) {
                Poll::Ready(Ok(length)) => {
                    self.heard = true;
                    self.kin.note();
                    self.stats.bytes_received.add(length as u64);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        // Woken behind every ready task and a look at the sockets, which waking ourselves would come before.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Ok(())
    }

    /// Hands on the streams that were opened, unless the peer goes beyond its pace.
    fn announce(&self, on_opened: &mut impl FnMut(Opened)) -> Result<(), LinkError> {
        let (opened, counts) = {
            let mut core = self.core.borrow_mut();
            (core.take_opened(), core.take_counts())
        };
        let Counts { refused, finished, given_up, idle } = counts;
        if !opened.is_empty() || refused + finished > 0 {
            self.stats.streams_opened.add(opened.len() as u64);
            self.stats.streams_refused.add(refused.into());
            self.stats.streams_closed.add(finished.into());
        }
        if given_up + idle > 0 {
            self.share.handle_counts(given_up, idle, Instant::now())?;
        }
        opened.into_iter().for_each(on_opened);
        Ok(())
    }

    /// Writes what there is, but lets the tasks that are ready run first: their frames share our records.
    fn poll_writes(&mut self, cx: &mut Context<'_>, link: &mut Link) -> Result<(), LinkError> {
        loop {
            let more = self.more || self.sealed < self.plain.len();
            let flushed = link.poll_flush(cx, more);
            let sent = link.take_sent();
            if sent > 0 {
                self.stats.bytes_sent.add(sent);
            }
            match flushed {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(()),
            }
            if self.sealed < self.plain.len() {
                let end = self.plain.len().min(self.sealed + BATCH);
                link.seal(&self.plain[self.sealed..end])?;
                self.sealed = end;
                continue;
            }
            let length = self.core.borrow().output_len();
            if length == 0 && !self.more {
                self.yielded = false;
                return Ok(());
            }
            if length < BATCH && !std::mem::replace(&mut self.yielded, true) {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            self.yielded = false;
            if length == 0 {
                // Whoever waited sends nothing any more.
                self.more = false;
                return Ok(link.push()?);
            }
            self.plain.clear();
            self.sealed = 0;
            self.more = self.core.borrow_mut().take_output(&mut self.plain);
        }
    }

    /// Looks after the tunnel when it is time, which comes sooner when there is news of the peer or a stream begins to wait.
    fn poll_look(&mut self, cx: &mut Context<'_>, link: &Link) -> Result<(), LinkError> {
        let (tidings, waits) = {
            let core = self.core.borrow();
            ((core.is_doubted(), core.is_away()), core.waits() && core.is_connecting())
        };
        if std::mem::replace(&mut self.tidings, tidings) != tidings {
            self.tick.reset_immediately();
        } else if waits && !self.liveness.is_hasty() {
            self.tick.reset_after(self.liveness.hurry(Instant::now()));
        }
        // The interval must have been polled to wake us again.
        while self.tick.poll_tick(cx).is_ready() {
            self.check(link)?;
            let patience = self.settings.patience(tidings.0);
            self.tick.reset_after(self.liveness.next(Instant::now(), patience));
        }
        Ok(())
    }

    fn check(&mut self, link: &Link) -> Result<(), LinkError> {
        let mut core = self.core.borrow_mut();
        let heard = std::mem::take(&mut self.heard);
        if !heard && core.output_len() == 0 && self.sealed == self.plain.len() {
            // Hundreds of idle tunnels should cost next to nothing.
            core.shrink();
            piece::shrink();
            (self.plain, self.sealed) = (Vec::new(), 0);
        }
        let proven = self.kin.take_news() && !heard;
        if heard {
            core.resume();
        } else if proven {
            core.handle_proof();
        }
        let connecting = core.is_connecting();
        let look = Look {
            heard,
            // The side that accepts has nobody else to turn to.
            talked: core.take_talked() && connecting,
            waits: core.waits() && connecting,
            in_use: core.stream_count() > 0 || !connecting,
            away: core.is_away(),
            proven,
            accepts: !connecting,
            traffic: if self.liveness.is_hasty() || !connecting { link.traffic() } else { None },
        };
        let patience = self.settings.patience(core.is_doubted());
        match self.liveness.check(Instant::now(), look, self.settings.idle_timeout, patience) {
            Verdict::Fine => {}
            Verdict::Settled => core.settle(),
            Verdict::Ping => core.ping(),
            Verdict::Abandon(silence) => {
                let streams = core.abandon(silence);
                self.stats.streams_abandoned.add(streams as u64);
                tracing::debug!(peer = %self.peer, streams, silence = silence.words(), "calls do not wait any longer");
            }
            Verdict::Lost => return Err(LinkError::Silent),
            Verdict::Idle => core.go_away(),
        }
        if self.is_too_old(connecting) {
            core.go_away();
        }
        core.set_stalled(self.liveness.is_stalled());
        // The pool looks at this tunnel, too.
        drop(core);
        if self.liveness.take_doubt() {
            self.kin.ask();
        }
        Ok(())
    }

    /// Returns true if the tunnel has served its time.
    fn is_too_old(&self, connecting: bool) -> bool {
        let expired = self.expires.is_some_and(|expires| SystemTime::now() >= expires);
        let narrow = self.kin.is_narrow();
        let max_age = if narrow { self.settings.narrow_age } else { self.settings.max_age };
        // The connecting side first, as with `expires`.
        let max_age = if connecting { max_age } else { max_age + max_age / 4 };
        expired || self.born.elapsed() >= max_age
    }
}

/// Returns the time at which the connecting side makes another tunnel: before the accepting side would turn its streams
/// away, though the clocks of both differ a little. A certificate is renewed long before.
fn in_good_time(expires: SystemTime) -> SystemTime {
    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
    expires.checked_sub(left / 4).unwrap_or(expires)
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stats.tunnels_closed.increment();
        let mut core = self.core.borrow_mut();
        core.lose("this sidecar ended the tunnel");
        self.stats.streams_closed.add(u64::from(core.take_counts().finished) + core.stream_count() as u64);
    }
}
