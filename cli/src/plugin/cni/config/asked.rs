//! What a runtime asks for this one container: capabilities in `runtimeConfig`, and `args`.

use std::net::{IpAddr, Ipv4Addr};

use sealane_proto::types::{Aliases, MacAddr};
use serde_json::{Map, Value};

use super::super::failure::CniError;
use super::wrong;

/// What is asked for. Published ports and bandwidth are what the plugins `portmap` and `bandwidth` of the same list do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) aliases: Aliases,
    /// Told in the result, behind ours.
    pub(crate) dns: Dns,
}

/// Whom to ask for names, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dns {
    pub(crate) nameservers: Vec<String>,
    pub(crate) domain: Option<String>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl Asked {
    pub(super) fn of(conf: &Map<String, Value>) -> Result<Self, CniError> {
        let section = |key: &str| match conf.get(key) {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(section)) => Ok(section.clone()),
            Some(_) => Err(wrong(key, "it is no object")),
        };
        let (capable, args) = (section("runtimeConfig")?, section("args")?);
        let args = args.get("cni").and_then(Value::as_object).cloned().unwrap_or_default();
        let either = |key: &str| capable.get(key).or_else(|| args.get(key)).filter(|value| !value.is_null());
        let mac = either("mac").map(mac).transpose()?;
        let ips = words("ips", either("ips"))?;
        let mut aliases = words("aliases", conf.get("aliases"))?;
        aliases.extend(names(capable.get("aliases"), conf.get("name").and_then(Value::as_str))?);
        let aliases = Aliases::parse(aliases).map_err(|error| wrong("aliases", error))?;
        let mut dns = Dns::of("dns", &section("dns")?)?;
        if let Some(given) = capable.get("dns").and_then(Value::as_object) {
            dns.extend(Dns::of("runtimeConfig.dns", given)?);
        }
        Ok(Self { ip: address(&ips)?, mac, aliases, dns })
    }
}

fn mac(value: &Value) -> Result<MacAddr, CniError> {
    let text = value.as_str().ok_or_else(|| wrong("mac", format!("{value} is no text")))?;
    text.to_ascii_lowercase().parse().map_err(|error| wrong("mac", error))
}

/// The one IPv4 address of a list, each perhaps with the length of its prefix.
fn address(ips: &[String]) -> Result<Option<Ipv4Addr>, CniError> {
    let mut found = None;
    for text in ips {
        let bare = text.split_once('/').map_or(text.as_str(), |(bare, _)| bare);
        match bare.parse() {
            Ok(IpAddr::V4(_)) if found.is_some() => {
                return Err(wrong(
                    "ips",
                    format!("{text} is the second IPv4 address: an attachment has one"),
                ));
            }
            Ok(IpAddr::V4(address)) => found = Some(address),
            Ok(IpAddr::V6(_)) => {
                return Err(wrong("ips", format!("{text}: an IPv6 address follows from the IPv4 address"))
                    .hint("leave it out, and ask for the IPv4 address"));
            }
            Err(_) => return Err(wrong("ips", format!("{text:?} is no address"))),
        }
    }
    Ok(found)
}

fn words(key: &str, value: Option<&Value>) -> Result<Vec<String>, CniError> {
    let word = |value: &Value| {
        value.as_str().map(str::to_owned).ok_or_else(|| wrong(key, format!("{value} is no text")))
    };
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(word).collect(),
        Some(other) => Err(wrong(key, format!("{other} is no list"))),
    }
}

/// Aliases are a list, or, from podman, one for each of its networks.
fn names(value: Option<&Value>, network: Option<&str>) -> Result<Vec<String>, CniError> {
    match value {
        Some(Value::Object(networks)) => words("aliases", network.and_then(|network| networks.get(network))),
        other => words("aliases", other),
    }
}

impl Dns {
    /// The kubelet writes its keys with capitals, and other words than the specification.
    fn of(key: &str, section: &Map<String, Value>) -> Result<Self, CniError> {
        let mut dns = Self::default();
        for (name, value) in section {
            match name.to_ascii_lowercase().as_str() {
                "nameservers" | "servers" => dns.nameservers.extend(words(key, Some(value))?),
                "search" | "searches" => dns.search.extend(words(key, Some(value))?),
                "options" => dns.options.extend(words(key, Some(value))?),
                "domain" => dns.domain = value.as_str().map(str::to_owned),
                _ => {}
            }
        }
        Ok(dns)
    }

    /// The section of another plugin's result; what is wrong there is left out.
    pub(crate) fn of_section(section: &Map<String, Value>) -> Self {
        Self::of("dns", section).unwrap_or_default()
    }

    /// Puts another one's words behind the own.
    pub(crate) fn extend(&mut self, other: Self) {
        let add = |own: &mut Vec<String>, others: Vec<String>| {
            for word in others {
                if !own.contains(&word) {
                    own.push(word);
                }
            }
        };
        add(&mut self.nameservers, other.nameservers);
        add(&mut self.search, other.search);
        add(&mut self.options, other.options);
        self.domain = self.domain.take().or(other.domain);
    }

    /// The section of a result.
    pub(crate) fn section(&self) -> Value {
        let mut section = Map::new();
        for (key, list) in
            [("nameservers", &self.nameservers), ("search", &self.search), ("options", &self.options)]
        {
            if !list.is_empty() {
                section.insert(key.to_owned(), list.clone().into());
            }
        }
        if let Some(domain) = &self.domain {
            section.insert("domain".to_owned(), domain.clone().into());
        }
        Value::Object(section)
    }

    /// What a resolv.conf says.
    pub(crate) fn of_resolv_conf(text: &str) -> Self {
        let mut dns = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => dns.nameservers.extend(words.map(str::to_owned)),
                Some("search") => dns.search = words.map(str::to_owned).collect(),
                Some("options") => dns.options.extend(words.map(str::to_owned)),
                Some(_) | None => {}
            }
        }
        dns
    }
}
