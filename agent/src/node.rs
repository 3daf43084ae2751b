//! This host's own identity: made when it joins, kept on disk, renewed from a third of its life on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use sealane_base::backoff::Backoff;
use sealane_fabric::overlay::{UnderlayError, source_towards};
use sealane_proto::client::{JoinError, TlsIdentity, join};
use sealane_proto::identity::{Trust, TrustError};
use sealane_proto::resource::{ControlAddr, Node};
use sealane_proto::token::JoinToken;
use sealane_proto::types::{NameError, NodeName, UnderlayAddr};

use crate::certs::key::{KeyError, NewKey};
use crate::disk::{DiskError, Folder, NodeIdentity, RecordError};

const FILE: &str = "node";
/// The key, until the host has joined with it.
const KEY: &str = "node.key";

/// Time that resolvers may take until that is named.
const LOOKUP: Duration = Duration::from_secs(1);

/// Facts about this host on the command line.
#[derive(Clone, Debug)]
pub(crate) struct NodeOptions {
    /// Addresses of control.
    pub(crate) control: Vec<ControlAddr>,
    /// The join token, needed once.
    pub(crate) token: Option<JoinToken>,
    /// The node's name; the host name without it.
    pub(crate) name: Option<NodeName>,
    /// The underlay address; the source address towards control without it.
    pub(crate) underlay: Option<IpAddr>,
}

/// Reasons for which this host has no identity.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The host has not joined and has no token.
    #[error(
        "this host has not joined a mesh yet; hint: `sealane token create` on the control host prints a token; give it by --token-file, \
         by --token - on standard input, or as SEALANE_TOKEN"
    )]
    NoToken,
    /// The host joined as somebody else.
    #[error(
        "this host joined the mesh as {joined}, not {wanted}; hint: leave --name out; to join as another host, end this one first \
         (`sealane clean`, and `sealane node rm {joined}` on the control host)"
    )]
    Other {
        /// Name under which it joined.
        joined: NodeName,
        /// Name on the command line.
        wanted: NodeName,
    },
    /// Control's name has no address.
    #[error(
        "cannot look up {0}, where control should be: {1}; hint: name control by its address in --control, or see resolv.conf(5)"
    )]
    Lookup(ControlAddr, #[source] io::Error),
    /// The host's name is no node name.
    #[error("{0}; hint: pass --name")]
    HostName(#[from] NameError),
    /// The host's name cannot be read.
    #[error("cannot read this host's name: {0}; hint: pass --name")]
    NoHostName(#[source] io::Error),
    /// No way to control.
    #[error(transparent)]
    Route(#[from] UnderlayError),
    /// Control does not let it in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The identity could not be stored or read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The stored identity is another version's.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The stored roots are no certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// This host as it is known to itself.
#[derive(Debug)]
pub(crate) struct RestoredNode {
    /// The identity, at the address that is wanted.
    pub(crate) identity: NodeIdentity,
    /// True if it is stored at another address, and stays so until control has taken this one.
    pub(crate) moved: bool,
}

/// The stored identity, when this host has joined before. Nothing is stored here: what is wanted may be wrong.
///
/// # Errors
/// When it cannot be read or does not fit what is wanted; `check` says that an address is not this host's.
pub(crate) fn load(
    folder: &Folder,
    wanted: &NodeOptions,
    check: impl Fn(UnderlayAddr) -> Result<(), UnderlayError>,
) -> Result<Option<RestoredNode>, NodeError> {
    let Some(bytes) = folder.read(FILE)? else {
        return Ok(None);
    };
    let mut identity = NodeIdentity::from_bytes(&bytes)?;
    let node = &mut identity.node;
    if let Some(name) = wanted.name.as_ref().filter(|name| **name != node.name) {
        return Err(NodeError::Other { joined: node.name.clone(), wanted: name.clone() });
    }
    let now = wanted.underlay.map(UnderlayAddr::from).filter(|underlay| *underlay != node.underlay);
    if let Some(underlay) = now {
        // The host is its key, wherever it is: control hears of it, and tells the others.
        check(underlay)?;
        tracing::info!(before = %node.underlay, now = %underlay, "this host has another underlay address");
        node.underlay = underlay;
    }
    Ok(Some(RestoredNode { identity, moved: now.is_some() }))
}

/// Joins the mesh; tries again for as long as control cannot be reached.
///
/// The key is stored before control hears of it: a host that was killed between joining and storing the answer
/// joins again with the same key, which control recognises.
///
/// # Errors
/// When control refuses or is not the one that the token pins.
pub(crate) async fn join_mesh(
    folder: &Folder,
    wanted: &NodeOptions,
    version: &str,
    provider: &Arc<CryptoProvider>,
) -> Result<NodeIdentity, NodeError> {
    let token = wanted.token.as_ref().ok_or(NodeError::NoToken)?;
    let name = match &wanted.name {
        Some(name) => name.clone(),
        None => host_name()?.parse()?,
    };
    let kept = folder.read(KEY)?.is_some();
    let key = NewKey::load_or_make(folder, KEY)?;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    for attempt in 0_usize.. {
        let Some(control) = wanted.control.get(attempt % wanted.control.len().max(1)) else {
            break;
        };
        let node = Node { name: name.clone(), underlay: underlay(wanted, control).await?.into(), mtu: None };
        match join(control, token, &node, key.request()?, version, provider).await {
            Ok(joined) => {
                let identity = NodeIdentity {
                    node,
                    trust_domain: joined.trust_domain,
                    key: key.private(),
                    chain: joined.chain,
                    roots: joined.roots,
                };
                store(folder, &identity)?;
                folder.remove(KEY)?;
                return Ok(identity);
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "cannot join yet, trying again");
                tokio::time::sleep(backoff.next_wait(rand::random())).await;
            }
            Err(error) => {
                // Nobody knows this key, unless an earlier process had sent it.
                if !kept {
                    folder.remove(KEY)?;
                }
                return Err(error.into());
            }
        }
    }
    Err(NodeError::NoToken)
}

/// Keeps an identity on disk.
///
/// # Errors
/// When the disk is full.
pub(crate) fn store(folder: &Folder, identity: &NodeIdentity) -> Result<(), DiskError> {
    folder.write(FILE, &identity.to_bytes())
}

/// The identity as TLS needs it.
///
/// # Errors
/// When the roots are no certificates.
pub(crate) fn tls_identity(identity: &NodeIdentity) -> Result<Arc<TlsIdentity>, TrustError> {
    Ok(Arc::new(TlsIdentity {
        chain: identity.chain.clone(),
        key: identity.key.clone_key(),
        trust: Trust::new(identity.trust_domain.clone(), &identity.roots)?,
    }))
}

async fn underlay(wanted: &NodeOptions, control: &ControlAddr) -> Result<IpAddr, NodeError> {
    if let Some(address) = wanted.underlay {
        return Ok(address);
    }
    let lookup = |error| NodeError::Lookup(control.clone(), error);
    let target: Vec<SocketAddr> = resolve(control).await.map_err(lookup)?;
    let target = target.iter().find(|address| address.is_ipv4()).or(target.first());
    let target = target.ok_or_else(|| lookup(io::ErrorKind::NotFound.into()))?;
    Ok(source_towards(*target)?.to_ip())
}

/// Looks control's name up; a resolver that does not answer is named before it gives up.
async fn resolve(control: &ControlAddr) -> io::Result<Vec<SocketAddr>> {
    let mut lookup = std::pin::pin!(tokio::net::lookup_host(&control.text));
    let resolved = match tokio::time::timeout(LOOKUP, lookup.as_mut()).await {
        Ok(resolved) => resolved,
        Err(_) => {
            tracing::warn!(%control, "the resolvers of this host (resolv.conf) do not answer for control's name yet");
            lookup.await
        }
    };
    Ok(resolved?.collect())
}

fn host_name() -> Result<String, NodeError> {
    let full =
        std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).map_err(NodeError::NoHostName)?;
    Ok(full.trim().split('.').next().unwrap_or_default().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(folder: &Folder) -> NodeIdentity {
        NodeIdentity::from_bytes(&folder.read(FILE).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn what_the_command_line_says_of_a_host_is_checked_before_anything_of_it_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        let node =
            Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
        let identity = NodeIdentity {
            node,
            trust_domain: "sealane".parse().unwrap(),
            key: NewKey::load_or_make(&folder, KEY).unwrap().private(),
            chain: vec![],
            roots: vec![],
        };
        store(&folder, &identity).unwrap();
        let here = |address: UnderlayAddr| match address.to_string().as_str() {
            "192.0.2.2" => Ok(()),
            _ => Err(UnderlayError::NotHere(address)),
        };
        let start = |name: Option<&str>, underlay: Option<&str>| {
            let wanted = NodeOptions {
                control: vec![],
                token: None,
                name: name.map(|name| name.parse().unwrap()),
                underlay: underlay.map(|underlay| underlay.parse().unwrap()),
            };
            let known = load(&folder, &wanted, here).map(Option::unwrap);
            known
                .map(|known| (known.identity.node.underlay.to_string(), known.moved))
                .map_err(|error| error.to_string())
        };
        let before = || Ok(("192.0.2.1".to_owned(), false));
        let refused = start(None, Some("192.0.2.9")).unwrap_err();
        assert!(refused.contains("no device of this host has the underlay address 192.0.2.9"), "{refused}");
        assert!(start(Some("host-2"), Some("192.0.2.2")).unwrap_err().contains("joined the mesh as host-1"));
        assert_eq!(start(None, None), before(), "nothing of it is kept");
        assert_eq!(start(None, Some("192.0.2.1")), before(), "it may come later, as at boot");
        assert_eq!(start(None, Some("192.0.2.2")), Ok(("192.0.2.2".to_owned(), true)));
        assert_eq!(stored(&folder).node.underlay.to_string(), "192.0.2.1", "until control has taken it");
    }
}
