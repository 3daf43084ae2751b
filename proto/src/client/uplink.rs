//! Messages of an agent's stream as values: what goes up follows from what the host knows, what comes down are events. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use prost::Message as _;
use sealane_base::text::one_line;
use v1::agent_message::Message as Up;
use v1::control_message::Message as Down;

use super::clock::ClockPair;
use super::ending::LONGEST_REASON;
use super::link::{CarriedNetworks, Followed, LinkEvent, LinkReport, Rejection};
use crate::resource::{NetworkSnapshot, Voucher};
use crate::types::{Generation, NameError, NetworkName};
use crate::wire::v1;

/// Messages that one stream has sent so far.
#[derive(Debug)]
pub struct Uplink {
    reported: u64,
    acked: BTreeMap<NetworkName, Generation>,
    missing: BTreeSet<NetworkName>,
}

impl Uplink {
    /// A stream whose hello has told these generations.
    #[must_use]
    pub fn new(applied: BTreeMap<NetworkName, Generation>) -> Self {
        Self { reported: 0, acked: applied, missing: BTreeSet::new() }
    }

    /// The message for a report, unless it has been sent.
    pub fn report(&mut self, report: &LinkReport) -> Option<v1::AgentMessage> {
        if report.version <= self.reported {
            return None;
        }
        self.reported = report.version;
        let workloads = report.workloads.iter().map(Into::into).collect();
        let networks = report.networks.iter().map(Into::into).collect();
        let offers = report.offers.iter().map(|(network, ranges)| v1::BlockOffer {
            network: network.to_string(),
            ranges: ranges.iter().map(ToString::to_string).collect(),
        });
        let report = v1::Report { sequence: report.version, workloads, networks, offers: offers.collect() };
        Some(message(Up::Report(report)))
    }

    /// The messages for generations that were not acknowledged before, and for networks whose states the host has begun to miss.
    pub fn followed(&mut self, Followed { applied, astray }: &Followed) -> Vec<v1::AgentMessage> {
        let acks =
            applied.iter().filter(|&(network, generation)| self.acked.get(network) != Some(generation));
        let acks = acks.map(|(network, &generation)| message(Up::Ack(ack(network, generation))));
        let missing = astray.difference(&self.missing);
        let missing =
            missing.map(|network| message(Up::Missing(v1::Missing { network: network.to_string() })));
        let news = acks.chain(missing).collect();
        self.acked.clone_from(applied);
        self.missing.clone_from(astray);
        news
    }
}

/// The messages that tell a control plane of this lifetime what the host works by although that is of another one.
pub fn recalls(carried: &CarriedNetworks, epoch: u64) -> impl Iterator<Item = v1::AgentMessage> + '_ {
    let others = carried.values().filter(move |snapshot| snapshot.generation.epoch != epoch);
    let each = others.map(|snapshot| vec![snapshot.as_ref().into()]);
    each.chain([vec![]]).map(|networks| {
        let last = networks.is_empty();
        message(Up::Recall(v1::Recall { networks, last }))
    })
}

/// Reads a network's state as control sends it.
///
/// # Errors
/// When the bytes are none.
pub fn network_state(state: Bytes) -> Result<v1::NetworkState, String> {
    v1::NetworkState::decode(state)
        .map_err(|error| format!("control sent what this agent cannot read: {error}"))
}

/// The events that a message of control stands for, in their order. A kind of message that this version does not know stands for
/// none: protocols of one number only add.
///
/// # Errors
/// Names what cannot be read.
pub fn events(message: v1::ControlMessage, now: SystemTime) -> Result<Vec<LinkEvent>, String> {
    let bad = |error: &dyn Display| format!("control sent what this agent cannot read: {error}");
    Ok(match message.message {
        None | Some(Down::Welcome(_)) => vec![],
        Some(Down::Heartbeat(heartbeat)) => {
            let lost = heartbeat.lost_hosts().map(LinkEvent::Lost);
            let clocks =
                heartbeat.instant().map(|reference| LinkEvent::Clocks(ClockPair { clock: now, reference }));
            lost.into_iter().chain(clocks).collect()
        }
        Some(Down::State(state)) => {
            let state = NetworkSnapshot::try_from(network_state(state)?).map_err(|error| bad(&error))?;
            vec![LinkEvent::State(Box::new(state.checked()))]
        }
        Some(Down::Delta(delta)) => {
            let delta = v1::NetworkDelta::decode(delta).map_err(|error| bad(&error))?;
            vec![LinkEvent::Delta(Box::new(delta.try_into().map_err(|error| bad(&error))?))]
        }
        Some(Down::Gone(gone)) => {
            vec![LinkEvent::Gone(gone.network.parse().map_err(|error| bad(&error))?)]
        }
        Some(Down::Reported(reported)) => {
            let refused = reported.refused.into_iter().map(rejection).collect::<Result<_, _>>();
            let refused = refused.map_err(|error| bad(&error))?;
            vec![LinkEvent::Reported { version: reported.sequence, refused }]
        }
        Some(Down::Settled(settled)) => vec![LinkEvent::Settled { version: settled.sequence }],
    })
}

fn rejection(refusal: v1::Refusal) -> Result<Rejection, NameError> {
    Ok(Rejection {
        network: refusal.network.parse()?,
        workload: refusal.workload.parse()?,
        reason: one_line(&refusal.reason, LONGEST_REASON).into_owned(),
        not_carried: refusal.not_carried,
    })
}

/// The acknowledgement of a network's generation.
#[must_use]
pub fn ack(network: &NetworkName, generation: Generation) -> v1::Ack {
    v1::Ack { network: network.to_string(), generation: Some(generation.into()), voucher: None }
}

/// The newest states that a host was told, as its hello names them: those that control has vouched for.
#[must_use]
pub fn held(carried: &CarriedNetworks) -> Vec<v1::Ack> {
    let vouched = carried.iter().filter_map(|(network, told)| Some((network, told, told.voucher?)));
    let held = |(network, told, voucher): (_, &Arc<NetworkSnapshot>, Voucher)| v1::Ack {
        voucher: Some(voucher.into()),
        ..ack(network, told.generation)
    };
    vouched.map(held).collect()
}

pub(super) fn message(message: Up) -> v1::AgentMessage {
    v1::AgentMessage { message: Some(message) }
}
