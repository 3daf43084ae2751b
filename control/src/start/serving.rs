//! Servers of a control plane: for people, hosts, those that join, and other control planes.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::stream;
use sealane_base::drain::{Drain, Draining};
use sealane_base::ready::{Part, Readiness};
use sealane_base::socket::Listener;
use sealane_base::task::{self, Task};
use sealane_proto::wire::v1;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;
use v1::admin_server::AdminServer;
use v1::control_server::ControlServer;
use v1::fellows_server::FellowsServer;
use v1::lookout_server::LookoutServer;
use v1::read_server::ReadServer;

use crate::api::{AdminApi, ControlApi, ControlsApi, LookoutApi, ReadApi};
use crate::guard::Guarded;
use crate::serve::Connections;

/// Pings on idle connections: a dead host is noticed within interval and timeout.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// The largest message of an administrator: thousands of documents.
const LARGEST_MESSAGE: usize = 64 << 20;
/// Number of calls that one connection of an administrator or a host may have under way.
const CALLS: u32 = 256;
/// Number of calls that one may have that joins: it makes one.
const STRANGERS_CALLS: u32 = 2;
/// Number of bytes that may come on such a connection before they are asked for (RFC 9113, section 6.9.2, has no less).
const STRANGERS_WINDOW: u32 = 65_535;
/// Size of their request's heads.
const STRANGERS_HEADERS: u32 = 8 << 10;

/// Services of a control plane that decides.
pub(super) struct Serving<'a> {
    pub(super) hosts: ControlApi,
    pub(super) admin: AdminApi,
    pub(super) read: ReadApi,
    pub(super) drain: &'a Drain,
    pub(super) readiness: &'a Readiness,
}

impl Serving<'_> {
    /// Serves people, hosts, those that join, and other control planes.
    pub(super) fn start(self, unix: Listener, [hosts, strangers, others]: [Connections; 3]) -> Vec<Task> {
        let Self { hosts: api, admin, read, drain, readiness } = self;
        let registry = read.registry.clone();
        let lookout =
            read.fellows.as_ref().map(|fellows| LookoutApi::new(fellows.roster(), registry, drain.handle()));
        let controls = ControlsApi::new(read.clone(), admin.listens.to_string());
        let others = lookout.clone().map(|lookout| {
            let admin = AdminServer::new(admin.clone()).max_decoding_message_size(LARGEST_MESSAGE);
            serve_controls(admin, (lookout, controls.clone(), read.clone()), others, drain.handle())
        });
        let strangers = (strangers_server(), api.clone(), strangers);
        let strangers = serve_hosts(strangers, None, drain.handle(), readiness.part("joining"));
        let hosts = serve_hosts((server(), api, hosts), lookout, drain.handle(), readiness.part("hosts"));
        let people = (admin, read, controls);
        let people = serve_people(people, unix, drain.handle(), readiness.part("control.sock"));
        [hosts, strangers, people].into_iter().chain(others).collect()
    }
}

/// Serves other control planes: they are asked how they are, and pass people's calls on.
pub(crate) fn serve_controls<A>(
    admin: A,
    (lookout, controls, read): (LookoutServer<LookoutApi>, ControlsApi, ReadApi),
    connections: Connections,
    mut draining: Draining,
) -> Task
where
    A: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    A::Future: Send,
{
    task::spawn_fallible("controls", async move {
        server()
            .add_service(lookout)
            .add_service(FellowsServer::new(controls))
            .add_service(ReadServer::new(read))
            .add_service(admin)
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), draining.begun())
            .await
    })
}

fn serve_hosts(
    (mut server, api, connections): (Server, ControlApi, Connections),
    lookout: Option<LookoutServer<LookoutApi>>,
    mut draining: Draining,
    part: Part,
) -> Task {
    task::spawn_fallible("hosts", async move {
        part.ready();
        let (registry, refused) = (api.context.registry.clone(), api.context.metrics.calls_refused.clone());
        // How large a message may be depends on who sends it: the guard knows.
        let service = ControlServer::new(api).max_decoding_message_size(usize::MAX);
        let service = Guarded::new(service, registry, refused);
        let incoming = ReceiverStream::new(connections);
        let router = server.add_service(service).add_optional_service(lookout);
        router.serve_with_incoming_shutdown(incoming, draining.begun()).await
    })
}

fn serve_people(
    (admin, read, controls): (AdminApi, ReadApi, ControlsApi),
    listener: Listener,
    mut draining: Draining,
    part: Part,
) -> Task {
    task::spawn_fallible("people", async move {
        part.ready();
        let incoming = stream::unfold(listener, Listener::next);
        server()
            .add_service(AdminServer::new(admin).max_decoding_message_size(LARGEST_MESSAGE))
            .add_service(ReadServer::new(read))
            .add_service(FellowsServer::new(controls))
            .serve_with_incoming_shutdown(incoming, draining.begun())
            .await
    })
}

pub(crate) fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(CALLS)
}

/// For connections without a certificate, each of which may hold little.
pub(crate) fn strangers_server() -> Server {
    server()
        .max_concurrent_streams(STRANGERS_CALLS)
        .initial_connection_window_size(STRANGERS_WINDOW)
        .initial_stream_window_size(STRANGERS_WINDOW)
        .http2_max_header_list_size(STRANGERS_HEADERS)
}
