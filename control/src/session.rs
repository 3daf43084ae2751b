//! Stream of one agent: desired state down, observed state up.
//!
//! The loop holds at most one report under way and a few answers; desired state is not queued at all, but
//! taken from the agent's `DesiredState` when there is room to send. So a slow agent costs nothing and gets the
//! newest state only.

mod greeting;
mod outbox;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sealane_base::drain::Draining;
use sealane_base::rate_limit::RateLimit;
use sealane_base::text::one_line;
use sealane_proto::client::ClockPair;
use sealane_proto::resource::{NetworkSnapshot, Workload};
use sealane_proto::types::{Mtu, NodeName};
use sealane_proto::wire::v1;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tonic::{Status, Streaming};
use v1::agent_message::Message as Up;
use v1::control_message::Message as Down;

use crate::VERSION;
use crate::core::{Recall, Report, Reported, TakenOver, TellMtu, Timestamp};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::registry::{AgentStream, Arrival, Claimant, DesiredState, Registry};
use crate::serve::CertifiedHost;
use crate::status::{displaced, not_a_node, status_of};
use crate::store::Writer;
use greeting::{Greeting, acknowledgement, greet};
pub(crate) use greeting::{check_protocol, check_version, warn_displaced};
use outbox::Outbox;

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
/// Number of lost hosts that an agent hears of.
const MOST_LOST: usize = 256;
/// Number of answers that may wait until nothing more is read from the agent.
const ANSWERS: usize = 16;

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
    let refusals = context.refusals.clone();
    let ended = match greet(&context, opener, &mut incoming).await {
        Ok(greeting) => {
            let version = greeting.version.clone();
            tracing::info!(%node, version, %peer, "agent connected");
            let claimant = Claimant { peer, instance: greeting.instance };
            let arrival = Arrival { version, claimant, now: SystemTime::now().into() };
            let stream = context.registry.open(node.clone(), arrival, &greeting.applied);
            stream.serves_metrics(greeting.metrics_port);
            let session = Session::new(context, node.clone(), key, stream, greeting);
            let ended = session.run(incoming, &down).await;
            tracing::info!(%node, reason = ended.message(), "agent disconnected");
            ended
        }
        Err(refused) => {
            if let Some(withheld) = refusals.pass(std::time::Instant::now()) {
                tracing::warn!(%node, reason = refused.message(), withheld, "agent refused");
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

struct Session {
    context: Context,
    node: NodeName,
    /// SHA-256 of the node's public key.
    key: [u8; 32],
    stream: AgentStream,
    outbox: Outbox,
    pending: Option<Pending>,
    heard: Instant,
    /// Time at which the agent last took a message, or had none to take.
    taken: Instant,
    /// Pace at which it may report.
    pace: Pace,
}

impl Session {
    fn new(context: Context, node: NodeName, key: [u8; 32], stream: AgentStream, greeting: Greeting) -> Self {
        let mut outbox = Outbox::new(greeting.applied);
        if greeting.recalls {
            outbox.hold();
        }
        outbox.push(Down::Welcome(v1::Welcome {
            protocol: greeting.protocol,
            version: VERSION.to_owned(),
            epoch: context.registry.directory().generation.epoch,
            roots: context.roots.clone(),
        }));
        let now = Instant::now();
        Self { context, node, key, stream, outbox, pending: None, heard: now, taken: now, pace: REPORTS }
    }

    /// Runs until either side ends; says why.
    async fn run(mut self, mut incoming: Streaming<v1::AgentMessage>, down: &Sender) -> Status {
        let mut heartbeat = interval(HEARTBEAT);
        // The first one is due at once: until it comes, the agent knows nothing of other hosts.
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut draining = self.context.draining.clone();
        loop {
            let desired = self.stream.desired.borrow_and_update().clone();
            if let Some(dismissed) = self.dismissed(&desired) {
                return dismissed;
            }
            let sending = self.outbox.has_news(&desired);
            if !sending {
                self.taken = Instant::now();
            }
            let reading = self.pending.is_none() && self.outbox.answers() < ANSWERS;
            tokio::select! {
                permit = down.reserve(), if sending => match (permit, self.outbox.next(&desired)) {
                    (Ok(permit), Some(mut message)) => {
                        if let Down::Heartbeat(heartbeat) = &mut message {
                            *heartbeat = self.heartbeat(&desired);
                        }
                        self.context.metrics.message(kind(&message), "down");
                        permit.send(Ok(v1::ControlMessage { message: Some(message) }));
                        self.taken = Instant::now();
                    }
                    (Ok(_), None) => {}
                    (Err(_), _) => return Status::cancelled("the agent closed the stream"),
                },
                message = incoming.message(), if reading => match message {
                    Ok(Some(message)) => if let Err(status) = self.receive(message) { return status },
                    Ok(None) => return Status::ok("the agent closed the stream"),
                    Err(status) => return status,
                },
                answer = settle(&mut self.pending) => match answer {
                    Ok(Done::Reported(answer)) => self.answer(answer),
                    Ok(Done::Resized) => {}
                    Ok(Done::Recalled(last)) => {
                        self.heard = Instant::now();
                        if last {
                            self.outbox.release();
                        }
                    }
                    Err(status) => return status,
                },
                _ = self.stream.desired.changed() => {}
                _ = heartbeat.tick() => self.outbox.heartbeat(),
                () = sleep_until(self.heard + SILENCE), if reading => {
                    return Status::deadline_exceeded(format!("the agent of {} fell silent", self.node));
                }
                () = sleep_until(self.taken + STUCK), if sending => {
                    return Status::deadline_exceeded(format!("the agent of {} reads nothing", self.node));
                }
                () = draining.begun() => return Status::unavailable("the control plane is shutting down"),
            }
        }
    }

    /// The status to end with when there is nothing more to say to this agent.
    fn dismissed(&self, desired: &DesiredState) -> Option<Status> {
        let (node, directory) = (&self.node, || self.context.registry.directory());
        if desired.replaced {
            return Some(Status::aborted(format!("another stream of node {node} has taken over")));
        }
        let displaced = desired.displaced.then(|| displaced(&directory(), node));
        displaced.or_else(|| desired.removed.then(|| not_a_node(&directory(), node, Some(self.key))))
    }

    /// Builds control's message when it has nothing to say: its clock, and the lost hosts of the agent's networks.
    fn heartbeat(&self, desired: &DesiredState) -> v1::Heartbeat {
        let lost = self.context.registry.lost(SystemTime::now().into());
        let directory = self.context.registry.directory();
        let shares = |name: &NodeName| desired.networks.values().any(|known| directory.carries(known, name));
        let lost = lost.iter().filter(|(name, _)| shares(name)).take(MOST_LOST);
        let lost = lost.map(|(name, last)| v1::LostHost {
            name: name.to_string(),
            since_unix_seconds: last.map_or(0, Timestamp::unix),
        });
        v1::Heartbeat { lost: lost.collect(), tells_lost: true, ..v1::Heartbeat::now() }
    }

    fn receive(&mut self, message: v1::AgentMessage) -> Result<(), Status> {
        self.heard = Instant::now();
        self.stream.heard(SystemTime::now().into());
        match message.message {
            Some(Up::Hello(_)) => Err(Status::invalid_argument("Hello comes once, at the start of a stream")),
            Some(Up::Report(report)) => {
                self.context.metrics.message("report", "up");
                let report = submit(self.context.writer.clone(), self.node.clone(), report);
                self.pending = Some(self.in_turn(report));
                Ok(())
            }
            Some(Up::Ack(ack)) => {
                self.context.metrics.message("ack", "up");
                let (network, generation) = acknowledgement(ack)?;
                self.stream.acknowledged(&network, generation);
                if self.outbox.networks() >= NETWORKS {
                    return Err(Status::invalid_argument(format!("Acks name more than {NETWORKS} networks")));
                }
                self.outbox.carries(network, generation);
                Ok(())
            }
            Some(Up::Recall(recall)) => {
                self.context.metrics.message("recall", "up");
                let taken = take_over(self.context.writer.clone(), self.node.clone(), recall);
                self.pending = Some(self.in_turn(taken));
                Ok(())
            }
            Some(Up::Heartbeat(heartbeat)) => {
                self.context.metrics.message("heartbeat", "up");
                if let Some(clock) = heartbeat.instant() {
                    self.stream.clocks(ClockPair { clock, reference: SystemTime::now() });
                }
                if let Some(mtu) = Mtu::try_from(heartbeat.mtu).ok()
                    && self.context.registry.takes_mtu(&self.node, mtu, self.heard)
                {
                    let resized = resize(self.context.writer.clone(), self.node.clone(), mtu);
                    self.pending = Some(self.in_turn(resized));
                }
                Ok(())
            }
            // A kind that a later version of the same protocol has added.
            None => Ok(()),
        }
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

    fn answer(&mut self, answer: Answer) {
        let Answer { sequence, reported, unreadable: mut refused } = answer;
        let unreadable = refused.iter().map(|_| "unreadable");
        for reason in reported.refused.iter().map(|refusal| refusal.reason.reason()).chain(unreadable) {
            self.context.metrics.workloads_refused.with_label_values(&[reason]).inc();
        }
        refused.extend(reported.refused.into_iter().map(|refusal| v1::Refusal {
            network: refusal.network.to_string(),
            workload: refusal.workload.to_string(),
            reason: refusal.reason.to_string(),
        }));
        for refusal in &refused {
            let v1::Refusal { network, workload, reason } = refusal;
            if let Some(withheld) = self.context.refusals.pass(std::time::Instant::now()) {
                tracing::warn!(node = %self.node, network, workload, reason, withheld, "workload refused");
            }
        }
        // What came while the report was under way is read now: silence counts from here.
        self.heard = Instant::now();
        self.outbox.push(Down::Reported(v1::Reported { sequence, refused }));
        self.stream.reported(sequence, &reported.changed);
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

async fn submit(writer: Writer, node: NodeName, report: v1::Report) -> Result<Done, Status> {
    let v1::Report { sequence, workloads } = report;
    let (mut readable, mut unreadable) = (vec![], vec![]);
    for message in workloads {
        let (network, workload) = (message.network.clone(), message.name.clone());
        match Workload::try_from(message) {
            Ok(workload) => readable.push(workload),
            Err(error) => {
                let [network, workload] = [network, workload].map(|name| one_line(&name, 80).into_owned());
                unreadable.push(v1::Refusal { network, workload, reason: error.to_string() });
            }
        }
    }
    let reported = writer.submit(Report { node, workloads: readable }).await.map_err(status_of)?;
    Ok(Done::Reported(Answer { sequence, reported, unreadable }))
}

async fn resize(writer: Writer, node: NodeName, mtu: Mtu) -> Result<Done, Status> {
    writer.submit(TellMtu { node, mtu }).await.map_err(status_of)?;
    Ok(Done::Resized)
}

async fn take_over(writer: Writer, node: NodeName, recall: v1::Recall) -> Result<Done, Status> {
    let mut networks = vec![];
    for message in recall.networks {
        match NetworkSnapshot::try_from(message) {
            Ok(network) => networks.push(network),
            // The host goes on by it; what it runs there comes with its report.
            Err(error) => tracing::warn!(%node, %error, "what a host recalls cannot be read"),
        }
    }
    if !networks.is_empty() {
        let recalled = writer.submit(Recall { node: node.clone(), networks }).await.map_err(status_of)?;
        for TakenOver { network, what } in recalled {
            tracing::info!(%node, %network, what, "taken over what the backup did not know");
        }
    }
    Ok(Done::Recalled(recall.last))
}

fn kind(message: &Down) -> &'static str {
    match message {
        Down::Welcome(_) => "welcome",
        Down::State(_) => "state",
        Down::Gone(_) => "gone",
        Down::Reported(_) => "reported",
        Down::Settled(_) => "settled",
        Down::Heartbeat(_) => "heartbeat",
    }
}
