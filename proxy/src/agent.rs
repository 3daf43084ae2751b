//! The sidecar's side of its agent's socket: takes listeners, identity and configuration, says what was applied.
//!
//! When the agent is gone the sidecar goes on with what it has, and connects again.

use std::io;
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;

use sealane_base::backoff::Backoff;
use sealane_base::task;
use sealane_proto::sidecar::{Channel, ChannelError, Down, Hello, Sender, Up};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::core::Core;
use crate::listen::Redirected;
use crate::{RunError, Settings, resident};

/// Time that resting connections may take to close in the end, when everything else has had its time.
const LAST: Duration = Duration::from_secs(1);

/// Time that the workers may take to have their turn when the agent asks whether they work.
const TURN: Duration = Duration::from_secs(2);

/// Ending of a connection to the agent.
enum End {
    /// The connection; the agent may come back.
    Lost(ChannelError),
    /// The sidecar drains, and says so here when it has.
    Drain(Duration, Sender<Up>),
    /// The connection, while another sidecar takes what is new: nobody waits for this one any more, which has until then.
    Left(Instant),
    /// The sidecar was told to end by a signal.
    Signal,
}

/// Serves until drained, by the agent or by SIGTERM.
pub(crate) async fn run(settings: Settings) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Worker)?;
    let mut core =
        Core::start_within(settings.memory, settings.ports, settings.workers, Arc::new(Redirected))?;
    let _resident = task::spawn("resident", resident::watch(core.activity()));
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    loop {
        let end = match connect(&settings.agent_socket).await {
            Ok(channel) => serve(channel, &mut core, &settings, &mut terminate, &mut backoff).await,
            Err(error) => End::Lost(error.into()),
        };
        match end {
            End::Signal => {
                finish(core, settings.drain_deadline).await;
                return Ok(());
            }
            End::Drain(deadline, mut sender) => {
                let counts = core.counts();
                finish(core, deadline).await;
                for word in [Up::Metrics(counts()), Up::Drained] {
                    if let Err(error) = sender.send(word).await {
                        tracing::debug!(%error, "the agent did not wait for the end");
                    }
                }
                return Ok(());
            }
            End::Left(deadline) => {
                leave(&mut core, deadline, &mut terminate).await;
                finish(core, LAST).await;
                return Ok(());
            }
            End::Lost(error) => tracing::debug!(%error, "no agent; going on as configured"),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait(rand::random())) => {}
            _ = terminate.recv() => {
                finish(core, settings.drain_deadline).await;
                return Ok(());
            }
        }
    }
}

/// Waits for what is in progress, in vain after `deadline` or a signal.
async fn leave(core: &mut Core, deadline: Instant, terminate: &mut Signal) {
    tokio::select! {
        () = core.left() => {}
        () = tokio::time::sleep_until(deadline) => {}
        _ = terminate.recv() => {}
    }
}

async fn finish(core: Core, deadline: Duration) {
    tracing::info!("draining");
    if !core.drain(deadline).await {
        tracing::warn!(?deadline, "work was still in progress at the end of the drain");
    }
}

async fn connect(socket: &Path) -> io::Result<Channel<Up, Down>> {
    Ok(UnixStream::connect(socket).await?.into())
}

async fn serve(
    channel: Channel<Up, Down>,
    core: &mut Core,
    settings: &Settings,
    terminate: &mut Signal,
    backoff: &mut Backoff,
) -> End {
    let Channel { mut sender, mut receiver } = channel;
    let hello = Hello {
        workload: settings.workload.clone(),
        network: settings.network.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        has_listeners: core.is_listening(),
        leaves: true,
        follows: true,
        answers: true,
        fails_over: true,
    };
    if let Err(error) = sender.send(Up::Hello(hello)).await {
        return End::Lost(error);
    }
    let mut leaving: Option<Instant> = None;
    loop {
        let message = tokio::select! {
            message = receiver.recv() => message,
            _ = terminate.recv() => return End::Signal,
            () = gone(core, leaving), if leaving.is_some() => return End::Drain(LAST, sender),
        };
        let handled = match message {
            Ok(Down::Drain { deadline }) => return End::Drain(deadline, sender),
            Ok(Down::Leave { deadline }) => {
                tracing::info!(?deadline, "another sidecar takes what is new");
                core.leave();
                leaving.get_or_insert(Instant::now() + deadline);
                Ok(None)
            }
            Ok(message) => handle(message, core).await,
            Err(error) => Err(error),
        };
        let answer = match handled {
            Ok(answer) => answer,
            Err(error) => return leaving.map_or(End::Lost(error), End::Left),
        };
        backoff.reset();
        if let Some(answer) = answer
            && let Err(error) = sender.send(answer).await
        {
            return End::Lost(error);
        }
    }
}

/// Returns when nothing is in progress any more, or the time for it is over.
async fn gone(core: &mut Core, leaving: Option<Instant>) {
    let Some(deadline) = leaving else { return };
    tokio::select! {
        () = core.left() => {}
        () = tokio::time::sleep_until(deadline) => {}
    }
}

/// The start is over: what only it needed is not kept resident. Once per process.
fn release_start() {
    static OVER: Once = Once::new();
    OVER.call_once(resident::release);
}

/// Does what the agent says, and returns the answer to that. An error ends the connection; with the next one comes a whole configuration.
async fn handle(message: Down, core: &mut Core) -> Result<Option<Up>, ChannelError> {
    match message {
        Down::Listeners(listeners) => {
            if core.is_listening() {
                tracing::debug!("listeners came a second time");
            } else if let Err(error) = core.listen(listeners).await {
                tracing::error!(%error, "cannot listen on what the agent sent");
            }
            Ok(None)
        }
        Down::Identity(identity) => {
            let id = identity.spiffe_id.to_string();
            match core.identify(identity) {
                Ok(()) => tracing::info!(%id, "identity"),
                Err(error) => tracing::error!(%error, "the identity cannot be used"),
            }
            Ok(None)
        }
        Down::Config(config) => {
            core.apply(&config).await;
            release_start();
            Ok(Some(Up::Applied { sequence: config.sequence }))
        }
        Down::Change(change) => {
            if core.follow(&change).await {
                return Ok(Some(Up::Applied { sequence: change.sequence }));
            }
            let since = change.since;
            Err(ChannelError::Malformed(format!(
                "a change of configuration {since}, which is not this one's"
            )))
        }
        Down::Away(addresses) => {
            core.set_away(Arc::new(addresses)).await;
            Ok(None)
        }
        Down::Collect => Ok(Some(Up::Metrics(core.counts()()))),
        // Nothing is said for workers that hang.
        Down::Ping => {
            let had = tokio::time::timeout(TURN, core.turn()).await;
            Ok(had.is_ok_and(|all| all).then_some(Up::Pong))
        }
        // Taken before, since it ends the connection's loop.
        Down::Drain { .. } | Down::Leave { .. } => Ok(None),
    }
}
