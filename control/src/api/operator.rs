//! Authors of calls on control's socket, by what the kernel says of the process at the other end.

use sealane_sys::account::{login_uid, user_name};
use tonic::Request;
use tonic::transport::server::UdsConnectInfo;

use crate::core::{Actor, Operator};

/// The author of a call that a verb makes.
pub(super) fn operator<T>(request: &Request<T>, verb: impl Into<String>) -> Actor {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    let uid = peer.map(|peer| peer.uid());
    let pid = peer.and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
    // A process of another pid namespace has none here, and one that has ended tells nothing any more.
    let login_uid = pid.and_then(|pid| login_uid(pid).ok().flatten());
    let (user, login) = (uid.and_then(user_name), login_uid.and_then(user_name));
    Actor::Operator(Operator { uid, user, login_uid, login, verb: verb.into() })
}
