//! Expressions of the kernel's interpreter of rules (linux/netfilter/nf_tables.h), as it takes and lists them. Pure.

use super::rows::SetContent;
use crate::netlink::netfilter::{Attributes, attribute, attributes, text};

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
const COUNTER: u32 = 1; // NFT_OBJECT_COUNTER
const LOOKUP_INVERTED: u32 = 1; // NFT_LOOKUP_F_INV
const NAT_DESTINATION: u32 = 1; // NFT_NAT_DNAT
/// NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED, which the kernel sets by itself.
const NAT_RANGES: u32 = 1 | 2;
/// NFT_NG_RANDOM.
const RANDOM: u32 = 1;
/// NFT_BYTEORDER_HTON.
const TO_NETWORK_ORDER: u32 = 1;
/// Register for verdicts.
const VERDICT: u32 = 0;
/// The first of the registers of four bytes, by its older name; that behind 16 bytes of it, by its older name.
pub(crate) const FIRST: u32 = 1;
pub(crate) const SECOND: u32 = 2;
/// Registers of four bytes behind the first one, for keys of several parts.
pub(crate) const NEXT: u32 = 9;

/// Header of a packet that an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// Relation between a register and a value (NFT_CMP_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal = 0,
    Differs = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// End of a rule, or the way to another chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// Set that is looked up: of the table's, by name, or one for this rule alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SetUse {
    Named(String),
    Anonymous(Box<SetContent>),
}

/// An expression. A packet that does not compare so leaves the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    Meta {
        key: u32,
        register: u32,
    },
    /// Gives the packet what is in the register.
    SetMeta {
        key: u32,
        register: u32,
    },
    Payload {
        base: Base,
        offset: u32,
        length: u32,
        register: u32,
    },
    Tracked {
        key: u32,
        direction: Option<u8>,
        register: u32,
    },
    Fib {
        flags: u32,
        result: u32,
        register: u32,
    },
    /// A random number below this one.
    Random {
        below: u32,
    },
    /// Brings the first register into network byte order.
    Ordered,
    /// Clears the bits of the first register that the mask has not.
    Masked {
        mask: Vec<u8>,
    },
    Compare {
        relation: Relation,
        value: Vec<u8>,
    },
    /// Looks the first register up; of a map, the value goes into the register.
    Lookup {
        set: SetUse,
        differs: bool,
        into: Option<u32>,
    },
    Constant {
        register: u32,
        value: Vec<u8>,
    },
    Verdict(Verdict),
    Count,
    CountBy(String),
    Reject {
        kind: u32,
        code: u8,
    },
    /// Another destination: the address and the port in these registers.
    Destination {
        family: u32,
        address: u32,
        port: Option<u32>,
    },
    Redirect {
        port: Option<u32>,
    },
    Masquerade,
    Untracked,
    Forward {
        device: u32,
    },
    /// Any other expression.
    Other(String, Vec<u8>),
}

impl Relation {
    const ALL: [Self; 4] = [Self::Equal, Self::Differs, Self::AtMost, Self::AtLeast];
}

impl Base {
    const ALL: [Self; 3] = [Self::Link, Self::Network, Self::Transport];
}

impl Verdict {
    /// Puts it into the data of an element or an expression.
    pub(crate) fn encode(&self, data: &mut Attributes) {
        let (code, chain) = match self {
            Self::Accept => (ACCEPT, None),
            Self::Drop => (DROP, None),
            Self::Return => (RETURN, None),
            Self::Jump(chain) => (JUMP, Some(chain)),
            Self::Goto(chain) => (GOTO, Some(chain)),
        };
        data.nested(DATA_VERDICT, |verdict| {
            verdict.bytes(VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.text(VERDICT_CHAIN, chain);
            }
        });
    }

    pub(crate) fn decode(data: &[u8]) -> Option<Self> {
        let verdict = attribute(data, DATA_VERDICT)?;
        let chain = || attribute(verdict, VERDICT_CHAIN).map(text);
        match attribute(verdict, VERDICT_CODE)?.try_into().map(i32::from_be_bytes).ok()? {
            ACCEPT => Some(Self::Accept),
            DROP => Some(Self::Drop),
            RETURN => Some(Self::Return),
            JUMP => chain().map(Self::Jump),
            GOTO => chain().map(Self::Goto),
            _ => None,
        }
    }
}

/// The bytes in the data of an element or an expression.
pub(crate) fn value(data: &[u8]) -> Option<Vec<u8>> {
    attribute(data, DATA_VALUE).map(<[u8]>::to_vec)
}

/// Puts bytes into the data of an element or an expression.
pub(crate) fn encode_value(data: &mut Attributes, value: &[u8]) {
    data.bytes(DATA_VALUE, value);
}

/// The expressions of a rule that the kernel lists.
pub(crate) fn decode_all(list: &[u8]) -> Vec<Expression> {
    attributes(list).map(|(_, expression)| Expression::decode(expression)).collect()
}

impl Expression {
    /// Adds it to a rule's list. `number`: of the transaction's set that it looks up, where that has no name.
    pub(crate) fn encode(&self, list: &mut Attributes, number: Option<u32>) {
        list.nested(LIST_ELEM, |expression| {
            expression.text(EXPR_NAME, self.name());
            expression.nested(EXPR_DATA, |data| self.encode_data(data, number));
        });
    }

    fn name(&self) -> &str {
        match self {
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Tracked { .. } => "ct",
            Self::Fib { .. } => "fib",
            Self::Random { .. } => "numgen",
            Self::Ordered => "byteorder",
            Self::Masked { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Constant { .. } | Self::Verdict(_) => "immediate",
            Self::Count => "counter",
            Self::CountBy(_) => "objref",
            Self::Reject { .. } => "reject",
            Self::Destination { .. } => "nat",
            Self::Redirect { .. } => "redir",
            Self::Masquerade => "masq",
            Self::Untracked => "notrack",
            Self::Forward { .. } => "fwd",
            Self::Other(name, _) => name,
        }
    }

    fn encode_data(&self, data: &mut Attributes, number: Option<u32>) {
        let mut numbers =
            |pairs: &[(u16, u32)]| pairs.iter().for_each(|(kind, value)| data.number(*kind, *value));
        match self {
            Self::Meta { key, register } => numbers(&[(2, *key), (1, *register)]),
            Self::SetMeta { key, register } => numbers(&[(2, *key), (3, *register)]),
            Self::Payload { base, offset, length, register } => {
                numbers(&[(1, *register), (2, *base as u32), (3, *offset), (4, *length)]);
            }
            Self::Tracked { key, direction, register } => {
                numbers(&[(2, *key), (1, *register)]);
                if let Some(direction) = direction {
                    data.bytes(3, &[*direction]);
                }
            }
            Self::Fib { flags, result, register } => numbers(&[(1, *register), (2, *result), (3, *flags)]),
            Self::Random { below } => numbers(&[(1, FIRST), (2, *below), (3, RANDOM), (4, 0)]),
            Self::Ordered => numbers(&[(1, FIRST), (2, FIRST), (3, TO_NETWORK_ORDER), (4, 4), (5, 4)]),
            Self::Masked { mask } => {
                numbers(&[(1, FIRST), (2, FIRST), (3, u32::try_from(mask.len()).unwrap_or_default())]);
                data.nested(4, |data| encode_value(data, mask));
                data.nested(5, |data| encode_value(data, &vec![0; mask.len()]));
            }
            Self::Compare { relation, value } => {
                numbers(&[(1, FIRST), (2, *relation as u32)]);
                data.nested(3, |data| encode_value(data, value));
            }
            Self::Lookup { set, differs, into } => encode_lookup(data, set, number, *differs, *into),
            Self::Constant { register, value } => {
                numbers(&[(1, *register)]);
                data.nested(2, |data| encode_value(data, value));
            }
            Self::Verdict(verdict) => {
                numbers(&[(1, VERDICT)]);
                data.nested(2, |data| verdict.encode(data));
            }
            Self::Count => {
                data.bytes(1, &[0; 8]);
                data.bytes(2, &[0; 8]);
            }
            Self::CountBy(counter) => {
                numbers(&[(1, COUNTER)]);
                data.text(2, counter);
            }
            Self::Reject { kind, code } => {
                numbers(&[(1, *kind)]);
                data.bytes(2, &[*code]);
            }
            Self::Destination { family, address, port } => {
                numbers(&[(1, NAT_DESTINATION), (2, *family), (3, *address)]);
                port.iter().for_each(|port| data.number(5, *port));
            }
            Self::Redirect { port } => port.iter().for_each(|port| data.number(1, *port)),
            Self::Forward { device } => numbers(&[(1, *device)]),
            Self::Masquerade | Self::Untracked | Self::Other(..) => {}
        }
    }

    /// Reads one of the kernel's list. What has a part that is not known here is another one.
    pub(crate) fn decode(expression: &[u8]) -> Self {
        let name = attribute(expression, EXPR_NAME).map(text).unwrap_or_default();
        let data = attribute(expression, EXPR_DATA).unwrap_or_default();
        Self::decode_data(&name, Data(data)).unwrap_or_else(|| Self::Other(name, data.to_vec()))
    }

    fn decode_data(name: &str, data: Data<'_>) -> Option<Self> {
        Some(match name {
            "meta" => match data.number(3) {
                Some(register) => Self::SetMeta { key: data.number(2)?, register },
                None => Self::Meta { key: data.number(2)?, register: data.number(1)? },
            },
            "payload" => Self::Payload {
                register: data.number(1)?,
                base: data.one_of(2, &Base::ALL, |base| base as u32)?,
                offset: data.number(3)?,
                length: data.number(4)?,
            },
            "ct" => Self::Tracked {
                key: data.number(2)?,
                register: data.number(1)?,
                direction: attribute(data.0, 3).and_then(|value| value.first().copied()),
            },
            "fib" => Self::Fib { register: data.number(1)?, result: data.number(2)?, flags: data.number(3)? },
            "numgen" if [1, 3, 4].map(|kind| data.number(kind)) == [Some(FIRST), Some(RANDOM), Some(0)] => {
                Self::Random { below: data.number(2)? }
            }
            "byteorder" if data.has(&[(1, FIRST), (2, FIRST), (3, TO_NETWORK_ORDER), (4, 4), (5, 4)]) => {
                Self::Ordered
            }
            "bitwise" if data.has(&[(1, FIRST), (2, FIRST)]) && data.number(6).unwrap_or(0) == 0 => {
                let flipped = value(attribute(data.0, 5)?)?;
                let mask = value(attribute(data.0, 4)?)?;
                return flipped.iter().all(|byte| *byte == 0).then_some(Self::Masked { mask });
            }
            "cmp" if data.has(&[(1, FIRST)]) => Self::Compare {
                relation: data.one_of(2, &Relation::ALL, |relation| relation as u32)?,
                value: value(attribute(data.0, 3)?)?,
            },
            "lookup" if data.has(&[(2, FIRST)]) => {
                let flags = data.number(5).unwrap_or(0);
                return (flags <= LOOKUP_INVERTED).then_some(Self::Lookup {
                    set: SetUse::Named(data.text(1)?),
                    differs: flags == LOOKUP_INVERTED,
                    into: data.number(3),
                });
            }
            "immediate" if data.has(&[(1, VERDICT)]) => {
                Self::Verdict(Verdict::decode(attribute(data.0, 2)?)?)
            }
            "immediate" => Self::Constant { register: data.number(1)?, value: value(attribute(data.0, 2)?)? },
            "counter" => Self::Count,
            "objref" if data.has(&[(1, COUNTER)]) => Self::CountBy(data.text(2)?),
            "reject" => Self::Reject {
                kind: data.number(1)?,
                code: attribute(data.0, 2).and_then(|code| code.first().copied()).unwrap_or_default(),
            },
            _ => return Self::decode_translation(name, data),
        })
    }

    fn decode_translation(name: &str, data: Data<'_>) -> Option<Self> {
        // The last of a range is the first one where none is given.
        let is_one = |first, last| data.number(last).is_none_or(|last| data.number(first) == Some(last));
        let flags = |kind| data.number(kind).unwrap_or(0) & !NAT_RANGES;
        match name {
            "nat" if data.has(&[(1, NAT_DESTINATION)]) && flags(7) == 0 && is_one(3, 4) && is_one(5, 6) => {
                let (family, address) = (data.number(2)?, data.number(3)?);
                Some(Self::Destination { family, address, port: data.number(5) })
            }
            "redir" if flags(3) == 0 && is_one(1, 2) => Some(Self::Redirect { port: data.number(1) }),
            "masq" if flags(1) == 0 && data.number(2).is_none() => Some(Self::Masquerade),
            "notrack" => Some(Self::Untracked),
            "fwd" if data.number(2).is_none() => Some(Self::Forward { device: data.number(1)? }),
            _ => None,
        }
    }
}

fn encode_lookup(data: &mut Attributes, set: &SetUse, number: Option<u32>, differs: bool, into: Option<u32>) {
    match set {
        SetUse::Named(name) => data.text(1, name),
        SetUse::Anonymous(content) => data.text(1, content.placeholder()),
    }
    number.iter().for_each(|number| data.number(4, *number));
    data.number(2, FIRST);
    into.iter().for_each(|register| data.number(3, *register));
    if differs {
        data.number(5, LOOKUP_INVERTED);
    }
}

/// Attributes of an expression.
#[derive(Clone, Copy)]
struct Data<'a>(&'a [u8]);

impl Data<'_> {
    fn number(self, kind: u16) -> Option<u32> {
        attribute(self.0, kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn text(self, kind: u16) -> Option<String> {
        attribute(self.0, kind).map(text)
    }

    fn has(self, numbers: &[(u16, u32)]) -> bool {
        numbers.iter().all(|(kind, value)| self.number(*kind) == Some(*value))
    }

    fn one_of<T: Copy>(self, kind: u16, all: &[T], number: fn(T) -> u32) -> Option<T> {
        let found = self.number(kind)?;
        all.iter().copied().find(|known| number(*known) == found)
    }
}

#[cfg(test)]
mod tests;
