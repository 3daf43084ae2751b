//! Verbs about Sealane's own processes.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use sealane_control::kv::{EtcdPlace, EtcdTls, EtcdUrl};
use sealane_fabric::overlay::UnderlayChoice;
use sealane_proto::resource::ControlAddr;
use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::{NetworkName, NodeName, Port, TrustDomain, WorkloadName};

use crate::failure::Failure;

/// The memory of a sidecar's worker.
const SIDECAR_MEMORY: &str = "SEALANE_SIDECAR_MEMORY";

/// Where state lives that outlives a reboot.
#[derive(Clone, Debug, Args)]
pub(crate) struct DataDir {
    /// Directory of the state that outlives a reboot
    #[arg(long, env = "SEALANE_DATA_DIR", value_name = "DIR", default_value = "/var/lib/sealane")]
    pub(crate) data_dir: PathBuf,
}

/// `sealane clean`.
#[derive(Debug, Args)]
pub(crate) struct Clean {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Do not ask for confirmation
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Keep the data directory, so that the host can come back with its identity
    #[arg(long)]
    pub(crate) keep_data: bool,
}

/// `sealane check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Underlay address of this host [default: the agent's, else the one of the default route]
    #[arg(long, value_name = "IP|PREFIX|INTERFACE|auto")]
    pub(crate) underlay: Option<UnderlayChoice>,
    /// Port of the agent's /metrics
    #[arg(long, value_name = "PORT", default_value = "9464")]
    pub(crate) metrics_port: Port,
    /// UDP port of VXLAN
    #[arg(long, value_name = "PORT", default_value = "4789")]
    pub(crate) vxlan_port: Port,
    /// TCP port at which hosts call each other
    #[arg(long, value_name = "PORT", default_value = "7444")]
    pub(crate) peer_port: Port,
    /// Matrix of the ways between all hosts in place of this host's checks: who reaches whom, round trips, loss, and blocked ports
    #[arg(long)]
    pub(crate) peers: bool,
}

/// `sealane control`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Control {
    #[command(subcommand)]
    pub(crate) action: Option<ControlAction>,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Address that hosts connect to
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7443", value_parser = socket_address)]
    pub(crate) listen: SocketAddr,
    /// Trust domain of the mesh, which is fixed once the store exists [default: sealane]
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) trust_domain: Option<TrustDomain>,
    /// Kind of the store that keeps desired state
    #[arg(long, value_enum, default_value_t)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) shared: SharedStore,
    /// Address of control's own /metrics, /live and /ready
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9465", value_parser = socket_address)]
    pub(crate) metrics: SocketAddr,
    /// Lifetime of certificates of services and workloads, which hosts renew after a third of it
    #[arg(long, hide = true, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) certificate_lifetime: Option<std::time::Duration>,
}

/// What can be done with control planes.
#[derive(Debug, Subcommand)]
pub(crate) enum ControlAction {
    /// List the control planes that share a store; exits with 1 when one is lost or cut off
    Ls,
    /// Remove a control plane that is gone for good from the list; it comes back when it starts again
    Rm {
        /// Address at which hosts reached it, as `ls` shows it
        #[arg(value_name = "HOST:PORT")]
        address: ControlAddr,
    },
}

/// Arguments that say where in etcd a store is.
#[derive(Clone, Debug, Args)]
pub(crate) struct EtcdStore {
    /// URL of a member of etcd; several are tried one after another
    #[arg(
        long,
        env = "SEALANE_ETCD",
        value_name = "URL",
        value_delimiter = ',',
        required_if_eq("store", "etcd"),
        requires = "key_file"
    )]
    pub(crate) etcd: Vec<EtcdUrl>,
    /// Prefix of this mesh's keys in etcd
    #[arg(long, value_name = "PREFIX", default_value = "", requires = "etcd", hide_default_value = true)]
    pub(crate) etcd_prefix: String,
    /// File with the authority of etcd's certificates (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd", value_hint = ValueHint::FilePath)]
    pub(crate) etcd_ca: Option<PathBuf>,
    /// File with the certificate by which etcd knows this control plane (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_key", value_hint = ValueHint::FilePath)]
    pub(crate) etcd_cert: Option<PathBuf>,
    /// File with the key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_cert", value_hint = ValueHint::FilePath)]
    pub(crate) etcd_key: Option<PathBuf>,
    /// File, the same for every control plane, by which the certificate authority's key is encrypted in etcd: 32 random bytes or
    /// more, as of `openssl rand -hex 32`
    #[arg(long, env = "SEALANE_KEY_FILE", value_name = "FILE", requires = "etcd", value_hint = ValueHint::FilePath)]
    pub(crate) key_file: Option<PathBuf>,
}

impl EtcdStore {
    /// Returns the place and the key file.
    ///
    /// # Errors
    /// When there is no key file.
    pub(crate) fn parts(self) -> Result<(EtcdPlace, PathBuf), Failure> {
        let tls = EtcdTls { authority: self.etcd_ca, client: self.etcd_cert.zip(self.etcd_key) };
        let place = EtcdPlace { urls: self.etcd, prefix: self.etcd_prefix, tls };
        let key_file =
            self.key_file.ok_or_else(|| Failure::usage("--store etcd needs --key-file".to_owned()))?;
        Ok((place, key_file))
    }
}

/// Arguments about a store in etcd.
#[derive(Clone, Debug, Args)]
pub(crate) struct SharedStore {
    #[command(flatten)]
    pub(crate) place: EtcdStore,
    /// Address at which hosts and other control planes reach this one [default: that of --listen]
    #[arg(long, value_name = "HOST:PORT", requires = "etcd")]
    pub(crate) advertise: Option<ControlAddr>,
    /// Time without a sign of life after which another control plane leads, in whole seconds from 2 on
    #[arg(long, value_name = "DURATION", default_value = "2s", requires = "etcd", value_parser = leader_ttl)]
    pub(crate) leader_ttl: Duration,
}

fn leader_ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).ok();
    let ttl = ttl.filter(|ttl| ttl.subsec_nanos() == 0 && (2..=60).contains(&ttl.as_secs()));
    ttl.ok_or_else(|| "it must be whole seconds between 2s and 60s, like 2s".to_owned())
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it must be IP:PORT, like 0.0.0.0:7443 or [::]:7443".to_owned())
}

fn peer_timeout(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(200)..=Duration::from_secs(60);
    let timeout = humantime::parse_duration(text).ok().filter(|timeout| range.contains(timeout));
    timeout.ok_or_else(|| "it must be between 200ms and 60s, like 500ms".to_owned())
}

/// Where desired state is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// In a file of this control plane's own.
    #[default]
    Redb,
    /// In etcd, which several control planes may share.
    Etcd,
}

/// `sealane agent`.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Address of control; several are tried one after another
    #[arg(long, env = "SEALANE_CONTROL", value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    pub(crate) control: Vec<ControlAddr>,
    /// Token that admits this host to the mesh, needed once; `sealane token create` on the control host prints one. Use - to read
    /// it from standard input: on the command line, every user of this host can see it
    #[arg(
        long,
        env = "SEALANE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN|-",
        conflicts_with = "token_file"
    )]
    pub(crate) token: Option<TokenArg>,
    /// File with the token in its last line; not read once the host has joined
    #[arg(long, env = "SEALANE_TOKEN_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// A token, or where it comes from.
#[derive(Clone)]
pub(crate) enum TokenArg {
    /// The token itself, or what was meant to be one: errors about flags print values, so it is read later.
    Here(String),
    /// Standard input.
    Stdin,
}

impl FromStr for TokenArg {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "-" { Self::Stdin } else { Self::Here(text.to_owned()) })
    }
}

impl fmt::Debug for TokenArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here(_) => "Here(..)",
            Self::Stdin => "Stdin",
        })
    }
}

/// `sealane up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Address that further hosts may connect to
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7443", value_parser = socket_address)]
    pub(crate) listen: SocketAddr,
    /// Address of control's own /metrics, /live and /ready
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9465", value_parser = socket_address)]
    pub(crate) metrics: SocketAddr,
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// What is said of a host.
#[derive(Clone, Debug, Args)]
pub(crate) struct HostArgs {
    /// Name of this host in the mesh [default: its host name]
    #[arg(long, value_name = "NODE")]
    pub(crate) name: Option<NodeName>,
    /// Address of this host that others send packets to: itself, or a prefix or interface whose address is followed when it
    /// changes; auto follows the one towards control [default: as before, at first auto]
    ///
    /// Given twice: one for IPv4 and one for IPv6. An interface, and auto where control has addresses of both, gives both by itself.
    #[arg(long, value_name = "IP|PREFIX|INTERFACE|auto")]
    pub(crate) underlay: Vec<UnderlayChoice>,
    /// Port of /metrics, /live and /ready, on loopback and on the underlay address
    #[arg(long, value_name = "PORT", default_value = "9464")]
    pub(crate) metrics_port: Port,
    /// UDP port of VXLAN, the same on every host
    #[arg(long, value_name = "PORT", default_value = "4789")]
    pub(crate) vxlan_port: Port,
    /// TCP port at which hosts call each other, the same on every host
    #[arg(long, value_name = "PORT", default_value = "7444")]
    pub(crate) peer_port: Port,
    /// Time within which a host that is dead or cut off leaves this host's names and service addresses, 200ms to 60s
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = peer_timeout)]
    pub(crate) peer_timeout: Duration,
    /// Serve as Docker's network plugin at this socket [without PATH: /run/docker/plugins/sealane.sock]
    #[arg(
        long,
        env = "SEALANE_DOCKER_PLUGIN",
        value_name = "PATH",
        num_args = 0..=1,
        default_missing_value = "/run/docker/plugins/sealane.sock",
        value_parser = super::docker::socket,
        value_hint = ValueHint::FilePath
    )]
    pub(crate) docker_plugin: Option<PathBuf>,
    /// Socket of dockerd's API, which knows the names and labels of containers
    #[arg(long, value_name = "PATH", default_value = "/run/docker.sock", value_hint = ValueHint::FilePath)]
    pub(crate) docker_api: PathBuf,
    /// Directory of files about services outside every network, which this host registers
    #[arg(
        long,
        env = "SEALANE_SERVICES_DIR",
        value_name = "DIR",
        default_value = "/etc/sealane/services.d",
        value_hint = ValueHint::DirPath
    )]
    pub(crate) services_dir: PathBuf,
}

/// `sealane proxy`: started by the agent, in the workload's network namespace.
#[derive(Debug, Args)]
pub(crate) struct Proxy {
    /// Socket of the agent for sidecars
    #[arg(long, value_name = "PATH")]
    pub(crate) agent_socket: PathBuf,
    /// Network of the workload
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: NetworkName,
    /// Name of the workload
    #[arg(long, value_name = "WORKLOAD")]
    pub(crate) workload: WorkloadName,
    /// Number of threads that serve connections
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) workers: usize,
    /// Memory that each of them may hold for requests in progress; further requests are refused. Sidecars have the environment of
    /// their agent
    #[arg(long, env = SIDECAR_MEMORY, value_name = "MIB", default_value_t = 128, value_parser = memory)]
    pub(crate) memory: u32,
}

/// MiB of a sidecar's worker.
fn memory(text: &str) -> Result<u32, String> {
    let fits = |mebibytes: &u32| (16..=65_536).contains(mebibytes);
    text.parse().ok().filter(fits).ok_or_else(|| "it must be a number of MiB, 16 to 65536".to_owned())
}

/// Checks what sidecars will find in the environment, which is their agent's: they could tell nobody.
///
/// # Errors
/// Names the variable.
pub(crate) fn check_environment() -> Result<(), String> {
    match std::env::var(SIDECAR_MEMORY) {
        Ok(text) if !text.is_empty() => {
            memory(&text).map(drop).map_err(|why| format!("{SIDECAR_MEMORY}={text}, for sidecars: {why}"))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Proxy {
    /// What the sidecar runs with.
    pub(crate) fn settings(self, drain_deadline: std::time::Duration) -> sealane_proxy::Settings {
        sealane_proxy::Settings {
            agent_socket: self.agent_socket,
            network: self.network,
            workload: self.workload,
            ports: SidecarPorts::default(),
            workers: self.workers,
            memory: (self.memory as usize) << 20,
            drain_deadline,
        }
    }
}
