//! What all attachments of a workload stand on: its namespace, its resolver, its resolv.conf. Safe to repeat.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use sealane_proto::types::NetworkName;
use sealane_sys::NetNs;

use super::names::Names;
use super::plumbing::{held, netns_path, resolv_path};
use super::{AttachError, Context, survey};
use crate::dns::{self, Askers, DnsServer, DnsSockets};
use crate::seat::Owner;
use crate::sidecar::Key;

/// Where DNS is asked in every workload, as in Docker's containers.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// How many loopback addresses from that on are tried in a namespace where it is somebody else's.
const FURTHER: u8 = 5;

/// What stands.
#[derive(Debug)]
pub(super) struct Ground {
    /// Where our names are answered.
    pub(super) nameserver: Ipv4Addr,
    /// What whoever attached should know, a sentence each.
    pub(super) notes: Vec<String>,
    _dns: Option<DnsServer>,
}

/// The namespace of a workload, bound where each of its attachments is looked for: `given`, or one of its own.
pub(super) fn ensure_netns(
    context: &Context,
    keys: &[Key],
    given: Option<NetNs>,
) -> Result<NetNs, AttachError> {
    let Some((first, further)) = keys.split_first() else { return Err(AttachError::Ending) };
    let path = netns_path(&context.run_dir, first);
    let netns = match given {
        Some(given) => given.bind_at(&path).map(|()| given),
        None => NetNs::ensure_at(&path),
    };
    let netns = netns.map_err(|error| AttachError::setup(first, error))?;
    for key in further {
        let bound = netns.bind_at(netns_path(&context.run_dir, key));
        bound.map_err(|error| AttachError::setup(key, error))?;
    }
    Ok(netns)
}

impl Ground {
    /// Serves the workload's names in its namespace, whose loopback device is up.
    pub(super) fn lay(
        context: &Context,
        keys: &[Key],
        netns: &NetNs,
        owner: Owner,
        (names, gateway): (&Names, Ipv4Addr),
    ) -> Result<Self, AttachError> {
        let Some(key) = keys.first() else { return Err(AttachError::Ending) };
        let fail = |error: &dyn std::fmt::Display| AttachError::setup(key, error);
        let sockets = match held(context, netns, dns_key(key), move || bind(owner).map(Into::into)) {
            Ok(sockets) => Some(DnsSockets::try_from(sockets).map_err(|error| fail(&error))?),
            Err(error) if owner == Owner::Other && error.kind() == io::ErrorKind::AddrInUse => None,
            Err(error) => return Err(fail(&error)),
        };
        let bound = sockets.as_ref().and_then(|sockets| sockets.udp.local_addr().ok());
        let nameserver = match bound {
            Some(std::net::SocketAddr::V4(bound)) => *bound.ip(),
            Some(std::net::SocketAddr::V6(_)) | None => gateway,
        };
        let networks: Vec<&NetworkName> = keys.iter().map(|key| &key.network).collect();
        let resolv = resolv_path(&context.run_dir, key);
        write_resolv(&resolv, nameserver, &networks).map_err(|error| fail(&error))?;
        let serve = |sockets| {
            let metrics = context.dns_metrics.network(&key.network);
            dns::serve(sockets, names.view(), context.forwarder.clone(), metrics, Askers::One)
        };
        let dns = sockets.map(serve).transpose().map_err(|error| fail(&error))?;
        Ok(Self { nameserver, notes: notes(nameserver, gateway), _dns: dns })
    }
}

/// Removes everything. What is gone already is no error.
pub(super) fn clear(context: &Context, keys: &[Key], ground: Option<Ground>) {
    drop(ground);
    for key in keys {
        let complain = |what: &str, error: &dyn std::fmt::Display| {
            tracing::error!(%error, %key, "cannot remove {what} of a workload that ended");
        };
        if let Err(error) = context.held.remove(&dns_key(key)) {
            complain("the DNS sockets", &error);
        }
        if let Err(error) = NetNs::remove_at(netns_path(&context.run_dir, key)) {
            complain("the namespace", &error);
        }
        match fs::remove_file(resolv_path(&context.run_dir, key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => complain("resolv.conf", &error),
            _ => {}
        }
    }
}

fn dns_key(key: &Key) -> String {
    format!("dns/{key}")
}

/// The resolver's sockets. In a namespace of somebody else's, at the first address that is nobody's; when something
/// has port 53 of every address, `AddrInUse`.
fn bind(owner: Owner) -> io::Result<DnsSockets> {
    let [a, b, c, last] = RESOLVER.octets();
    let further = match owner {
        Owner::Agent => return DnsSockets::bind(RESOLVER),
        Owner::Other => last..last + FURTHER,
    };
    for address in further.map(|last| Ipv4Addr::new(a, b, c, last)) {
        if survey::is_used(address)? {
            continue;
        }
        match DnsSockets::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn notes(nameserver: Ipv4Addr, gateway: Ipv4Addr) -> Vec<String> {
    if nameserver == RESOLVER {
        return Vec::new();
    }
    let why = if nameserver == gateway {
        "port 53 of every loopback address is in use in the namespace: names are answered at the gateway, of one \
         network and without its sidecar"
            .to_owned()
    } else {
        format!(
            "{RESOLVER} is in use in the namespace, by an attachment of before or Docker's resolver: names are answered \
             at {nameserver}"
        )
    };
    vec![format!("{why}; hint: put `nameserver {nameserver}` first into the workload's /etc/resolv.conf")]
}

/// The workload's resolv.conf.
fn write_resolv(path: &Path, nameserver: Ipv4Addr, networks: &[&NetworkName]) -> io::Result<()> {
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, resolv(&host, nameserver, networks))
}

/// Our resolver, and the host's search list, which works through it. The networks stand before it: resolvers try
/// the list first for a name without a dot, and the host's domains shall neither be asked for the names of services
/// nor answer for them.
fn resolv(host: &str, nameserver: Ipv4Addr, networks: &[&NetworkName]) -> String {
    let mut domains: Vec<&str> = networks.iter().map(|network| network.as_str()).collect();
    // Of several lines, the last one counts.
    let list = host.lines().rev().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        matches!(words.next(), Some("search" | "domain")).then_some(words)
    });
    for domain in list.into_iter().flatten() {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    format!("nameserver {nameserver}\nsearch {}\n", domains.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_searched_before_the_host_s_domains() {
        let shop = "shop".parse().unwrap();
        let table = [
            ("", "search shop"),
            ("nameserver 192.0.2.1\nsearch a.example b.example\n", "search shop a.example b.example"),
            ("domain old.example\nsearch\ta.example shop\noptions ndots:2", "search shop a.example"),
        ];
        for (host, expected) in table {
            assert_eq!(resolv(host, RESOLVER, &[&shop]), format!("nameserver 127.0.0.11\n{expected}\n"));
        }
    }
}
