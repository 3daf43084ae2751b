//! Messages of the sidecar channel to domain types and back.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sealane_base::metrics::{Family, MetricKind, Reading, Series};
use sealane_sys::memfd;
use zeroize::Zeroize;

use super::{
    Change, ChannelError, Config, Down, EndpointTrouble, Hello, Identity, Listeners, Measured, Portion, Told,
    Up, Want,
};
use crate::wire::v1;

/// A message and the descriptors that go with it.
pub(super) struct Parcel<M> {
    pub(super) message: M,
    pub(super) fds: Vec<OwnedFd>,
}

impl<M> Parcel<M> {
    fn bare(message: M) -> Self {
        Self { message, fds: Vec::new() }
    }
}

/// A message type of one direction of the channel.
pub trait Message: Sized {
    /// Wire form.
    #[doc(hidden)]
    type Wire: prost::Message + Default;
    #[doc(hidden)]
    fn pack(self) -> Result<(Self::Wire, Vec<OwnedFd>), ChannelError>;
    #[doc(hidden)]
    fn unpack(wire: Self::Wire, fds: Vec<OwnedFd>) -> Result<Self, ChannelError>;
}

fn malformed(what: &'static str) -> ChannelError {
    ChannelError::Malformed(what.to_owned())
}

fn parsed<T: std::str::FromStr<Err: ToString>>(text: &str) -> Result<T, ChannelError> {
    text.parse().map_err(|error: T::Err| ChannelError::Malformed(error.to_string()))
}

impl Message for Up {
    type Wire = v1::SidecarUp;

    fn pack(self) -> Result<(v1::SidecarUp, Vec<OwnedFd>), ChannelError> {
        use v1::sidecar_up::Message as M;
        let message = match self {
            Self::Hello(hello) => M::Hello(v1::SidecarHello {
                workload: hello.workload.to_string(),
                network: hello.network.to_string(),
                version: hello.version,
                has_listeners: hello.has_listeners,
                leaves: hello.leaves,
                follows: hello.follows,
                answers: hello.answers,
                fails_over: hello.fails_over,
                asks: hello.asks,
                calls: numbers(&hello.calls),
            }),
            Self::Applied { sequence } => M::Applied(v1::Applied { sequence }),
            Self::Metrics(Measured { families, troubles }) => M::Metrics(v1::MetricFamilies {
                families: families.into_iter().map(family_to_wire).collect(),
                troubles: troubles.into_iter().map(trouble_to_wire).collect(),
            }),
            Self::Drained => M::Drained(v1::Drained {}),
            Self::Pong => M::Pong(v1::Pong {}),
            Self::Want(Want { addresses, unused }) => {
                M::Want(v1::Want { addresses: numbers(&addresses), unused: numbers(&unused) })
            }
        };
        Ok((v1::SidecarUp { message: Some(message) }, Vec::new()))
    }

    fn unpack(wire: v1::SidecarUp, _fds: Vec<OwnedFd>) -> Result<Self, ChannelError> {
        use v1::sidecar_up::Message as M;
        Ok(match wire.message.ok_or_else(|| malformed("an empty message"))? {
            M::Hello(hello) => Self::Hello(Hello {
                workload: parsed(&hello.workload)?,
                network: parsed(&hello.network)?,
                version: hello.version,
                has_listeners: hello.has_listeners,
                leaves: hello.leaves,
                follows: hello.follows,
                answers: hello.answers,
                fails_over: hello.fails_over,
                asks: hello.asks,
                calls: addresses(&hello.calls),
            }),
            M::Applied(applied) => Self::Applied { sequence: applied.sequence },
            M::Metrics(measured) => {
                let families = measured.families.into_iter().map(family_from_wire);
                let troubles = measured.troubles.into_iter().map(trouble_from_wire);
                Self::Metrics(Measured {
                    families: families.collect::<Result<_, _>>()?,
                    troubles: troubles.collect::<Result<_, _>>()?,
                })
            }
            M::Drained(v1::Drained {}) => Self::Drained,
            M::Pong(v1::Pong {}) => Self::Pong,
            M::Want(v1::Want { addresses: wanted, unused }) => {
                Self::Want(Want { addresses: addresses(&wanted), unused: addresses(&unused) })
            }
        })
    }
}

impl Message for Down {
    type Wire = v1::SidecarDown;

    fn pack(self) -> Result<(v1::SidecarDown, Vec<OwnedFd>), ChannelError> {
        use v1::sidecar_down::Message as M;
        let parcel = match self {
            Self::Listeners(listeners) => {
                Parcel { message: M::Listeners(v1::Listeners {}), fds: listeners.into() }
            }
            Self::Identity(identity) => pack_identity(identity)?,
            Self::Config(config) => Parcel::bare(M::Config(v1::SidecarConfig {
                sequence: config.sequence,
                trust_domain: config.trust_domain.to_string(),
                workload: Some((&config.workload).into()),
                state: config.network.encoded(),
                portion: config.portion.map(|Portion { addresses, service }| v1::Portion {
                    addresses: numbers(&addresses),
                    service: service.as_ref().map(Into::into),
                }),
            })),
            Self::Change(Change { sequence, since, change, told, untold }) => {
                let (change, told, untold) = (change.encoded(), numbers(&told), numbers(&untold));
                Parcel::bare(M::Change(v1::SidecarChange { sequence, since, change, told, untold }))
            }
            Self::Away(addresses) => {
                let addresses = addresses.into_iter().map(octets).collect();
                Parcel::bare(M::Away(v1::Away { addresses }))
            }
            Self::Collect => Parcel::bare(M::Collect(v1::Collect {})),
            Self::Ping => Parcel::bare(M::Ping(v1::Ping {})),
            Self::Drain { deadline } => {
                Parcel::bare(M::Drain(v1::Drain { deadline_millis: millis(deadline) }))
            }
            Self::Leave { deadline } => {
                Parcel::bare(M::Leave(v1::Leave { deadline_millis: millis(deadline) }))
            }
        };
        Ok((v1::SidecarDown { message: Some(parcel.message) }, parcel.fds))
    }

    fn unpack(wire: v1::SidecarDown, fds: Vec<OwnedFd>) -> Result<Self, ChannelError> {
        use v1::sidecar_down::Message as M;
        Ok(match wire.message.ok_or_else(|| malformed("an empty message"))? {
            M::Listeners(v1::Listeners {}) => Self::Listeners(Listeners::try_from(fds)?),
            M::Identity(identity) => Self::Identity(unpack_identity(identity, fds)?),
            M::Config(config) => {
                let workload =
                    config.workload.ok_or_else(|| malformed("a configuration needs a workload"))?;
                Self::Config(Box::new(Config {
                    sequence: config.sequence,
                    trust_domain: parsed(&config.trust_domain)?,
                    workload: workload.try_into()?,
                    network: Told::decode(config.state)?,
                    portion: config.portion.map(unpack_portion).transpose()?,
                }))
            }
            M::Change(v1::SidecarChange { sequence, since, change, told, untold }) => {
                let (change, told, untold) = (Told::decode(change)?, addresses(&told), addresses(&untold));
                Self::Change(Change { sequence, since, change, told, untold })
            }
            M::Away(v1::Away { addresses: away }) => {
                Self::Away(away.iter().map(|octets| address(octets)).collect::<Result<_, _>>()?)
            }
            M::Collect(v1::Collect {}) => Self::Collect,
            M::Ping(v1::Ping {}) => Self::Ping,
            M::Drain(drain) => Self::Drain { deadline: Duration::from_millis(drain.deadline_millis.into()) },
            M::Leave(leave) => Self::Leave { deadline: Duration::from_millis(leave.deadline_millis.into()) },
        })
    }
}

fn unpack_portion(wire: v1::Portion) -> Result<Portion, ChannelError> {
    let service = wire.service.map(TryInto::try_into).transpose()?;
    Ok(Portion { addresses: addresses(&wire.addresses), service })
}

fn numbers(addresses: &BTreeSet<Ipv4Addr>) -> Vec<u32> {
    addresses.iter().map(|address| address.to_bits()).collect()
}

fn addresses(numbers: &[u32]) -> BTreeSet<Ipv4Addr> {
    numbers.iter().copied().map(Ipv4Addr::from_bits).collect()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn address(octets: &[u8]) -> Result<IpAddr, ChannelError> {
    let v4 = || Some(<[u8; 4]>::try_from(octets).ok()?.into());
    let v6 = || Some(<[u8; 16]>::try_from(octets).ok()?.into());
    v4().or_else(v6).ok_or_else(|| malformed("an address of other than 4 or 16 octets"))
}

fn millis(deadline: Duration) -> u32 {
    deadline.as_millis().try_into().unwrap_or(u32::MAX)
}

fn pack_identity(identity: Identity) -> Result<Parcel<v1::sidecar_down::Message>, ChannelError> {
    let mut secret = identity.key;
    let key = memfd::sealed("sealane-key", secret.secret_der());
    secret.zeroize();
    let key = key?;
    let not_after = identity.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
    let bytes = |certs: Vec<CertificateDer<'_>>| certs.iter().map(|cert| cert.to_vec()).collect();
    let message = v1::SidecarIdentity {
        spiffe_id: identity.spiffe_id.to_string(),
        chain: bytes(identity.chain),
        roots: bytes(identity.roots),
        not_after_unix_seconds: not_after.as_secs(),
    };
    Ok(Parcel { message: v1::sidecar_down::Message::Identity(message), fds: vec![key] })
}

fn unpack_identity(wire: v1::SidecarIdentity, fds: Vec<OwnedFd>) -> Result<Identity, ChannelError> {
    let [key] = fds.try_into().map_err(|_| malformed("an identity needs one descriptor"))?;
    let certs = |certs: Vec<Vec<u8>>| certs.into_iter().map(CertificateDer::from).collect();
    Ok(Identity {
        spiffe_id: parsed(&wire.spiffe_id)?,
        chain: certs(wire.chain),
        roots: certs(wire.roots),
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(memfd::read(key)?)),
        not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(wire.not_after_unix_seconds),
    })
}

fn trouble_to_wire(trouble: EndpointTrouble) -> v1::EndpointTrouble {
    v1::EndpointTrouble {
        address: trouble.address.to_string(),
        reason: trouble.reason,
        failures: trouble.failures,
        for_seconds: trouble.lasting.as_secs(),
    }
}

fn trouble_from_wire(wire: v1::EndpointTrouble) -> Result<EndpointTrouble, ChannelError> {
    Ok(EndpointTrouble {
        address: parsed(&wire.address)?,
        reason: wire.reason,
        failures: wire.failures,
        lasting: Duration::from_secs(wire.for_seconds),
    })
}

fn family_to_wire(family: Family) -> v1::MetricFamily {
    let series = |series: Series| {
        let labels = series.labels.into_iter();
        let labels = labels.map(|(name, value)| v1::MetricLabel { name, value }).collect();
        match series.reading {
            Reading::Value(value) => v1::MetricSeries { labels, value, ..Default::default() },
            Reading::Histogram { buckets, sum, count } => {
                let bucket =
                    |(upper_bound, cumulative_count)| v1::MetricBucket { upper_bound, cumulative_count };
                let buckets = buckets.into_iter().map(bucket).collect();
                v1::MetricSeries { labels, buckets, sum, count, value: 0.0 }
            }
        }
    };
    v1::MetricFamily {
        name: family.name,
        help: family.help,
        kind: family.kind.as_str().to_owned(),
        series: family.series.into_iter().map(series).collect(),
    }
}

fn family_from_wire(wire: v1::MetricFamily) -> Result<Family, ChannelError> {
    let kind = [MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram]
        .into_iter()
        .find(|kind| kind.as_str() == wire.kind);
    let kind = kind.ok_or_else(|| malformed("a metric family of unknown kind"))?;
    let series = |series: v1::MetricSeries| Series {
        labels: series.labels.into_iter().map(|label| (label.name, label.value)).collect(),
        reading: match kind {
            MetricKind::Counter | MetricKind::Gauge => Reading::Value(series.value),
            MetricKind::Histogram => {
                let bucket = |bucket: v1::MetricBucket| (bucket.upper_bound, bucket.cumulative_count);
                let buckets = series.buckets.into_iter().map(bucket).collect();
                Reading::Histogram { buckets, sum: series.sum, count: series.count }
            }
        },
    };
    let series = wire.series.into_iter().map(series).collect();
    Ok(Family { name: wire.name, help: wire.help, kind, series })
}
