//! Cost of one request, or of one connection with a request, to a pair of sidecars or to one alone: 64 connections, 16 where each is
//! new, a 496-byte answer, everything on loopback.
//!
//! `cargo run --profile ci -p sealane-proxy --example pair [connections] [lone] [routes] [COUNT]`, as root (the sidecars mark their sockets).
//! With `routes` the service has a route of ten rules, of which the last but one is for the requests. It prints requests or connections per second, microseconds of CPU that each costs the sidecars' workers, and resident memory.
//! Under callgrind with `--separate-threads=yes`, instructions of the worker threads are theirs alone; `bench/instructions` does that.

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
use sealane_proto::resource::document::Document;
use sealane_proto::resource::{
    Egress, Network, NetworkContent, NetworkSnapshot, Route, RouteDocument, Service, Workload,
};
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
const REQUEST: &str = "GET /index.html HTTP/1.1\r\nHost: api\r\nUser-Agent: pair\r\nAccept: */*\r\n";
const LAST: &str = "Connection: close\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 496\r\nServer: pair\r\n";

/// Measurement that was asked for.
#[derive(Clone, Copy)]
struct Plan {
    /// Each request comes by a new connection.
    connections: bool,
    /// The application has no sidecar.
    lone: bool,
    /// The service has a route.
    routes: bool,
    count: u64,
}

impl Plan {
    fn read() -> Result<Self, Failure> {
        let mut plan = Self { connections: false, lone: false, routes: false, count: 100_000 };
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "connections" => plan.connections = true,
                "lone" => plan.lone = true,
                "routes" => plan.routes = true,
                count => plan.count = count.parse()?,
            }
        }
        Ok(plan)
    }
}

struct Fixed(SocketAddr);

impl OriginalDst for Fixed {
    fn original(&self, _: &TcpStream, _: SocketAddr) -> io::Result<SocketAddr> {
        Ok(self.0)
    }
}

fn server(plan: Plan) -> Result<Workload, Failure> {
    Ok(Workload { sidecar: !plan.lone, ..workload("api-1", SERVER, Some("api"))? })
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
        ready6: true,
        weight: Default::default(),
        aliases: Default::default(),
        finding: Default::default(),
    })
}

/// A route whose rules are for parts of their own, but one for `/index.html` and one for all the rest.
fn route() -> Result<Route, Failure> {
    let rule = |path: &str| {
        format!(
            r#"{{"matches":[{{"path":{{"value":"{path}"}}}}],"backendRefs":[{{"name":"api","port":8080}}]}}"#
        )
    };
    let parts = (0..8).map(|n| rule(&format!("/v1/part-{n}")));
    let rules: Vec<String> = parts.chain(["/index.html", "/"].map(rule)).collect();
    let text = format!(
        r#"{{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{{"name":"api","namespace":"shop"}},
        "spec":{{"parentRefs":[{{"group":"","kind":"Service","name":"api"}}],"rules":[{}]}}}}"#,
        rules.join(",")
    );
    let document = RouteDocument::of(&Document::from_json(&text)?).ok_or("a document of a route")?;
    Ok(Route::new(document, 0))
}

fn config(own: Workload, plan: Plan) -> Result<Config, Failure> {
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
    let workloads = vec![server(plan)?, workload("web", CLIENT, None)?];
    let routes = if plan.routes { vec![route()?] } else { Vec::new() };
    let content = NetworkContent {
        services: [api].into(),
        workloads: workloads.into(),
        routes: routes.into(),
        ..network.into()
    };
    let network = NetworkSnapshot::new(Generation { epoch: 1, revision: 1 }, content);
    Ok(Config {
        sequence: 1,
        trust_domain: "sealane".parse()?,
        workload: own,
        network: network.into(),
        portion: None,
    })
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

async fn sidecar(own: Workload, issuer: &CertifiedIssuer<'_, KeyPair>, plan: Plan) -> Result<Core, Failure> {
    let mut core = Core::start(PORTS, 1, Arc::new(Fixed(SocketAddr::new(VIP.into(), 8080))))?;
    let address = IpAddr::from(own.address.to_ipv4());
    core.identify(identity(&own, issuer)?)?;
    core.apply(&config(own, plan)?).await;
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

/// Answers whatever is read, one answer per read: the load sends one request at a time. It closes behind the last one of a connection.
async fn application(listener: TcpListener) -> io::Result<()> {
    let body = "x".repeat(496);
    let [more, last] = ["", LAST].map(|field| Rc::<str>::from(format!("{ANSWER}{field}\r\n{body}")));
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (more, last) = (more.clone(), last.clone());
        task::spawn_local(async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                let is_last = buffer[..read].ends_with(format!("{LAST}\r\n").as_bytes());
                let answer = if is_last { &last } else { &more };
                if stream.write_all(answer.as_bytes()).await.is_err() || is_last {
                    break;
                }
            }
        })
        .detach();
    }
}

async fn connect() -> io::Result<TcpStream> {
    let stream = TcpStream::connect((CLIENT, PORTS.outbound)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks as long as there are requests left.
async fn ask(left: Rc<Cell<u64>>) -> io::Result<()> {
    let mut stream = connect().await?;
    let (mut buffer, request) = ([0; 4096], format!("{REQUEST}\r\n"));
    while take(&left) {
        stream.write_all(request.as_bytes()).await?;
        let mut left = 496 + ANSWER.len() + 2;
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => left -= got.min(left),
            }
        }
    }
    Ok(())
}

/// Asks as long as there are requests left, on a new connection each time.
async fn ask_anew(left: Rc<Cell<u64>>) -> io::Result<()> {
    let (mut answer, request) = (Vec::new(), format!("{REQUEST}{LAST}\r\n"));
    while take(&left) {
        let mut stream = connect().await?;
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        stream.read_to_end(&mut answer).await?;
        if answer.len() != 496 + ANSWER.len() + LAST.len() + 2 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn take(left: &Cell<u64>) -> bool {
    let more = left.get() > 0;
    left.update(|left| left.saturating_sub(1));
    more
}

async fn load(plan: Plan, count: u64) -> Result<(), Failure> {
    let left = Rc::new(Cell::new(count));
    let tasks: Vec<_> = if plan.connections {
        (0..16).map(|_| task::spawn_local(ask_anew(left.clone()))).collect()
    } else {
        (0..64).map(|_| task::spawn_local(ask(left.clone()))).collect()
    };
    for task in tasks {
        task.await??;
    }
    Ok(())
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

async fn measure(plan: Plan) -> Result<(), Failure> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let _server = match plan.lone {
        true => None,
        false => Some(sidecar(server(plan)?, &issuer, plan).await?),
    };
    let _client = sidecar(workload("web", CLIENT, None)?, &issuer, plan).await?;
    let listener = TcpListener::bind((SERVER, 8080)).await?;
    let _application = task::spawn_local(application(listener));
    let mut out = io::stdout().lock();
    use io::Write as _;
    writeln!(out, "sidecars, application and load idle in one process: {}", resident()?)?;
    load(plan, 100).await?;
    let (began, ticks) = (Instant::now(), worker_ticks()?);
    load(plan, plan.count).await?;
    let (elapsed, ticks) = (began.elapsed(), worker_ticks()? - ticks);
    let micros = ticks as f64 * 10_000.0 / plan.count as f64;
    let rate = plan.count as f64 / elapsed.as_secs_f64();
    let what = if plan.connections { "connection" } else { "request" };
    writeln!(out, "{rate:.0} {what}s/s, {micros:.1} us of CPU per {what}, {}", resident()?)?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let plan = Plan::read()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, measure(plan))
}
