//! Stream of one agent: desired state down, observed state up.
//!
//! The loop holds at most one report under way and a few answers; desired state is not queued at all, but
//! taken from the agent's `DesiredState` when there is room to send. So a slow agent costs nothing and gets the
//! newest state only.

mod conversation;
mod greeting;
mod outbox;
mod refused;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sealane_base::drain::Draining;
use sealane_base::rate_limit::RateLimit;
use sealane_proto::wire::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tonic::{Status, Streaming};
use v1::agent_message::Message as Up;
use v1::control_message::Message as Down;

use crate::core::{Actor, Reported, TakenOver};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::registry::{Arrival, Claimant, Registry};
use crate::roster::Roster;
use crate::serve::CertifiedHost;
use crate::status::status_of;
use crate::store::Writer;
pub(crate) use conversation::{Conversation, Told, Work};
use greeting::greet;
#[cfg(feature = "simulation")]
pub(crate) use greeting::{Placement, placement, read as read_hello};
pub(crate) use greeting::{check_protocol, check_version, warn_displaced};
pub(crate) use refused::Refused;

/// Interval at which each side says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// An agent that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);
/// An agent that takes nothing of what waits for it for so long is stuck: nobody should wait for it.
const STUCK: Duration = Duration::from_secs(30);
/// Reports: one every 20 ms in the long run, and those of a start.
const REPORTS: Pace = Pace::new(Duration::from_millis(20), 100);
/// Number of networks that a host may say that it carries.
const NETWORKS: usize = 4_096;

/// Parts of control that a stream needs.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) writer: Writer,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Metrics,
    /// The trust bundle, DER.
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) draining: Draining,
    /// Limit on log lines about refusals.
    pub(crate) refusals: Arc<RateLimit>,
    /// Hosts that are refused.
    pub(crate) refused: Arc<Refused>,
    /// Control planes that share the store, if it may be shared.
    pub(crate) roster: Option<watch::Receiver<Roster>>,
}

impl Context {
    /// Gives the facts that every agent is told first.
    fn told(&self) -> Told {
        let (term, controls) = self.roster.as_ref().map_or_else(Default::default, |roster| {
            let roster = roster.borrow();
            (roster.term, roster.addresses())
        });
        Told { roots: self.roots.clone(), term, controls }
    }
}

/// Channel for messages to the agent; the stream ends when this is dropped.
pub(crate) type Sender = mpsc::Sender<Result<v1::ControlMessage, Status>>;

/// Serves one stream until it ends.
pub(crate) async fn serve(
    context: Context,
    opener: CertifiedHost,
    mut incoming: Streaming<v1::AgentMessage>,
    down: Sender,
) {
    let (node, key, peer) = (opener.node.clone(), opener.key, opener.addr);
    let (refusals, refused_hosts) = (context.refusals.clone(), context.refused.clone());
    let ended = match greet(&context, opener, &mut incoming).await {
        Ok(greeting) => {
            refused_hosts.forget(&node);
            let version = greeting.version.clone();
            tracing::info!(%node, version, %peer, "agent connected");
            let claimant = Claimant { peer, instance: greeting.instance };
            let arrival = Arrival { version, claimant, now: SystemTime::now().into() };
            let stream = context.registry.open(node.clone(), arrival, &greeting.applied);
            stream.serves_metrics(greeting.metrics_port);
            let told = context.told();
            let conversation =
                Conversation::new((context.registry.clone(), told), (node.clone(), key), stream, greeting);
            let ended = Session::new(context, conversation).run(incoming, &down).await;
            tracing::info!(%node, reason = ended.message(), "agent disconnected");
            ended
        }
        Err(refused) => {
            let now = std::time::Instant::now();
            if let Some(again) = refused_hosts.again(&node, refused.message(), now)
                && let Some(withheld) = refusals.pass(now)
            {
                tracing::warn!(%node, reason = refused.message(), again, withheld, "agent refused");
            }
            refused
        }
    };
    // Without room the agent does not read: then it does not read this either.
    let _ = down.try_send(Err(ended));
}

/// A report under way.
type Pending = Pin<Box<dyn Future<Output = Result<Done, Status>> + Send>>;

/// Outcome of a message.
enum Done {
    Reported(Answer),
    /// A part of the host's memory was heard; true if that was all.
    Recalled(bool),
    /// The size of packets to the host was taken in.
    Resized,
}

struct Answer {
    sequence: u64,
    reported: Reported,
    /// Workloads that could not even be read.
    unreadable: Vec<v1::Refusal>,
}

/// The conversation over its transport.
struct Session {
    context: Context,
    conversation: Conversation,
    pending: Option<Pending>,
    heard: Instant,
    /// Time at which the agent last took a message, or had none to take.
    taken: Instant,
    /// Pace at which it may report.
    pace: Pace,
}

impl Session {
    fn new(context: Context, conversation: Conversation) -> Self {
        let now = Instant::now();
        Self { context, conversation, pending: None, heard: now, taken: now, pace: REPORTS }
    }

    /// Runs until either side ends; says why.
    async fn run(mut self, mut incoming: Streaming<v1::AgentMessage>, down: &Sender) -> Status {
        let mut heartbeat = interval(HEARTBEAT);
        // The first one is due at once: until it comes, the agent knows nothing of other hosts.
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut draining = self.context.draining.clone();
        loop {
            let desired = self.conversation.stream.desired.borrow_and_update().clone();
            if let Some(dismissed) = self.conversation.dismissed(&desired) {
                return dismissed;
            }
            let now = Instant::now();
            let sending = self.conversation.has_news(&desired, now);
            if !sending {
                self.taken = now;
            }
            let due = self.conversation.due(&desired).filter(|_| !sending);
            let reading = self.pending.is_none() && self.conversation.reads();
            tokio::select! {
                permit = down.reserve(), if sending => {
                    let message = self.conversation.next(&desired, (SystemTime::now().into(), Instant::now()));
                    match (permit, message) {
                        (Ok(permit), Some(message)) => {
                            self.context.metrics.message(down_kind(&message), "down");
                            permit.send(Ok(v1::ControlMessage { message: Some(message) }));
                            self.taken = Instant::now();
                        }
                        (Ok(_), None) => {}
                        (Err(_), _) => return Status::cancelled("the agent closed the stream"),
                    }
                }
                message = incoming.message(), if reading => match message {
                    Ok(Some(message)) => if let Err(status) = self.receive(message) { return status },
                    Ok(None) => return Status::ok("the agent closed the stream"),
                    Err(status) => return status,
                },
                answer = settle(&mut self.pending) => match answer {
                    Ok(done) => self.handle_done(done),
                    Err(status) => return status,
                },
                _ = self.conversation.stream.desired.changed() => {}
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
                _ = heartbeat.tick() => self.conversation.handle_tick(),
                () = sleep_until(self.heard + SILENCE), if reading => {
                    let node = self.conversation.node();
                    return Status::deadline_exceeded(format!("the agent of {node} fell silent"));
                }
                () = sleep_until(self.taken + STUCK), if sending => {
                    let node = self.conversation.node();
                    return Status::deadline_exceeded(format!("the agent of {node} reads nothing"));
                }
                () = draining.begun() => return Status::unavailable("the control plane is shutting down"),
            }
        }
    }

    fn receive(&mut self, message: v1::AgentMessage) -> Result<(), Status> {
        self.heard = Instant::now();
        if let Some(kind) = message.message.as_ref().and_then(up_kind) {
            self.context.metrics.message(kind, "up");
        }
        let now = (SystemTime::now(), self.heard);
        if let Some(work) = self.conversation.handle_message(message, now)? {
            self.pending =
                Some(self.in_turn(perform(self.context.writer.clone(), self.context.registry.clone(), work)));
        }
        Ok(())
    }

    /// Handles messages one after the other, and not faster than a host can need: each may be a transaction, and news
    /// for all hosts.
    fn in_turn(&mut self, message: impl Future<Output = Result<Done, Status>> + Send + 'static) -> Pending {
        // Nothing is read meanwhile: nobody comes so early that it would be refused.
        let wait = self.pace.next(Instant::now()).unwrap_or_default();
        Box::pin(async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            message.await
        })
    }

    fn handle_done(&mut self, done: Done) {
        match done {
            Done::Reported(answer) => {
                self.note_refused(&answer);
                // What came while the report was under way is read now: silence counts from here.
                self.heard = Instant::now();
                let Answer { sequence, reported, unreadable } = answer;
                self.conversation.handle_reported(sequence, reported, unreadable);
            }
            Done::Resized => {}
            Done::Recalled(last) => {
                self.heard = Instant::now();
                self.conversation.handle_recalled(last);
            }
        }
    }

    /// Counts and logs what was refused.
    fn note_refused(&self, Answer { reported, unreadable, .. }: &Answer) {
        let strange = unreadable.iter().map(|refusal| {
            let v1::Refusal { network, workload, reason, .. } = refusal;
            ("unreadable", network.clone(), workload.clone(), reason.clone())
        });
        let refused = reported.refused.iter().map(|refusal| {
            let (network, workload) = (refusal.network.to_string(), refusal.workload.to_string());
            (refusal.reason.reason(), network, workload, refusal.reason.to_string())
        });
        for (kind, network, workload, reason) in strange.chain(refused) {
            self.context.metrics.workloads_refused.with_label_values(&[kind]).inc();
            if let Some(withheld) = self.context.refusals.pass(std::time::Instant::now()) {
                let node = self.conversation.node();
                tracing::warn!(%node, network, workload, reason, withheld, "workload refused");
            }
        }
    }
}

/// Waits for the report under way, for ever without one.
async fn settle(pending: &mut Option<Pending>) -> Result<Done, Status> {
    match pending {
        Some(report) => {
            let answer = report.await;
            *pending = None;
            answer
        }
        None => std::future::pending().await,
    }
}

/// Lets the writer do what a message asks of it.
async fn perform(writer: Writer, registry: Arc<Registry>, work: Work) -> Result<Done, Status> {
    match work {
        Work::Report { sequence, report, unreadable } => {
            let node = report.report.node.clone();
            let reported = writer.submit(Actor::Host(node.clone()), report).await.map_err(status_of)?;
            for (network, range) in &reported.returned {
                tracing::info!(%node, %network, %range, "node gives addresses back");
            }
            Ok(Done::Reported(Answer { sequence, reported, unreadable }))
        }
        Work::Resize(resize) => {
            writer.submit(Actor::Host(resize.node.clone()), resize).await.map_err(status_of)?;
            Ok(Done::Resized)
        }
        Work::Recall { mut recall, last } => {
            if !recall.networks.is_empty() {
                registry.doubt(&mut recall);
                let node = recall.node.clone();
                let recalled = writer.submit(Actor::Host(node.clone()), recall).await.map_err(status_of)?;
                for TakenOver { network, what } in recalled {
                    tracing::info!(%node, %network, what, "taken over what the backup did not know");
                }
            }
            Ok(Done::Recalled(last))
        }
    }
}

/// The label of a message from an agent; `None` for one that is not counted.
fn up_kind(message: &Up) -> Option<&'static str> {
    match message {
        Up::Hello(_) => None,
        Up::Report(_) => Some("report"),
        Up::Ack(_) => Some("ack"),
        Up::Recall(_) => Some("recall"),
        Up::Heartbeat(_) => Some("heartbeat"),
        Up::Missing(_) => Some("missing"),
    }
}

/// The label of a message to an agent.
fn down_kind(message: &Down) -> &'static str {
    match message {
        Down::Welcome(_) => "welcome",
        Down::State(_) => "state",
        Down::Delta(_) => "delta",
        Down::Gone(_) => "gone",
        Down::Reported(_) => "reported",
        Down::Settled(_) => "settled",
        Down::Heartbeat(_) => "heartbeat",
    }
}
