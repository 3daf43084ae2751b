//! Messages and texts of peers, for fuzzing: each function panics where an invariant does not hold.

use std::fmt::Debug;
use std::os::unix::net::UnixStream as Socket;
use std::str::FromStr;

use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::client::Controls;
use crate::identity::SpiffeId;
use crate::resource::document::Document;
use crate::resource::{Block, Network, NetworkChange, NetworkSnapshot, Node, Route, Service, Workload};
use crate::sidecar::convert::Message as Parcel;
use crate::sidecar::{Channel, Down, Up};
use crate::token::TokenSecret;
use crate::types::{
    Check, ExternalAddr, Interval, MacAddr, NetworkName, Probe, ServicePort, Subnet, Subnet6, Weight,
    WorkloadRef,
};
use crate::wire::{WireError, v1};

/// The longest sentence about a field that is refused.
const LONGEST_REFUSAL: usize = 1024;

/// Reads messages of control and agents: what is understood is written so that it is understood again, and what is not is
/// refused in a bounded sentence.
pub fn wire_messages(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 11 {
        0 => carried::<v1::NetworkState, NetworkSnapshot>(bytes),
        1 => carried::<v1::Network, Network>(bytes),
        2 => carried::<v1::Node, Node>(bytes),
        3 => carried::<v1::Block, Block>(bytes),
        4 => carried::<v1::Service, Service>(bytes),
        5 => carried::<v1::ServicePort, ServicePort>(bytes),
        6 => carried::<v1::Workload, Workload>(bytes),
        7 => carried::<v1::Check, Check>(bytes),
        8 => carried::<v1::NetworkChange, NetworkChange>(bytes),
        10 => carried::<v1::Route, Route>(bytes),
        _ => {
            if let Ok(heartbeat) = v1::Heartbeat::decode(bytes) {
                let _ = (heartbeat.instant(), heartbeat.lost_hosts());
            }
            if let Ok(word) = v1::Controls::decode(bytes) {
                let mut controls = Controls::default();
                controls.hear(&word);
                assert!(!controls.hear(&word), "{word:?} is no news twice");
                assert!(controls.told().len() <= Controls::MOST, "{controls:?}");
            }
        }
    }
}

fn carried<M, T>(bytes: &[u8])
where
    M: Message + Default + for<'a> From<&'a T>,
    T: TryFrom<M, Error = WireError> + PartialEq + Debug,
{
    let Ok(message) = M::decode(bytes) else { return };
    match T::try_from(message) {
        Ok(value) => {
            let written = M::from(&value).encode_to_vec();
            let again = M::decode(&*written).map(T::try_from);
            assert!(matches!(&again, Ok(Ok(again)) if *again == value), "{value:?} became {again:?}");
        }
        Err(error) => assert!(error.to_string().len() <= LONGEST_REFUSAL, "{error}"),
    }
}

/// Reads the channel between agent and sidecar as either side does: the first byte says which.
pub fn sidecar_channel(data: &[u8]) {
    let Some((side, bytes)) = data.split_first() else { return };
    if side % 2 == 0 {
        received::<Up, Down>(bytes);
    } else {
        received::<Down, Up>(bytes);
    }
}

/// Reads messages until the channel breaks; each is written so that the other side reads the same.
fn received<M: Parcel, S: Parcel>(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let (Ok(runtime), Ok((near, far))) = (runtime, Socket::pair()) else { return };
    let _ = (near.set_nonblocking(true), far.set_nonblocking(true));
    runtime.block_on(async {
        let (Ok(mut near), Ok(far)) = (UnixStream::from_std(near), UnixStream::from_std(far)) else { return };
        let mut channel = Channel::<S, M>::from(far);
        let sent = async {
            let _ = near.write_all(bytes).await;
            drop(near);
        };
        let read = async {
            while let Ok(message) = channel.receiver.recv().await {
                // A key or a listener, which has a descriptor, cannot come here.
                let Ok((wire, _)) = message.pack() else { continue };
                let written = wire.encode_to_vec();
                let again = M::unpack(wire, Vec::new()).and_then(M::pack);
                assert!(matches!(&again, Ok((again, _)) if again.encode_to_vec() == written));
            }
        };
        tokio::join!(sent, read);
    });
}

/// Reads a document as it travels, and the words of its fields: what is read is written so that it is read again.
pub fn documents(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(document) = Document::from_json(text) else { return };
    let written = document.to_json();
    let again = written.ok().and_then(|written| Document::from_json(&written).ok());
    assert_eq!(again.as_ref(), Some(&document));
    let _ = document.id().to_string();
}

/// Reads the words that names, addresses and tokens are written in.
pub fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    printed::<NetworkName>(text);
    printed::<ServicePort>(text);
    printed::<Subnet>(text);
    printed::<Subnet6>(text);
    printed::<ExternalAddr>(text);
    printed::<Probe>(text);
    printed::<Interval>(text);
    printed::<WorkloadRef>(text);
    printed::<MacAddr>(text);
    printed::<Weight>(text);
    printed::<SpiffeId>(text);
    printed::<TokenSecret>(text);
}

fn printed<T: FromStr + ToString + PartialEq + Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let again = value.to_string().parse::<T>().ok();
    assert_eq!(again.as_ref(), Some(&value), "from {text:?}");
}
