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

use crate::core::Core;
use crate::listen::Redirected;
use crate::{RunError, Settings, rest};

/// What ends a connection to the agent.
enum End {
    /// The connection; the agent may come back.
    Lost(ChannelError),
    /// The sidecar drains, and says so here when it has.
    Drain(Duration, Sender<Up>),
    /// The sidecar was told to end by a signal.
    Signal,
}

/// Serves until drained, by the agent or by SIGTERM.
pub(crate) async fn run(settings: Settings) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Worker)?;
    let mut core =
        Core::start_within(settings.memory, settings.ports, settings.workers, Arc::new(Redirected))?;
    let _rest = task::spawn("rest", rest::watch(core.activity()));
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
    };
    if let Err(error) = sender.send(Up::Hello(hello)).await {
        return End::Lost(error);
    }
    loop {
        let message = tokio::select! {
            message = receiver.recv() => message,
            _ = terminate.recv() => return End::Signal,
        };
        let answer = match message {
            Ok(Down::Drain { deadline }) => return End::Drain(deadline, sender),
            Ok(message) => handle(message, core).await,
            Err(error) => return End::Lost(error),
        };
        backoff.reset();
        if let Some(answer) = answer
            && let Err(error) = sender.send(answer).await
        {
            return End::Lost(error);
        }
    }
}

/// The start is over: what only it needed is not kept resident. Once per process.
fn release_start() {
    static OVER: Once = Once::new();
    OVER.call_once(rest::release);
}

async fn handle(message: Down, core: &mut Core) -> Option<Up> {
    match message {
        Down::Listeners(listeners) => {
            if core.is_listening() {
                tracing::debug!("listeners came a second time");
            } else if let Err(error) = core.listen(listeners).await {
                tracing::error!(%error, "cannot listen on what the agent sent");
            }
            None
        }
        Down::Identity(identity) => {
            let id = identity.spiffe_id.to_string();
            match core.identify(identity) {
                Ok(()) => tracing::info!(%id, "identity"),
                Err(error) => tracing::error!(%error, "the identity cannot be used"),
            }
            None
        }
        Down::Config(config) => {
            core.apply(&config).await;
            release_start();
            Some(Up::Applied { sequence: config.sequence })
        }
        Down::Collect => Some(Up::Metrics(core.counts()())),
        // Taken before, since it ends the connection's loop.
        Down::Drain { .. } => None,
    }
}
