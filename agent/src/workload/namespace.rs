//! Ground that all attachments of a workload stand on: its namespace, its resolver, its resolv.conf. Safe to repeat.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealane_fabric::netlink::{LinkRequest, NetlinkError, Socket};
use sealane_fabric::nft;
use sealane_fabric::seat::Owner;
use sealane_proto::types::NetworkName;
use sealane_sys::NetNs;
use tokio::time::Instant;

use super::meddling::Meddling;
use super::names::{Names, SharedNamespace};
use super::plumbing::{netns_path, resolv_path};
use super::{AttachError, WorkloadContext, survey};
use crate::attachment::AttachmentId;
use crate::dns::{Askers, DnsServer, DnsSockets, Neighbour};
use crate::kernel::KernelHandle;
use crate::trouble::WorkloadTrouble;

/// Address at which DNS is asked in every workload, as in Docker's containers.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Number of loopback addresses from that on that are tried in a namespace where it is somebody else's.
const FURTHER: u8 = 5;
/// Interval at which it is looked at whether somebody removed a workload's resolv.conf.
const LOOK: Duration = Duration::from_secs(1);

/// Parts that stand.
#[derive(Debug)]
pub(super) struct NamespaceDns {
    /// Address at which our names are answered.
    pub(super) nameserver: Ipv4Addr,
    /// Notes for whoever attached, a sentence each.
    pub(super) notes: Vec<String>,
    /// True if the namespace is somebody else's.
    given: bool,
    resolv: PathBuf,
    text: String,
    dns: Option<DnsServer>,
    /// Workloads that answer in the namespace together.
    room: Option<Arc<SharedNamespace>>,
    netns: NetNs,
    /// Places where the namespace is bound, one for each attachment.
    handles: Vec<PathBuf>,
}

/// The namespace of a workload, bound where each of its attachments is looked for: `given`, or one of its own.
pub(super) fn ensure_netns(
    kernel: &KernelHandle,
    ids: &[AttachmentId],
    given: Option<NetNs>,
) -> Result<NetNs, AttachError> {
    let Some((first, further)) = ids.split_first() else { return Err(AttachError::Ending) };
    let path = netns_path(&kernel.run_dir, first);
    let netns = match given {
        Some(given) => given.bind_at(&path).map(|()| given),
        None => NetNs::ensure_at(&path),
    };
    let netns = netns.map_err(|error| AttachError::setup(first, error))?;
    for id in further {
        let bound = netns.bind_at(netns_path(&kernel.run_dir, id));
        bound.map_err(|error| AttachError::setup(id, error))?;
    }
    Ok(netns)
}

/// Sets the loopback device up. An address of it that is bound before counts as a broadcast's: answers would come from another one.
pub(super) fn raise_loopback(kernel: &KernelHandle, netns: &NetNs) -> Result<(), NetlinkError> {
    let mut socket = Socket::open(&kernel.hopper, netns)?;
    match socket.link("lo")?.filter(|link| !link.up) {
        Some(link) => {
            let request = LinkRequest::of(link.index).up().change();
            socket.request(request, || "set the loopback device up".to_owned())
        }
        None => Ok(()),
    }
}

impl NamespaceDns {
    /// Serves the workload's names in its namespace, whose loopback device is up.
    pub(super) fn start(
        context: &WorkloadContext,
        ids: &[AttachmentId],
        netns: &NetNs,
        (owner, takes_over): (Owner, bool),
        (names, interface, gateway): (&Names, &str, Ipv4Addr),
    ) -> Result<Self, AttachError> {
        let Some(id) = ids.first() else { return Err(AttachError::Ending) };
        let fail = |error: &dyn std::fmt::Display| AttachError::setup(id, error);
        let inode = netns.inode().map_err(|error| fail(&error))?;
        let room = takes_over.then(|| names.join(&context.roster.rooms, inode, interface));
        // Another workload of the container may answer already, for all of them.
        let shared =
            room.is_some() && context.roster.sharing(netns, &context.kernel.run_dir).len() > ids.len();
        let early = context.roster.early.take(inode);
        let make = move || early.map_or_else(|| bind(owner, takes_over, shared), Ok).map(Into::into);
        let sockets = match context.kernel.kept(netns, &dns_key(id), make) {
            Ok(sockets) => Some(DnsSockets::try_from(sockets).map_err(|error| fail(&error))?),
            Err(error) if owner == Owner::Other && error.kind() == io::ErrorKind::AddrInUse => None,
            Err(error) => return Err(fail(&error)),
        };
        let bound = sockets.as_ref().and_then(|sockets| sockets.udp.local_addr().ok());
        let nameserver = match bound {
            Some(std::net::SocketAddr::V4(bound)) => *bound.ip(),
            None if shared => RESOLVER,
            Some(std::net::SocketAddr::V6(_)) | None => gateway,
        };
        let given = owner == Owner::Other;
        if given && nameserver == RESOLVER {
            nft::put_names(&context.kernel.hopper, netns, nameserver).map_err(|error| fail(&error))?;
        }
        let networks: Vec<&NetworkName> = ids.iter().map(|id| &id.network).collect();
        let resolv = resolv_path(&context.kernel.run_dir, id);
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let text = self::resolv(&host, nameserver, &networks);
        write(&resolv, &text)
            .map_err(|error| fail(&format!("cannot write {}: {error}", resolv.display())))?;
        let serve = |sockets| serve(context, id, netns, names, (sockets, given));
        let dns = sockets.map(serve).transpose().map_err(|error| fail(&error))?;
        let notes = notes(nameserver, gateway);
        let netns = netns.try_clone().map_err(|error| fail(&error))?;
        let handles = ids.iter().map(|id| netns_path(&context.kernel.run_dir, id)).collect();
        Ok(Self { nameserver, notes, given, resolv, text, dns, room, netns, handles })
    }

    /// Sees to it, for ever, that whoever enters the workload finds its namespace and its resolv.conf, also after somebody removed
    /// one, and that somebody answers in its namespace, also after whoever did has left.
    pub(super) async fn tend(&mut self, context: &WorkloadContext, id: &AttachmentId, names: &Names) {
        let mut look = tokio::time::interval(LOOK);
        let foreign = self.has_rules().then_some(&self.netns);
        let mut meddling = Meddling::watch(&context.kernel.overlay, foreign, id);
        loop {
            let room = self.room.clone();
            let freed = async {
                match &room {
                    Some(room) => room.freed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = look.tick() => {}
                () = freed => {}
                () = meddling.told(), if self.has_rules() => {
                    let began = Instant::now();
                    let mended = self.audit_rules(context, id).await;
                    meddling.looked(began, mended);
                }
            }
            self.ensure_handles(context, id);
            self.ensure_served(context, id, names);
            if self.resolv.exists() {
                continue;
            }
            match write(&self.resolv, &self.text) {
                Ok(()) => {
                    tracing::warn!(path = %self.resolv.display(), "a resolv.conf was removed; made again")
                }
                Err(error) => {
                    tracing::debug!(%error, path = %self.resolv.display(), "cannot make a resolv.conf")
                }
            }
        }
    }

    /// True if rules of the namespace lead questions to our resolver, whatever other rules are there.
    fn has_rules(&self) -> bool {
        self.given && self.nameserver == RESOLVER
    }

    /// Puts back rules of names that somebody else took away: Docker's resolver would be asked in place of ours.
    /// Answers whether there was something to mend, or to fail at.
    async fn audit_rules(&self, context: &WorkloadContext, id: &AttachmentId) -> bool {
        let changed = nft::ensure_names(&context.kernel.hopper, &self.netns, self.nameserver).await;
        if changed.as_ref().is_ok_and(|changed| *changed) {
            context.kernel.overlay.count_rules_drift(id);
        }
        let why = changed.as_ref().err().map(ToString::to_string);
        context.troubles.set(id, WorkloadTrouble::Names, why);
        changed.unwrap_or(true)
    }

    /// Binds the namespace again wherever somebody removed its name: audits and `exec` look for it there.
    fn ensure_handles(&self, context: &WorkloadContext, id: &AttachmentId) {
        for path in self.handles.iter().filter(|path| !self.netns.is_bound_at(path)) {
            match self.netns.bind_at(path) {
                Ok(()) => context.kernel.overlay.handle_drifted(&id.network, id),
                Err(error) => {
                    tracing::debug!(%error, workload = %id, "cannot bind a workload's namespace again")
                }
            }
        }
    }

    /// Answers in place of another workload of the namespace that has left.
    fn ensure_served(&mut self, context: &WorkloadContext, id: &AttachmentId, names: &Names) {
        if self.dns.is_some() || self.room.is_none() {
            return;
        }
        let served = || {
            let make = || DnsSockets::bind(RESOLVER).map(Into::into);
            let sockets = context.kernel.kept(&self.netns, &dns_key(id), make)?;
            serve(context, id, &self.netns, names, (DnsSockets::try_from(sockets)?, true))
        };
        match served() {
            Ok(dns) => self.dns = Some(dns),
            // It is still there.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => {
                tracing::error!(%error, workload = %id, "nobody answers names in a container's namespace")
            }
        }
    }
}

/// Answers at these sockets, in a namespace of its own or `given`.
fn serve(
    context: &WorkloadContext,
    id: &AttachmentId,
    netns: &NetNs,
    names: &Names,
    (sockets, given): (DnsSockets, bool),
) -> io::Result<DnsServer> {
    let neighbour =
        given.then(|| Ok::<_, io::Error>(Neighbour::new(context.kernel.hopper.clone(), netns.try_clone()?)));
    let neighbour = neighbour.transpose()?;
    context.names.serve(&id.network, sockets, names.view(), (Askers::One, neighbour))
}

/// Removes everything. What is gone already is no error.
pub(super) fn clear(
    kernel: &KernelHandle,
    ids: &[AttachmentId],
    namespace_dns: Option<NamespaceDns>,
    names: &Names,
) {
    let alone = |room: &Option<Arc<SharedNamespace>>| room.as_ref().is_none_or(|room| room.is_empty());
    names.leave();
    let rules = namespace_dns
        .as_ref()
        .is_some_and(|namespace_dns| namespace_dns.has_rules() && alone(&namespace_dns.room));
    let netns = ids.first().filter(|_| rules).map(|id| NetNs::open(netns_path(&kernel.run_dir, id)));
    if let Some(Ok(netns)) = netns
        && let Err(error) = nft::remove_names(&kernel.hopper, &netns)
    {
        tracing::error!(%error, "cannot remove the rules of names of a workload that ended");
    }
    drop(namespace_dns);
    for id in ids {
        let complain = |what: &str, error: &dyn std::fmt::Display| {
            tracing::error!(%error, workload = %id, "cannot remove {what} of a workload that ended");
        };
        if let Err(error) = kernel.keeper.remove(&dns_key(id)) {
            complain("the DNS sockets", &error);
        }
        if let Err(error) = NetNs::remove_at(netns_path(&kernel.run_dir, id)) {
            complain("the namespace", &error);
        }
        match fs::remove_file(resolv_path(&kernel.run_dir, id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => complain("resolv.conf", &error),
            _ => {}
        }
    }
    names.make_room();
}

fn dns_key(id: &AttachmentId) -> String {
    format!("dns/{id}")
}

/// The resolver's sockets. In a namespace of somebody else's, at the first address that is nobody's; when something
/// has port 53 of every address, `AddrInUse`.
/// Docker's is behind a port that its rules lead to, and so in the way of nobody whose rules come before. One that is `shared`
/// is nowhere else.
fn bind(owner: Owner, takes_over: bool, shared: bool) -> io::Result<DnsSockets> {
    let [a, b, c, last] = RESOLVER.octets();
    if takes_over {
        match DnsSockets::bind(RESOLVER) {
            Err(error) if !shared || error.kind() != io::ErrorKind::AddrInUse => {
                tracing::debug!(%error, "another address is tried for names");
            }
            bound => return bound,
        }
    }
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
    vec![format!(
        "{why}; hint: start a container with `--dns {nameserver}`, so that Docker's resolver asks there for what it does not \
         know, or put `nameserver {nameserver}` first into the workload's /etc/resolv.conf"
    )]
}

/// Writes a workload's resolv.conf, in place: somebody may have it mounted. A container that was to mount it before it was
/// there has left an empty folder of its name, which is removed.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    if path.is_dir() {
        fs::remove_dir(path)?;
    }
    fs::write(path, text)
}

/// Our resolver, and the host's search list, which works through it. The networks stand before it: resolvers try
/// the list first for a name without a dot, and the host's domains shall neither be asked for the names of services
/// nor answer for them.
fn resolv(host: &str, nameserver: Ipv4Addr, networks: &[&NetworkName]) -> String {
    // In several networks, the bare name is asked for first: its answer ranks the names of all of them, which a search would
    // go through one by one.
    let (mut domains, options): (Vec<&str>, &str) = match networks {
        [network] => (vec![network.as_str()], ""),
        _ => (Vec::new(), "options ndots:0\n"),
    };
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
    if domains.is_empty() {
        domains.push(".");
    }
    format!("nameserver {nameserver}\nsearch {}\n{options}", domains.join(" "))
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

    #[test]
    fn in_several_networks_a_bare_name_is_asked_for_before_any_domain_is_searched() {
        let (shop, lab) = ("shop".parse().unwrap(), "lab".parse().unwrap());
        for (host, expected) in [("", "search ."), ("search a.example", "search a.example")] {
            let expected = format!("nameserver 127.0.0.11\n{expected}\noptions ndots:0\n");
            assert_eq!(resolv(host, RESOLVER, &[&shop, &lab]), expected);
        }
    }
}
