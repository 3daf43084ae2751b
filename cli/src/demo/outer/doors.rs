//! Doors into the demo: metrics ports on the user's loopback, and namespaces for shells.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::sync::Arc;
use std::time::Duration;

use sealane_base::task::{self, Task};
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, fdpass};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::timeout;

use super::METRICS_PORT;

/// Address of an agent's metrics, on its host's loopback.
const AGENT_METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// Time that a caller may take to say which host it wants.
const QUESTION: Duration = Duration::from_secs(5);

/// The namespaces of each host, in the order in which they are entered; the last one is the demo's pid namespace.
type Hosts = Arc<BTreeMap<String, Vec<OwnedFd>>>;

/// Parts that the doors are made of.
pub(super) struct Doors {
    /// Socket by which the inside hands out its namespaces.
    pub(super) inside: StdUnixStream,
    /// Socket at which shells are asked for.
    pub(super) shells: StdUnixListener,
    /// Number of hosts that there will be.
    pub(super) hosts: u8,
}

impl Doors {
    /// Opens the doors and keeps them open. A door that cannot be opened is missed by nobody but its visitors.
    pub(super) async fn keep(self) {
        if let Err(error) = self.open().await {
            tracing::debug!(%error, "the doors of the demo stay closed");
        }
    }

    async fn open(self) -> io::Result<()> {
        let Self { inside, shells, hosts } = self;
        let (hosts, _inside) =
            tokio::task::spawn_blocking(move || receive(&inside, hosts).map(|got| (got, inside)))
                .await
                .map_err(io::Error::other)??;
        let hosts: Hosts = Arc::new(hosts);
        let hopper = Arc::new(Hopper::start()?);
        let mut doors: Vec<Task> = Vec::new();
        for (number, namespaces) in (1..).zip(hosts.values()) {
            let network = NetNs::from(namespaces[0].try_clone()?);
            let hopper = hopper.clone();
            doors.push(task::spawn_fallible("demo-metrics", relay(METRICS_PORT + number, network, hopper)));
        }
        shells.set_nonblocking(true)?;
        give_out(UnixListener::from_std(shells)?, hosts).await
    }
}

/// Takes the namespaces of each host: one message per host.
fn receive(inside: &StdUnixStream, count: u8) -> io::Result<BTreeMap<String, Vec<OwnedFd>>> {
    let mut hosts = BTreeMap::new();
    while hosts.len() < usize::from(count) {
        let (mut name, mut namespaces) = ([0; 64], Vec::new());
        // Descriptors end a read, so that one message is one read although this is a stream.
        let length = fdpass::recv(inside, &mut name, &mut namespaces)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hosts.insert(String::from_utf8_lossy(&name[..length]).into_owned(), namespaces);
    }
    Ok(hosts)
}

/// Carries connections to a port of the user's loopback to the metrics of a host.
async fn relay(port: u16, network: NetNs, hopper: Arc<Hopper>) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (mut outside, _) = listener.accept().await?;
        let (network, hopper) = (network.try_clone()?, hopper.clone());
        task::spawn("demo-metrics-connection", async move {
            let connect =
                move || hopper.run(&network, || StdTcpStream::connect_timeout(&AGENT_METRICS, QUESTION));
            let Ok(Ok(Ok(inside))) = tokio::task::spawn_blocking(connect).await else { return };
            let Ok(()) = inside.set_nonblocking(true) else { return };
            if let Ok(mut inside) = TcpStream::from_std(inside) {
                // Either side may end it at any time.
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            }
        })
        .detach();
    }
}

/// Gives root the namespaces of the host that it names.
async fn give_out(listener: UnixListener, hosts: Hosts) -> io::Result<()> {
    loop {
        let (mut caller, _) = listener.accept().await?;
        if caller.peer_cred().is_ok_and(|credentials| credentials.uid() == 0) {
            let hosts = hosts.clone();
            task::spawn("demo-shell", async move {
                let mut name = [0; 64];
                let asked = timeout(QUESTION, caller.read(&mut name));
                let Ok(Ok(length)) = asked.await else { return };
                let known = hosts.get(String::from_utf8_lossy(&name[..length]).as_ref());
                let descriptors: Vec<_> = known.into_iter().flatten().map(AsFd::as_fd).collect();
                // A name that is not known gets no answer but the end. A caller that left misses nothing.
                if !descriptors.is_empty() {
                    let _ = fdpass::send(&caller, b"x", &descriptors);
                }
            })
            .detach();
        }
    }
}
