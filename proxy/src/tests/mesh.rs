//! A mesh on loopback addresses that belong to one test.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sealane_base::task::{self, Task};
use sealane_proto::identity::SpiffeId;
use sealane_proto::resource::Workload;
use sealane_proto::sidecar::{Config, Identity, Listeners, SidecarPorts};
use sealane_proto::types::Mtls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::testing::{config, service, workload};
use crate::{Core, OriginalDst};

pub(super) const PORTS: SidecarPorts = SidecarPorts { outbound: 15001, inbound: 15006, tunnel: 15008 };
/// The address of service `api`; nothing listens there.
pub(super) const VIP: &str = "10.42.255.1";
/// Longer than any step of a test on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Mesh {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The ports of service `api`.
    ports: &'static str,
    instances: Vec<Workload>,
    client: Workload,
    /// Another caller.
    other: Workload,
    mtls: Option<Mtls>,
    /// Services beside `api`, with their virtual addresses.
    services: Vec<(&'static str, String)>,
}

/// A sidecar and where its listeners are.
pub(super) struct Sidecar {
    pub(super) core: Core,
    pub(super) address: IpAddr,
}

struct Fixed(SocketAddr);

impl OriginalDst for Fixed {
    fn original(&self, _: &TcpStream, _: SocketAddr) -> io::Result<SocketAddr> {
        Ok(self.0)
    }
}

thread_local! {
    /// Number of the test that runs on this thread, among those of all processes.
    static TEST: u32 = std::process::id().wrapping_add(TESTS.fetch_add(1, Ordering::Relaxed) * 7919);
}
/// Number of tests of this process that have addresses.
static TESTS: AtomicU32 = AtomicU32::new(0);

/// A loopback address that no other test that runs now has. To be asked for on the test's own thread.
pub(super) fn loopback(host: u8) -> Ipv4Addr {
    let id = TEST.with(|test| *test);
    let [_, _, high, low] = (id % 62_500).to_be_bytes();
    Ipv4Addr::new(127, high.wrapping_add(1).max(1), low, host)
}

impl Mesh {
    /// A client `web`, and service `api` on this port (`PORT[/PROTO]`) with so many instances, all with sidecars.
    pub(super) fn new(port: &'static str, instances: u8) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let instance = |n| {
            let address = loopback(10 + n).to_string();
            workload(&format!("api-{n}"), &address, Some("api"), &[port])
        };
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
            ports: port,
            instances: (0..instances).map(instance).collect(),
            client: workload("web", &loopback(1).to_string(), None, &[]),
            other: workload("other", &loopback(2).to_string(), None, &[]),
            mtls: None,
            services: Vec::new(),
        }
    }

    /// Instance `n` is one of this service.
    pub(super) fn serving(mut self, n: usize, service: &'static str) -> Self {
        if !self.services.iter().any(|(known, _)| *known == service) {
            self.services.push((service, format!("10.42.255.{}", 10 + self.services.len())));
        }
        self.instances[n].service = Some(service.parse().unwrap());
        self
    }

    /// The network is strict.
    pub(super) fn strict(mut self) -> Self {
        self.mtls = Some(Mtls::Strict);
        self
    }

    /// Instance `n` has no sidecar.
    pub(super) fn bare(mut self, n: usize) -> Self {
        self.instances[n].sidecar = false;
        self
    }

    pub(super) fn config(&self, own: &Workload, ready: &[usize]) -> Config {
        let mut instances = self.instances.clone();
        for (n, instance) in instances.iter_mut().enumerate() {
            instance.ready = ready.contains(&n);
        }
        instances.extend([self.client.clone(), self.other.clone()]);
        let mut services = vec![service("api", VIP, &[self.ports])];
        services.extend(self.services.iter().map(|(name, vip)| service(name, vip, &[self.ports])));
        let mut config = config(own.clone(), services, instances);
        config.network.network.mtls = self.mtls;
        config
    }

    pub(super) fn identity(&self, own: &Workload) -> Identity {
        let principal = own.principal();
        let spiffe_id = SpiffeId { trust_domain: "sealane".parse().unwrap(), principal };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(spiffe_id.to_string().try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            spiffe_id,
            chain: vec![certificate.der().clone()],
            roots: vec![self.issuer.der().clone()],
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            not_after: SystemTime::now() + Duration::from_secs(3600),
        }
    }

    /// The sidecar of the client; its workload calls `destination`.
    pub(super) async fn client_to(&self, destination: SocketAddr) -> Sidecar {
        self.sidecar(&self.client, destination).await
    }

    /// The sidecar of the client; its workload calls the service.
    pub(super) async fn client(&self) -> Sidecar {
        self.client_to(SocketAddr::new(VIP.parse().unwrap(), self.port())).await
    }

    /// The sidecar of another caller of the service.
    pub(super) async fn other_client(&self) -> Sidecar {
        self.sidecar(&self.other, SocketAddr::new(VIP.parse().unwrap(), self.port())).await
    }

    /// As [`Self::other_client`], of a workload that shares the client's identity, as instances of one service do.
    pub(super) async fn other_client_of_the_same_identity(&self) -> Sidecar {
        let sidecar = self.other_client().await;
        sidecar.core.identify(self.identity(&self.client)).unwrap();
        sidecar
    }

    /// The sidecar of instance `n`.
    pub(super) async fn instance(&self, n: usize) -> Sidecar {
        self.sidecar(&self.instances[n], SocketAddr::from(([127, 0, 0, 1], 1))).await
    }

    /// As [`Self::client`], but without a configuration so far.
    pub(super) async fn unconfigured_client(&self) -> Sidecar {
        let destination = SocketAddr::new(VIP.parse().unwrap(), self.port());
        let mut core = Core::start(PORTS, 1, Arc::new(Fixed(destination))).unwrap();
        core.identify(self.identity(&self.client)).unwrap();
        let address = self.client.address.to_ipv4().into();
        core.listen(listeners(address)).await.unwrap();
        Sidecar { core, address }
    }

    /// The sidecar of instance `n`, which is called by its own address and not by a sidecar.
    pub(super) async fn instance_called_plainly(&self, n: usize) -> Sidecar {
        let address = self.instances[n].address.to_ipv4().into();
        self.instance_called_at(n, SocketAddr::new(address, self.port())).await
    }

    /// The sidecar of instance `n`, to which a peer without a sidecar sends connections for `destination`.
    pub(super) async fn instance_called_at(&self, n: usize, destination: SocketAddr) -> Sidecar {
        self.sidecar(&self.instances[n], destination).await
    }

    /// The sidecar of the client, which may hold no more than so many bytes.
    pub(super) async fn client_within(&self, memory: usize) -> Sidecar {
        let destination = Arc::new(Fixed(SocketAddr::new(VIP.parse().unwrap(), self.port())));
        self.configured(&self.client, Core::start_within(memory, PORTS, 1, destination).unwrap()).await
    }

    async fn sidecar(&self, own: &Workload, destination: SocketAddr) -> Sidecar {
        self.configured(own, Core::start(PORTS, 1, Arc::new(Fixed(destination))).unwrap()).await
    }

    async fn configured(&self, own: &Workload, mut core: Core) -> Sidecar {
        core.identify(self.identity(own)).unwrap();
        let ready: Vec<usize> = (0..self.instances.len()).collect();
        core.apply(&self.config(own, &ready)).await;
        let address = own.address.to_ipv4().into();
        core.listen(listeners(address)).await.unwrap();
        Sidecar { core, address }
    }

    /// The address of instance `n`.
    pub(super) fn address(&self, n: usize) -> IpAddr {
        self.instances[n].address.to_ipv4().into()
    }

    /// A port of instance `n`.
    pub(super) fn place(&self, n: usize, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(n), port)
    }

    pub(super) fn client_workload(&self) -> &Workload {
        &self.client
    }

    /// Only these instances are ready from now on, as `sidecar` sees it.
    pub(super) async fn set_ready(&self, sidecar: &mut Sidecar, ready: &[usize]) {
        sidecar.core.apply(&self.config(&self.client, ready)).await;
    }

    /// The sidecar of instance `n` hears how the mesh is now.
    pub(super) async fn tell_instance(&self, sidecar: &mut Sidecar, n: usize) {
        sidecar.core.apply(&self.config(&self.instances[n], &[n])).await;
    }

    fn port(&self) -> u16 {
        self.instances.first().map_or(8080, |first| first.ports[0].port.get())
    }

    /// The application of instance `n`: `serve` gets each of its connections.
    pub(super) async fn application<F>(
        &self,
        n: usize,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Task
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = self.instances[n].address.to_ipv4();
        // An application that was dropped listens until the runtime has come to its task.
        tokio::task::yield_now().await;
        let listener = TcpListener::bind((address, self.port())).await.unwrap();
        task::spawn("application", async move {
            let mut connections = Vec::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                connections.push(task::spawn("connection", serve(stream)));
            }
        })
    }
}

pub(super) fn listeners(address: IpAddr) -> Listeners {
    let bind = |port| OwnedFd::from(std::net::TcpListener::bind((address, port)).unwrap());
    Listeners {
        outbound: bind(PORTS.outbound),
        inbound: bind(PORTS.inbound),
        tunnel: bind(PORTS.tunnel),
        ipv6: None,
    }
}

impl Sidecar {
    /// A connection of the workload, as the redirect rules would deliver it.
    pub(super) async fn call(&self) -> TcpStream {
        TcpStream::connect((self.address, PORTS.outbound)).await.unwrap()
    }

    /// The address at which it takes calls of its workload.
    pub(super) fn outbound(&self) -> SocketAddr {
        SocketAddr::new(self.address, PORTS.outbound)
    }

    /// Sends `request` on a new connection, ends it, and returns everything that comes back.
    pub(super) async fn ask(&self, request: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.outbound()).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.shutdown().await?;
        let mut response = String::new();
        within(stream.read_to_string(&mut response)).await?;
        Ok(response)
    }

    /// Sums the metric of this name with these labels.
    pub(super) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        use sealane_base::metrics::Reading;
        let families = self.core.metrics();
        let series = families.iter().filter(|family| family.name == name).flat_map(|family| &family.series);
        let matching = series.filter(|series| {
            labels
                .iter()
                .all(|(name, value)| series.labels.iter().any(|(known, text)| known == name && text == value))
        });
        matching
            .map(|series| match &series.reading {
                Reading::Value(value) => *value,
                Reading::Histogram { count, .. } => *count as f64,
            })
            .sum()
    }
}

/// The future's value, or a failed test.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happened in time")
}

/// Reads up to and including `end`.
pub(super) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        if within(stream.read(&mut byte)).await.unwrap() == 0 {
            break;
        }
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Answers every request, which must have no body, with its name.
pub(super) async fn answer_with(mut stream: TcpStream, name: &'static str) {
    loop {
        let request = read_until(&mut stream, "\r\n\r\n").await;
        if !request.ends_with("\r\n\r\n") {
            return;
        }
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}
