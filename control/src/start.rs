//! Putting control together: store, authority, writer, registry, servers.

mod serving;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sealane_base::drain::{Drain, Draining};
use sealane_base::rate_limit::RateLimit;
use sealane_base::ready::Readiness;
use sealane_base::task::{self, Task};
use sealane_proto::types::Generation;
use tokio::net::TcpListener;

use crate::address_rest;
use crate::api::{AdminApi, ControlApi, ReadApi, Standing};
use crate::ca::{Authority, Notary, OwnCertificate};
use crate::core::{Affected, State, Timestamp};
use crate::fellows::Fellows;
use crate::metrics::Metrics;
use crate::registry::{Directory, Registry};
use crate::renewal::Upkeep;
use crate::serve::{self, Acceptor, Ready, Socket};
use crate::session::Context;
use crate::store::{self, Image, Meta, Publish, Stopped, Store, Writability, Writer};
use crate::{Config, Control};
use serving::Serving;
pub(crate) use serving::{serve_controls, server, strangers_server};

/// The mesh's name when none is given.
pub(crate) const TRUST_DOMAIN: &str = "sealane";
/// Number of refusals that are logged in so long: the metrics count all.
const REFUSALS: u32 = 20;
const REFUSALS_EVERY: Duration = Duration::from_secs(10);

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
    Anchor(#[from] store::AnchorError),
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
    /// The other control planes, if the store may be shared.
    pub(crate) fellows: Option<Fellows>,
}

async fn alone(config: Config) -> Result<Control, Cause> {
    ensure_directories(&config)?;
    let ((store, image), listener) = open(&config, clock()).await?;
    let folder = Some(config.data_dir.clone());
    let (readiness, standing) = (Readiness::default(), Standing::Alone);
    let ground = Ground { store, image, listener, folder, readiness, standing, fellows: None };
    assemble(&config, ground).await
}

/// Lets a control plane serve.
pub(crate) async fn assemble(config: &Config, ground: Ground) -> Result<Control, Cause> {
    let (now, started) = (clock(), Instant::now());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let metrics = Metrics::new()?;
    let Ground { store, image, listener: (listener, local_addr), folder, readiness, standing, fellows } =
        ground;
    let Image { meta, authority, state } = image;
    let authority = Authority::load(meta.trust_domain.clone(), authority)?;
    let authority = Arc::new(authority.with_workload_lifetime(config.certificate_lifetime));
    let own = Arc::new(OwnCertificate::new(&authority, &provider, now)?);
    let tls = serve::config(&authority, own.clone(), provider.clone())?;
    let (unix, socket) = Socket::bind(&config.run_dir).await?;

    let (registry, writer, stopped, (writable, watching)) =
        begin((store, folder), (state, meta), authority.notary(), &metrics)?;
    let drain = Drain::new();
    let told = (writer.clone(), registry.clone(), metrics.clone());
    let context = context(told, &authority, drain.handle(), fellows.as_ref());
    let (ready, connections) = Ready::channels(fellows.is_some());
    let acceptor = Acceptor::new(tls, registry.clone(), metrics.clone(), ready);
    let accepting = task::spawn("accept", acceptor.run(listener));
    let hosts = ControlApi { context, authority: authority.clone() };
    let admin = AdminApi::beside(&hosts, local_addr, fellows.clone());
    let (shown, writes) = (registry.clone(), writable.clone());
    let read = ReadApi {
        registry,
        authority: authority.clone(),
        own: own.clone(),
        writes,
        started,
        standing,
        fellows,
    };
    let serving = Serving { hosts, admin, read, drain: &drain, readiness: &readiness };
    let servers = serving.start(unix, connections);
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

/// Parts of control that streams need.
fn context(
    (writer, registry, metrics): (Writer, Arc<Registry>, Metrics),
    authority: &Authority,
    draining: Draining,
    fellows: Option<&Fellows>,
) -> Context {
    Context {
        writer,
        registry,
        metrics,
        roots: vec![authority.root().to_vec()],
        draining,
        refusals: Arc::new(RateLimit::new(REFUSALS, REFUSALS_EVERY)),
        refused: Arc::default(),
        roster: fellows.map(Fellows::roster),
    }
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
    (state, meta): (State, Meta),
    notary: &Arc<Notary>,
    metrics: &Metrics,
) -> Result<(Arc<Registry>, Writer, Stopped, Watched), Cause> {
    let generation = |meta: &Meta| Generation { epoch: meta.epoch, revision: meta.revision };
    metrics.commits.revision(meta.revision);
    let directory = Directory::first(&state, generation(&meta), notary);
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
