//! The sidecar's side of its agent's socket: takes listeners, identity and configuration, says what was applied.
//!
//! When the agent is gone the sidecar goes on with what it has, and connects again.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;

use sealane_base::backoff::Backoff;
use sealane_base::task;
use sealane_proto::sidecar::{Channel, ChannelError, Down, Hello, Sender, Up, Want};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::core::Core;
use crate::inquiry::Questions;
use crate::listen::Redirected;
use crate::{RunError, Settings, resident};

/// Time that resting connections may take to close in the end, when everything else has had its time.
const LAST: Duration = Duration::from_secs(1);

/// Time that the workers may take to have their turn when the agent asks whether they work.
const TURN: Duration = Duration::from_secs(2);

/// Interval at which it is looked which addresses calls use. Those that none has used for two of them are given up.
const LOOK: Duration = Duration::from_mins(5);

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
    let (mut asking, hello) = (Asking::new(core), hello(core, settings));
    if let Err(error) = sender.send(Up::Hello(hello)).await {
        return End::Lost(error);
    }
    let mut leaving: Option<Instant> = None;
    loop {
        if let Some(want) = asking.due()
            && let Err(error) = sender.send(Up::Want(want)).await
        {
            return leaving.map_or(End::Lost(error), End::Left);
        }
        let message = tokio::select! {
            message = receiver.recv() => message,
            () = asking.questions.news(), if asking.open => continue,
            _ = asking.look.tick(), if asking.open => {
                asking.unused = core.unused().await;
                continue;
            }
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
            Ok(message) => {
                asking.note(&message);
                handle(message, core).await
            }
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

fn hello(core: &Core, settings: &Settings) -> Hello {
    Hello {
        workload: settings.workload.clone(),
        network: settings.network.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        has_listeners: core.is_listening(),
        leaves: true,
        follows: true,
        answers: true,
        fails_over: true,
        asks: true,
        calls: core.calls(),
    }
}

/// Questions on one connection to an agent.
struct Asking {
    questions: Arc<Questions>,
    /// True once the agent has told a portion: it answers.
    open: bool,
    /// Addresses that it was asked about on this connection.
    said: BTreeSet<Ipv4Addr>,
    /// Addresses that nobody uses, and that it is still to be told of.
    unused: BTreeSet<Ipv4Addr>,
    look: Interval,
}

impl Asking {
    /// To be made before the sidecar's hello, which says what is asked by then.
    fn new(core: &Core) -> Self {
        let questions = core.questions().clone();
        let mut look = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { said: questions.asked(), questions, open: false, unused: BTreeSet::new(), look }
    }

    /// Takes in what the agent says of the network: who tells a portion answers.
    fn note(&mut self, message: &Down) {
        if let Down::Config(config) = message {
            self.handle_portion(config.portion.is_some());
        }
    }

    /// The agent has told the whole network, or a portion of it.
    fn handle_portion(&mut self, is_portion: bool) {
        self.open = is_portion;
        self.questions.set_heard(is_portion);
    }

    /// The wish that the agent is to be told now.
    fn due(&mut self) -> Option<Want> {
        if !self.open {
            return None;
        }
        let asked = self.questions.asked();
        let addresses: BTreeSet<_> = asked.difference(&self.said).copied().collect();
        self.said = asked;
        let want = Want { addresses, unused: std::mem::take(&mut self.unused) };
        (want != Want::default()).then_some(want)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.questions.set_heard(false);
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

#[cfg(test)]
mod tests {
    use sealane_proto::sidecar::SidecarPorts;

    use super::*;

    #[tokio::test]
    async fn an_agent_that_tells_portions_is_asked_each_question_once() {
        let core = Core::start(SidecarPorts::default(), 1, Arc::new(Redirected)).unwrap();
        let [before, one, other] = [1, 2, 3].map(|last| Ipv4Addr::new(10, 42, 0, last));
        assert!(core.questions().ask(before));
        assert_eq!(core.calls(), [before].into(), "said in the hello");
        let mut asking = Asking::new(&core);
        assert!(core.questions().ask(one));
        assert_eq!(asking.due(), None, "it may be an agent of before");
        asking.handle_portion(true);
        let want = |address| Some(Want { addresses: [address].into(), unused: BTreeSet::new() });
        assert_eq!((asking.due(), asking.due()), (want(one), None));
        assert!(core.questions().ask(other));
        assert_eq!(asking.due(), want(other));
        // Answered, told no more, and asked again.
        core.questions().retain(|address| address != one);
        assert_eq!(asking.due(), None);
        assert!(core.questions().ask(one));
        assert_eq!(asking.due(), want(one));
        asking.handle_portion(false);
        asking.unused = [one].into();
        assert_eq!(asking.due(), None);
    }
}
