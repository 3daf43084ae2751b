//! Hosts of a mesh with certificates, for tests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use prometheus::Registry;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use sealane_base::metrics::{Reading, gather};
use sealane_proto::identity::{Principal, SpiffeId, Trust};
use sealane_proto::resource::Edition;
use tokio_rustls::TlsConnector;

use super::super::credentials::{Credentials, Secured};
use super::*;
use crate::host::Acknowledgement;
use crate::testing;

/// Longer than any step of a test on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 7_444;

thread_local! {
    /// Number of the test that runs on this thread, among those of all processes.
    static TEST: u32 = std::process::id().wrapping_add(TESTS.fetch_add(1, Ordering::Relaxed) * 7919);
}
/// Number of tests of this process that have addresses.
static TESTS: AtomicU32 = AtomicU32::new(0);

/// The port of a host at a loopback address that no other test that runs now has.
pub(super) fn address(host: u8) -> SocketAddr {
    let id = TEST.with(|test| *test);
    let [_, _, high, low] = (id % 62_500).to_be_bytes();
    (Ipv4Addr::new(127, high.wrapping_add(1).max(1), low, host), PORT).into()
}

/// Facts about workloads of a host in network `shop`.
pub(super) fn facts(owner: &str, edition: (u64, u64), names: &[&str]) -> OwnerFacts {
    let Edition { incarnation, revision } = Edition { incarnation: edition.0, revision: edition.1 };
    let workload = |name: &&str| {
        let mut workload = testing::workload(name, "10.42.1.3");
        (workload.node, workload.network) = (owner.parse().unwrap(), "shop".parse().unwrap());
        workload
    };
    let workloads = names.iter().map(workload).collect();
    OwnerFacts { network: "shop".parse().unwrap(), incarnation, revision, workloads }
}

/// A word of this revision about the address of a host.
pub(super) fn place(host: u8, revision: u64) -> Whereabouts {
    Whereabouts { underlay: address(host).ip().into(), edition: Edition { incarnation: 1, revision } }
}

/// An authority.
pub(super) struct TestMesh {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A host with its inputs and outputs.
pub(super) struct TestHost {
    pub(super) identity: watch::Sender<Arc<TlsIdentity>>,
    pub(super) revoked: watch::Sender<Arc<BTreeSet<SerialPrefix>>>,
    pub(super) underlay: watch::Sender<UnderlayAddrs>,
    peers: watch::Sender<Arc<BTreeMap<NodeName, Peer>>>,
    facts: watch::Sender<Arc<BTreeMap<NetworkName, Arc<OwnerFacts>>>>,
    places: watch::Sender<Arc<HostPlaces>>,
    words: mpsc::Receiver<(NodeName, PeerWord)>,
    hints: mpsc::Sender<PeerHint>,
    heard_hints: mpsc::Receiver<PeerHint>,
    asks: mpsc::Sender<PeerQuestion>,
    pub(super) looked: mpsc::Receiver<RowAnswer>,
    channels: watch::Receiver<Channels>,
    registry: Registry,
    node: NodeName,
    here: SocketAddr,
    _task: Task,
}

impl TestMesh {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// An identity that is good for so long.
    pub(super) fn identity(&self, node: &str, life: Duration) -> Arc<TlsIdentity> {
        let key = KeyPair::generate().unwrap();
        let principal = Principal::Node(node.parse().unwrap());
        let identity = SpiffeId { trust_domain: "sealane".parse().unwrap(), principal };
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = (SystemTime::now() + life).into();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let root = self.issuer.der().clone();
        Arc::new(TlsIdentity {
            chain: vec![leaf.der().clone(), root.clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            trust: Trust::new("sealane".parse().unwrap(), &[root]).unwrap(),
        })
    }

    pub(super) fn credentials(&self, node: &str) -> Credentials {
        let identity = self.identity(node, Duration::from_secs(3_600));
        Credentials::new(identity, Arc::default(), provider()).unwrap()
    }

    /// A connection as this host dials it.
    pub(super) async fn call(&self, node: &str, to: &TestHost) -> Secured {
        let stream = TcpStream::connect(to.here).await.unwrap();
        self.credentials(node).connect(&to.node, stream).await.unwrap()
    }

    /// The same, and its first words.
    pub(super) async fn greet(&self, node: &str, to: &TestHost) -> Secured {
        let mut secured = self.call(node, to).await;
        let mut hello = bytes::BytesMut::new();
        PeerFrame::Hello(PeerHello::own("9")).encode(&mut hello);
        secured.stream.write_all(&hello).await.unwrap();
        secured
    }

    /// Two hosts, `host-a` and `host-b`, that share network shop.
    pub(super) fn pair(&self) -> (TestHost, TestHost) {
        let (a, b) = (self.host("host-a", 1), self.host("host-b", 2));
        a.shares(&[("host-b", 2, &["shop"])]);
        b.shares(&[("host-a", 1, &["shop"])]);
        (a, b)
    }

    /// A host that runs.
    pub(super) fn host(&self, node: &str, at: u8) -> TestHost {
        self.host_for(node, at, Duration::from_secs(3_600))
    }

    /// A host whose certificate is good for so long.
    pub(super) fn host_for(&self, node: &str, at: u8, life: Duration) -> TestHost {
        let (registry, here) = (Registry::new(), address(at));
        let identity = watch::Sender::new(self.identity(node, life));
        let (revoked, peers) = (watch::Sender::default(), watch::Sender::default());
        let (facts, places, works) =
            (watch::Sender::default(), watch::Sender::default(), watch::Sender::default());
        let node = node.parse::<NodeName>().unwrap();
        let underlay = watch::Sender::new(UnderlayAddrs::from(here.ip()));
        let (heard, words) = mpsc::channel(16);
        let ((hints, given), (hinted, heard_hints)) = (mpsc::channel(16), mpsc::channel(16));
        let ((asks, asked), (looks, looked)) = (mpsc::channel(16), mpsc::channel(16));
        let (channels, task) = start(PeerInputs {
            node: node.clone(),
            underlay: underlay.subscribe(),
            port: PORT,
            identity: identity.subscribe(),
            provider: provider(),
            peers: peers.subscribe(),
            revoked: revoked.subscribe(),
            facts: facts.subscribe(),
            works: works.subscribe(),
            places: places.subscribe(),
            words: heard,
            hints: given,
            hinted,
            asks: asked,
            looks,
            metrics: PeerMetrics::register(&registry).unwrap(),
        });
        TestHost {
            identity,
            revoked,
            underlay,
            peers,
            facts,
            places,
            words,
            hints,
            heard_hints,
            asks,
            looked,
            channels,
            registry,
            node,
            here,
            _task: task,
        }
    }
}

impl TestHost {
    /// The same with one peer, which shares network `shop` and may be elsewhere as well.
    pub(super) fn shares_with(&self, peer: &str, at: u8, elsewhere: &[u8]) {
        let elsewhere = elsewhere.iter().map(|at| address(*at).ip().into()).collect();
        let networks = BTreeSet::from(["shop".parse().unwrap()]);
        let peer = (peer.parse().unwrap(), Peer { underlay: address(at).ip().into(), elsewhere, networks });
        self.peers.send_replace(Arc::new(BTreeMap::from([peer])));
    }

    /// The hosts that share networks with this one from now on: name, address and networks.
    pub(super) fn shares(&self, peers: &[(&str, u8, &[&str])]) {
        let peer = |(name, at, networks): &(&str, u8, &[&str])| {
            let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
            (
                name.parse().unwrap(),
                Peer { underlay: address(*at).ip().into(), elsewhere: BTreeSet::new(), networks },
            )
        };
        self.peers.send_replace(Arc::new(peers.iter().map(peer).collect()));
    }

    pub(super) fn says(&self, facts: OwnerFacts) {
        self.facts.send_replace(Arc::new(BTreeMap::from([(facts.network.clone(), Arc::new(facts))])));
    }

    /// Tells the others that this host is there, and where it has found others: names, addresses and revisions.
    pub(super) fn says_places(&self, places: &[(&str, u8, u64)]) {
        let places = places.iter().map(|(name, at, revision)| (name.parse().unwrap(), place(*at, *revision)));
        self.places.send_replace(Arc::new(places.collect()));
    }

    /// Moves the host.
    pub(super) fn moves(&mut self, at: u8) {
        self.here = address(at);
        self.underlay.send_replace(self.here.ip().into());
    }

    /// Waits for the next word of a peer about itself.
    pub(super) async fn hears(&mut self) -> (NodeName, PeerWord) {
        loop {
            let word = self.next_word().await;
            if !matches!(word.1, PeerWord::Acknowledged(_)) {
                return word;
            }
        }
    }

    /// Waits for this word of a peer, whatever it has said before.
    pub(super) async fn awaits(&mut self, peer: &str, word: PeerWord) {
        while self.next_word().await != (peer.parse().unwrap(), word.clone()) {}
    }

    /// Waits until a peer has acknowledged these revisions of this host's words, by network.
    pub(super) async fn await_acknowledged(&mut self, peer: &str, revisions: &[(&str, u64)]) {
        let wanted: Vec<(String, u64)> =
            revisions.iter().map(|(network, revision)| ((*network).to_owned(), *revision)).collect();
        loop {
            let (name, word) = self.next_word().await;
            if let PeerWord::Acknowledged(acknowledged) = word
                && name.as_str() == peer
            {
                let of = |(network, acknowledged): (&NetworkName, &Acknowledgement)| {
                    (network.to_string(), acknowledged.heard.revision)
                };
                if acknowledged.iter().map(of).collect::<Vec<_>>() == wanted {
                    return;
                }
            }
        }
    }

    async fn next_word(&mut self) -> (NodeName, PeerWord) {
        tokio::time::timeout(PATIENCE, self.words.recv()).await.expect("a word").unwrap()
    }

    /// Asks a host how it sees its own peers.
    pub(super) async fn asks(&self, node: &str) -> tokio::sync::oneshot::Receiver<Vec<PeerCell>> {
        let (answer, row) = tokio::sync::oneshot::channel();
        self.asks.send((node.parse().unwrap(), answer)).await.unwrap();
        row
    }

    /// Tells a peer of hosts that have changed.
    pub(super) fn hints(&self, to: &str, about: &[&str]) {
        let about = about.iter().map(|name| name.parse().unwrap()).collect();
        self.hints.try_send((to.parse().unwrap(), about)).unwrap();
    }

    /// Waits for a hint: who gives it, and whom it is about.
    pub(super) async fn hears_hint(&mut self) -> (String, Vec<String>) {
        let hint = tokio::time::timeout(PATIENCE, self.heard_hints.recv()).await.expect("a hint").unwrap();
        (hint.0.to_string(), hint.1.iter().map(ToString::to_string).collect())
    }

    pub(super) fn is_up(&self, peer: &str) -> bool {
        let peer: NodeName = peer.parse().unwrap();
        self.channels.borrow().peers.get(&peer).is_some_and(|state| state.down.is_none())
    }

    pub(super) async fn await_up(&self, peer: &str) {
        self.until(|| self.is_up(peer).then_some(())).await;
    }

    /// Waits for an obstacle of this kind; its words.
    pub(super) async fn await_down(&self, peer: &str, kind: ObstacleKind) -> String {
        let peer: NodeName = peer.parse().unwrap();
        self.until(|| {
            let channels = self.channels.borrow();
            let down = channels.peers.get(&peer)?.down.clone()?;
            (down.kind == kind).then_some(down.words)
        })
        .await
    }

    pub(super) async fn await_listening(&self) {
        let listening = async {
            while TcpStream::connect(self.here).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.unwrap();
    }

    pub(super) async fn await_refused(&self, reason: &str) {
        self.await_refusals(reason, 1).await;
    }

    pub(super) async fn await_refusals(&self, reason: &str, count: u64) {
        self.until(|| (self.refused(reason) >= count).then_some(())).await;
    }

    pub(super) async fn await_ended(&self, reason: &str, count: u64) {
        self.until(|| (self.ended(reason) >= count).then_some(())).await;
    }

    pub(super) fn refused(&self, reason: &str) -> u64 {
        self.count("sealane_agent_peer_refused_total", reason)
    }

    pub(super) fn ended(&self, reason: &str) -> u64 {
        self.count("sealane_agent_peer_ended_total", reason)
    }

    fn count(&self, name: &str, reason: &str) -> u64 {
        let families = gather(&self.registry);
        let series = families.iter().filter(|family| family.name == name).flat_map(|family| &family.series);
        let of = |labels: &[(String, String)]| labels.iter().any(|(_, value)| value == reason);
        series
            .filter(|series| of(&series.labels))
            .map(|series| match series.reading {
                Reading::Value(value) => value as u64,
                Reading::Histogram { .. } => 0,
            })
            .sum()
    }

    async fn until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("what was awaited")
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Believes whoever answers.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Calls with this identity whoever is there, and waits for an answer.
pub(super) async fn call_as_anybody(identity: &TlsIdentity, to: SocketAddr) -> io::Result<u8> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider())))
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .unwrap();
    let name = ServerName::from(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST));
    let stream = TcpStream::connect(to).await?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await?.read_u8().await
}
