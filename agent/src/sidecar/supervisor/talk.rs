//! The connection with a sidecar: what it is told, and what it says.

use std::os::fd::OwnedFd;
use std::time::Duration;

use sealane_base::backoff::Backoff;
use sealane_proto::sidecar::{Channel, ChannelError, Down, Hello, Listeners, Up};
use tokio::sync::oneshot;

use super::succession::overdue;
use super::{Command, GRACE, Run};
use crate::sidecar::metrics;
use crate::sidecar::process::SidecarProcess;
use crate::sidecar::registry::Connected;
use crate::sidecar::telling::Telling;

/// Ending of a stretch of a sidecar's life.
pub(super) enum End {
    /// The connection broke; the process may well live.
    Disconnected,
    /// The process ended by itself.
    Died,
    /// The sidecar was to drain.
    Drain(Duration),
    /// Another one is to follow it.
    Follow(Connected, oneshot::Sender<Result<(), String>>),
}

impl Run {
    /// Serves one connection after another until the process ends or is to drain.
    pub(super) async fn accompany(&mut self, process: &mut SidecarProcess, backoff: &mut Backoff) -> End {
        loop {
            if let Some(resumed) = self.resumed.take() {
                match self.converse(process, resumed).await {
                    Ok(End::Disconnected) | Err(_) => continue,
                    Ok(end) => return end,
                }
            }
            let connected = tokio::select! {
                Some(connected) = self.incoming.recv() => match connected {
                    connected if connected.pid == process.pid() => connected,
                    stranger => {
                        tracing::warn!(pid = stranger.pid, key = %self.parts.key, "this is not the workload's sidecar");
                        continue;
                    }
                },
                () = process.ended() => return End::Died,
                Some(order) = self.orders.recv() => match order {
                    // Without a connection there is nothing to tell: the dropped sender says so.
                    Command::Collect(_) => continue,
                    Command::Restart(answer) => {
                        let _ = answer.send(Err("it is not connected with the agent".to_owned()));
                        continue;
                    }
                    Command::Drain { deadline } => return End::Drain(deadline),
                },
                () = overdue(self.followed.as_ref()) => return End::Died,
            };
            backoff.reset();
            let end = self.converse(process, connected).await;
            self.applied.send_replace(None);
            self.collecting.clear();
            match end {
                Ok(End::Disconnected) => {}
                Ok(end @ (End::Died | End::Drain(_) | End::Follow(..))) => return end,
                Err(error) => tracing::debug!(%error, key = %self.parts.key, "sidecar channel"),
            }
        }
    }

    async fn converse(
        &mut self,
        process: &mut SidecarProcess,
        connected: Connected,
    ) -> Result<End, ChannelError> {
        let Connected { hello, mut channel, pid } = connected;
        self.telling = Telling::to(hello.follows);
        // One that ended meanwhile is found out soon enough.
        let other = process.is_of_this_program().is_ok_and(|same| !same).then(|| hello.version.clone());
        self.registry.note_program(&self.parts.key, other);
        // Listeners last: a sidecar that accepts calls must know where they go, and who it is.
        channel.sender.send(self.feed.identity()).await?;
        self.configure(&mut channel).await?;
        if !hello.has_listeners {
            channel.sender.send(Down::Listeners(self.listeners()?)).await?;
        }
        loop {
            tokio::select! {
                // Identity before configuration: a sidecar that knows its peers must be able to speak to them.
                biased;
                Ok(()) = self.feed.identity.changed() => {
                    channel.sender.send(self.feed.identity()).await?;
                }
                Ok(()) = self.feed.effective.changed() => {
                    self.configure(&mut channel).await?;
                }
                order = self.orders.recv() => match order {
                    Some(Command::Collect(answer)) => {
                        self.collecting.push(answer);
                        channel.sender.send(Down::Collect).await?;
                    }
                    Some(Command::Drain { deadline }) => {
                        channel.sender.send(Down::Drain { deadline }).await?;
                        self.farewell(process, &mut channel, deadline).await;
                        return Ok(End::Drain(deadline));
                    }
                    Some(Command::Restart(answer)) if self.followed.is_some() => {
                        let _ = answer.send(Err("another is just taking over".to_owned()));
                    }
                    Some(Command::Restart(answer)) => {
                        // It has its listeners, and keeps them.
                        let hello = Hello { has_listeners: true, ..hello };
                        return Ok(End::Follow(Connected { hello, channel, pid }, answer));
                    }
                    None => return Ok(End::Disconnected),
                },
                () = overdue(self.followed.as_ref()) => return Ok(End::Died),
                received = channel.receiver.recv() => self.handle(received?),
                Some(newer) = self.incoming.recv() => {
                    // The same sidecar connected again before its old connection was seen to be dead.
                    if newer.pid == process.pid() {
                        return Box::pin(self.converse(process, newer)).await;
                    }
                }
                () = process.ended() => return Ok(End::Died),
            }
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
                        Ok(message) => self.handle(message),
                    },
                    () = process.ended() => return,
                }
            }
        };
        if tokio::time::timeout(deadline + GRACE, heard).await.is_err() {
            tracing::debug!(key = %self.parts.key, "the sidecar did not say that it has drained");
        }
    }

    fn handle(&mut self, message: Up) {
        match message {
            Up::Applied { sequence } => {
                if let Some(followed) = self.followed.take() {
                    tracing::info!(key = %self.parts.key, "another sidecar has taken over");
                    self.depart(followed);
                }
                self.applied.send_replace(Some(self.telling.meaning(sequence)));
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
            Up::Drained | Up::Hello(_) => {}
        }
    }

    async fn configure(&mut self, channel: &mut Channel<Down, Up>) -> Result<(), ChannelError> {
        let effective = self.feed.effective.borrow_and_update().clone();
        if let Some(sent) = self.telling.knows(&effective) {
            // It works by all this, or will when it works by what is on its way.
            self.applied.send_if_modified(|applied| {
                let follows = applied.is_some_and(|applied| applied >= sent);
                if follows {
                    *applied = Some(effective.sequence);
                }
                follows
            });
            return Ok(());
        }
        for message in self.telling.lead(&self.feed, &effective) {
            let kind = metrics::kind(&message);
            let length = channel.sender.send(message).await?;
            self.parts.told.count(kind, length);
        }
        Ok(())
    }

    fn listeners(&self) -> Result<Listeners, ChannelError> {
        let copies = self.listeners.iter().map(OwnedFd::try_clone).collect::<std::io::Result<Vec<_>>>()?;
        copies.try_into()
    }
}
