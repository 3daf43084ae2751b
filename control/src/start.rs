//! Putting control together: store, authority, writer, registry, servers.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream;
use sealane_base::drain::{Drain, Draining};
use sealane_base::rate_limit::RateLimit;
use sealane_base::ready::{Part, Readiness};
use sealane_base::socket::Listener;
use sealane_base::task::{self, Task};
use sealane_proto::types::Generation;
use sealane_proto::wire::v1;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use v1::admin_server::AdminServer;
use v1::control_server::ControlServer;
use v1::lookout_server::LookoutServer;
use v1::read_server::ReadServer;

use crate::address_rest;
use crate::api::{AdminApi, ControlApi, LookoutApi, ReadApi, Standing};
use crate::ca::{Authority, OwnCertificate};
use crate::core::{Affected, State, Timestamp};
use crate::guard::Guarded;
use crate::metrics::Metrics;
use crate::registry::{Directory, Registry};
use crate::renewal::Upkeep;
use crate::roster::Roster;
use crate::serve::{self, Acceptor, Connection, Ready, Socket};
use crate::session::Context;
use crate::store::{self, Image, Meta, Publish, Stopped, Store, Writability, Writer};
use crate::{Config, Control};

/// The mesh's name when none is given.
pub(crate) const TRUST_DOMAIN: &str = "sealane";
/// Pings on idle connections: a dead host is noticed within interval and timeout.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Number of refusals that are logged in so long: the metrics count all.
const REFUSALS: u32 = 20;
const REFUSALS_EVERY: Duration = Duration::from_secs(10);
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

/// Reason for which control does not start. Each names what is in the way and what to do.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StartError(#[from] Cause);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("directory {} cannot be made: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("the default trust domain is no trust domain: {0}")]
    Domain(#[from] sealane_proto::types::NameError),
    #[error(transparent)]
    Store(#[from] store::OpenError),
    #[error(transparent)]
    Shared(#[from] store::SharedError),
    #[error(transparent)]
    Authority(#[from] crate::ca::AuthorityError),
    #[error(transparent)]
    Own(#[from] crate::ca::OwnError),
    #[error(transparent)]
    Tls(#[from] serve::TlsError),
    #[error(transparent)]
    Socket(#[from] serve::SocketError),
    #[error("cannot listen on {address}: {}; choose another --listen", sealane_base::text::plain(source))]
    Listen { address: SocketAddr, source: io::Error },
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the store's writer cannot start: {0}")]
    Thread(io::Error),
}

/// Starts a control plane; it serves when this returns.
///
/// # Errors
/// When the store, a socket or a directory is not to be had; nothing half-made is left.
pub async fn start(config: Config) -> Result<Control, StartError> {
    let control = Box::pin(alone(config)).await?;
    let (local_addr, trust_domain) = (control.local_addr, control.authority.domain());
    tracing::info!(%local_addr, %trust_domain, "control plane serves");
    Ok(control)
}

/// Parts that a control plane finds when it begins to serve.
pub(crate) struct Ground {
    pub(crate) store: Store,
    /// Content of the store.
    pub(crate) image: Image,
    /// Listens for hosts, at this address.
    pub(crate) listener: (TcpListener, SocketAddr),
    /// Folder of the store, if it is in one.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) readiness: Readiness,
    /// Standing among those that share the store.
    pub(crate) standing: Standing,
    /// Control planes that share the store, if it may be shared.
    pub(crate) roster: Option<watch::Receiver<Roster>>,
}

async fn alone(config: Config) -> Result<Control, Cause> {
    ensure_directories(&config)?;
    let ((store, image), listener) = open(&config, clock()).await?;
    let folder = Some(config.data_dir.clone());
    let (readiness, standing) = (Readiness::default(), Standing::Alone);
    let ground = Ground { store, image, listener, folder, readiness, standing, roster: None };
    assemble(&config, ground).await
}

/// Lets a control plane serve.
pub(crate) async fn assemble(config: &Config, ground: Ground) -> Result<Control, Cause> {
    let (now, started) = (clock(), Instant::now());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let metrics = Metrics::new()?;
    let Ground { store, image, listener: (listener, local_addr), folder, readiness, standing, roster } =
        ground;
    let Image { meta, authority, state } = image;
    let authority = Authority::load(meta.trust_domain.clone(), authority)?;
    let authority = Arc::new(authority.with_workload_lifetime(config.certificate_lifetime));
    let own = Arc::new(OwnCertificate::new(&authority, &provider, now)?);
    let tls = serve::config(&authority, own.clone(), provider.clone())?;
    let (unix, socket) = Socket::bind(&config.run_dir).await?;

    let (registry, writer, stopped, (writable, watching)) = begin((store, folder), state, meta, &metrics)?;
    let drain = Drain::new();
    let context = Context {
        writer: writer.clone(),
        registry: registry.clone(),
        metrics: metrics.clone(),
        roots: vec![authority.root().to_vec()],
        draining: drain.handle(),
        refusals: Arc::new(RateLimit::new(REFUSALS, REFUSALS_EVERY)),
        refused: Arc::default(),
        roster: roster.clone(),
    };
    let ((to_hosts, from_hosts), (to_strangers, from_strangers)) = (mpsc::channel(64), mpsc::channel(64));
    let ready = Ready { hosts: to_hosts, strangers: to_strangers };
    let acceptor = Acceptor::new(tls, registry.clone(), metrics.clone(), ready);
    let accepting = task::spawn("accept", acceptor.run(listener));
    let hosts = ControlApi { context, authority: authority.clone() };
    let admin = AdminApi::beside(&hosts, local_addr);
    let mut servers = serve_all((hosts, roster), (from_hosts, from_strangers), &drain, &readiness);
    let (shown, writes) = (registry.clone(), writable.clone());
    let read =
        ReadApi { registry, authority: authority.clone(), own: own.clone(), writes, started, standing };
    servers.push(serve_people(admin, read, unix, drain.handle(), readiness.part("control.sock")));
    let upkeep = Upkeep {
        authority: authority.clone(),
        own,
        provider,
        metrics: metrics.clone(),
        writer: writer.clone(),
    };
    let upkeep = [accepting, task::spawn("upkeep", upkeep.run())].into_iter().chain(watching).collect();
    Ok(Control {
        readiness,
        local_addr,
        metrics,
        shown,
        writable,
        writer,
        stopped,
        authority,
        drain,
        servers,
        upkeep,
        _socket: socket,
    })
}

/// Opens or makes the store, and listens. What a new store is made for is fixed with it: none is made for an address that is not
/// to be had.
async fn open(config: &Config, now: Timestamp) -> Result<((Store, Image), (TcpListener, SocketAddr)), Cause> {
    let listening = listen(config.listen).await;
    let listening = if store::is_there(&config.data_dir)? { listening } else { Ok(listening?) };
    let domain = config.trust_domain.clone();
    let opened = store::open(&config.data_dir, domain, TRUST_DOMAIN.parse()?, now)?;
    Ok((opened, listening?))
}

pub(crate) async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Cause> {
    let unlistened = |source| Cause::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(unlistened)?;
    let local_addr = listener.local_addr().map_err(unlistened)?;
    Ok((listener, local_addr))
}

pub(crate) fn clock() -> Timestamp {
    SystemTime::now().into()
}

pub(crate) fn ensure_directories(config: &Config) -> Result<(), Cause> {
    for path in [config.data_dir.as_path(), config.run_dir.path()] {
        let fail = |source| Cause::Directory { path: path.to_owned(), source };
        store::ensure_directory(path).map_err(fail)?;
    }
    Ok(())
}

/// The state of the store, and the tasks that look after it and after addresses that rest.
type Watched = (Writability, Vec<Task>);

/// Starts the writer, with a registry that shows what it commits, and a watch over the store and its folder.
fn begin(
    (store, folder): (Store, Option<PathBuf>),
    state: State,
    meta: Meta,
    metrics: &Metrics,
) -> Result<(Arc<Registry>, Writer, Stopped, Watched), Cause> {
    let generation = |meta: &Meta| Generation { epoch: meta.epoch, revision: meta.revision };
    metrics.commits.revision(meta.revision);
    let directory = Directory::first(&state, generation(&meta));
    let registry = Registry::new(directory, metrics.agents_connected.clone(), clock());
    let shown = registry.clone();
    let publish: Publish = Box::new(move |state: &State, meta: &Meta, affected: &Affected| {
        let next = shown.directory().next(state, generation(meta), affected);
        shown.publish(next);
    });
    let (writer, stopped, health) =
        Writer::start(store, state, meta, publish, metrics.commits.clone(), clock).map_err(Cause::Thread)?;
    let (writable, mut tasks) = store::watch(health, folder, &writer);
    tasks.push(task::spawn("address-rest", address_rest::run(registry.clone(), writer.clone())));
    Ok((registry, writer, stopped, (writable, tasks)))
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

/// Connections whose handshake is done.
type Connections = mpsc::Receiver<io::Result<Connection>>;

/// Serves hosts, and those that join.
fn serve_all(
    (api, roster): (ControlApi, Option<watch::Receiver<Roster>>),
    (hosts, strangers): (Connections, Connections),
    drain: &Drain,
    readiness: &Readiness,
) -> Vec<Task> {
    let lookout = roster.map(|roster| LookoutApi::new(roster, api.context.registry.clone(), drain.handle()));
    let strangers = (strangers_server(), api.clone(), strangers);
    let strangers = serve_hosts(strangers, None, drain.handle(), readiness.part("joining"));
    let hosts = serve_hosts((server(), api, hosts), lookout, drain.handle(), readiness.part("hosts"));
    vec![hosts, strangers]
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
    admin: AdminApi,
    read: ReadApi,
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
            .serve_with_incoming_shutdown(incoming, draining.begun())
            .await
    })
}
