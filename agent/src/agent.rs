//! The agent put together: what starts in which order, and how it ends.

mod foundation;
mod recall;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use sealane_base::disk::Disk;
use sealane_base::ready::Readiness;
use sealane_base::task::Task;
use sealane_fabric::health;
use sealane_fabric::overlay::{UnderlayChoices, preflight};
use sealane_proto::client::Link;
use sealane_proto::resource::ControlAddr;
use sealane_proto::token::JoinToken;
use sealane_proto::types::NodeName;
use sealane_sys::RunDir;
use sealane_sys::hop::Hopper;
use tokio::sync::watch;

use crate::disk::{Folder, NodeIdentity};
use crate::error::StartError;
use crate::node::RestoredNode;
use crate::registrar::ReadDocuments;
use crate::renewal::RenewedNode;
use crate::workload::{Disks, Workloads};
use crate::{layout, metrics, node};
use foundation::Foundation;

/// Settings of an agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses of control; tried one after another.
    pub control: Vec<ControlAddr>,
    /// The join token, needed once.
    pub token: Option<JoinToken>,
    /// The node's name; the host name without it.
    pub name: Option<NodeName>,
    /// Choices of the underlay addresses; those from before, at first the source addresses towards control, without them.
    pub underlay: Option<UnderlayChoices>,
    /// True if control is on this host and others may join: its loopback is not where they reach this host.
    pub expects_others: bool,
    /// Folder for everything that must outlive a reboot.
    pub data_dir: PathBuf,
    /// Sockets, namespaces and pid files.
    pub run_dir: RunDir,
    /// The port of /metrics, /live and /ready, on loopback and the underlay address.
    pub metrics_port: u16,
    /// The UDP port of VXLAN (RFC 7348: 4789).
    pub vxlan_port: u16,
    /// The TCP port at which hosts call each other.
    pub peer_port: u16,
    /// Time within which a host that is dead or cut off is known to be.
    pub peer_timeout: Duration,
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
    fs::DirBuilder::new().recursive(true).mode(0o700).create(config.run_dir.path())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let [data, run] =
        [config.data_dir.as_path(), config.run_dir.path()].map(|folder| Disk::new(folder.to_owned()));
    let disks = Disks { data, run };
    // What joining makes outlives a start that fails for another reason: that is found out before.
    let metrics = metrics::bind((Ipv4Addr::LOCALHOST, config.metrics_port).into()).await?;
    let folder = Folder::open(config.data_dir.join(layout::NODE))?.on(&disks.data);
    let RestoredNode { identity, moved } = identity(&folder, &config, &hopper, &provider).await?;
    let (published, identities) = watch::channel(node::tls_identity(&identity)?);
    let foundation = Foundation::lay(config, hopper, &identity, disks).await?;
    let underlay = foundation.underlay();
    let renewed = RenewedNode { identity, folder, unsaved: moved, underlay, published };
    foundation.build(renewed, (identities, metrics), provider)
}

async fn identity(
    folder: &Folder,
    config: &Config,
    hopper: &Arc<Hopper>,
    provider: &Arc<CryptoProvider>,
) -> Result<RestoredNode, StartError> {
    let wanted = node::NodeOptions {
        control: config.control.clone(),
        token: config.token.clone(),
        name: config.name.clone(),
        underlay: config.underlay.clone(),
        expects_others: config.expects_others,
    };
    if let Some(known) = node::load(folder, &wanted)? {
        return Ok(node::place(known, &wanted, hopper).await?);
    }
    let identity = node::join_mesh(folder, &wanted, hopper, provider).await?;
    tracing::info!(node = %identity.node.name, underlay = %identity.node.underlay,
        trust_domain = %identity.trust_domain, "joined the mesh");
    Ok(RestoredNode { identity, moved: false })
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
