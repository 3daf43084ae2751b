//! A host as control sees it: a key, a certificate, calls and a stream.
#![allow(clippy::unwrap_used, reason = "a test helper fails by panicking")]
#![allow(clippy::result_large_err, reason = "what is not wanted is handed back whole")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use sealane_control::Control;
use sealane_proto::client::uplink::network_state;
use sealane_proto::identity::{Expected, PeerVerifier, Principal, Trust, peer_identity};
use sealane_proto::token::{JoinToken, Pin};
use sealane_proto::wire::{PROTOCOL, v1};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use v1::admin_client::AdminClient;
use v1::agent_message::Message as Up;
use v1::control_client::ControlClient;
use v1::control_message::Message as Down;
use v1::read_client::ReadClient;

/// Longer than any step takes on a busy machine; shorter than a test runner's patience.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// A request that also asks for what it must not get.
fn csr(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let uri = "spiffe://sealane/control".to_owned().try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    params.serialize_request(key).unwrap().der().to_vec()
}

pub(crate) fn request(token: &JoinToken, name: &str, underlay: &str, key: &KeyPair) -> v1::JoinRequest {
    v1::JoinRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.to_string(),
        node: name.into(),
        underlay: underlay.into(),
        csr: csr(key),
        protocol: PROTOCOL,
        version: "0.0.0-test".into(),
        oldest_protocol: 0,
        underlay_other: String::new(),
        unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
    }
}

pub(crate) async fn join_with(
    control: &Control,
    token: &JoinToken,
    request: v1::JoinRequest,
) -> Result<v1::JoinResponse, Status> {
    let anonymous = Host::anonymous(control.local_addr(), token.pin).await.unwrap();
    anonymous.client().join(request).await.map(tonic::Response::into_inner)
}

pub(crate) async fn join(
    control: &Control,
    token: &JoinToken,
    name: &str,
    underlay: &str,
) -> Result<Host, Status> {
    let key = key();
    let answer = join_with(control, token, request(token, name, underlay, &key)).await?;
    let certificate = answer.certificate.unwrap();
    assert_eq!(identity(&certificate), format!("spiffe://sealane/node/{name}"));
    assert_eq!(Pin::of(&certificate.roots[0]), token.pin);
    Ok(Host::new(control.local_addr(), key, certificate).await)
}

pub(crate) fn identity(certificate: &v1::Certificate) -> String {
    let chain: Vec<CertificateDer<'_>> =
        certificate.chain.iter().map(|cert| cert.as_slice().into()).collect();
    peer_identity(Some(&chain)).unwrap().to_string()
}

async fn unix(directory: &Path) -> Channel {
    let path = directory.join("run/control.sock");
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://control.sock").connect_with_connector(connector).await.unwrap()
}

pub(crate) async fn admin(directory: &Path) -> AdminClient<Channel> {
    AdminClient::new(unix(directory).await)
}

pub(crate) async fn read(directory: &Path) -> ReadClient<Channel> {
    ReadClient::new(unix(directory).await)
}

pub(crate) struct Host {
    channel: Channel,
    identity: Option<(KeyPair, v1::Certificate)>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}

impl Host {
    /// Without a certificate, as long as the server's chain holds the pinned authority.
    pub(crate) async fn anonymous(address: SocketAddr, pin: Pin) -> Result<Self, String> {
        Ok(Self { channel: channel(address, pinned(pin)).await?, identity: None })
    }

    async fn new(address: SocketAddr, key: KeyPair, certificate: v1::Certificate) -> Self {
        let config = identified(&key, &certificate, true);
        Self { channel: channel(address, config).await.unwrap(), identity: Some((key, certificate)) }
    }

    /// The same host at another control plane's address, which it trusts whoever that is.
    pub(crate) async fn elsewhere(self, address: SocketAddr) -> Self {
        let (key, certificate) = self.identity.unwrap();
        let config = identified(&key, &certificate, false);
        Self { channel: channel(address, config).await.unwrap(), identity: Some((key, certificate)) }
    }

    pub(crate) fn client(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
    }

    pub(crate) async fn carry(&self, network: &str, blocks_held: u32) -> Result<Vec<String>, Status> {
        let request = v1::CarryRequest { network: network.into(), blocks_held, ahead: false };
        let carried = self.client().carry(request).await?.into_inner();
        Ok(carried.blocks.into_iter().map(|block| block.range).collect())
    }

    pub(crate) async fn sign(
        &self,
        network: &str,
        service: &str,
        workload: &str,
    ) -> Result<v1::Certificate, Status> {
        let request = v1::SignRequest {
            network: network.into(),
            service: service.into(),
            workload: workload.into(),
            csr: csr(&key()),
        };
        Ok(self.client().sign(request).await?.into_inner().certificate.unwrap())
    }

    pub(crate) async fn open(&self, first: Up) -> Stream {
        let (up, messages) = mpsc::channel(16);
        up.send(v1::AgentMessage { message: Some(first) }).await.unwrap();
        let down = self.client().sync(ReceiverStream::new(messages)).await.unwrap().into_inner();
        let beats = up.clone();
        let beats = sealane_base::task::spawn("heartbeats", async move {
            let beat = || v1::AgentMessage { message: Some(Up::Heartbeat(v1::Heartbeat::default())) };
            let mut every = tokio::time::interval(Duration::from_secs(2));
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                every.tick().await;
                if beats.send(beat()).await.is_err() {
                    break;
                }
            }
        });
        Stream { up, down, states: VecDeque::new(), _beats: beats }
    }

    /// A greeted stream.
    pub(crate) async fn sync(&self, applied: Vec<v1::Ack>) -> Stream {
        let hello =
            v1::Hello { protocol: PROTOCOL, version: "0.0.0-test".into(), applied, ..v1::Hello::default() };
        let mut stream = self.open(Up::Hello(hello)).await;
        let Down::Welcome(welcome) = stream.next().await else { panic!("no welcome") };
        assert!(welcome.protocol == PROTOCOL && welcome.epoch != 0 && welcome.roots.len() == 1);
        stream
    }
}

pub(crate) struct Stream {
    up: mpsc::Sender<v1::AgentMessage>,
    down: tonic::Streaming<v1::ControlMessage>,
    states: VecDeque<Bytes>,
    /// Alive also while the test looks elsewhere.
    _beats: sealane_base::task::Task,
}

impl Stream {
    pub(crate) async fn send(&self, message: Up) {
        self.up.send(v1::AgentMessage { message: Some(message) }).await.unwrap();
    }

    pub(crate) async fn report(&self, sequence: u64, workloads: Vec<v1::Workload>) {
        self.send(Up::Report(v1::Report { sequence, workloads, networks: vec![], offers: vec![] })).await;
    }

    pub(crate) async fn ack(&self, state: &v1::NetworkState) {
        let network = state.network.as_ref().unwrap().name.clone();
        self.send(Up::Ack(v1::Ack { network, generation: state.generation, voucher: None })).await;
    }

    async fn message(&mut self) -> Result<Option<v1::ControlMessage>, Status> {
        let message = tokio::time::timeout(PATIENCE, self.down.message()).await;
        message.unwrap_or_else(|_| panic!("control said nothing for {PATIENCE:?}"))
    }

    pub(crate) async fn next(&mut self) -> Down {
        self.message().await.unwrap().expect("the stream ended").message.unwrap()
    }

    /// Waits for the end of the stream, whatever comes before; returns its reason.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match self.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("ended"),
                Err(status) => return status,
            }
        }
    }

    /// The next state that [`Stream::reported`] or this has not passed on yet.
    pub(crate) async fn state(&mut self) -> v1::NetworkState {
        if let Some(state) = self.states.pop_front() {
            return read_state(state);
        }
        let pick = |down| if let Down::State(state) = down { Ok(state) } else { Err(down) };
        read_state(self.wait_for("a state", pick).await)
    }

    /// The next answer to a report; the state that it leads to may come before it.
    pub(crate) async fn reported(&mut self) -> v1::Reported {
        let pick = |down| if let Down::Reported(reported) = down { Ok(reported) } else { Err(down) };
        self.wait_for("an answer to the report", pick).await
    }

    /// The next settled sequence; states that come before are acknowledged.
    pub(crate) async fn settled(&mut self) -> u64 {
        loop {
            let pick = |down| match down {
                Down::Settled(settled) => Ok(Ok(settled.sequence)),
                Down::State(state) => Ok(Err(state)),
                Down::Heartbeat(_)
                | Down::Reported(_)
                | Down::Gone(_)
                | Down::Delta(_)
                | Down::Welcome(_) => Err(down),
            };
            match self.wait_for("a settled report", pick).await {
                Ok(sequence) => return sequence,
                Err(state) => self.ack(&read_state(state)).await,
            }
        }
    }

    /// Waits for the message that `pick` takes. States that it leaves are kept, all else is passed over.
    async fn wait_for<T>(&mut self, what: &str, pick: impl Fn(Down) -> Result<T, Down>) -> T {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                match pick(self.next().await) {
                    Ok(found) => return found,
                    Err(Down::State(state)) => self.states.push_back(state),
                    Err(_) => {}
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("{what} did not come within {PATIENCE:?}"))
    }
}

fn identified(key: &KeyPair, certificate: &v1::Certificate, strict: bool) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certs = |certs: &[Vec<u8>]| -> Vec<CertificateDer<'static>> {
        certs.iter().map(|cert| cert.clone().into()).collect()
    };
    let root = certs(&certificate.roots);
    let verifier: Arc<dyn ServerCertVerifier> = if strict {
        let trust = Trust::new("sealane".parse().unwrap(), &root).unwrap();
        PeerVerifier::new(trust, Expected::Exactly(Principal::Control), &provider)
    } else {
        Arc::new(Anyone(provider.clone()))
    };
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(certs(&certificate.chain), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap()
}

/// Without a certificate, trusting the pinned authority.
pub(crate) fn pinned(pin: Pin) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Pinned { pin, provider: provider.clone() });
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

pub(crate) async fn connected(
    address: SocketAddr,
    mut config: ClientConfig,
) -> Result<TlsStream<TcpStream>, String> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from("sealane").unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    tls.map_err(|error| error.to_string())
}

async fn channel(address: SocketAddr, config: ClientConfig) -> Result<Channel, String> {
    let tls = Mutex::new(Some(connected(address, config).await?));
    let connector = tower::service_fn(move |_| {
        let stream = tls.lock().unwrap().take().ok_or_else(|| std::io::Error::other("one connection only"));
        std::future::ready(stream.map(TokioIo::new))
    });
    let endpoint = Endpoint::from_static("http://control.sealane");
    endpoint.connect_with_connector(connector).await.map_err(|error| error.to_string())
}

#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

/// Trusts whoever answers: to see what the server makes of a stranger.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

macro_rules! signatures {
    ($provider:tt) => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2 is not spoken here".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.$provider.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates.iter().any(|cert| Pin::of(cert) == self.pin);
        let refusal = || Error::General("not the pinned authority".into());
        if pinned { Ok(ServerCertVerified::assertion()) } else { Err(refusal()) }
    }

    signatures!(provider);
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures!(0);
}

/// The state that control has sent.
pub(crate) fn read_state(state: Bytes) -> v1::NetworkState {
    network_state(state).unwrap()
}
