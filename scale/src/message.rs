//! Messages of a simulated host's stream. Pure.
//!
//! Of a network's state only the beginning is read, which is all that an acknowledgement needs: a simulated host costs little
//! more than its connection. A further kind of message that brings news of networks becomes [`Heard::Network`] as well.

use prost::Message as _;
use sealane_proto::wire::{OLDEST_PROTOCOL, PROTOCOL, v1};
use v1::agent_message::Message as Up;
use v1::control_message::Message as Down;

/// Field of the generation in a network's state.
const GENERATION: usize = 1;
/// Field of the network itself.
const NETWORK: usize = 2;
/// Wire type of fields that say their length.
const WITH_LENGTH: usize = 2;
/// Version that simulated hosts say that they are of.
pub(crate) const VERSION: &str = "0.1.0-load";

/// Message of control, as far as a simulated host reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The stream stands.
    Welcome,
    /// A network is now as of this generation.
    Network { name: String, generation: v1::Generation },
    /// The host carries a network no more.
    Gone(String),
    /// Control has a report, but for so many workloads; with the first reason.
    Reported { sequence: u64, refused: u64, reason: Option<String> },
    /// Every host works by a report.
    Settled(u64),
    /// A message that asks for nothing.
    Other,
}

/// State of a network whose beginning is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("control sent a state that does not begin with its generation and its network")]
pub(crate) struct Unreadable;

/// Reads a message of control.
///
/// # Errors
/// When it is a state that cannot be read.
pub(crate) fn read(message: v1::ControlMessage) -> Result<Heard, Unreadable> {
    Ok(match message.message {
        Some(Down::Welcome(_)) => Heard::Welcome,
        Some(Down::State(state)) => {
            let (generation, name) = beginning(&state).ok_or(Unreadable)?;
            Heard::Network { name, generation }
        }
        Some(Down::Gone(gone)) => Heard::Gone(gone.network),
        Some(Down::Reported(v1::Reported { sequence, refused })) => {
            let count = refused.len() as u64;
            Heard::Reported {
                sequence,
                refused: count,
                reason: refused.into_iter().next().map(|first| first.reason),
            }
        }
        Some(Down::Settled(settled)) => Heard::Settled(settled.sequence),
        Some(Down::Heartbeat(_)) | None => Heard::Other,
    })
}

/// The generation of a state and the name of its network, which come first.
fn beginning(mut state: &[u8]) -> Option<(v1::Generation, String)> {
    let (mut generation, mut name) = (None, None);
    while generation.is_none() || name.is_none() {
        let key = prost::decode_length_delimiter(&mut state).ok()?;
        let length = prost::decode_length_delimiter(&mut state).ok()?;
        let (field, rest) = state.split_at_checked(length)?;
        match (key >> 3, key & 7) {
            (GENERATION, WITH_LENGTH) => generation = Some(v1::Generation::decode(field).ok()?),
            (NETWORK, WITH_LENGTH) => name = Some(v1::Network::decode(field).ok()?.name),
            _ => return None,
        }
        state = rest;
    }
    Some((generation?, name?))
}

/// The first message of a stream.
pub(crate) fn hello(underlay: String, applied: Vec<v1::Ack>, instance: u64) -> v1::AgentMessage {
    up(Up::Hello(v1::Hello {
        protocol: PROTOCOL,
        oldest_protocol: OLDEST_PROTOCOL,
        version: VERSION.to_owned(),
        applied,
        underlay,
        instance,
        recalls: true,
        // Nobody is there to answer them: real hosts beside this one must not call it dead.
        echoes: false,
        ..v1::Hello::default()
    }))
}

/// The word of a host that has nothing to tell to a restored control plane.
pub(crate) fn nothing_to_recall() -> v1::AgentMessage {
    up(Up::Recall(v1::Recall { networks: vec![], last: true }))
}

/// A report.
pub(crate) fn report(report: v1::Report) -> v1::AgentMessage {
    up(Up::Report(report))
}

/// The acknowledgement of a network's generation.
pub(crate) fn ack(network: String, generation: v1::Generation) -> v1::AgentMessage {
    up(Up::Ack(v1::Ack { network, generation: Some(generation) }))
}

/// A sign of life.
pub(crate) fn heartbeat() -> v1::AgentMessage {
    up(Up::Heartbeat(v1::Heartbeat::now()))
}

fn up(message: Up) -> v1::AgentMessage {
    v1::AgentMessage { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> v1::NetworkState {
        v1::NetworkState {
            generation: Some(v1::Generation { epoch: 3, revision: 70_000 }),
            network: Some(v1::Network {
                name: "net-000".into(),
                subnet: "10.0.0.0/16".into(),
                ..Default::default()
            }),
            workloads: vec![v1::Workload { name: "w".into(), ..Default::default() }; 500],
            ..Default::default()
        }
    }

    fn read_state(bytes: Vec<u8>) -> Result<Heard, Unreadable> {
        read(v1::ControlMessage { message: Some(Down::State(bytes.into())) })
    }

    #[test]
    fn the_beginning_of_a_state_says_which_one_it_is() {
        let generation = v1::Generation { epoch: 3, revision: 70_000 };
        let heard = read_state(state().encode_to_vec());
        assert_eq!(heard, Ok(Heard::Network { name: "net-000".into(), generation }));
    }

    #[test]
    fn what_does_not_begin_so_is_refused() {
        let whole = state().encode_to_vec();
        for length in 0..30 {
            assert_eq!(read_state(whole[..length].to_vec()), Err(Unreadable), "{length} bytes");
        }
        let without = v1::NetworkState { generation: None, ..state() }.encode_to_vec();
        assert_eq!(read_state(without), Err(Unreadable));
    }

    #[test]
    fn a_refusal_is_counted_with_its_first_reason() {
        let refusal = |reason: &str| v1::Refusal { reason: reason.into(), ..Default::default() };
        let reported = v1::Reported { sequence: 4, refused: vec![refusal("full"), refusal("taken")] };
        let heard = read(v1::ControlMessage { message: Some(Down::Reported(reported)) });
        assert_eq!(heard, Ok(Heard::Reported { sequence: 4, refused: 2, reason: Some("full".into()) }));
    }
}
