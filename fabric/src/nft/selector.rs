//! Parts of a packet that rules look at, and what the kernel knows of it. Pure.

use std::fmt;

use super::datum::{FRAME_ARP, FRAME_IP, FRAME_IP6, ICMP, ICMPV6, IPV4, IPV6, KeyType, Symbol, TCP, UDP};
use super::expression::{Base, Expression};

/// NFT_META_* of linux/netfilter/nf_tables.h.
const META_PROTOCOL: u32 = 1;
pub(super) const META_MARK: u32 = 3;
const META_IIF: u32 = 4;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const META_PKTTYPE: u32 = 19;
const META_IIFKIND: u32 = 26;
const META_OIFKIND: u32 = 27;
/// NFT_CT_*.
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_PROTO_DST: u32 = 12;
/// IP_CT_DIR_ORIGINAL.
const ORIGINAL: u8 = 0;
/// NFTA_FIB_F_*, NFT_FIB_RESULT_*.
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const FIB_BY_DEVICE: u32 = 8;
const FIB_DEVICE: u32 = 1;
const FIB_TYPE: u32 = 3;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ip {
    V4,
    V6,
}

/// End of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Part of a packet, or something that is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Selector {
    /// The mark.
    Mark,
    /// The number of the device that it came by.
    Input,
    /// The name of that device.
    InputName,
    /// The kind of that device.
    InputKind,
    /// The name of the device that it leaves by.
    OutputName,
    /// The kind of that device.
    OutputKind,
    /// For whom it is, by its frame's address.
    PacketType,
    /// The family, in tables of several.
    Family,
    /// The protocol of the frame.
    Frame,
    /// The protocol behind IP.
    Protocol,
    /// The source of the frame.
    EtherSource,
    /// The protocol that is written in the frame.
    EtherType,
    ArpOperation,
    ArpSenderMac,
    ArpSenderAddress,
    /// An IP address.
    Address(Ip, End),
    /// The header behind that of IPv6.
    NextHeader,
    /// A port of TCP, of UDP, or of either.
    TcpPort(End),
    UdpPort(End),
    AnyPort(End),
    /// The type of a message of ICMP.
    Message(Ip),
    /// The state of its connection, by conntrack.
    State,
    Status,
    /// The port that the connection's first packet was for.
    OriginalPort,
    /// The kind of its destination address, for this host.
    DestinationType,
    /// The device by which answers would leave, if that is the one that it came by.
    WayBack,
    /// So many bits of the transport's header from this one on.
    Transport {
        offset: u32,
        length: u32,
    },
}

/// Facts that must be known of a packet before a part of it can be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// True if it must have come in an Ethernet frame.
    pub(crate) frame: bool,
    /// The family that it must be of.
    pub(crate) network: Option<Network>,
    /// The protocol that it must be of.
    pub(crate) transport: Option<Symbol>,
}

/// Protocol of the network's layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Ip(Ip),
    Arp,
}

impl Network {
    /// The number in frames.
    pub(crate) fn frame(self) -> Symbol {
        match self {
            Self::Ip(Ip::V4) => FRAME_IP,
            Self::Ip(Ip::V6) => FRAME_IP6,
            Self::Arp => FRAME_ARP,
        }
    }

    /// The network of this number, or of this family's.
    pub(crate) fn of(symbol: Symbol) -> Option<Self> {
        [Self::Ip(Ip::V4), Self::Ip(Ip::V6), Self::Arp]
            .into_iter()
            .find(|known| known.frame() == symbol || matches!(known, Self::Ip(ip) if ip.family() == symbol))
    }
}

impl Ip {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// NFPROTO_*.
    pub(crate) fn family(self) -> Symbol {
        match self {
            Self::V4 => IPV4,
            Self::V6 => IPV6,
        }
    }

    /// The type of its addresses.
    pub(crate) fn address(self) -> KeyType {
        match self {
            Self::V4 => KeyType::IPV4,
            Self::V6 => KeyType::IPV6,
        }
    }

    /// The word for its header.
    fn word(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn icmp(self) -> Symbol {
        match self {
            Self::V4 => ICMP,
            Self::V6 => ICMPV6,
        }
    }
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::Source => "s",
            Self::Destination => "d",
        }
    }

    fn port(self) -> u32 {
        match self {
            Self::Source => 0,
            Self::Destination => 2,
        }
    }
}

impl Selector {
    pub(crate) fn needs(self) -> Needs {
        let of = |network| Needs { network: Some(network), ..Needs::default() };
        let behind = |transport| Needs { transport: Some(transport), ..Needs::default() };
        match self {
            Self::EtherSource | Self::EtherType => Needs { frame: true, ..Needs::default() },
            Self::ArpOperation | Self::ArpSenderMac | Self::ArpSenderAddress => of(Network::Arp),
            Self::Address(ip, _) => of(Network::Ip(ip)),
            Self::NextHeader => of(Network::Ip(Ip::V6)),
            Self::TcpPort(_) => behind(TCP),
            Self::UdpPort(_) => behind(UDP),
            Self::Message(ip) => Needs { transport: Some(ip.icmp()), ..of(Network::Ip(ip)) },
            Self::Mark
            | Self::Input
            | Self::InputName
            | Self::InputKind
            | Self::OutputName
            | Self::OutputKind
            | Self::PacketType
            | Self::Family
            | Self::Frame
            | Self::Protocol
            | Self::AnyPort(_)
            | Self::State
            | Self::Status
            | Self::OriginalPort
            | Self::DestinationType
            | Self::WayBack
            | Self::Transport { .. } => Needs::default(),
        }
    }

    /// Puts it into a register.
    pub(crate) fn load(self, register: u32) -> Expression {
        let meta = |key| Expression::Meta { key, register };
        let part = |base, offset, length| Expression::Payload { base, offset, length, register };
        let tracked = |key, direction| Expression::Tracked { key, direction, register };
        let fib = |flags, result| Expression::Fib { flags, result, register };
        match self {
            Self::Mark => meta(META_MARK),
            Self::Input => meta(META_IIF),
            Self::InputName => meta(META_IIFNAME),
            Self::InputKind => meta(META_IIFKIND),
            Self::OutputName => meta(META_OIFNAME),
            Self::OutputKind => meta(META_OIFKIND),
            Self::PacketType => meta(META_PKTTYPE),
            Self::Family => meta(META_NFPROTO),
            Self::Frame => meta(META_PROTOCOL),
            Self::Protocol => meta(META_L4PROTO),
            Self::EtherSource => part(Base::Link, 6, 6),
            Self::EtherType => part(Base::Link, 12, 2),
            Self::ArpOperation => part(Base::Network, 6, 2),
            Self::ArpSenderMac => part(Base::Network, 8, 6),
            Self::ArpSenderAddress => part(Base::Network, 14, 4),
            Self::Address(Ip::V4, End::Source) => part(Base::Network, 12, 4),
            Self::Address(Ip::V4, End::Destination) => part(Base::Network, 16, 4),
            Self::Address(Ip::V6, End::Source) => part(Base::Network, 8, 16),
            Self::Address(Ip::V6, End::Destination) => part(Base::Network, 24, 16),
            Self::NextHeader => part(Base::Network, 6, 1),
            Self::TcpPort(end) | Self::UdpPort(end) | Self::AnyPort(end) => {
                part(Base::Transport, end.port(), 2)
            }
            Self::Message(_) => part(Base::Transport, 0, 1),
            Self::Transport { offset, length } => part(Base::Transport, offset / 8, length / 8),
            Self::State => tracked(CT_STATE, None),
            Self::Status => tracked(CT_STATUS, None),
            Self::OriginalPort => tracked(CT_PROTO_DST, Some(ORIGINAL)),
            Self::DestinationType => fib(FIB_DESTINATION, FIB_TYPE),
            Self::WayBack => fib(FIB_SOURCE | FIB_BY_DEVICE, FIB_DEVICE),
        }
    }

    /// The type of its values, where sets hold them.
    pub(crate) fn key_type(self) -> KeyType {
        match self {
            Self::Mark | Self::Transport { length: 32, .. } => KeyType::MARK,
            Self::InputName | Self::InputKind | Self::OutputName | Self::OutputKind => KeyType::DEVICE,
            Self::Frame | Self::EtherType => KeyType::FRAME,
            Self::Protocol | Self::NextHeader => KeyType::PROTOCOL,
            Self::ArpSenderAddress => KeyType::IPV4,
            Self::Address(ip, _) => ip.address(),
            Self::TcpPort(_) | Self::UdpPort(_) | Self::AnyPort(_) | Self::OriginalPort => KeyType::PORT,
            Self::Message(_) => KeyType::MESSAGE6,
            Self::State => KeyType::STATE,
            Self::Transport { length, .. } => KeyType { length: length / 8, ..KeyType::INTEGER },
            // No set of ours holds these.
            Self::Input
            | Self::PacketType
            | Self::Family
            | Self::EtherSource
            | Self::ArpOperation
            | Self::ArpSenderMac
            | Self::Status
            | Self::DestinationType
            | Self::WayBack => KeyType::INTEGER,
        }
    }

    /// Returns true if its values are sets of bits: a packet is one of a value when it has one of the bits.
    pub(crate) fn is_bits(self) -> bool {
        matches!(self, Self::State | Self::Status)
    }

    /// Number of bytes that it takes in a register.
    pub(crate) fn length(self) -> usize {
        if let Expression::Payload { length, .. } = self.load(0) {
            length as usize
        } else {
            self.key_type().length as usize
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Mark => "meta mark",
            Self::Input => "iif",
            Self::InputName => "iifname",
            Self::InputKind => "meta iifkind",
            Self::OutputName => "oifname",
            Self::OutputKind => "meta oifkind",
            Self::PacketType => "meta pkttype",
            Self::Family => "meta nfproto",
            Self::Frame => "meta protocol",
            Self::Protocol => "meta l4proto",
            Self::EtherSource => "ether saddr",
            Self::EtherType => "ether type",
            Self::ArpOperation => "arp operation",
            Self::ArpSenderMac => "arp saddr ether",
            Self::ArpSenderAddress => "arp saddr ip",
            Self::NextHeader => "ip6 nexthdr",
            Self::Message(Ip::V4) => "icmp type",
            Self::Message(Ip::V6) => "icmpv6 type",
            Self::State => "ct state",
            Self::Status => "ct status",
            Self::OriginalPort => "ct original proto-dst",
            Self::DestinationType => "fib daddr type",
            Self::WayBack => "fib saddr . iif oif",
            Self::Address(ip, end) => return write!(formatter, "{} {}addr", ip.word(), end.word()),
            Self::TcpPort(end) => return write!(formatter, "tcp {}port", end.word()),
            Self::UdpPort(end) => return write!(formatter, "udp {}port", end.word()),
            Self::AnyPort(end) => return write!(formatter, "th {}port", end.word()),
            Self::Transport { offset, length } => return write!(formatter, "@th,{offset},{length}"),
        };
        formatter.write_str(text)
    }
}
