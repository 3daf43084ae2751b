//! TLS between hosts: 1.3, both sides by the certificates of their nodes, revoked ones refused.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use sealane_proto::client::TlsIdentity;
use sealane_proto::identity::{Expected, PeerVerifier, Principal, SerialPrefix, Trust, peer_identity};
use sealane_proto::types::NodeName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::certs::key::Validity;

/// Name of the protocol in TLS (ALPN, RFC 7301).
const ALPN: &[u8] = b"sealane-peer/1";
/// Name of one in which nothing is said: who calls only wants to see who is there.
const LOOK: &[u8] = b"sealane-place/1";

/// Identity of this host, and whom it trusts, at one moment.
#[derive(Debug)]
pub(super) struct Credentials {
    identity: Arc<TlsIdentity>,
    trust: Trust,
    revoked: Arc<BTreeSet<SerialPrefix>>,
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
}

/// A connection to a host that has proved who it is.
#[derive(Debug)]
pub(super) struct Secured {
    /// The connection.
    pub(super) stream: TlsStream<TcpStream>,
    /// Name of the host.
    pub(super) peer: NodeName,
    /// Beginning of its certificate's serial number.
    pub(super) serial: SerialPrefix,
    /// End of its certificate.
    pub(super) ends: SystemTime,
    /// Addresses of the connection: this host's, and the other one's.
    pub(super) way: (IpAddr, IpAddr),
}

impl Credentials {
    /// Sets what this host shows and whom it trusts from now on.
    ///
    /// # Errors
    /// When the identity cannot be used.
    pub(super) fn new(
        identity: Arc<TlsIdentity>,
        revoked: Arc<BTreeSet<SerialPrefix>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let trust = identity.trust.revoking(revoked.clone());
        let verifier = PeerVerifier::new(trust.clone(), Expected::AnyNode, &provider);
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
        server.alpn_protocols = vec![ALPN.to_vec(), LOOK.to_vec()];
        // A resumed session would skip the check of the client's certificate.
        server.send_tls13_tickets = 0;
        Ok(Self { identity, trust, revoked, provider, server: Arc::new(server) })
    }

    /// Returns true if hosts with this serial number were removed from the mesh.
    pub(super) fn revokes(&self, serial: &SerialPrefix) -> bool {
        self.revoked.contains(serial)
    }

    /// Answers a host that has called; `None` if it only wanted to see who is here.
    ///
    /// # Errors
    /// When it is none of the mesh's hosts, or the connection breaks.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Option<Secured>> {
        stream.set_nodelay(true)?;
        let stream = TlsAcceptor::from(self.server.clone()).accept(stream).await?;
        if stream.get_ref().1.alpn_protocol() == Some(LOOK) {
            return Ok(None);
        }
        Secured::of(TlsStream::from(stream)).map(Some)
    }

    /// Calls this host.
    ///
    /// # Errors
    /// When another one answers, or the connection breaks.
    pub(super) async fn connect(&self, peer: &NodeName, stream: TcpStream) -> io::Result<Secured> {
        Secured::of(self.shake_hands(peer, stream, ALPN).await?)
    }

    /// Looks whether this host is at the other end, and no more.
    ///
    /// # Errors
    /// When another one answers, or the connection breaks.
    pub(super) async fn look(&self, peer: &NodeName, stream: TcpStream) -> io::Result<()> {
        self.shake_hands(peer, stream, LOOK).await.map(drop)
    }

    async fn shake_hands(
        &self,
        peer: &NodeName,
        stream: TcpStream,
        protocol: &[u8],
    ) -> io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        let expected = Expected::Exactly(Principal::Node(peer.clone()));
        let verifier = PeerVerifier::new(self.trust.clone(), expected, &self.provider);
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(self.identity.chain.clone(), self.identity.key.clone_key())
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::disabled();
        // The peer is known by its SPIFFE identity; this name only fills the field.
        let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(TlsStream::from(stream))
    }
}

impl Secured {
    fn of(stream: TlsStream<TcpStream>) -> io::Result<Self> {
        let (socket, connection) = stream.get_ref();
        let ends_of = [socket.local_addr()?, socket.peer_addr()?];
        let [here, there] = ends_of.map(|end| end.ip().to_canonical());
        let chain: Option<&[CertificateDer<'_>]> = connection.peer_certificates();
        let unfit = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(unfit("it does not speak the protocol between hosts"));
        }
        let peer = match peer_identity(chain).map(|identity| identity.principal) {
            Some(Principal::Node(node)) => node,
            Some(Principal::Control | Principal::Service(..) | Principal::Workload(..)) | None => {
                return Err(unfit("it is no host"));
            }
        };
        let leaf = chain.and_then(|chain| chain.first());
        let serial =
            leaf.and_then(SerialPrefix::of).ok_or_else(|| unfit("its certificate has no serial number"))?;
        let validity = leaf.and_then(|leaf| Validity::of(leaf).ok());
        let ends = validity.ok_or_else(|| unfit("its certificate has no end"))?.not_after;
        Ok(Self { stream, peer, serial, ends, way: (here, there) })
    }
}
