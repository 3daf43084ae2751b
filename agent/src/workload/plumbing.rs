//! What a workload stands on: namespace, interface, sockets for DNS and sidecar, rules. Safe to repeat.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sealane_proto::resource::{Network, Workload};
use sealane_proto::sidecar::SidecarPorts;
use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1;
use sealane_sys::NetNs;
use socket2::{Domain, Protocol, Socket, Type};

use super::{AttachError, Context};
use crate::dns::{self, DnsServer, DnsSockets, View};
use crate::nft;
use crate::services::{ServiceRules, ServiceTable};
use crate::sidecar::Key;

/// Where DNS is asked in every workload, as in Docker's containers.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// How many calls may wait to be accepted by a sidecar.
const BACKLOG: i32 = 1024;

/// What stands.
#[derive(Debug)]
pub(super) struct Plumbed {
    pub(super) netns: NetNs,
    /// The sidecar's listeners, if it has one.
    pub(super) listeners: Vec<OwnedFd>,
    /// What leads to services' endpoints.
    pub(super) services: ServiceRules,
    /// What the workload's DNS answers.
    pub(super) view: Arc<ArcSwap<View>>,
    _dns: DnsServer,
}

pub(super) fn netns_path(run_dir: &Path, key: &Key) -> PathBuf {
    run_dir.join("netns").join(format!("{}.{}", key.network, key.workload))
}

pub(super) fn resolv_path(run_dir: &Path, key: &Key) -> PathBuf {
    run_dir.join("resolv").join(format!("{}.{}.conf", key.network, key.workload))
}

/// Where a workload lives.
pub(super) fn location(context: &Context, workload: &Workload) -> v1::Location {
    let key = Key { network: workload.network.clone(), workload: workload.name.clone() };
    v1::Location {
        workload: workload.name.to_string(),
        netns: netns_path(&context.run_dir, &key).display().to_string(),
        resolv_conf: resolv_path(&context.run_dir, &key).display().to_string(),
        address: workload.address.to_string(),
    }
}

fn dns_key(key: &Key) -> String {
    format!("dns/{key}")
}

fn listeners_key(key: &Key) -> String {
    format!("sidecar/{key}")
}

/// Makes everything, or finds it.
pub(super) async fn plumb(
    context: &Context,
    network: &Network,
    workload: &Workload,
    table: &Arc<ServiceTable>,
    view: View,
) -> Result<Plumbed, AttachError> {
    let key = Key { network: network.name.clone(), workload: workload.name.clone() };
    let fail = |error: &dyn std::fmt::Display| AttachError::setup(&key, error);
    let netns = NetNs::ensure_at(netns_path(&context.run_dir, &key)).map_err(|error| fail(&error))?;
    let made = context.overlay.ensure_workload(network, workload, &netns).await;
    made.map_err(|error| fail(&error))?;
    let sockets = held(context, &netns, dns_key(&key), || DnsSockets::bind(RESOLVER).map(Into::into));
    let sockets =
        DnsSockets::try_from(sockets.map_err(|error| fail(&error))?).map_err(|error| fail(&error))?;
    let mut listeners = Vec::new();
    if workload.sidecar {
        let ports = context.ports;
        let bound = held(context, &netns, listeners_key(&key), move || listen(ports));
        listeners = bound.map_err(|error| fail(&error))?;
        // The listeners stand before the rules: nothing is refused, nothing passes by.
        let rules = nft::ensure_sidecar_rules(&context.hopper, &netns, network.subnet, ports).await;
        rules.map_err(|error| fail(&error))?;
    }
    let services = ServiceRules::new(context.hopper.clone(), network.name.clone());
    let mut services = services.counted(context.service_metrics.clone());
    services.ensure(&netns, table).await.map_err(|error| fail(&error))?;
    write_resolv(&resolv_path(&context.run_dir, &key), &[&network.name]).map_err(|error| fail(&error))?;
    let view = Arc::new(ArcSwap::from_pointee(view));
    let metrics = context.dns_metrics.network(&network.name);
    let dns = dns::serve(sockets, view.clone(), context.forwarder.clone(), metrics);
    let dns = dns.map_err(|error| fail(&error))?;
    Ok(Plumbed { netns, listeners, services, view, _dns: dns })
}

/// Removes everything: links first, then sockets, then the namespace. What is gone already is no error.
pub(super) async fn unplumb(context: &Context, key: &Key, plumbed: Option<Plumbed>) {
    let complain = |what: &str, error: &dyn std::fmt::Display| {
        tracing::error!(%error, %key, "cannot remove {what} of a workload that ended");
    };
    if let Err(error) = context.overlay.remove_workload(&key.network, &key.workload).await {
        complain("the interface", &error);
    }
    if let Some(mut plumbed) = plumbed
        && let Err(error) = plumbed.services.remove(&plumbed.netns).await
    {
        complain("the rules of service addresses", &error);
    }
    for held in [dns_key(key), listeners_key(key)] {
        if let Err(error) = context.held.remove(&held) {
            complain("the sockets", &error);
        }
    }
    if let Err(error) = NetNs::remove_at(netns_path(&context.run_dir, key)) {
        complain("the namespace", &error);
    }
    match fs::remove_file(resolv_path(&context.run_dir, key)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => complain("resolv.conf", &error),
        _ => {}
    }
}

/// The descriptors under `key`, or new ones made in `netns` and held from now on.
fn held(
    context: &Context,
    netns: &NetNs,
    key: String,
    make: impl FnOnce() -> io::Result<Vec<OwnedFd>> + Send + 'static,
) -> io::Result<Vec<OwnedFd>> {
    if let Some(found) = context.held.copies(&key) {
        return Ok(found);
    }
    let made = context.hopper.run(netns, make)??;
    context.held.put(&key, made).map_err(io::Error::other)?;
    context.held.copies(&key).ok_or_else(|| io::Error::other("too many open files"))
}

fn listen(ports: SidecarPorts) -> io::Result<Vec<OwnedFd>> {
    [ports.outbound, ports.inbound, ports.tunnel]
        .into_iter()
        .map(|port| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

/// The workload's resolv.conf.
fn write_resolv(path: &Path, networks: &[&NetworkName]) -> io::Result<()> {
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, resolv(&host, networks))
}

/// Our resolver, and the host's search list, which works through it. The networks stand before it: resolvers try
/// the list first for a name without a dot, and the host's domains shall neither be asked for the names of services
/// nor answer for them.
fn resolv(host: &str, networks: &[&NetworkName]) -> String {
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
    format!("nameserver {RESOLVER}\nsearch {}\n", domains.join(" "))
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
            assert_eq!(resolv(host, &[&shop]), format!("nameserver 127.0.0.11\n{expected}\n"));
        }
    }
}
