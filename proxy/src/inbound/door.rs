//! Door before the application. Every call passes it, whichever way it came: nothing else connects to the application, and each request
//! that the sidecar reads is asked about again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::net::TcpStream;

use super::Inbound;
use crate::dial::{self, FirstWord, IdleKey};
use crate::policy::{Call, Caller, Denial};
use crate::request::RequestView;
use crate::snapshot::Snapshot;
use crate::tunnel::TunnelPeer;

/// A call that may reach the application.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    /// Tunnel that it came by, if any, and the application's address.
    way: IdleKey,
    /// Address that it comes from.
    from: IpAddr,
}

impl Inbound {
    /// Lets a call to the application at this address in: by a tunnel of this peer, or plain.
    ///
    /// # Errors
    /// When the policy denies it, which is counted.
    pub(super) fn admit(
        &self,
        snapshot: &Snapshot,
        peer: Option<TunnelPeer>,
        from: IpAddr,
        application: SocketAddr,
    ) -> Result<Admitted, Denial> {
        let admitted = Admitted { way: IdleKey { peer, address: application }, from };
        let decided = snapshot.policy.decide(admitted.call());
        decided.inspect_err(|&denial| self.note(admitted.call(), denial))?;
        Ok(admitted)
    }

    /// Counts a call that was denied.
    pub(super) fn note(&self, call: Call<'_>, denial: Denial) {
        self.telemetry.refused.with_label_values(&[denial.reason()]).inc();
        tracing::debug!(caller = %call.caller, port = call.port, reason = denial.reason(), "a call is denied");
    }
}

impl Admitted {
    /// The call, as policies see it.
    pub(super) fn call(&self) -> Call<'_> {
        let principal = self.way.peer.as_ref().map(|peer| &peer.principal);
        Call { caller: Caller { principal, address: self.from }, port: self.way.address.port() }
    }

    /// The application's address.
    pub(super) fn application(&self) -> SocketAddr {
        self.way.address
    }

    /// The key of connections to the application that nobody but this caller uses.
    pub(super) fn way(&self) -> &IdleKey {
        &self.way
    }

    /// As [`Self::way`], when there is no further use of the call.
    pub(super) fn into_way(self) -> IdleKey {
        self.way
    }

    /// Lets one of its requests pass; `None` stands for bytes that are not read as requests.
    ///
    /// # Errors
    /// When the policy denies it, which is counted: words for the caller.
    pub(super) fn pass(&self, inbound: &Inbound, request: Option<RequestView<'_>>) -> Result<(), String> {
        let call = self.call();
        let decided = inbound.current.with(|snapshot| {
            let policy = &snapshot.policy;
            policy.decide_request(call, request).map_err(|denial| (denial, policy.text(denial, call.port)))
        });
        let Some(Err((denial, text))) = decided else { return Ok(()) };
        inbound.note(call, denial);
        if let Some(request) = request {
            let (method, path, authority) = (request.method(), request.path(), request.authority());
            tracing::debug!(method, path, authority, "a request is denied");
        }
        Err(text)
    }

    /// Connects to the application, at the IPv6 address when nobody listens at the other.
    ///
    /// # Errors
    /// As [`Dialer::connect_to_application`](dial::Dialer::connect_to_application).
    pub(super) async fn connect(
        &self,
        inbound: &Inbound,
        first_word: FirstWord,
    ) -> io::Result<Rc<TcpStream>> {
        let (application, dialer) = (self.application(), &inbound.pools.dialer);
        let dialled = match dialer.connect_to_application(application, first_word).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let ipv6 = inbound.current.with(|snapshot| snapshot.own_ipv6(application.ip())).flatten();
                let Some(ipv6) = ipv6 else { return Err(error) };
                dialer.connect_to_application((ipv6, application.port()).into(), first_word).await
            }
            dialled => dialled,
        };
        dialled.inspect_err(|error| {
            if dial::lacks_port(error) {
                inbound.telemetry.note_without_port(application);
            }
        })
    }
}

/// Words for a caller about a connection that the application does not take, where that is not its refusal.
pub(super) fn unreachable(error: &io::Error) -> &'static str {
    if dial::lacks_port(error) {
        "the workload has no local port left for a connection to the application"
    } else if error.kind() == io::ErrorKind::TimedOut {
        "the application's port does not answer"
    } else {
        ""
    }
}
