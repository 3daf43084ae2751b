//! Protocol between agent and sidecar: messages and descriptors over one unix stream socket.
//!
//! The sidecar connects to `<run-dir>/channel/sidecar.sock` and says [`Hello`]; the agent answers with listeners (unless
//! the sidecar has them), an identity and a configuration, and again whenever one changes; of a configuration in which
//! no more than services and other workloads have changed, it says what has. The sidecar goes on with what it has when
//! the agent is gone, and connects again.
//!
//! A sidecar that says so is told a [`Portion`] of the network alone: what is at the addresses that its workload calls. At
//! the first call to another one it says [`Up::Want`], and a change tells it what is there.

mod channel;
pub(crate) mod convert;
mod told;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sealane_base::metrics::Family;

use crate::identity::SpiffeId;
use crate::resource::{NetworkChange, NetworkContent, Service, Workload};
use crate::types::{NetworkName, ServicePort, Transport, TrustDomain, WorkloadName};

pub use channel::{Channel, ChannelError, MAX_MESSAGE, Receiver, Sender};
pub use told::{Tell, Told};

/// The mark (SO_MARK) on everything a sidecar sends, by which the redirect rules let it pass.
pub const MARK: u32 = 0x0005_ea1a;

/// The ports that a sidecar listens on in its workload's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SidecarPorts {
    /// Port that the workload's own calls are redirected to.
    pub outbound: u16,
    /// Port that calls from outside without a tunnel are redirected to.
    pub inbound: u16,
    /// Port at which tunnels from other sidecars arrive.
    pub tunnel: u16,
}

impl Default for SidecarPorts {
    fn default() -> Self {
        Self { outbound: 15001, inbound: 15006, tunnel: 15008 }
    }
}

impl SidecarPorts {
    /// Returns true if a workload cannot offer `port` because its sidecar listens there.
    #[must_use]
    pub fn has(self, port: &ServicePort) -> bool {
        port.protocol.transport() == Transport::Tcp && self.contains(port.port.get())
    }

    /// Returns true if `port` is one of the sidecar's own.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        [self.outbound, self.inbound, self.tunnel].contains(&port)
    }
}

/// From the sidecar.
#[derive(Debug)]
pub enum Up {
    /// The first message.
    Hello(Hello),
    /// Every new connection and request is served by the configuration of this sequence.
    Applied {
        /// [`Config::sequence`].
        sequence: u64,
    },
    /// The answer to [`Down::Collect`].
    Metrics(Measured),
    /// The answer to [`Down::Drain`], right before the sidecar ends.
    Drained,
    /// The answer to [`Down::Ping`], once every worker has had its turn.
    Pong,
    /// Asks for another [`Portion`]; only to an agent whose last configuration was one.
    Want(Want),
}

/// Addresses of the network by which a sidecar's portion of it is to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Addresses that matter to its workload, and of which it was not told.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Addresses of which it need not be told any more.
    pub unused: BTreeSet<Ipv4Addr>,
}

/// Counters of a sidecar and the endpoints it has trouble with now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Metric families.
    pub families: Vec<Family>,
    /// Endpoints at which the newest attempts failed.
    pub troubles: Vec<EndpointTrouble>,
}

/// An endpoint at which the newest attempts failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointTrouble {
    /// Address in the network.
    pub address: IpAddr,
    /// Cause of the newest failure, in the words of metrics.
    pub reason: String,
    /// Number of failures since the last success.
    pub failures: u64,
    /// Time since the first of them failed, in whole seconds on the wire.
    pub lasting: Duration,
}

/// Introduction of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The workload it serves.
    pub workload: WorkloadName,
    /// In which network.
    pub network: NetworkName,
    /// The sidecar's version.
    pub version: String,
    /// True if it has its listeners already.
    pub has_listeners: bool,
    /// True if it knows [`Down::Leave`].
    pub leaves: bool,
    /// Says that the sidecar knows [`Down::Change`].
    pub follows: bool,
    /// True if it knows [`Down::Ping`].
    pub answers: bool,
    /// True if it knows [`Down::Away`].
    pub fails_over: bool,
    /// True if it knows [`Portion`].
    pub asks: bool,
    /// The addresses that it was told of, or has asked about.
    pub calls: BTreeSet<Ipv4Addr>,
}

/// From the agent.
#[derive(Debug)]
pub enum Down {
    /// The listening sockets.
    Listeners(Listeners),
    /// Identity of the sidecar from now on.
    Identity(Identity),
    /// Configuration from now on.
    Config(Box<Config>),
    /// Another configuration, by its difference from the one before.
    Change(Change),
    /// The addresses of the workloads, and of no others, whose hosts cannot be reached from here: calls under way there are not worth
    /// waiting for.
    Away(BTreeSet<IpAddr>),
    /// Asks for [`Up::Metrics`].
    Collect,
    /// Asks for [`Up::Pong`]: one that does not answer hangs, or is stopped.
    Ping,
    /// No new work; end when the work in progress is done, at most after this long.
    Drain {
        /// Limit for work in progress.
        deadline: Duration,
    },
    /// Another sidecar takes what is new from now on; what runs goes on here, with new identities and configurations, and
    /// connections between two requests stay. End when it is done, at most after this long.
    Leave {
        /// Limit for work in progress.
        deadline: Duration,
    },
}

/// Listening sockets in the workload's namespace.
#[derive(Debug)]
pub struct Listeners {
    /// For redirected calls of the workload.
    pub outbound: OwnedFd,
    /// For redirected calls to the workload.
    pub inbound: OwnedFd,
    /// For tunnels.
    pub tunnel: OwnedFd,
    /// For redirected calls over IPv6, of the workload and to it, where its network has that.
    pub ipv6: Option<[OwnedFd; 2]>,
}

impl From<Listeners> for Vec<OwnedFd> {
    /// In the order in which they are taken back.
    fn from(listeners: Listeners) -> Self {
        let Listeners { outbound, inbound, tunnel, ipv6 } = listeners;
        [outbound, inbound, tunnel].into_iter().chain(ipv6.into_iter().flatten()).collect()
    }
}

impl TryFrom<Vec<OwnedFd>> for Listeners {
    type Error = ChannelError;

    fn try_from(mut fds: Vec<OwnedFd>) -> Result<Self, ChannelError> {
        let wrong =
            |_| ChannelError::Malformed("a sidecar has three listeners, or five with IPv6".to_owned());
        let ipv6 = fds.split_off(fds.len().min(3));
        let ipv6 = if ipv6.is_empty() { None } else { Some(ipv6.try_into().map_err(wrong)?) };
        let [outbound, inbound, tunnel] = fds.try_into().map_err(wrong)?;
        Ok(Self { outbound, inbound, tunnel, ipv6 })
    }
}

/// A certificate, its key and whom to trust.
#[derive(Debug)]
pub struct Identity {
    /// Name in the certificate.
    pub spiffe_id: SpiffeId,
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The mesh's roots.
    pub roots: Vec<CertificateDer<'static>>,
    /// The private key; travels as sealed memory, never as bytes of a message.
    pub key: PrivateKeyDer<'static>,
    /// End of the certificate's validity.
    pub not_after: SystemTime,
}

/// A configuration by its difference from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The sequence of the configuration that comes of it.
    pub sequence: u64,
    /// The sequence of the one before, which is the last that was sent.
    pub since: u64,
    /// The difference.
    pub change: Told<NetworkChange>,
    /// Addresses that the portion has from now on.
    pub told: BTreeSet<Ipv4Addr>,
    /// Addresses that it has no more. What the difference takes away is not gone for that.
    pub untold: BTreeSet<Ipv4Addr>,
}

/// Configuration that a sidecar works by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Grows with every configuration that one agent process sends to one sidecar.
    pub sequence: u64,
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// The sidecar's own workload.
    pub workload: Workload,
    /// The network's snapshot, as this host knows it (without anything that has ended here).
    pub network: Told,
    /// Part of the network that the snapshot has; `None` if it has everything.
    pub portion: Option<Portion>,
}

/// Part of a network that a sidecar is told of: of services and workloads what is at these addresses, and the instances of
/// these services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    /// The addresses. Something may come to where nothing is.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// The service of the sidecar's own workload, whose rules it goes by.
    pub service: Option<Service>,
}

impl Config {
    /// The network, with the service of the sidecar's own workload.
    #[must_use]
    pub fn of_own(&self) -> Cow<'_, NetworkContent> {
        match &self.portion {
            None => Cow::Borrowed(&self.network.content),
            Some(Portion { service, .. }) => Cow::Owned(NetworkContent {
                services: service.iter().cloned().collect(),
                ..self.network.network.clone().into()
            }),
        }
    }
}
