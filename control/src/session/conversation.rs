//! Conversation with one agent, without its transport: messages in, work for the writer and messages out.
//!
//! It waits for nothing and knows no clock; the registry that it tells of the agent's progress is memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::Ipv4Net;
use sealane_base::text::one_line;
use sealane_proto::client::ClockPair;
use sealane_proto::resource::{NetworkSnapshot, Workload};
use sealane_proto::types::{Mtu, NameError, NetworkName, NodeName};
use sealane_proto::wire::v1;
use tokio::time::Instant;
use tonic::Status;
use v1::agent_message::Message as Up;
use v1::control_message::Message as Down;

use super::NETWORKS;
use super::greeting::{Greeting, acknowledgement};
use super::outbox::Outbox;
use crate::VERSION;
use crate::core::{OfferingReport, Recall, Report, Reported, TellMtu, Timestamp, WorkloadRefusal};
use crate::registry::{AgentStream, DesiredState, Registry};
use crate::status::{displaced, not_a_node};

/// Number of lost hosts that an agent hears of.
const MOST_LOST: usize = 256;
/// Number of answers that may wait until nothing more is read from the agent.
const ANSWERS: usize = 16;

/// State of one agent's stream, as control sees it.
#[derive(Debug)]
pub(crate) struct Conversation {
    registry: Arc<Registry>,
    node: NodeName,
    /// SHA-256 of the node's public key.
    key: [u8; 32],
    pub(super) stream: AgentStream,
    outbox: Outbox,
}

/// Facts about the mesh that every agent is told first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// The trust bundle, DER.
    pub(crate) roots: Vec<Vec<u8>>,
    /// Number of the term in which this control plane leads; 0 where none shares its store.
    pub(crate) term: u64,
    /// Addresses of the control planes that share the store.
    pub(crate) controls: Vec<String>,
}

/// Work that a message asks of the writer. Nothing more is read before it is done.
#[derive(Debug)]
pub(crate) enum Work {
    /// A report.
    Report {
        /// Number that the agent gave it.
        sequence: u64,
        /// The report, as far as it could be read.
        report: OfferingReport,
        /// Workloads that could not even be read.
        unreadable: Vec<v1::Refusal>,
    },
    /// A part of the host's memory.
    Recall {
        /// Networks in it; none in most.
        recall: Recall,
        /// True if that was all.
        last: bool,
    },
    /// Another size of packets to the host.
    Resize(TellMtu),
}

impl Conversation {
    /// Begins with an agent that has said hello.
    pub(crate) fn new(
        (registry, told): (Arc<Registry>, Told),
        (node, key): (NodeName, [u8; 32]),
        stream: AgentStream,
        greeting: Greeting,
    ) -> Self {
        let mut outbox = Outbox::new(greeting.applied, greeting.takes_deltas);
        if greeting.recalls {
            outbox.hold();
        }
        stream.desired.borrow().contradicts(&greeting.held).for_each(|network| outbox.misses(network));
        outbox.push(Down::Welcome(v1::Welcome {
            protocol: greeting.protocol,
            version: VERSION.to_owned(),
            epoch: registry.directory().generation.epoch,
            roots: told.roots,
            takes_blocks: true,
            term: told.term,
            controls: told.controls,
        }));
        Self { registry, node, key, stream, outbox }
    }

    /// The state that the agent should have now.
    #[cfg(feature = "simulation")]
    pub(crate) fn desired(&mut self) -> DesiredState {
        self.stream.desired.borrow_and_update().clone()
    }

    /// The node of the agent.
    pub(super) fn node(&self) -> &NodeName {
        &self.node
    }

    /// Returns true if the next message may be read.
    pub(crate) fn reads(&self) -> bool {
        self.outbox.answers() < ANSWERS
    }

    /// Returns true if there is something to send.
    pub(super) fn has_news(&self, desired: &DesiredState, now: Instant) -> bool {
        self.outbox.has_news(desired, now)
    }

    /// Time at which there is something to send although nothing happens until then.
    pub(super) fn due(&self, desired: &DesiredState) -> Option<Instant> {
        self.outbox.due(desired)
    }

    /// The next message to the agent.
    pub(crate) fn next(
        &mut self,
        desired: &DesiredState,
        (now, instant): (Timestamp, Instant),
    ) -> Option<Down> {
        let mut message = self.outbox.next(desired, instant)?;
        if let Down::Heartbeat(heartbeat) = &mut message {
            *heartbeat = self.heartbeat(desired, now);
        }
        Some(message)
    }

    /// Tells the agent that control is there.
    pub(crate) fn handle_tick(&mut self) {
        self.outbox.heartbeat();
    }

    /// The status to end with when there is nothing more to say to this agent.
    pub(crate) fn dismissed(&self, desired: &DesiredState) -> Option<Status> {
        let (node, directory) = (&self.node, || self.registry.directory());
        if desired.replaced {
            return Some(Status::aborted(format!("another stream of node {node} has taken over")));
        }
        if desired.outlived {
            return Some(Status::unavailable(
                "the store was an earlier copy, and a new lifetime of the mesh's state has begun: connect again",
            ));
        }
        let displaced = desired.displaced.then(|| displaced(&directory(), node));
        displaced.or_else(|| desired.removed.then(|| not_a_node(&directory(), node, Some(self.key))))
    }

    /// Handles a message of the agent; returns the work that it makes for the writer.
    ///
    /// # Errors
    /// The status to end the stream with.
    pub(crate) fn handle_message(
        &mut self,
        message: v1::AgentMessage,
        (now, heard): (SystemTime, Instant),
    ) -> Result<Option<Work>, Status> {
        self.stream.heard(now.into());
        match message.message {
            Some(Up::Hello(_)) => Err(Status::invalid_argument("Hello comes once, at the start of a stream")),
            Some(Up::Report(report)) => Ok(Some(read_report(self.node.clone(), report))),
            Some(Up::Ack(ack)) => {
                let (network, generation) = acknowledgement(ack)?;
                self.stream.acknowledged(&network, generation);
                if self.outbox.networks() >= NETWORKS {
                    return Err(Status::invalid_argument(format!("Acks name more than {NETWORKS} networks")));
                }
                self.outbox.carries(network, generation);
                Ok(None)
            }
            Some(Up::Missing(missing)) => {
                let bad = |error: NameError| {
                    Status::invalid_argument(one_line(&format!("Missing.network: {error}"), 512))
                };
                self.outbox.misses(&missing.network.parse().map_err(bad)?);
                Ok(None)
            }
            Some(Up::Recall(recall)) => Ok(Some(read_recall(self.node.clone(), recall))),
            Some(Up::Heartbeat(heartbeat)) => {
                if let Some(clock) = heartbeat.instant() {
                    self.stream.clocks(ClockPair { clock, reference: now });
                }
                let mtu = Mtu::try_from(heartbeat.mtu).ok();
                let told = mtu.filter(|&mtu| self.registry.takes_mtu(&self.node, mtu, heard));
                Ok(told.map(|mtu| Work::Resize(TellMtu { node: self.node.clone(), mtu })))
            }
            // A kind that a later version of the same protocol has added.
            None => Ok(None),
        }
    }

    /// A report is durable, but for what is refused.
    pub(crate) fn handle_reported(
        &mut self,
        sequence: u64,
        reported: Reported,
        unreadable: Vec<v1::Refusal>,
    ) {
        let refused = reported.refused.into_iter().map(|refusal| v1::Refusal {
            network: refusal.network.to_string(),
            workload: refusal.workload.to_string(),
            reason: refusal.reason.to_string(),
            not_carried: matches!(refusal.reason, WorkloadRefusal::NotCarried { .. }),
        });
        let refused = unreadable.into_iter().chain(refused).collect();
        self.outbox.push(Down::Reported(v1::Reported { sequence, refused }));
        self.stream.reported(sequence, &reported.changed);
    }

    /// A part of the host's memory was heard; `last` if that was all.
    pub(crate) fn handle_recalled(&mut self, last: bool) {
        if last {
            self.outbox.release();
        }
    }

    /// Builds control's message when it has nothing to say: its clock, and the lost hosts of the agent's networks.
    fn heartbeat(&self, desired: &DesiredState, now: Timestamp) -> v1::Heartbeat {
        let lost = self.registry.lost(now);
        let shares = |name: &NodeName| desired.networks.values().any(|known| known.carriers().contains(name));
        let lost = lost.iter().filter(|(name, _)| shares(name)).take(MOST_LOST);
        let lost = lost.map(|(name, last)| v1::LostHost {
            name: name.to_string(),
            since_unix_seconds: last.map_or(0, Timestamp::unix),
        });
        v1::Heartbeat { lost: lost.collect(), tells_lost: true, ..v1::Heartbeat::now() }
    }
}

fn read_report(node: NodeName, report: v1::Report) -> Work {
    let v1::Report { sequence, workloads, networks, offers } = report;
    let (mut readable, mut unreadable) = (vec![], vec![]);
    for message in workloads {
        let (network, workload) = (message.network.clone(), message.name.clone());
        match Workload::try_from(message) {
            Ok(workload) => readable.push(workload),
            Err(error) => {
                let [network, workload] = [network, workload].map(|name| one_line(&name, 80).into_owned());
                unreadable.push(v1::Refusal {
                    network,
                    workload,
                    reason: error.to_string(),
                    not_carried: false,
                });
            }
        }
    }
    // One that cannot be read counts as none told.
    let editions = networks.into_iter().filter_map(|edition| edition.try_into().ok()).collect();
    // What could not be read may have one of these addresses.
    let offers = if unreadable.is_empty() { read_offers(&node, offers) } else { BTreeMap::new() };
    let report = OfferingReport { report: Report { node, workloads: readable, editions }, offers };
    Work::Report { sequence, report, unreadable }
}

fn read_offers(node: &NodeName, offers: Vec<v1::BlockOffer>) -> BTreeMap<NetworkName, BTreeSet<Ipv4Net>> {
    let mut readable = BTreeMap::new();
    for v1::BlockOffer { network, ranges } in offers {
        let ranges = ranges.iter().map(|range| range.parse()).collect::<Result<_, _>>();
        match (network.parse(), ranges) {
            (Ok(network), Ok(ranges)) => drop(readable.insert(network, ranges)),
            // It stays out of use, and is offered again.
            (Err(_), _) | (_, Err(_)) => tracing::warn!(%node, "addresses that a host offers cannot be read"),
        }
    }
    readable
}

fn read_recall(node: NodeName, recall: v1::Recall) -> Work {
    let mut networks = vec![];
    for message in recall.networks {
        match NetworkSnapshot::try_from(message) {
            Ok(network) => networks.push(network),
            // The host goes on by it; what it runs there comes with its report.
            Err(error) => tracing::warn!(%node, %error, "what a host recalls cannot be read"),
        }
    }
    Work::Recall { recall: Recall { node, networks }, last: recall.last }
}
