//! Cost of one request to a pair of sidecars: 64 connections, a 496-byte answer, everything on loopback.
//!
//! `cargo run --profile ci -p sealane-proxy --example pair [SECONDS]`, as root (the sidecars mark their sockets).
//! It prints requests per second, microseconds of CPU per request of both sidecars' workers, and resident memory.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sealane_base::task;
use sealane_proto::identity::{Principal, SpiffeId};
use sealane_proto::resource::{Egress, Network, NetworkContent, NetworkSnapshot, Service, Workload};
use sealane_proto::sidecar::{Config, Identity, Listeners, SidecarPorts};
use sealane_proto::types::{Generation, MacAddr, Vni};
use sealane_proxy::{Core, OriginalDst};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

type Failure = Box<dyn Error>;

const PORTS: SidecarPorts = SidecarPorts { outbound: 15001, inbound: 15006, tunnel: 15008 };
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 200, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 200, 0, 2);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 42, 255, 1);
const CONNECTIONS: usize = 64;
const REQUEST: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: api\r\nUser-Agent: pair\r\nAccept: */*\r\n\r\n";

const ANSWER_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 496\r\nServer: pair\r\n\r\n";

struct Fixed(SocketAddr);

impl OriginalDst for Fixed {
    fn original(&self, _: &TcpStream, _: SocketAddr) -> io::Result<SocketAddr> {
        Ok(self.0)
    }
}

fn workload(name: &str, address: Ipv4Addr, service: Option<&str>) -> Result<Workload, Failure> {
    Ok(Workload {
        name: name.parse()?,
        network: "shop".parse()?,
        node: "host-1".parse()?,
        address: address.into(),
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        service: service.map(str::parse).transpose()?,
        ports: if service.is_some() { vec!["8080/http".parse()?] } else { Vec::new() },
        sidecar: true,
        ready: true,
        weight: Default::default(),
        aliases: Default::default(),
    })
}

fn config(own: Workload) -> Result<Config, Failure> {
    let network = Network {
        name: "shop".parse()?,
        hosts: Default::default(),
        subnet: "10.42.0.0/16".parse()?,
        vni: Vni::try_from(0x10_0000_u32)?,
        mtu: None,
        egress: Egress::Allow,
        subnet6: None,
        mtls: None,
    };
    let api = Service {
        name: "api".parse()?,
        hosts: Default::default(),
        vip: VIP.into(),
        ports: vec!["8080/http".parse()?],
        declared: false,
        mtls: None,
        external: Default::default(),
    };
    let workloads = vec![workload("api-1", SERVER, Some("api"))?, workload("web", CLIENT, None)?];
    let network = NetworkSnapshot {
        generation: Generation { epoch: 1, revision: 1 },
        content: NetworkContent { services: vec![api], workloads, ..network.into() },
    };
    Ok(Config { sequence: 1, trust_domain: "sealane".parse()?, workload: own, network: network.into() })
}

fn identity(own: &Workload, issuer: &CertifiedIssuer<'_, KeyPair>) -> Result<Identity, Failure> {
    let network = own.network.clone();
    let principal = match &own.service {
        Some(service) => Principal::Service(network, service.clone()),
        None => Principal::Workload(network, own.name.clone()),
    };
    let spiffe_id = SpiffeId { trust_domain: "sealane".parse()?, principal };
    let (key, mut params) = (KeyPair::generate()?, CertificateParams::default());
    params.subject_alt_names = vec![SanType::URI(spiffe_id.to_string().try_into()?)];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(Identity {
        spiffe_id,
        chain: vec![params.signed_by(&key, issuer)?.der().clone()],
        roots: vec![issuer.der().clone()],
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        not_after: SystemTime::now() + Duration::from_secs(3600),
    })
}

async fn sidecar(own: Workload, issuer: &CertifiedIssuer<'_, KeyPair>) -> Result<Core, Failure> {
    let mut core = Core::start(PORTS, 1, Arc::new(Fixed(SocketAddr::new(VIP.into(), 8080))))?;
    let address = IpAddr::from(own.address.to_ipv4());
    core.identify(identity(&own, issuer)?)?;
    core.apply(&config(own)?).await;
    let bind = |port| std::net::TcpListener::bind((address, port)).map(OwnedFd::from);
    let listeners = Listeners {
        outbound: bind(PORTS.outbound)?,
        inbound: bind(PORTS.inbound)?,
        tunnel: bind(PORTS.tunnel)?,
        ipv6: None,
    };
    core.listen(listeners).await?;
    Ok(core)
}

/// Answers whatever is read, one answer per read: the load sends one request at a time.
async fn application(listener: TcpListener) -> io::Result<()> {
    let body = "x".repeat(496);
    let answer: Rc<[u8]> = format!("{ANSWER_HEAD}{body}").into_bytes().into();
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = answer.clone();
        task::spawn_local(async move {
            let mut buffer = [0; 4096];
            while matches!(stream.read(&mut buffer).await, Ok(1..)) {
                if stream.write_all(&answer).await.is_err() {
                    break;
                }
            }
        })
        .detach();
    }
}

async fn client(count: Rc<Cell<u64>>) -> io::Result<()> {
    let mut stream = TcpStream::connect((CLIENT, PORTS.outbound)).await?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        stream.write_all(REQUEST).await?;
        let mut left = 496 + ANSWER_HEAD.len();
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => left -= got.min(left),
            }
        }
        count.set(count.get() + 1);
    }
}

/// CPU time of the sidecars' workers, in clock ticks of 10 ms (proc_pid_stat(5), fields 14 and 15).
fn worker_ticks() -> io::Result<u64> {
    let mut ticks = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
        if let Some((_, rest)) = stat.split_once("(worker-0) ") {
            let fields = rest.split(' ').skip(11).take(2);
            ticks += fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
    }
    Ok(ticks)
}

fn resident() -> io::Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned())
}

async fn measure(seconds: u64) -> Result<(), Failure> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let _server = sidecar(workload("api-1", SERVER, Some("api"))?, &issuer).await?;
    let _client = sidecar(workload("web", CLIENT, None)?, &issuer).await?;
    let listener = TcpListener::bind((SERVER, 8080)).await?;
    let _application = task::spawn_local(application(listener));
    let mut out = io::stdout().lock();
    use io::Write as _;
    writeln!(out, "two sidecars, application and load idle in one process: {}", resident()?)?;
    let count = Rc::new(Cell::new(0));
    let load: Vec<_> = (0..CONNECTIONS).map(|_| task::spawn_local(client(count.clone()))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (began, requests, ticks) = (Instant::now(), count.get(), worker_ticks()?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (elapsed, requests, ticks) = (began.elapsed(), count.get() - requests, worker_ticks()? - ticks);
    let broken = load.iter().filter(|task| task.is_finished()).count();
    let micros = ticks as f64 * 10_000.0 / requests as f64;
    let rate = requests as f64 / elapsed.as_secs_f64();
    writeln!(
        out,
        "{rate:.0} requests/s, {micros:.1} us of CPU per request and pair, {broken} broken, {}",
        resident()?
    )?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let seconds = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, measure(seconds))
}
