//! The connection with a sidecar: what it is told, and what it says.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::time::Duration;

use sealane_base::backoff::Backoff;
use sealane_proto::sidecar::{Channel, ChannelError, Down, Listeners, Up, Want};

use super::succession::overdue;
use super::{Answer, Command, GRACE, Run};
use crate::sidecar::metrics;
use crate::sidecar::process::SidecarProcess;
use crate::sidecar::registry::Connected;
use crate::sidecar::telling::Telling;

/// Time that a sidecar may take to read what it is told, before the connection is given up.
const READ: Duration = Duration::from_secs(10);

/// Ending of a stretch of a sidecar's life.
pub(super) enum TalkEnd {
    /// The connection broke; the process may well live.
    Disconnected,
    /// The process ended by itself.
    Died,
    /// The sidecar was to drain.
    Drain(Duration),
    /// Another one is to follow it, which is told so where it is connected, and whoever asked for it.
    Follow(Option<Connected>, Option<Answer>),
}

/// The way in which the conversation with a sidecar goes on.
pub(super) enum Turn {
    /// The conversation goes on.
    On,
    /// The conversation is over.
    End(TalkEnd),
    /// Another one is to follow this one; whoever asked for it is told so.
    Follow(Option<Answer>),
}

impl Run {
    /// Serves one connection after another until the process ends, is to drain, or another one is to follow.
    pub(super) async fn accompany(&mut self, process: &mut SidecarProcess, backoff: &mut Backoff) -> TalkEnd {
        loop {
            let connected = match self.resumed.take() {
                Some(resumed) => resumed,
                None => match self.connection(process).await {
                    ControlFlow::Continue(connected) => connected,
                    ControlFlow::Break(end) => return end,
                },
            };
            backoff.reset();
            let end = self.converse(process, connected).await;
            self.part();
            match end {
                Ok(TalkEnd::Disconnected) => {}
                Ok(end @ (TalkEnd::Died | TalkEnd::Drain(_) | TalkEnd::Follow(..))) => return end,
                Err(error) => tracing::debug!(%error, workload = %self.parts.id, "sidecar channel"),
            }
        }
    }

    /// Waits for the process to connect.
    async fn connection(&mut self, process: &mut SidecarProcess) -> ControlFlow<TalkEnd, Connected> {
        loop {
            tokio::select! {
                Some(connected) = self.incoming.recv() => {
                    if connected.pid == process.pid() {
                        return ControlFlow::Continue(connected);
                    }
                    tracing::warn!(pid = connected.pid, workload = %self.parts.id, "this is not the workload's sidecar");
                }
                () = process.ended() => return ControlFlow::Break(TalkEnd::Died),
                Some(order) = self.orders.recv() => match order {
                    // Without a connection there is nothing to tell: the dropped sender says so.
                    Command::Collect(_) => {}
                    Command::Listen(listeners) => self.listen(listeners),
                    Command::Restart(answer) if self.followed.is_some() || self.asked.is_some() => refuse(answer),
                    Command::Restart(answer) => self.asked = Some(answer),
                    Command::Drain { deadline } => return ControlFlow::Break(TalkEnd::Drain(deadline)),
                },
                () = overdue(self.followed.as_ref()) => return ControlFlow::Break(TalkEnd::Died),
                _ = self.beat.tick() => if let Some(end) = self.miss(process) {
                    return ControlFlow::Break(end);
                }
            }
        }
    }

    async fn converse(
        &mut self,
        process: &mut SidecarProcess,
        connected: Connected,
    ) -> Result<TalkEnd, ChannelError> {
        self.hear();
        if let Some(answer) = self.asked.take() {
            return Ok(TalkEnd::Follow(Some(connected), Some(answer)));
        }
        let Connected { mut hello, mut channel, pid } = connected;
        self.telling = Telling::to(&hello, &self.calls);
        self.note_calls();
        // One that ended meanwhile is found out soon enough.
        let other = process.is_of_this_program().is_ok_and(|same| !same).then(|| hello.version.clone());
        self.registry.note_program(&self.parts.id, other);
        // Listeners last: a sidecar that accepts calls must know where they go, and who it is.
        tell(&mut channel, self.feed.identity()).await?;
        self.configure(&mut channel).await?;
        self.tell_away(&mut channel).await?;
        if !hello.has_listeners {
            tell(&mut channel, Down::Listeners(self.listeners()?)).await?;
        }
        loop {
            let turn = tokio::select! {
                // Identity before configuration: a sidecar that knows its peers must be able to speak to them.
                biased;
                Ok(()) = self.feed.identity.changed() => {
                    tell(&mut channel, self.feed.identity()).await?;
                    Turn::On
                }
                Ok(()) = self.feed.host_network.changed() => {
                    if self.configure(&mut channel).await? {
                        self.tell_away(&mut channel).await?;
                    }
                    Turn::On
                }
                Ok(()) = self.feed.unreachable.changed() => {
                    self.tell_away(&mut channel).await?;
                    Turn::On
                }
                order = self.orders.recv() => self.obey(process, &mut channel, order).await?,
                () = overdue(self.followed.as_ref()) => return Ok(TalkEnd::Died),
                received = channel.receiver.recv() => {
                    self.handle(&mut channel, received?).await?;
                    Turn::On
                }
                Some(newer) = self.incoming.recv() => {
                    // The same sidecar connected again before its old connection was seen to be dead.
                    if newer.pid == process.pid() {
                        return Box::pin(self.converse(process, newer)).await;
                    }
                    Turn::On
                }
                () = process.ended() => return Ok(TalkEnd::Died),
                _ = self.beat.tick() => self.ask(process, &mut channel, &hello).await?,
            };
            match turn {
                Turn::On => {}
                Turn::End(end) => return Ok(end),
                Turn::Follow(answer) => {
                    // It has its listeners, and keeps them.
                    hello.has_listeners = true;
                    return Ok(TalkEnd::Follow(Some(Connected { hello, channel, pid }), answer));
                }
            }
        }
    }

    async fn obey(
        &mut self,
        process: &mut SidecarProcess,
        channel: &mut Channel<Down, Up>,
        order: Option<Command>,
    ) -> Result<Turn, ChannelError> {
        match order {
            Some(Command::Collect(answer)) => {
                self.collecting.push(answer);
                tell(channel, Down::Collect).await?;
                Ok(Turn::On)
            }
            Some(Command::Drain { deadline }) => {
                // One that hears nothing any more is ended all the same.
                if self.silence.borrow().is_none() && tell(channel, Down::Drain { deadline }).await.is_ok() {
                    self.farewell(process, channel, deadline).await;
                }
                Ok(Turn::End(TalkEnd::Drain(deadline)))
            }
            Some(Command::Listen(listeners)) => {
                self.listen(listeners);
                Ok(Turn::On)
            }
            Some(Command::Restart(answer)) if self.followed.is_some() => {
                refuse(answer);
                Ok(Turn::On)
            }
            Some(Command::Restart(answer)) => Ok(Turn::Follow(Some(answer))),
            None => Ok(Turn::End(TalkEnd::Disconnected)),
        }
    }

    /// Hears a draining sidecar out: its last counts come when its work is done.
    async fn farewell(
        &mut self,
        process: &mut SidecarProcess,
        channel: &mut Channel<Down, Up>,
        deadline: Duration,
    ) {
        let heard = async {
            loop {
                tokio::select! {
                    biased;
                    // A channel that broke has nothing more to say.
                    received = channel.receiver.recv() => match received {
                        Ok(Up::Drained) | Err(_) => return,
                        Ok(message) => if self.handle(channel, message).await.is_err() { return },
                    },
                    () = process.ended() => return,
                }
            }
        };
        if tokio::time::timeout(deadline + GRACE, heard).await.is_err() {
            tracing::debug!(workload = %self.parts.id, "the sidecar did not say that it has drained");
        }
    }

    async fn handle(&mut self, channel: &mut Channel<Down, Up>, message: Up) -> Result<(), ChannelError> {
        self.hear();
        match message {
            Up::Applied { sequence } => {
                if let Some(followed) = self.followed.take() {
                    tracing::info!(workload = %self.parts.id, "another sidecar has taken over");
                    self.depart(followed);
                }
                self.works = self.works.max(Some(self.telling.meaning(sequence)));
                self.applied.send_replace(self.works);
            }
            Up::Metrics(measured) => {
                // Answers come in the order of the questions; one asker that left loses only its own. What comes
                // without a question is what a draining sidecar counted at last.
                if self.collecting.is_empty() {
                    self.last = measured.families;
                } else {
                    let _ = self.collecting.remove(0).send(measured);
                }
            }
            Up::Want(want) => self.answer(channel, want).await?,
            Up::Drained | Up::Pong | Up::Hello(_) => {}
        }
        Ok(())
    }

    /// Leads the sidecar to the newest state; false when nothing of that is news to it.
    async fn configure(&mut self, channel: &mut Channel<Down, Up>) -> Result<bool, ChannelError> {
        let host_network = self.feed.host_network.borrow_and_update().clone();
        if let Some(sent) = self.telling.knows(&self.parts.id, &host_network) {
            // It works by all this, or will when it works by what is on its way.
            if self.works.is_some_and(|works| works >= sent) {
                self.works = Some(host_network.sequence);
                if self.silence.borrow().is_none() {
                    self.applied.send_replace(self.works);
                }
            }
            return Ok(false);
        }
        let messages = self.telling.lead(&self.feed, &host_network);
        self.tell_all(channel, messages).await?;
        Ok(true)
    }

    /// Tells the sidecar of the addresses that it asks about, by the newest state.
    async fn answer(&mut self, channel: &mut Channel<Down, Up>, want: Want) -> Result<(), ChannelError> {
        self.configure(channel).await?;
        let messages = self.telling.answer(want, &self.feed);
        self.tell_all(channel, messages).await?;
        self.note_calls();
        self.tell_away(channel).await
    }

    /// Remembers what the workload calls, for the next sidecar.
    fn note_calls(&mut self) {
        self.calls = self.telling.scope().map(|scope| scope.addresses().clone()).unwrap_or_default();
    }

    async fn tell_all(
        &mut self,
        channel: &mut Channel<Down, Up>,
        messages: Vec<Down>,
    ) -> Result<(), ChannelError> {
        for message in messages {
            let kind = metrics::kind(&message);
            let length = tell(channel, message).await?;
            self.parts.told.count(kind, length);
        }
        Ok(())
    }

    /// Tells the sidecar which workloads are away, when that is news.
    async fn tell_away(&mut self, channel: &mut Channel<Down, Up>) -> Result<(), ChannelError> {
        if let Some(message) = self.telling.away(&mut self.feed) {
            tell(channel, message).await?;
        }
        Ok(())
    }

    fn listeners(&self) -> Result<Listeners, ChannelError> {
        let copies = self.listeners.iter().map(OwnedFd::try_clone).collect::<std::io::Result<Vec<_>>>()?;
        copies.try_into()
    }
}

/// Tells the sidecar something, of so many bytes; one that does not read is given up.
pub(in crate::sidecar) async fn tell(
    channel: &mut Channel<Down, Up>,
    message: Down,
) -> Result<usize, ChannelError> {
    let sent = tokio::time::timeout(READ, channel.sender.send(message)).await;
    sent.map_err(|late| ChannelError::Io(late.into()))?
}

fn refuse(answer: Answer) {
    // An asker that left has no use for it.
    let _ = answer.send(Err("another is just taking over".to_owned()));
}
