//! The agent put together: what starts in which order, and how it ends.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustls::crypto::CryptoProvider;
use sealane_base::disk::Disk;
use sealane_base::ready::Readiness;
use sealane_base::task::{self, Task};
use sealane_proto::client::{CarriedNetworks, Link, LinkEvent, LinkInputs, LinkReport, TlsIdentity};
use sealane_proto::identity::Principal;
use sealane_proto::resource::ControlAddr;
use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::token::JoinToken;
use sealane_proto::types::{Generation, NetworkName, NodeName};
use sealane_sys::boot_id;
use sealane_sys::hop::Hopper;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::VERSION;
use crate::attachment::{AttachmentId, Reservation};
use crate::certs::Certs;
use crate::disk::{DiskError, Folder, NodeIdentity, StoredWorkload, network_from_bytes};
use crate::dns::{DnsMetrics, ForwardConfig, Forwarder, NameService};
use crate::door::docker::{self, Docker};
use crate::door::grpc::{self, ReadApi, RunApi};
use crate::engine::{self, Engine};
use crate::error::StartError;
use crate::host::{self, DataPlane, HostParts, Mesh};
use crate::keeper::Keeper;
use crate::kernel::KernelHandle;
use crate::node::{NodeError, RestoredNode};
use crate::registrar::{ReadDocuments, Registrar, RegistrarHandle};
use crate::renewal::{self, RenewedNode};
use crate::sidecar::{self, Registry, Sidecars, ToldMetrics};
use crate::tap::{self, Machines, TapMetrics};
use crate::trouble::Troubles;
use crate::workload::{self, Containers, Disks, WorkloadContext, Workloads, follow_containers};
use crate::{gateway, layout, metrics, node, outside, stale_state};
use sealane_fabric::health;
use sealane_fabric::overlay::{Overlay, OverlayConfig, check_here, preflight};
use sealane_fabric::services::ServiceMetrics;

/// Settings of an agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses of control; tried one after another.
    pub control: Vec<ControlAddr>,
    /// The join token, needed once.
    pub token: Option<JoinToken>,
    /// The node's name; the host name without it.
    pub name: Option<NodeName>,
    /// The underlay address; the source address towards control without it.
    pub underlay: Option<IpAddr>,
    /// Folder for everything that must outlive a reboot.
    pub data_dir: PathBuf,
    /// Sockets, namespaces and pid files.
    pub run_dir: PathBuf,
    /// The port of /metrics, /live and /ready, on loopback and the underlay address.
    pub metrics_port: u16,
    /// The UDP port of VXLAN (RFC 7348: 4789).
    pub vxlan_port: u16,
    /// Path at which Docker finds its plugin; without it, Docker is none of this agent's business.
    pub docker_plugin: Option<PathBuf>,
    /// Socket of dockerd's API.
    pub docker_api: PathBuf,
    /// Folder whose files register services outside every network.
    pub services_dir: PathBuf,
    /// Reads such a file.
    pub read_documents: ReadDocuments,
    /// Our own program, for keep and sidecars.
    pub binary: PathBuf,
}

/// A running agent. Dropping it stops the agent and disturbs nothing that runs.
#[derive(Debug)]
pub struct Agent {
    readiness: Readiness,
    node: NodeName,
    _workloads: Arc<Workloads>,
    _link: Link,
    _tasks: Vec<Task>,
}

impl Agent {
    /// Returns the readiness of all parts.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// This host's name in the mesh.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }
}

/// Returns true if this host has joined a mesh before, with this data directory.
///
/// # Errors
/// When the data directory cannot be read.
pub fn has_joined(data_dir: &Path) -> Result<bool, StartError> {
    Ok(Folder::open(data_dir.join(layout::NODE))?.read("node")?.is_some())
}

/// As which host this data directory has joined a mesh, as far as it still tells.
#[must_use]
pub fn joined_as(data_dir: &Path) -> Option<NodeName> {
    let identity = Folder::open(data_dir.join(layout::NODE)).ok()?.read("node").ok()??;
    Some(NodeIdentity::from_bytes(&identity).ok()?.node.name)
}

/// Starts the agent: joins if it must, takes up what runs, connects.
///
/// # Errors
/// Names what is missing or wrong and how to mend it; nothing half-made is left. The caller sees to it that one
/// agent runs per run directory.
pub async fn start(config: Config) -> Result<Agent, StartError> {
    let hopper = Arc::new(Hopper::start()?);
    preflight::check(&hopper).map_err(StartError::Missing)?;
    health::check_kernel()?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.run_dir)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let [data, run] = [&config.data_dir, &config.run_dir].map(|folder| Disk::new(folder.clone()));
    let disks = Disks { data, run };
    // What joining makes outlives a start that fails for another reason: that is found out before.
    let metrics = metrics::bind((Ipv4Addr::LOCALHOST, config.metrics_port).into()).await?;
    let folder = Folder::open(config.data_dir.join(layout::NODE))?.on(&disks.data);
    let RestoredNode { identity, moved } = identity(&folder, &config, &hopper, &provider).await?;
    let (published, identities) = watch::channel(node::tls_identity(&identity)?);
    let renewed = RenewedNode { identity, folder, moved, published };
    let foundation = Foundation::lay(config, hopper, &renewed.identity, disks).await?;
    foundation.build(renewed, (identities, metrics), provider)
}

/// Parts that stand before anything moves.
struct Foundation {
    config: Config,
    context: Arc<WorkloadContext>,
    registry: prometheus::Registry,
    readiness: Readiness,
    stored: Vec<StoredWorkload>,
    host_task: Task,
    link_events: mpsc::Sender<LinkEvent>,
    reports: watch::Receiver<Arc<LinkReport>>,
    acks: watch::Receiver<BTreeMap<NetworkName, Generation>>,
    carried: watch::Receiver<CarriedNetworks>,
}

/// The means by which names are answered.
fn names(registry: &prometheus::Registry) -> Result<NameService, prometheus::Error> {
    let metrics = DnsMetrics::register(registry)?;
    Ok(NameService { forwarder: Arc::new(Forwarder::new(host_resolvers(), metrics.clone())), metrics })
}

/// No sidecars yet.
fn sidecars(config: &Config, registry: &prometheus::Registry) -> Result<Sidecars, prometheus::Error> {
    Ok(Sidecars {
        registry: Arc::new(Registry::default()),
        binary: config.binary.clone(),
        ports: SidecarPorts::default(),
        told: ToldMetrics::register(registry)?,
    })
}

/// Configures the forwarding of names that are not the mesh's: to the host's own resolvers.
fn host_resolvers() -> ForwardConfig {
    ForwardConfig::new(PathBuf::from("/etc/resolv.conf"))
}

impl Foundation {
    /// Recalls what was on disk, finds the keep, and starts the host.
    async fn lay(
        config: Config,
        hopper: Arc<Hopper>,
        identity: &NodeIdentity,
        disks: Disks,
    ) -> Result<Self, StartError> {
        let (registry, readiness, boot) = (metrics::registry()?, Readiness::default(), boot_id()?);
        let overlay = overlay(&config, identity, hopper.clone(), &registry)?;
        let folders = Folders::open(&config, &disks.data)?;
        let (mesh, stored) = recall(&folders, identity, &overlay, (&config.run_dir, &boot)).await?;
        sweep_machines(&hopper, &config.run_dir, &stored)?;
        let keeper = keeper(&config, &mesh, &stored, &overlay)?;
        let (link_events, events) = mpsc::channel(64);
        let (report, reports) = watch::channel(Arc::default());
        let (applied, acks) = watch::channel(BTreeMap::new());
        let (known, carried) = watch::channel(mesh.carried());
        let (host, host_task) = host::start(HostParts {
            mesh,
            overlay: overlay.clone(),
            folder: folders.networks,
            workloads: folders.workloads.clone(),
            reservations: folders.reservations,
            events,
            report,
            applied,
            carried: known,
            ready: readiness.part("networks"),
        });
        let (troubles, tap_metrics) = (Arc::<Troubles>::default(), TapMetrics::register(&registry)?);
        let machines = Machines::new(hopper.clone(), config.run_dir.clone(), tap_metrics, troubles.clone());
        let context = Arc::new(WorkloadContext {
            node: identity.node.name.clone(),
            boot,
            kernel: KernelHandle { run_dir: config.run_dir.clone(), hopper, overlay, keeper },
            service_metrics: ServiceMetrics::register(&registry)?,
            names: names(&registry)?,
            identities: Arc::new(certs_of(folders.identities, identity, &stored)),
            sidecars: sidecars(&config, &registry)?,
            host,
            machines: Arc::new(machines),
            records: folders.workloads,
            disks,
            roster: Default::default(),
            troubles,
            containers: Containers::recall(folders.containers)?,
        });
        Ok(Self {
            config,
            context,
            registry,
            readiness,
            stored,
            host_task,
            link_events,
            reports,
            acks,
            carried,
        })
    }

    /// Takes up what runs, opens the doors, and connects.
    fn build(
        self,
        node: RenewedNode,
        (identities, metrics): (watch::Receiver<Arc<TlsIdentity>>, TcpListener),
        provider: Arc<CryptoProvider>,
    ) -> Result<Agent, StartError> {
        let Self { config, context, .. } = self;
        let (name, underlay) = (node.identity.node.name.clone(), node.identity.node.underlay);
        let workloads = Workloads::new(context.clone());
        let WorkloadContext { kernel, sidecars, .. } = context.as_ref();
        let listening = sidecars.registry.listen(&config.run_dir)?;
        let mut tasks = vec![self.host_task, kernel.keeper.guard(), listening];
        let overlay = kernel.overlay.clone();
        tasks.push(task::spawn_fallible("host-watch", async move { overlay.watch_host().await }));
        for stored in self.stored {
            workloads.adopt(stored);
        }
        tasks.extend(basic_tasks(&context, &workloads));
        let registrations = follow_services(&config, &workloads, &mut tasks);
        let renewals = metrics::renewals(&self.registry)?;
        let scrape = metrics::gatherer(self.registry, context.clone(), identities.clone());
        tasks.push(metrics::serve(metrics, self.readiness.clone(), scrape.clone()));
        let unserved = watch::Sender::new(None);
        let metrics_problem = unserved.subscribe();
        if underlay.to_ip() != Ipv4Addr::LOCALHOST {
            let outer = SocketAddr::new(underlay.to_ip(), config.metrics_port);
            let serving = metrics::serve_when_possible(outer, self.readiness.clone(), scrape, unserved);
            tasks.push(task::spawn("metrics-underlay", serving));
        }
        let read = ReadApi {
            workloads: workloads.clone(),
            node: node.identity.node.clone(),
            trust_domain: node.identity.trust_domain.clone(),
            version: VERSION,
            started: Instant::now(),
            identity: identities.clone(),
            views: context.host.views.clone(),
            certs: context.identities.clone(),
            sidecars: sidecars.registry.clone(),
            metrics_problem,
            overlay: kernel.overlay.clone(),
        };
        tasks.push(grpc::serve(&config.run_dir, RunApi::new(workloads.clone(), registrations), read)?);
        tasks.extend(docker_tasks(&config, &context, &workloads)?);
        let inputs = LinkInputs {
            addresses: config.control,
            identity: identities,
            report: self.reports,
            applied: self.acks,
            carried: self.carried,
            instance: rand::random(),
            underlay,
            mtu: kernel.overlay.mtu(),
            version: VERSION.to_owned(),
            metrics_port: config.metrics_port,
        };
        let link = Link::start(inputs, provider, self.link_events);
        let control = context.host.views.control.clone();
        tasks
            .push(task::spawn("renewals", renewal::run(context.identities.clone(), node, control, renewals)));
        let readiness = self.readiness;
        Ok(Agent { readiness, node: name, _workloads: workloads, _link: link, _tasks: tasks })
    }
}

/// Starts the tasks that every agent has, beside those of its doors.
fn basic_tasks(context: &WorkloadContext, workloads: &Arc<Workloads>) -> Vec<Task> {
    let gateways = gateway::run(context.host.clone(), context.kernel.clone(), context.names.clone());
    let disks = [&context.disks.data, &context.disks.run];
    let mut tasks: Vec<Task> = disks.map(|disk| task::spawn("disk", disk.clone().watch())).into();
    tasks.push(task::spawn("gateways", gateways));
    tasks.push(task::spawn("containers", follow_containers(workloads.clone())));
    tasks
}

/// Starts the tasks that follow Docker, and its door, where there is to be one.
fn docker_tasks(
    config: &Config,
    context: &WorkloadContext,
    workloads: &Arc<Workloads>,
) -> Result<Vec<Task>, StartError> {
    let (engine, mut door, mut tasks) = (Engine::at(config.docker_api.clone()), None, Vec::new());
    if let Some(plugin) = &config.docker_plugin {
        let folder = folder_of(config, &context.disks.data, layout::DOCKER)?;
        let opened = Docker::open(workloads.clone(), context.kernel.overlay.clone(), folder, engine.clone())?;
        tasks.push(docker::serve(opened.clone(), plugin)?);
        context.containers.expect();
        door = Some(opened);
    }
    let (tell, told) = mpsc::channel(64);
    let driver = config.docker_plugin.as_deref().map(docker::driver).unwrap_or_default();
    let following = engine::follow(engine, driver, context.containers.any(), tell);
    tasks.push(task::spawn("docker-watch", following));
    tasks.push(task::spawn("docker-news", docker::hear(workloads.clone(), door, told)));
    Ok(tasks)
}

/// Follows services outside every network: whether their instances work, and those that this host registers.
fn follow_services(config: &Config, workloads: &Arc<Workloads>, tasks: &mut Vec<Task>) -> RegistrarHandle {
    tasks.push(task::spawn("outside-all", outside::run(workloads.clone())));
    let (services, read) = (config.services_dir.clone(), config.read_documents);
    let (registrations, registrar) = Registrar::new(services, read, workloads.clone());
    tasks.push(task::spawn("registrar", registrar.run()));
    registrations
}

/// Removes what is left of virtual machines that are not on disk any more.
fn sweep_machines(hopper: &Hopper, run_dir: &Path, stored: &[StoredWorkload]) -> io::Result<()> {
    let held = stored.iter().filter_map(|known| known.anchor.hold());
    let machines: Vec<_> = held.filter_map(tap::device_of).collect();
    tap::sweep(hopper, run_dir, |device| machines.contains(device)).map(drop).map_err(io::Error::other)
}

/// Folders that state is recalled from.
struct Folders {
    networks: Folder,
    workloads: Folder,
    reservations: Folder,
    identities: Folder,
    containers: Folder,
}

impl Folders {
    fn open(config: &Config, disk: &Arc<Disk>) -> Result<Self, DiskError> {
        Ok(Self {
            networks: folder_of(config, disk, layout::NETWORKS)?,
            workloads: folder_of(config, disk, layout::WORKLOADS)?,
            reservations: folder_of(config, disk, layout::RESERVATIONS)?,
            identities: folder_of(config, disk, layout::IDENTITIES)?,
            containers: folder_of(config, disk, layout::CONTAINERS)?,
        })
    }
}

/// A folder of the data directory, which only this process writes to.
fn folder_of(config: &Config, disk: &Arc<Disk>, name: &str) -> Result<Folder, DiskError> {
    let folder = Folder::open(config.data_dir.join(name))?.on(disk);
    folder.sweep()?;
    Ok(folder)
}

fn overlay(
    config: &Config,
    identity: &NodeIdentity,
    hopper: Arc<Hopper>,
    registry: &prometheus::Registry,
) -> Result<Arc<Overlay>, StartError> {
    let overlay = OverlayConfig {
        run_dir: config.run_dir.clone(),
        underlay: identity.node.underlay,
        vxlan_port: config.vxlan_port,
        metrics_port: config.metrics_port,
    };
    let overlay = Overlay::new(overlay, hopper, registry)?;
    overlay.learn_control(config.control.iter().filter_map(|control| control.literal));
    Ok(Arc::new(overlay))
}

/// The stored identities, without those of nobody.
fn certs_of(identities: Folder, identity: &NodeIdentity, stored: &[StoredWorkload]) -> Certs {
    let certs = Certs::new(identities, identity.trust_domain.clone());
    if let Err(error) = certs.purge(|principal| is_of(principal, stored), SystemTime::now()) {
        tracing::error!(%error, "cannot look through the stored identities");
    }
    certs
}

/// The attachments of these workloads.
fn attachments(stored: &[StoredWorkload]) -> impl Iterator<Item = AttachmentId> + '_ {
    stored.iter().flat_map(|known| &known.attachments).map(|attachment| attachment.id())
}

/// Returns true if a workload's own identity is of one that is known.
fn is_of(principal: &Principal, stored: &[StoredWorkload]) -> bool {
    let mut attachments = attachments(stored);
    attachments.any(|id| *principal == Principal::Workload(id.network, id.workload))
}

/// Takes over everything that keep holds, but closes whatever is nobody's; the overlay hears of its namespaces.
fn keeper(
    config: &Config,
    mesh: &Mesh,
    stored: &[StoredWorkload],
    overlay: &Overlay,
) -> Result<Arc<Keeper>, StartError> {
    let keeper = Keeper::start(config.run_dir.clone(), config.binary.clone())?;
    let plugin = config.docker_plugin.as_deref().map(docker::socket_key);
    keeper.retain(|key| belongs(key, mesh, stored) || plugin.as_deref() == Some(key))?;
    docker::retire(&config.run_dir, config.docker_plugin.as_deref())?;
    gateway::recognise(&mesh.networks(), &keeper, overlay);
    Ok(keeper)
}

/// Returns true if held descriptors (`<kind>/<network>` or `<kind>/<network>/<workload>`) are of something that is
/// known.
fn belongs(key: &str, mesh: &Mesh, stored: &[StoredWorkload]) -> bool {
    let mut parts = key.split('/').skip(1);
    let network = parts.next().unwrap_or_default();
    match parts.next() {
        None => mesh.networks().iter().any(|known| known.as_str() == network),
        Some(name) => attachments(stored)
            .any(|known| known.network.as_str() == network && known.workload.as_str() == name),
    }
}

async fn identity(
    folder: &Folder,
    config: &Config,
    hopper: &Hopper,
    provider: &Arc<CryptoProvider>,
) -> Result<RestoredNode, StartError> {
    let wanted = node::NodeOptions {
        control: config.control.clone(),
        token: config.token.clone(),
        name: config.name.clone(),
        underlay: config.underlay,
    };
    let check = |address| check_here(hopper, address);
    if let Some(known) = node::load(folder, &wanted, check)? {
        return Ok(known);
    }
    wanted.underlay.map_or(Ok(()), |address| check(address.into())).map_err(NodeError::from)?;
    let identity = node::join_mesh(folder, &wanted, VERSION, provider).await?;
    tracing::info!(node = %identity.node.name, underlay = %identity.node.underlay,
        trust_domain = %identity.trust_domain, "joined the mesh");
    Ok(RestoredNode { identity, moved: false })
}

/// Recalls the state on disk, and ends everything in the kernel that is not on disk.
async fn recall(
    folders: &Folders,
    identity: &NodeIdentity,
    overlay: &Overlay,
    (run_dir, boot): (&Path, &str),
) -> Result<(Mesh, Vec<StoredWorkload>), StartError> {
    let Folders { networks, workloads, reservations, .. } = folders;
    let mut mesh = Mesh::new(identity.node.clone());
    for name in networks.names()? {
        match networks.read(&name) {
            Ok(Some(bytes)) => drop(mesh.accept(network_from_bytes(&bytes)?)),
            Ok(None) => {}
            // Control sends it again; until then its workloads wait.
            Err(error) => tracing::error!(%error, network = name, "a network's stored state is lost"),
        }
    }
    for name in reservations.names()? {
        if let Some(bytes) = reservations.read(&name)? {
            mesh.keep(Reservation::from_bytes(&bytes)?);
        }
    }
    let mut stored = Vec::new();
    for name in workloads.names()? {
        let Some(bytes) = workloads.read(&name)? else {
            continue;
        };
        let mut record = StoredWorkload::from_bytes(&bytes)?;
        let gone = !workload::is_there(&record.anchor, boot);
        for attachment in &mut record.attachments {
            // The name stays published over a restart: readiness is what it last was, until it is read anew.
            let workload = &mut attachment.workload;
            let known = mesh.snapshot(&workload.network).into_iter().flat_map(|known| &known.workloads);
            let mut known = known.filter(|known| known.node == identity.node.name);
            workload.ready = known.any(|known| known.name == workload.name && known.ready);
            mesh.host(attachment.clone());
            if gone {
                // Its port need not be made again, and is nobody's to miss.
                mesh.end(&attachment.id());
            }
            // What ended meanwhile must leave its rules before that is acknowledged.
            mesh.set_applied(&attachment.id(), DataPlane::Rules, Some(0));
        }
        stored.push(record);
    }
    let known: Vec<String> = attachments(&stored).map(|id| id.record_name()).collect();
    sidecar::stop_unknown(run_dir, |name| known.iter().any(|known| known == name))?;
    sidecar::stop_unrecorded(run_dir, |name| known.iter().any(|known| known == name))?;
    let carried: Vec<NetworkName> = mesh.networks();
    stale_state::remove(overlay, run_dir, &carried, &known).await?;
    Ok((mesh, stored))
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
