//! Messages of the first version, byte by byte: read as they were meant, and answered in words that it reads.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use prost::Message;
use sealane_proto::resource::{NetworkSnapshot, Workload};
use sealane_proto::types::Generation;
use sealane_proto::wire::{agree, v1};
use v1::agent_message::Message as Up;
use v1::control_message::Message as Down;

/// An agent of version 0.1.0, protocol 1: Hello, Report, Ack, Heartbeat.
const AGENT: [&str; 4] = [
    "0a1708011205302e312e301a0c0a0473686f70120408071009",
    "124b080312470a056170692d31120473686f701a06686f73742d31220931302e34322e302e322a1130323a30303a30613a32613a30303a303232036170693a0910903f1a046874747040014801",
    "1a0c0a0473686f70120408071009",
    "2200",
];
/// A control plane of the same version: Welcome, NetworkState, NetworkGone, Reported, Settled, Heartbeat.
const CONTROL: [&str; 6] = [
    "0a0f08011205302e312e30180722023000",
    "12b5010a040807100912180a0473686f70120c31302e34322e302e302f3136188080401a130a06686f73742d3112093139322e302e322e3122160a06686f73742d31120c31302e34322e302e302f32342a1d0a03617069120b31302e34322e3235352e301a0910903f1a046874747032470a056170692d31120473686f701a06686f73742d31220931302e34322e302e322a1130323a30303a30613a32613a30303a303232036170693a0910903f1a046874747040014801",
    "1a060a0473686f70",
    "2215080312110a0473686f7012056170692d321a026e6f",
    "2a020803",
    "3200",
];
/// A request to join.
const JOIN: &str = "0a08616263643233343512067365637265741a06686f73742d3122093139322e302e322e312a013030013a05302e312e304080e2cfaa06";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

const GENERATION: Generation = Generation { epoch: 7, revision: 9 };

#[test]
fn an_agent_of_the_first_version_is_understood() {
    let said: Vec<Up> =
        AGENT.iter().map(|hex| v1::AgentMessage::decode(&*bytes(hex)).unwrap().message.unwrap()).collect();
    let [Up::Hello(hello), Up::Report(report), Up::Ack(ack), Up::Heartbeat(_)] = &said[..] else {
        panic!("{said:?}")
    };
    assert_eq!(agree(hello.oldest_protocol, hello.protocol), Ok(1));
    // What it does not say, it does not do: control waits for nothing.
    assert!(!hello.recalls && hello.underlay.is_empty());
    assert_eq!(hello.applied.as_slice(), std::slice::from_ref(ack));
    assert_eq!(Generation::from(ack.generation.unwrap()), GENERATION);
    let workload = Workload::try_from(report.workloads[0].clone()).unwrap();
    assert!(report.sequence == 3 && workload.name.as_str() == "api-1" && workload.ready);
    let join = v1::JoinRequest::decode(&*bytes(JOIN)).unwrap();
    assert_eq!(agree(join.oldest_protocol, join.protocol), Ok(1));
}

#[test]
fn a_control_plane_of_the_first_version_is_understood() {
    let said: Vec<Down> = CONTROL
        .iter()
        .map(|hex| v1::ControlMessage::decode(&*bytes(hex)).unwrap().message.unwrap())
        .collect();
    let [Down::Welcome(welcome), Down::State(state), Down::Gone(gone), Down::Reported(reported), rest @ ..] =
        &said[..]
    else {
        panic!("{said:?}")
    };
    assert_eq!((agree(0, welcome.protocol), welcome.epoch), (Ok(1), 7));
    let state = NetworkSnapshot::try_from(v1::NetworkState::decode(state.clone()).unwrap()).unwrap();
    assert!(state.generation == GENERATION && state.workloads.len() == 1 && state.services.len() == 1);
    assert_eq!((gone.network.as_str(), reported.refused[0].reason.as_str()), ("shop", "no"));
    assert!(matches!(rest, [Down::Settled(v1::Settled { sequence: 3 }), Down::Heartbeat(_)]), "{rest:?}");
}

/// The first version's Hello, as it was declared then.
#[derive(Clone, PartialEq, Message)]
struct FirstHello {
    #[prost(uint32, tag = "1")]
    protocol: u32,
    #[prost(string, tag = "2")]
    version: String,
}

/// The kinds of message that the first version knew from an agent, without what is in them.
#[derive(Clone, PartialEq, Message)]
struct FirstAgentMessage {
    #[prost(message, optional, tag = "1")]
    hello: Option<FirstHello>,
    #[prost(bytes = "vec", optional, tag = "2")]
    report: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    ack: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    heartbeat: Option<Vec<u8>>,
}

#[test]
fn the_first_version_reads_the_new_hello_and_passes_over_what_it_does_not_know() {
    let hello = v1::Hello {
        protocol: 1,
        version: "0.2.0".into(),
        oldest_protocol: 1,
        underlay: "192.0.2.1".into(),
        recalls: true,
        ..v1::Hello::default()
    };
    let hello = v1::AgentMessage { message: Some(Up::Hello(hello)) }.encode_to_vec();
    let read = FirstAgentMessage::decode(&*hello).unwrap();
    assert_eq!(read.hello, Some(FirstHello { protocol: 1, version: "0.2.0".into() }));
    let recall = Up::Recall(v1::Recall { networks: vec![v1::NetworkState::default()], last: true });
    let recall = v1::AgentMessage { message: Some(recall) }.encode_to_vec();
    assert_eq!(FirstAgentMessage::decode(&*recall).unwrap(), FirstAgentMessage::default());
}
