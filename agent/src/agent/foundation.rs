//! Building of an agent: its parts in the order in which they depend on each other, then the tasks that drive them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustls::crypto::CryptoProvider;
use sealane_base::ready::Readiness;
use sealane_base::task::{self, Task};
use sealane_fabric::overlay::{Overlay, OverlayConfig};
use sealane_fabric::services::ServiceMetrics;
use sealane_proto::client::{
    CarriedNetworks, Controls, Followed, Link, LinkEvent, LinkInputs, LinkReport, TlsIdentity,
};
use sealane_proto::resource::ControlAddr;
use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::UnderlayAddrs;
use sealane_sys::boot_id;
use sealane_sys::hop::Hopper;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::recall::{Folders, certs_of, folder_of, keeper, recall, sweep_machines};
use super::{Agent, Config};
use crate::check::CheckLimits;
use crate::disk::{Folder, NodeIdentity, StoredWorkload};
use crate::dns::{DnsMetrics, ForwardConfig, Forwarder, NameService};
use crate::door::docker::{self, Docker};
use crate::door::grpc::{self, ReadApi, RunApi};
use crate::engine::{self, Engine};
use crate::error::StartError;
use crate::host::{self, HostMetrics, HostParts};
use crate::kernel::KernelHandle;
use crate::liveness::{Liveness, LivenessMetrics, PeerViews};
use crate::matrix::{Matrix, Ports};
use crate::peer::{self, Channels, HintEnd, PeerInputs, PeerMetrics, PeerQuestion, RowAnswer};
use crate::registrar::{Registrar, RegistrarHandle};
use crate::renewal::{self, RenewedNode};
use crate::sidecar::{Registry, Sidecars, ToldMetrics};
use crate::tap::{Machines, TapMetrics};
use crate::trouble::Troubles;
use crate::underlay::{self, UnderlaySource};
use crate::workload::{Containers, Disks, WorkloadContext, Workloads, follow_containers};
use crate::{VERSION, controls, gateway, layout, metrics, outside};

/// Parts that stand before anything moves.
pub(super) struct Foundation {
    config: Config,
    context: Arc<WorkloadContext>,
    registry: prometheus::Registry,
    readiness: Readiness,
    stored: Vec<StoredWorkload>,
    host_task: Task,
    link_events: mpsc::Sender<LinkEvent>,
    reports: watch::Receiver<Arc<LinkReport>>,
    acks: watch::Receiver<Followed>,
    carried: watch::Receiver<CarriedNetworks>,
}

/// Makes the service that answers names.
fn names(registry: &prometheus::Registry) -> Result<NameService, prometheus::Error> {
    let metrics = DnsMetrics::register(registry)?;
    Ok(NameService { forwarder: Arc::new(Forwarder::new(host_resolvers(), metrics.clone())), metrics })
}

/// Makes the handle of the sidecars, of which there are none yet.
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
    pub(super) async fn lay(
        config: Config,
        hopper: Arc<Hopper>,
        identity: &NodeIdentity,
        disks: Disks,
    ) -> Result<Self, StartError> {
        let (registry, readiness, boot) = (metrics::registry()?, Readiness::default(), boot_id()?);
        let overlay = overlay(&config, identity, hopper.clone(), &registry)?;
        let mut folders = Folders::open(&config, &disks.data)?;
        let (mesh, stored) = recall(&mut folders, identity, &overlay, (&config.run_dir, &boot)).await?;
        sweep_machines(&hopper, &config.run_dir, &stored)?;
        let keeper = keeper(&config, &mesh, &stored, &overlay)?;
        let (link_events, events) = mpsc::channel(64);
        let (report, reports) = watch::channel(Arc::default());
        let (followed, acks) = watch::channel(Followed::default());
        let (known, carried) = watch::channel(mesh.carried());
        let (host, host_task) = host::start(HostParts {
            mesh,
            overlay: overlay.clone(),
            folder: folders.networks,
            workloads: folders.workloads.clone(),
            reservations: folders.reservations,
            incarnations: folders.incarnations,
            words: folders.words,
            places: folders.places,
            metrics: HostMetrics::register(&registry)?,
            events,
            report,
            followed,
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
            checks: CheckLimits::register(&registry)?,
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

    /// Underlay addresses of this host.
    pub(super) fn underlay(&self) -> watch::Receiver<UnderlayAddrs> {
        self.context.kernel.overlay.underlay()
    }

    /// Takes up what runs, opens the doors, and connects.
    pub(super) fn build(
        self,
        node: RenewedNode,
        (identities, metrics): (watch::Receiver<Arc<TlsIdentity>>, TcpListener),
        provider: Arc<CryptoProvider>,
    ) -> Result<Agent, StartError> {
        let Self { config, context, .. } = self;
        let name = node.identity.node.name.clone();
        let workloads = Workloads::new(context.clone());
        let WorkloadContext { kernel, sidecars, .. } = context.as_ref();
        let listening = sidecars.registry.listen(&config.run_dir)?;
        let mut tasks = vec![self.host_task, kernel.keeper.guard(), listening];
        tasks.push(watch_host(kernel));
        for stored in self.stored {
            workloads.adopt(stored);
        }
        tasks.extend(basic_tasks(&context, &workloads));
        let registrations = follow_services(&config, &workloads, &mut tasks);
        let (own, carried) = ((identities.clone(), provider.clone()), context.host.views.placed.clone());
        let between = (context.as_ref(), &workloads, carried);
        let matrix = between_hosts(&config, between, own, &self.registry, &mut tasks)?;
        let (channels, peers) = (matrix.channels.clone(), matrix.peers.clone());
        let renewals = metrics::renewals(&self.registry)?;
        let scrape = metrics::gatherer(self.registry, context.clone(), identities.clone(), peers.clone());
        tasks.push(metrics::serve(metrics, self.readiness.clone(), scrape.clone()));
        let unserved = watch::Sender::new(None);
        let metrics_problem = unserved.subscribe();
        let outer = (kernel.overlay.underlay(), config.metrics_port);
        let serving = metrics::serve_when_possible(outer, self.readiness.clone(), scrape, unserved);
        tasks.push(task::spawn("metrics-underlay", serving));
        tasks.push(follow_underlay(&config, &node, kernel));
        let read = ReadApi {
            workloads: workloads.clone(),
            node: name.clone(),
            trust_domain: node.identity.trust_domain.clone(),
            version: VERSION,
            started: Instant::now(),
            identity: identities.clone(),
            views: context.host.views.clone(),
            certs: context.identities.clone(),
            sidecars: sidecars.registry.clone(),
            metrics_problem,
            overlay: kernel.overlay.clone(),
            channels,
            peers,
            matrix: matrix.clone(),
        };
        let run = RunApi::new(workloads.clone(), registrations, matrix);
        tasks.push(grpc::serve(&config.run_dir, run, read)?);
        tasks.extend(docker_tasks(&config, &context, &workloads)?);
        let inputs = LinkInputs {
            controls: follow_controls(&node.folder, config.control, &mut tasks),
            identity: identities,
            report: self.reports,
            followed: self.acks,
            carried: self.carried,
            instance: rand::random(),
            place: context.host.views.place.clone(),
            mtu: kernel.overlay.mtu(),
            version: VERSION.to_owned(),
            metrics_port: config.metrics_port,
        };
        let link = Link::start(inputs, provider, self.link_events);
        let (certs, control) = (context.identities.clone(), context.host.views.control.clone());
        tasks.push(task::spawn("renewals", renewal::run(certs, node, control, renewals)));
        Ok(Agent { readiness: self.readiness, node: name, _workloads: workloads, _link: link, _tasks: tasks })
    }
}

/// Recalls the control planes, and starts the task that keeps what they tell of each other.
fn follow_controls(
    folder: &Folder,
    given: Vec<ControlAddr>,
    tasks: &mut Vec<Task>,
) -> watch::Sender<Controls> {
    let (controls, told) = watch::channel(controls::recall(folder, given));
    tasks.push(task::spawn("controls", controls::keep(folder.clone(), told)));
    controls
}

/// Starts the task that watches what is the host's own.
fn watch_host(kernel: &KernelHandle) -> Task {
    let overlay = kernel.overlay.clone();
    task::spawn_fallible("host-watch", async move { overlay.watch_host().await })
}

/// Starts the task that follows this host's addresses.
fn follow_underlay(config: &Config, node: &RenewedNode, kernel: &KernelHandle) -> Task {
    let source = UnderlaySource {
        choices: node.identity.choices.clone(),
        control: config.control.clone(),
        expects_others: config.expects_others,
    };
    let (overlay, hopper) = (kernel.overlay.clone(), kernel.hopper.clone());
    task::spawn("underlay", underlay::follow(source, overlay, hopper, node.unsaved))
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

/// Starts the channels to other hosts, which tell each other what they own.
fn follow_peers(
    config: &Config,
    context: &WorkloadContext,
    (identity, provider): (watch::Receiver<Arc<TlsIdentity>>, Arc<CryptoProvider>),
    ((hints, hinted), (asks, looks)): (HintEnd, (mpsc::Receiver<PeerQuestion>, mpsc::Sender<RowAnswer>)),
    registry: &prometheus::Registry,
    tasks: &mut Vec<Task>,
) -> Result<watch::Receiver<Channels>, prometheus::Error> {
    let ((words, heard), views) = (mpsc::channel(64), context.host.views.clone());
    let (channels, peers) = peer::start(PeerInputs {
        node: context.node.clone(),
        underlay: context.kernel.overlay.underlay(),
        port: config.peer_port,
        identity,
        provider,
        peers: views.peers,
        revoked: views.revoked,
        facts: views.facts,
        works: views.works,
        places: views.places,
        words,
        hints,
        hinted,
        asks,
        looks,
        metrics: PeerMetrics::register(registry)?,
    });
    tasks.push(peers);
    tasks.push(task::spawn("peer-words", peer::pass_on(heard, context.host.clone())));
    Ok(channels)
}

/// Starts everything that goes between this host's agent and others': channels, echoes, and questions how each sees the others.
fn between_hosts(
    config: &Config,
    (context, workloads, carried): (&WorkloadContext, &Arc<Workloads>, watch::Receiver<CarriedNetworks>),
    own: (watch::Receiver<Arc<TlsIdentity>>, Arc<CryptoProvider>),
    registry: &prometheus::Registry,
    tasks: &mut Vec<Task>,
) -> Result<Arc<Matrix>, prometheus::Error> {
    let (between, hints) = peer::hint_ends();
    let ((asks, asked), (looks, looked)) = (mpsc::channel(64), mpsc::channel(64));
    let channels = follow_peers(config, context, own, (between, (asked, looks)), registry, tasks)?;
    let peers = watch_peers(config, workloads, (carried, hints), registry, tasks)?;
    let matrix = Arc::new(Matrix {
        node: context.node.clone(),
        overlay: context.kernel.overlay.clone(),
        channels,
        peers,
        asks,
        ports: Ports { tunnels: config.vxlan_port, channels: config.peer_port },
        last: Default::default(),
    });
    tasks.push(task::spawn("matrix", matrix.clone().serve(looked)));
    Ok(matrix)
}

/// Watches the hosts that share a network with this one; answers how each of them is.
fn watch_peers(
    config: &Config,
    workloads: &Arc<Workloads>,
    (carried, hints): (watch::Receiver<CarriedNetworks>, HintEnd),
    registry: &prometheus::Registry,
    tasks: &mut Vec<Task>,
) -> Result<watch::Receiver<Arc<PeerViews>>, prometheus::Error> {
    let (views, shown) = watch::channel(Arc::default());
    let (timeout, port) = (config.peer_timeout, config.vxlan_port);
    let metrics = LivenessMetrics::register(registry)?;
    let liveness = Liveness { workloads: workloads.clone(), carried, timeout, port, views, hints, metrics };
    tasks.push(task::spawn("liveness", liveness.run()));
    Ok(shown)
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
        peer_port: config.peer_port,
    };
    let overlay = Overlay::new(overlay, hopper, registry)?;
    overlay.learn_control(config.control.iter().filter_map(|control| control.literal));
    Ok(Arc::new(overlay))
}
