//! Rules as the kernel's interpreter runs them, with what nft adds to them: what must be known of a packet before a part of it
//! is looked at. Pure.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::datum::{Datum, KeyType, octets};
use super::expression::{Expression, FIRST, NEXT, Relation, SECOND, SetUse, Verdict};
use super::rows::{Row, RowData, SetContent, TYPE_BITS, VERDICTS};
use super::rule::{Choice, Operand, Rejection, Rule, Statement};
use super::ruleset::Family;
use super::selector::{Ip, META_MARK, Needs, Network, Selector};

/// NFT_REJECT_* and codes of linux/netfilter/nf_tables.h; ICMP_PKT_FILTERED of linux/icmp.h.
const ICMP_UNREACHABLE: u32 = 0;
const TCP_RESET: u32 = 1;
const ANY_ICMP_UNREACHABLE: u32 = 2;
const PACKET_FILTERED: u8 = 13;
const ANY_PORT_UNREACHABLE: u8 = 1;
const ANY_ADMIN_PROHIBITED: u8 = 3;
/// ARPHRD_ETHER.
const ETHERNET: u16 = 1;
const META_IIFTYPE: u32 = 8;
/// The register for verdicts, where a map's value goes.
const VERDICT: u32 = 0;

/// The expressions of a rule in a table of this family.
pub(super) fn expressions(rule: &Rule, family: Family) -> Vec<Expression> {
    let mut lowering = Lowering { family, done: Vec::new(), known: Needs::default() };
    rule.statements.iter().for_each(|statement| lowering.statement(statement));
    lowering.done
}

/// nft's number and the length of several types together. Every part begins at a multiple of four bytes.
pub(super) fn together(types: impl IntoIterator<Item = KeyType>) -> [u32; 2] {
    let types: Vec<KeyType> = types.into_iter().collect();
    if let [only] = types.as_slice() {
        return [only.number, only.length];
    }
    let number = types.iter().fold(0, |number, part| (number << TYPE_BITS) | part.number);
    [number, types.iter().map(|part| part.length.next_multiple_of(4)).sum()]
}

/// Several values as they are looked up together.
pub(super) fn key(parts: &[Datum]) -> Vec<u8> {
    if let [only] = parts {
        return only.bytes();
    }
    let mut key = Vec::new();
    for part in parts {
        key.extend(part.bytes());
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

/// A rule that is being laid out.
struct Lowering {
    family: Family,
    done: Vec<Expression>,
    /// Facts that the rule has established so far.
    known: Needs,
}

impl Lowering {
    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Match { what, differs, with } => self.match_with(what, *differs, with),
            Statement::Map { what, map } => {
                self.load(what);
                self.look_up(SetUse::Named(map.clone()), false, Some(VERDICT));
            }
            Statement::MapHere { what, rows } => self.map_here(*what, rows),
            Statement::Verdict(verdict) => self.done.push(Expression::Verdict(verdict.clone())),
            Statement::Count => self.done.push(Expression::Count),
            Statement::CountBy(counter) => self.done.push(Expression::CountBy(counter.clone())),
            Statement::Reject(rejection) => self.reject(*rejection),
            Statement::Lead(place) => self.lead(*place),
            Statement::Choose(choice) => self.choose(choice),
            Statement::Redirect(port) => {
                let value = port.map(|port| port.to_be_bytes().to_vec());
                self.done.extend(value.map(|value| Expression::Constant { register: FIRST, value }));
                self.done.push(Expression::Redirect { port: port.map(|_| FIRST) });
            }
            Statement::Masquerade => self.done.push(Expression::Masquerade),
            Statement::Untracked => self.done.push(Expression::Untracked),
            Statement::Forward(_, index) => {
                let value = index.to_ne_bytes().to_vec();
                self.done.push(Expression::Constant { register: FIRST, value });
                self.done.push(Expression::Forward { device: FIRST });
            }
            Statement::Mark(mark) => {
                let value = mark.to_ne_bytes().to_vec();
                self.done.push(Expression::Constant { register: FIRST, value });
                self.done.push(Expression::SetMeta { key: META_MARK, register: FIRST });
            }
        }
    }

    fn match_with(&mut self, what: &[Selector], differs: bool, with: &Operand) {
        let [selector] = what else {
            self.load(what);
            let Operand::Named(set) = with else { return };
            return self.look_up(SetUse::Named(set.clone()), differs, None);
        };
        let (selector, one) = match with {
            Operand::One(value) if !differs && self.is_known(*selector, value) => return,
            Operand::One(value) => (*selector, value),
            Operand::Any(values) => {
                self.load(what);
                let set = SetUse::Anonymous(Box::new(set(*selector, values)));
                return self.look_up(set, differs, None);
            }
            Operand::Named(set) => {
                self.load(what);
                return self.look_up(SetUse::Named(set.clone()), differs, None);
            }
        };
        self.need(selector.needs());
        self.done.push(selector.load(FIRST));
        self.compare(selector, differs, one);
        if !differs {
            self.learn(selector, one);
        }
    }

    /// Returns true if the rule has established already that the packet has this value.
    fn is_known(&self, selector: Selector, value: &Datum) -> bool {
        let Datum::Symbol(symbol) = value else { return false };
        let is_network = matches!(selector, Selector::Family | Selector::Frame);
        selector == Selector::Protocol && self.known.transport == Some(*symbol)
            || is_network && self.known.network.is_some() && self.known.network == Network::of(*symbol)
    }

    fn learn(&mut self, selector: Selector, value: &Datum) {
        let Datum::Symbol(symbol) = value else { return };
        if matches!(selector, Selector::Protocol | Selector::NextHeader) {
            self.known.transport = Some(*symbol);
        } else if matches!(selector, Selector::Family | Selector::Frame) {
            self.known.network = Network::of(*symbol);
        }
    }

    fn compare(&mut self, selector: Selector, differs: bool, value: &Datum) {
        let (equal, unequal) =
            if differs { (Relation::Differs, Relation::Equal) } else { (Relation::Equal, Relation::Differs) };
        if let Datum::Net(net) = value
            && value.is_interval()
        {
            self.compare_net(selector, equal, *net);
        } else if let Datum::Range(first, last) = value {
            self.compare_with(Relation::AtLeast, octets(*first));
            self.compare_with(Relation::AtMost, octets(*last));
        } else if selector.is_bits() {
            self.done.push(Expression::Masked { mask: value.bytes() });
            self.compare_with(unequal, vec![0; selector.length()]);
        } else {
            self.compare_with(equal, value.bytes());
        }
    }

    fn compare_net(&mut self, selector: Selector, relation: Relation, net: IpNet) {
        let (length, bits) = (selector.length(), usize::from(net.prefix_len()));
        let network = octets(net.network());
        // Whole bytes are compared as such, where the kernel loads so many of them in its interpreter's loop.
        let is_whole = bits % 8 == 0 && (length > 4 || bits == 8 || bits == 16);
        if let Some(Expression::Payload { length, .. }) = self.done.last_mut().filter(|_| is_whole) {
            *length = u32::from(net.prefix_len()) / 8;
            return self.compare_with(relation, network.get(..bits / 8).unwrap_or_default().to_vec());
        }
        self.done.push(Expression::Masked { mask: octets(net.netmask()) });
        self.compare_with(relation, network);
    }

    fn compare_with(&mut self, relation: Relation, value: Vec<u8>) {
        self.done.push(Expression::Compare { relation, value });
    }

    /// Puts these into registers, one behind the other.
    fn load(&mut self, what: &[Selector]) {
        what.iter().for_each(|selector| self.need(selector.needs()));
        let mut words = 0;
        for selector in what {
            // The first register has two names.
            let register = if words == 0 { FIRST } else { NEXT - 1 + words };
            self.done.push(selector.load(register));
            words += u32::try_from(selector.length().div_ceil(4)).unwrap_or_default();
        }
    }

    fn look_up(&mut self, set: SetUse, differs: bool, into: Option<u32>) {
        self.done.push(Expression::Lookup { set, differs, into });
    }

    /// Sees to it that the packet is such a one.
    fn need(&mut self, needs: Needs) {
        if needs.frame && self.family == Family::Netdev && !self.known.frame {
            self.done.push(Expression::Meta { key: META_IIFTYPE, register: FIRST });
            self.compare_with(Relation::Equal, ETHERNET.to_ne_bytes().to_vec());
            self.known.frame = true;
        }
        if let Some(network) = needs.network.filter(|network| self.known.network != Some(*network)) {
            let (selector, value) = match (self.family, network) {
                (Family::Netdev | Family::Bridge, network) => (Selector::Frame, network.frame()),
                (Family::Inet, Network::Ip(ip)) => (Selector::Family, ip.family()),
                (Family::Inet | Family::Ip | Family::Ip6, _) => return self.need_transport(needs),
            };
            self.done.push(selector.load(FIRST));
            self.compare_with(Relation::Equal, Datum::Symbol(value).bytes());
            self.known.network = Some(network);
        }
        self.need_transport(needs);
    }

    fn need_transport(&mut self, needs: Needs) {
        if let Some(protocol) = needs.transport.filter(|protocol| self.known.transport != Some(*protocol)) {
            self.done.push(Selector::Protocol.load(FIRST));
            self.compare_with(Relation::Equal, Datum::Symbol(protocol).bytes());
            self.known.transport = Some(protocol);
        }
    }

    fn map_here(&mut self, what: Selector, rows: &[(Datum, Verdict)]) {
        let row = |verdict: &Verdict| Row { until: None, data: Some(RowData::Verdict(verdict.clone())) };
        let map = SetContent {
            data: Some([VERDICTS, 0]),
            rows: rows.iter().map(|(key, verdict)| (key.bytes(), row(verdict))).collect(),
            ..SetContent::of(what.key_type())
        };
        self.load(&[what]);
        self.look_up(SetUse::Anonymous(Box::new(map)), false, Some(VERDICT));
    }

    fn reject(&mut self, rejection: Rejection) {
        let (kind, code) = match rejection {
            Rejection::Reset => (TCP_RESET, 0),
            Rejection::Admin => (ANY_ICMP_UNREACHABLE, ANY_ADMIN_PROHIBITED),
            Rejection::PortUnreachable => (ANY_ICMP_UNREACHABLE, ANY_PORT_UNREACHABLE),
            Rejection::IcmpAdmin => {
                // Before all else: nothing is counted that is not refused.
                if self.family == Family::Inet && self.known.network.is_none() {
                    let rest = std::mem::take(&mut self.done);
                    self.need(Needs { network: Some(Network::Ip(Ip::V4)), ..Needs::default() });
                    self.done.extend(rest);
                }
                (ICMP_UNREACHABLE, PACKET_FILTERED)
            }
        };
        self.done.push(Expression::Reject { kind, code });
    }

    fn lead(&mut self, place: SocketAddr) {
        let port = place.port().to_be_bytes().to_vec();
        self.done.push(Expression::Constant { register: FIRST, value: octets(place.ip()) });
        self.done.push(Expression::Constant { register: SECOND, value: port });
        self.done.push(destination(place.ip(), Some(SECOND)));
    }

    fn choose(&mut self, choice: &Choice) {
        let Some((first, _)) = choice.of.first() else { return };
        let address = if first.is_ipv4() { KeyType::IPV4 } else { KeyType::IPV6 };
        let port = choice.with_port.then_some(KeyType::PORT);
        let row = |([first, last], place): ([u32; 2], SocketAddr)| {
            let parts = [Datum::Address(place.ip()), Datum::Port(place.port())];
            let value = key(parts.get(..1 + usize::from(choice.with_port)).unwrap_or_default());
            let until = last.checked_add(1).map(|until| until.to_be_bytes().to_vec());
            (first.to_be_bytes().to_vec(), Row { until, data: Some(RowData::Value(value)) })
        };
        let map = SetContent {
            data: Some(together([Some(address), port].into_iter().flatten())),
            interval: true,
            rows: choice.shares().map(row).collect(),
            ..SetContent::of(KeyType::INTEGER)
        };
        self.done.push(Expression::Random { below: choice.total() });
        // Ranges are compared as bytes.
        self.done.push(Expression::Ordered);
        self.look_up(SetUse::Anonymous(Box::new(map)), false, Some(FIRST));
        let behind_address = NEXT - 1 + address.length / 4;
        self.done.push(destination(first.ip(), choice.with_port.then_some(behind_address)));
    }
}

fn destination(address: IpAddr, port: Option<u32>) -> Expression {
    let ip = if address.is_ipv4() { Ip::V4 } else { Ip::V6 };
    let family = Datum::Symbol(ip.family()).bytes().first().copied().unwrap_or_default();
    Expression::Destination { family: family.into(), address: FIRST, port }
}

/// A set of these values for one rule alone.
fn set(selector: Selector, values: &[Datum]) -> SetContent {
    let interval = values.iter().any(Datum::is_interval);
    let row = |value: &Datum| {
        let until = if interval { value.behind() } else { None };
        (value.bytes(), Row { until, data: None })
    };
    SetContent { interval, rows: values.iter().map(row).collect(), ..SetContent::of(selector.key_type()) }
}

#[cfg(test)]
mod tests;
