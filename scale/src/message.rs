//! Messages of a simulated host's stream. Pure.
//!
//! Of a network's state or delta only the beginning is read, which is all that an acknowledgement needs: a simulated host costs
//! little more than its connection. A further kind of message that brings news of networks becomes [`Heard::Network`] as well.

use prost::Message as _;
use sealane_proto::wire::{OLDEST_PROTOCOL, PROTOCOL, v1};
use v1::agent_message::Message as Up;
use v1::control_message::Message as Down;

/// Fields of a network's state: its generation, and the network itself.
const STATE: [usize; 2] = [1, 2];
/// Fields of a delta: the network's name, the revision that it leads on from, and the state with what is new.
const DELTA: [usize; 3] = [1, 2, 3];
/// Version that simulated hosts say that they are of.
pub(crate) const VERSION: &str = "0.1.0-load";

/// Message of control, as far as a simulated host reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The stream stands.
    Welcome,
    /// A network is now as of this generation, for hosts that have it as of this revision or a later one; of a state, for all.
    Network { name: String, generation: v1::Generation, from: Option<u64> },
    /// The host carries a network no more.
    Gone(String),
    /// Control has a report, but for so many workloads; with the first reason.
    Reported { sequence: u64, refused: u64, reason: Option<String> },
    /// Every host works by a report.
    Settled(u64),
    /// A message that asks for nothing.
    Other,
}

/// State or delta of a network whose beginning is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("control sent a state or a delta that does not begin with its generation and its network")]
pub(crate) struct Unreadable;

/// Reads a message of control.
///
/// # Errors
/// When it is a state or a delta that cannot be read.
pub(crate) fn read(message: v1::ControlMessage) -> Result<Heard, Unreadable> {
    Ok(match message.message {
        Some(Down::Welcome(_)) => Heard::Welcome,
        Some(Down::State(state)) => {
            let (generation, name) = beginning(&state).ok_or(Unreadable)?;
            Heard::Network { name, generation, from: None }
        }
        Some(Down::Delta(delta)) => way(&delta).ok_or(Unreadable)?,
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
    let [generation, network] = STATE;
    let generation = v1::Generation::decode(part(&mut state, generation)?).ok()?;
    Some((generation, v1::Network::decode(part(&mut state, network)?).ok()?.name))
}

/// The beginning of a delta.
fn way(mut delta: &[u8]) -> Option<Heard> {
    let [name, from, news] = DELTA;
    let name = String::from_utf8(part(&mut delta, name)?.to_vec()).ok()?;
    // Of the lowest revision there is no field.
    let from = number(&mut delta, from).unwrap_or_default();
    let mut news = part(&mut delta, news)?;
    let generation = v1::Generation::decode(part(&mut news, STATE[0])?).ok()?;
    Some(Heard::Network { name, generation, from: Some(from) })
}

/// Reads the next field, which says its length, if it is this one.
fn part<'a>(message: &mut &'a [u8], field: usize) -> Option<&'a [u8]> {
    let mut rest = key(message, field << 3 | 2)?;
    let length = prost::decode_length_delimiter(&mut rest).ok()?;
    let (found, behind) = rest.split_at_checked(length)?;
    *message = behind;
    Some(found)
}

/// Reads the next field, which is a number, if it is this one.
fn number(message: &mut &[u8], field: usize) -> Option<u64> {
    let mut rest = key(message, field << 3)?;
    let found = prost::decode_length_delimiter(&mut rest).ok()?;
    *message = rest;
    u64::try_from(found).ok()
}

/// The rest of a message behind the key of its next field, if it is this one.
fn key<'a>(message: &&'a [u8], wanted: usize) -> Option<&'a [u8]> {
    let mut rest = *message;
    let found = prost::decode_length_delimiter(&mut rest).ok()?;
    (found == wanted).then_some(rest)
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
        takes_deltas: true,
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
    up(Up::Ack(v1::Ack { network, generation: Some(generation), voucher: None }))
}

/// The word of a host that has not got what a delta leads on from.
pub(crate) fn missing(network: String) -> v1::AgentMessage {
    up(Up::Missing(v1::Missing { network }))
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
        assert_eq!(heard, Ok(Heard::Network { name: "net-000".into(), generation, from: None }));
    }

    #[test]
    fn the_beginning_of_a_delta_says_from_where_to_where_it_leads() {
        let generation = v1::Generation { epoch: 3, revision: 70_000 };
        for from in [0, 69_990] {
            let news = v1::NetworkState { network: None, ..state() };
            let delta =
                v1::NetworkDelta { network: "net-000".into(), from, news: Some(news), ..Default::default() };
            let bytes = delta.encode_to_vec();
            let heard = read(v1::ControlMessage { message: Some(Down::Delta(bytes.clone().into())) });
            assert_eq!(heard, Ok(Heard::Network { name: "net-000".into(), generation, from: Some(from) }));
            let cut = v1::ControlMessage { message: Some(Down::Delta(bytes[..12].to_vec().into())) };
            assert_eq!(read(cut), Err(Unreadable));
        }
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
