//! Tracked flows whose destination was translated (linux/netfilter/nfnetlink_conntrack.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::NetlinkError;
use super::netfilter::{Attributes, NetfilterSocket, Subsystem, Verb, attribute};

const GET: u8 = 1;
const DELETE: u8 = 2;
const GET_STATS: u8 = 5;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_PROTOINFO: u16 = 4;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
/// `enum tcp_conntrack` (linux/netfilter/nf_conntrack_tcp.h).
const SYN_SENT: u8 = 1;
const CLOSE: u8 = 8;
/// CTA_IP_V4_SRC and CTA_IP_V6_SRC, CTA_IP_V4_DST and CTA_IP_V6_DST.
const SOURCES: [u16; 2] = [1, 3];
const DESTINATIONS: [u16; 2] = [2, 4];

/// State of a flow, as far as it says that no connection breaks when the flow is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// A TCP connection whose beginning nobody has answered so far.
    Begun,
    /// A TCP connection that was reset. A new one from the same port may be led where it led; one that ended in order
    /// (TIME_WAIT) makes room for a new one by itself.
    Reset,
    /// Any other, of any protocol.
    Other,
}

/// A flow as it was begun, and who answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IPPROTO_*.
    pub protocol: u8,
    /// Destination of the packets, as they were sent.
    pub destination: IpAddr,
    /// At which port.
    pub port: u16,
    /// Destination after translation; the same as before, when there was none.
    pub answerer: SocketAddr,
    /// State when it was read.
    pub state: FlowState,
    /// Attributes that name it to the kernel.
    name: Attributes,
}

impl NetfilterSocket {
    /// Returns true if any flow of the namespace is tracked: one number, which the kernel keeps.
    ///
    /// # Errors
    /// As [`NetfilterSocket::flows`].
    pub fn tracks_flows(&mut self) -> Result<bool, NetlinkError> {
        let verb = Verb { subsystem: Subsystem::Conntrack, number: GET_STATS, flags: 0, family: 0 };
        let entries = |message: &[u8]| {
            let entries = attribute(message, CTA_STATS_GLOBAL_ENTRIES)?;
            entries.try_into().ok().map(u32::from_be_bytes)
        };
        // One that does not tell may have some.
        let entries = self.ask(verb, &Attributes::default(), entries, "count its flows")?;
        Ok(entries.is_none_or(|entries| entries > 0))
    }

    /// The flows of the namespace of `family` (AF_INET or AF_INET6) that `wanted` says.
    ///
    /// Walks the host's whole table of flows: some milliseconds of a processor's time.
    ///
    /// # Errors
    /// When the socket fails, or the kernel lacks nf_conntrack_netlink.
    pub fn flows(&mut self, family: u8, wanted: impl Fn(&Flow) -> bool) -> Result<Vec<Flow>, NetlinkError> {
        let verb = Verb { subsystem: Subsystem::Conntrack, number: GET, flags: 0, family };
        let of = |message: &[u8]| Flow::parse(message).filter(&wanted);
        self.dump(verb, &Attributes::default(), of)
    }

    /// Returns the state of a flow as it is now; `None` when it is gone.
    ///
    /// # Errors
    /// As [`NetfilterSocket::forget_flow`].
    pub fn state_of(&mut self, flow: &Flow) -> Result<Option<FlowState>, NetlinkError> {
        // The kernel finds it by its tuple alone: another one may have begun from the same port.
        let same = |message: &[u8]| {
            let found = Flow::parse(message)?;
            Some((found.name == flow.name).then_some(found.state))
        };
        match self.ask(flow.verb(GET), &flow.name, same, "look at a flow") {
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_gone() => Ok(None),
            found => Ok(found?.flatten()),
        }
    }

    /// Forgets a flow; its next packet begins a new one. One that is gone already is no error.
    ///
    /// # Errors
    /// When the socket fails or the kernel refuses.
    pub fn forget_flow(&mut self, flow: &Flow) -> Result<(), NetlinkError> {
        match self.request(flow.verb(DELETE), &flow.name, "forget a flow") {
            Err(NetlinkError::Refused { refusal, .. }) if refusal.is_gone() => Ok(()),
            outcome => outcome,
        }
    }
}

impl Flow {
    fn parse(message: &[u8]) -> Option<Self> {
        let original = attribute(message, CTA_TUPLE_ORIG)?;
        let reply = attribute(message, CTA_TUPLE_REPLY)?;
        let protocol = attribute(attribute(original, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?;
        let name = Attributes::of(|name| {
            name.nested_bytes(CTA_TUPLE_ORIG, original);
            for kind in [CTA_ID, CTA_ZONE] {
                if let Some(value) = attribute(message, kind) {
                    name.bytes(kind, value);
                }
            }
        });
        Some(Self {
            protocol: *protocol.first()?,
            destination: address(original, DESTINATIONS)?,
            port: port(original, CTA_PROTO_DST_PORT)?,
            answerer: (address(reply, SOURCES)?, port(reply, CTA_PROTO_SRC_PORT)?).into(),
            state: match tcp_state(message) {
                Some(SYN_SENT) => FlowState::Begun,
                Some(CLOSE) => FlowState::Reset,
                _ => FlowState::Other,
            },
            name,
        })
    }

    fn verb(&self, number: u8) -> Verb {
        let family = match self.destination {
            IpAddr::V4(_) => libc::AF_INET,
            IpAddr::V6(_) => libc::AF_INET6,
        };
        Verb { subsystem: Subsystem::Conntrack, number, flags: 0, family: family as u8 }
    }
}

fn tcp_state(message: &[u8]) -> Option<u8> {
    let tcp = attribute(attribute(message, CTA_PROTOINFO)?, CTA_PROTOINFO_TCP)?;
    attribute(tcp, CTA_PROTOINFO_TCP_STATE)?.first().copied()
}

fn address(tuple: &[u8], [v4, v6]: [u16; 2]) -> Option<IpAddr> {
    let addresses = attribute(tuple, CTA_TUPLE_IP)?;
    if let Some(value) = attribute(addresses, v4) {
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(attribute(addresses, v6)?).ok()?).into())
}

fn port(tuple: &[u8], kind: u16) -> Option<u16> {
    attribute(attribute(tuple, CTA_TUPLE_PROTO)?, kind)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translated_flow_is_read_and_named_by_its_beginning() {
        let tuple = |attributes: &mut Attributes, source: ([u8; 4], u16), destination: ([u8; 4], u16)| {
            attributes.nested(CTA_TUPLE_IP, |ip| {
                ip.bytes(1, &source.0);
                ip.bytes(2, &destination.0);
            });
            attributes.nested(CTA_TUPLE_PROTO, |proto| {
                proto.bytes(CTA_PROTO_NUM, &[17]);
                proto.bytes(CTA_PROTO_SRC_PORT, &source.1.to_be_bytes());
                proto.bytes(CTA_PROTO_DST_PORT, &destination.1.to_be_bytes());
            });
        };
        let (client, vip, answerer) =
            (([10, 42, 0, 2], 4000), ([10, 42, 255, 1], 53), ([10, 42, 1, 3], 5353));
        let message = Attributes::of(|flow| {
            flow.nested(CTA_TUPLE_ORIG, |of| tuple(of, client, vip));
            flow.nested(CTA_TUPLE_REPLY, |of| tuple(of, answerer, client));
            flow.number(CTA_ID, 77);
        });
        let flow = Flow::parse(message.as_bytes()).unwrap();
        assert_eq!((flow.protocol, flow.port), (17, 53));
        assert_eq!(flow.destination, IpAddr::from([10, 42, 255, 1]));
        assert_eq!(flow.answerer, SocketAddr::from(([10, 42, 1, 3], 5353)));
        let state = |state: u8| {
            let connection = Attributes::of(|flow| {
                flow.nested(CTA_TUPLE_ORIG, |of| tuple(of, client, vip));
                flow.nested(CTA_TUPLE_REPLY, |of| tuple(of, answerer, client));
                flow.nested(CTA_PROTOINFO, |info| {
                    info.nested(CTA_PROTOINFO_TCP, |tcp| tcp.bytes(CTA_PROTOINFO_TCP_STATE, &[state]));
                });
            });
            Flow::parse(connection.as_bytes()).unwrap().state
        };
        // SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT, CLOSE.
        assert_eq!((state(1), state(8)), (FlowState::Begun, FlowState::Reset));
        assert!((2..8).all(|other| state(other) == FlowState::Other));
        assert_eq!(flow.state, FlowState::Other);
        let named = flow.name.as_bytes();
        assert_eq!(attribute(named, CTA_TUPLE_ORIG), attribute(message.as_bytes(), CTA_TUPLE_ORIG));
        assert_eq!(attribute(named, CTA_ID), Some(&77_u32.to_be_bytes()[..]));
        assert_eq!(Flow::parse(&[]), None);
    }
}
