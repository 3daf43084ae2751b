//! Authors of calls on control's socket, by what the kernel says of the process at the other end; with calls that a control plane
//! passes on to the one that leads, it says so.

use prost::Message;
use sealane_sys::account::{login_uid, user_name};
use tonic::Request;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::MetadataValue;
use tonic::transport::server::UdsConnectInfo;

use crate::core::{Actor, Operator};
use crate::serve::Peer;

/// Name of the header by which a control plane says whose call it passes on.
const HEADER: &str = "sealane-operator-bin";

/// Author of a call.
#[derive(Clone, PartialEq, Message)]
struct Author {
    #[prost(uint32, optional, tag = "1")]
    uid: Option<u32>,
    #[prost(string, optional, tag = "2")]
    user: Option<String>,
    #[prost(uint32, optional, tag = "3")]
    login_uid: Option<u32>,
    #[prost(string, optional, tag = "4")]
    login: Option<String>,
}

/// The author of a call that a verb makes.
pub(crate) fn operator<T>(request: &Request<T>, verb: impl Into<String>) -> Actor {
    let passed_on = request.extensions().get::<Peer>().is_some_and(Peer::is_control);
    let author = if passed_on {
        let told = request.metadata().get_bin(HEADER).and_then(|value| value.to_bytes().ok());
        told.and_then(|bytes| Author::decode(bytes).ok()).unwrap_or_default()
    } else {
        author(request.extensions().get::<UdsConnectInfo>())
    };
    let Author { uid, user, login_uid, login } = author;
    Actor::Operator(Operator { uid, user, login_uid, login, verb: verb.into() })
}

/// Says in a request whose it is, before it is passed on.
pub(crate) fn sign(request: &mut http::Request<Body>) {
    let author = author(request.extensions().get::<UdsConnectInfo>());
    let value = MetadataValue::from_bytes(&author.encode_to_vec());
    if let Ok(value) = http::HeaderValue::from_bytes(value.as_encoded_bytes()) {
        request.headers_mut().insert(HEADER, value);
    }
}

fn author(connection: Option<&UdsConnectInfo>) -> Author {
    let peer = connection.and_then(|info| info.peer_cred);
    let uid = peer.map(|peer| peer.uid());
    let pid = peer.and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
    // A process of another pid namespace has none here, and one that has ended tells nothing any more.
    let login_uid = pid.and_then(|pid| login_uid(pid).ok().flatten());
    Author { uid, user: uid.and_then(user_name), login_uid, login: login_uid.and_then(user_name) }
}
