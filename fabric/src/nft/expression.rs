//! Rules as the kernel takes them (linux/netfilter/nf_tables.h), laid out as the nft program does, so that it can show
//! them. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink::netfilter::Attributes;

pub(crate) const NFPROTO_INET: u8 = 1;
const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;
const DROP: i32 = 0; // NF_DROP
const ACCEPT: i32 = 1; // NF_ACCEPT
const NOT_EQUAL: u32 = 1; // NFT_CMP_NEQ
const COUNTER: u32 = 1; // NFT_OBJECT_COUNTER
const FIB_OF_SOURCE_BY_INTERFACE: u32 = 1 | 8; // NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF
const FIB_DEVICE: u32 = 1; // NFT_FIB_RESULT_OIF
/// Register for verdicts.
const VERDICT: u32 = 0;
/// The first of the registers of four bytes, by its older name.
const FIRST: u32 = 1;
/// Registers behind it, for keys of several parts.
const NEXT: [u32; 2] = [9, 10];
pub(super) const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const META_IIF: u32 = 4;
const META_IIFKIND: u32 = 26;
/// IFNAMSIZ: what names and kinds of devices are compared as.
const NAME_LENGTH: usize = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// Differences between the families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// NFPROTO_IPV4.
    pub(crate) nfproto: u8,
    /// Protocol number in a frame's header: ETH_P_IP.
    pub(super) protocol: u16,
    /// Offset of the source in the IP header.
    pub(super) source: u32,
    /// Offset of the destination.
    pub(super) destination: u32,
    /// Length of an address, in bytes.
    pub(crate) length: u32,
    /// ICMP's number, and its echo request's.
    echo: (u8, u8),
    /// The nft program's number for the type of an address.
    pub(crate) kind: u32,
}

impl Family {
    /// RFC 791 and RFC 792.
    pub(crate) const V4: Self =
        Self { nfproto: 2, protocol: 0x0800, source: 12, destination: 16, length: 4, echo: (1, 8), kind: 7 };
    /// RFC 8200 and RFC 4443.
    pub(crate) const V6: Self = Self {
        nfproto: 10,
        protocol: 0x86dd,
        source: 8,
        destination: 24,
        length: 16,
        echo: (58, 128),
        kind: 8,
    };
}

/// Rule as a list of expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule(Attributes);

impl Rule {
    /// The value of the message's list of expressions.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Adds an expression with its attributes.
    pub(super) fn expression(mut self, name: &str, data: impl FnOnce(&mut Attributes)) -> Self {
        self.0.nested(LIST_ELEM, |expression| {
            expression.text(EXPR_NAME, name);
            expression.nested(EXPR_DATA, data);
        });
        self
    }

    /// Puts what the kernel knows of the packet into a register.
    pub(super) fn meta(self, key: u32, register: u32) -> Self {
        self.expression("meta", |data| {
            data.number(2, key);
            data.number(1, register);
        })
    }

    /// Puts a part of the packet into a register.
    pub(super) fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.expression("payload", |data| {
            for (kind, value) in [(1, register), (2, base), (3, offset), (4, length)] {
                data.number(kind, value);
            }
        })
    }

    /// Goes on if the first register is this.
    pub(super) fn is(self, value: &[u8]) -> Self {
        self.compare(0, value)
    }

    /// Goes on if the first register compares so with this.
    pub(super) fn compare(self, operator: u32, value: &[u8]) -> Self {
        self.expression("cmp", |data| {
            data.number(1, FIRST);
            data.number(2, operator);
            data.nested(3, |data| data.bytes(DATA_VALUE, value));
        })
    }

    /// `meta l4proto PROTOCOL`
    pub(crate) fn carried_by(self, protocol: u8) -> Self {
        self.meta(META_L4PROTO, FIRST).is(&[protocol])
    }

    /// `meta nfproto FAMILY`, and the destination in the first register.
    fn destination(self, family: Family) -> Self {
        let of_family = self.meta(META_NFPROTO, FIRST).is(&[family.nfproto]);
        of_family.payload(NETWORK_HEADER, family.destination, family.length, FIRST)
    }

    /// `ip daddr @SET`
    pub(crate) fn destination_in(self, family: Family, set: &str) -> Self {
        self.destination(family).expression("lookup", |data| {
            data.text(1, set);
            data.number(2, FIRST);
        })
    }

    /// `ip daddr NET`
    pub(crate) fn destination_of(self, family: Family, net: IpNet) -> Self {
        self.destination(family).inside(family, net)
    }

    /// Tests if the address in the first register is one of `net`.
    fn inside(self, family: Family, net: IpNet) -> Self {
        let (mask, network) = (octets(net.netmask()), octets(net.network()));
        let zero = vec![0; mask.len()];
        let masked = self.expression("bitwise", |data| {
            data.number(1, FIRST);
            data.number(2, FIRST);
            data.number(3, family.length);
            data.nested(4, |data| data.bytes(DATA_VALUE, &mask));
            data.nested(5, |data| data.bytes(DATA_VALUE, &zero));
        });
        masked.is(&network)
    }

    /// `udp dport PORT`
    pub(crate) fn datagram_to(self, port: u16) -> Self {
        let udp = self.carried_by(libc::IPPROTO_UDP as u8);
        udp.payload(TRANSPORT_HEADER, 2, 2, FIRST).is(&port.to_be_bytes())
    }

    /// `meta iifkind KIND`
    pub(crate) fn comes_by(self, kind: &str) -> Self {
        self.meta(META_IIFKIND, FIRST).is(&name_of_device(kind))
    }

    /// `iif INDEX`
    pub(crate) fn comes_by_device(self, index: u32) -> Self {
        self.meta(META_IIF, FIRST).is(&index.to_ne_bytes())
    }

    /// `iif != INDEX`
    pub(crate) fn comes_not_by(self, index: u32) -> Self {
        self.meta(META_IIF, FIRST).compare(NOT_EQUAL, &index.to_ne_bytes())
    }

    /// `@th,OFFSET,32 . ip saddr @SET` (OFFSET in bytes here, in bits there)
    pub(crate) fn header_and_source_in(self, offset: u32, family: Family, set: &str) -> Self {
        let of_family = self.meta(META_NFPROTO, FIRST).is(&[family.nfproto]);
        let header = of_family.payload(TRANSPORT_HEADER, offset, 4, FIRST);
        let key = header.payload(NETWORK_HEADER, family.source, family.length, NEXT[0]);
        key.expression("lookup", |data| {
            data.text(1, set);
            data.number(2, FIRST);
        })
    }

    /// `fib saddr . iif oif missing`: answers would not leave by where the packet came from.
    pub(crate) fn source_is_elsewhere(self) -> Self {
        let device = self.expression("fib", |data| {
            data.number(1, FIRST);
            data.number(2, FIB_DEVICE);
            data.number(3, FIB_OF_SOURCE_BY_INTERFACE);
        });
        device.is(&0_u32.to_ne_bytes())
    }

    /// `@th,OFFSET,LENGTH vmap { ... }` (in bits), with the transaction's map of this number.
    pub(crate) fn header_mapped_by(self, [offset, length]: [u32; 2], set: &str, id: u32) -> Self {
        self.payload(TRANSPORT_HEADER, offset, length, FIRST).expression("lookup", |data| {
            data.text(1, set);
            data.number(4, id);
            data.number(2, FIRST);
            data.number(3, VERDICT);
        })
    }

    /// `@th,OFFSET,8 != VALUE`: the byte is there, and another.
    pub(crate) fn header_byte_is_not(self, offset: u32, value: u8) -> Self {
        self.payload(TRANSPORT_HEADER, offset, 1, FIRST).compare(NOT_EQUAL, &[value])
    }

    /// `counter name NAME`
    pub(crate) fn count(self, counter: &str) -> Self {
        self.expression("objref", |data| {
            data.number(1, COUNTER);
            data.text(2, counter);
        })
    }

    /// `accept`
    pub(crate) fn accept(self) -> Self {
        self.verdict(ACCEPT, None)
    }

    /// `drop`
    pub(crate) fn drop(self) -> Self {
        self.verdict(DROP, None)
    }

    /// `return`
    pub(crate) fn leave(self) -> Self {
        self.verdict(RETURN, None)
    }

    /// `goto CHAIN`
    pub(crate) fn go_to(self, chain: &str) -> Self {
        self.verdict(GOTO, Some(chain))
    }

    /// `jump CHAIN`
    pub(crate) fn visit(self, chain: &str) -> Self {
        self.verdict(JUMP, Some(chain))
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.expression("immediate", |data| {
            data.number(1, VERDICT);
            data.nested(2, |data| {
                data.nested(DATA_VERDICT, |verdict| {
                    verdict.bytes(VERDICT_CODE, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        verdict.text(VERDICT_CHAIN, chain);
                    }
                });
            });
        })
    }

    /// `icmp type echo-request`
    pub(crate) fn echo_request(self, family: Family) -> Self {
        let (protocol, kind) = family.echo;
        self.carried_by(protocol).payload(TRANSPORT_HEADER, 0, 1, FIRST).is(&[kind])
    }

    /// `ip daddr . meta l4proto . th dport vmap @MAP`
    pub(crate) fn mapped_by(self, family: Family, map: &str) -> Self {
        let [protocol, port] = NEXT;
        let key = self.destination(family).meta(META_L4PROTO, protocol);
        key.payload(TRANSPORT_HEADER, 2, 2, port).expression("lookup", |data| {
            data.text(1, map);
            data.number(2, FIRST);
            data.number(3, VERDICT);
        })
    }

    /// `redirect`: to the host itself.
    pub(crate) fn redirect(self) -> Self {
        self.expression("redir", |_| {})
    }

    /// `redirect to :0`: to a port of the host's own at which nobody can listen.
    pub(crate) fn redirect_to_nobody(self) -> Self {
        let port = self.expression("immediate", |data| {
            data.number(1, FIRST);
            data.nested(2, |data| data.bytes(DATA_VALUE, &[0, 0]));
        });
        port.expression("redir", |data| data.number(1, FIRST))
    }

    /// `reject with tcp reset`
    pub(crate) fn reset(self) -> Self {
        self.reject(1, 0)
    }

    /// `reject with icmpx port-unreachable`
    pub(crate) fn unreachable(self) -> Self {
        self.reject(2, 1)
    }

    fn reject(self, kind: u32, code: u8) -> Self {
        self.expression("reject", |data| {
            data.number(1, kind);
            data.bytes(2, &[code]);
        })
    }

    /// `dnat to numgen random mod MODULUS map { ... }`, with the transaction's set of this number; `with_port`: of addresses with
    /// ports.
    pub(crate) fn choose(
        self,
        family: Family,
        modulus: u32,
        (set, id): (&str, u32),
        with_port: bool,
    ) -> Self {
        let number = self.expression("numgen", |data| {
            data.number(1, FIRST);
            data.number(2, modulus);
            data.number(3, 1);
            data.number(4, 0);
        });
        // Ranges are compared as bytes.
        let ordered = number.expression("byteorder", |data| {
            for (kind, value) in [(1, FIRST), (2, FIRST), (3, 1), (4, 4), (5, 4)] {
                data.number(kind, value);
            }
        });
        let found = ordered.expression("lookup", |data| {
            data.text(1, set);
            data.number(4, id);
            data.number(2, FIRST);
            data.number(3, FIRST);
        });
        found.expression("nat", |data| {
            data.number(1, 1);
            data.number(2, family.nfproto.into());
            data.number(3, FIRST);
            if with_port {
                data.number(5, NEXT[0]);
            }
        })
    }
}

fn name_of_device(name: &str) -> Vec<u8> {
    let mut name = name.as_bytes().to_vec();
    name.resize(NAME_LENGTH, 0);
    name
}

/// The value of an element that leads to a chain.
pub(crate) fn verdict(data: &mut Attributes, chain: &str) {
    data.nested(DATA_VERDICT, |verdict| {
        verdict.bytes(VERDICT_CODE, &GOTO.to_be_bytes());
        verdict.text(VERDICT_CHAIN, chain);
    });
}

/// The value of an element or a part of it.
pub(crate) fn value(data: &mut Attributes, value: &[u8]) {
    data.bytes(DATA_VALUE, value);
}

/// An address as packets carry it.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
