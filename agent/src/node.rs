//! This host's own identity: made when it joins, kept on disk, renewed from a third of its life on.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use sealane_base::backoff::Backoff;
use sealane_fabric::overlay::{UnderlayChoice, UnderlayChoices};
use sealane_proto::client::{JoinError, TlsIdentity, join};
use sealane_proto::identity::{Trust, TrustError};
use sealane_proto::resource::{ControlAddr, Node};
use sealane_proto::token::JoinToken;
use sealane_proto::types::{NameError, NodeName};
use sealane_sys::hop::Hopper;

use crate::VERSION;
use crate::certs::key::{KeyError, NewKey};
use crate::disk::{DiskError, Folder, NodeIdentity, RecordError};
use crate::underlay::{SourceError, UnderlaySource};

const FILE: &str = "node";
/// Longest pause before a control plane is asked that another one has named.
const HOP: Duration = Duration::from_millis(200);

/// The key, until the host has joined with it.
const KEY: &str = "node.key";

/// Limit for looking where a host is that comes back.
const PLACING: Duration = Duration::from_secs(2);

/// Facts about this host on the command line.
#[derive(Clone, Debug)]
pub(crate) struct NodeOptions {
    /// Addresses of control.
    pub(crate) control: Vec<ControlAddr>,
    /// The join token, needed once.
    pub(crate) token: Option<JoinToken>,
    /// The node's name; the host name without it.
    pub(crate) name: Option<NodeName>,
    /// Choices of the underlay addresses; the last ones, at first the source addresses towards control, without them.
    pub(crate) underlay: Option<UnderlayChoices>,
    /// True if control is on this host and others may join.
    pub(crate) expects_others: bool,
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
    /// The host's name is no node name.
    #[error("{0}; hint: pass --name")]
    HostName(#[from] NameError),
    /// The host's name cannot be read.
    #[error("cannot read this host's name: {0}; hint: pass --name")]
    NoHostName(#[source] io::Error),
    /// No address to be reached at, or no way to control.
    #[error(transparent)]
    Underlay(#[from] SourceError),
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
    /// True if it is stored at another address or by another choice, and stays so until control has taken this one.
    pub(crate) moved: bool,
}

impl NodeOptions {
    /// Source of the underlay addresses, by these choices.
    pub(crate) fn source(&self, choices: UnderlayChoices) -> UnderlaySource {
        UnderlaySource { choices, control: self.control.clone(), expects_others: self.expects_others }
    }
}

/// The stored identity, when this host has joined before. Nothing is stored here: what is wanted may be wrong.
///
/// # Errors
/// When it cannot be read or does not fit what is wanted.
pub(crate) fn load(folder: &Folder, wanted: &NodeOptions) -> Result<Option<NodeIdentity>, NodeError> {
    let Some(bytes) = folder.read(FILE)? else {
        return Ok(None);
    };
    let identity = NodeIdentity::from_bytes(&bytes)?;
    let node = &identity.node;
    if let Some(name) = wanted.name.as_ref().filter(|name| **name != node.name) {
        return Err(NodeError::Other { joined: node.name.clone(), wanted: name.clone() });
    }
    Ok(Some(identity))
}

/// Places the host where it is now, by the choice that is wanted or the stored one: it is its key, wherever it is.
///
/// # Errors
/// When no address fits a choice that is new. By the one from before, an address may come later, as at boot.
pub(crate) async fn place(
    mut identity: NodeIdentity,
    wanted: &NodeOptions,
    hopper: &Arc<Hopper>,
) -> Result<RestoredNode, NodeError> {
    let choices = wanted.underlay.clone().unwrap_or_else(|| identity.choices.clone());
    let (stored, chosen) = (identity.node.underlay, choices != identity.choices);
    // An address of the other family stays as long as nobody chooses otherwise.
    let before = if chosen { stored.first().into() } else { stored };
    let source = wanted.source(choices.clone());
    let same = UnderlayChoices::from(UnderlayChoice::Address(stored.first()));
    let now = match tokio::time::timeout(PLACING, source.find(hopper, Some(before), true)).await {
        Ok(Ok(now)) => now,
        // What names the address that it has is no news.
        Ok(Err(error)) if chosen && choices != same => return Err(error.into()),
        Ok(Err(error)) => {
            tracing::warn!(%error, underlay = %before, "this host has not its underlay address yet");
            before
        }
        // Resolvers keep nobody's workloads waiting.
        Err(_) => before,
    };
    if now != stored {
        tracing::info!(before = %stored, %now, "this host has another underlay address");
    }
    (identity.node.underlay, identity.choices) = (now, choices);
    Ok(RestoredNode { identity, moved: chosen || now != stored })
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
    hopper: &Arc<Hopper>,
    provider: &Arc<CryptoProvider>,
) -> Result<NodeIdentity, NodeError> {
    let choices = wanted.underlay.clone().unwrap_or_default();
    let token = wanted.token.as_ref().ok_or(NodeError::NoToken)?;
    let name = match &wanted.name {
        Some(name) => name.clone(),
        None => host_name()?.parse()?,
    };
    let kept = folder.read(KEY)?.is_some();
    let key = NewKey::load_or_make(folder, KEY)?;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    // The control plane that leads, as another one has said.
    let mut leader = None;
    for attempt in 0_usize.. {
        let turn = wanted.control.get(attempt % wanted.control.len().max(1)).cloned();
        let Some(control) = &leader.take().or(turn) else {
            break;
        };
        let source = UnderlaySource {
            control: [std::slice::from_ref(control), wanted.control.as_slice()].concat(),
            ..wanted.source(choices.clone())
        };
        let underlay = source.find(hopper, None, true).await?;
        let node = Node { name: name.clone(), underlay, mtu: None };
        match join(control, token, &node, key.request()?, VERSION, provider).await {
            Ok(joined) => {
                let identity = NodeIdentity {
                    node,
                    choices,
                    trust_domain: joined.trust_domain,
                    key: key.private(),
                    chain: joined.chain,
                    roots: joined.roots,
                };
                store(folder, &identity)?;
                folder.remove(KEY)?;
                return Ok(identity);
            }
            Err(error) if error.leader().is_some_and(|leader| leader != control) => {
                tracing::info!(%error, "asking the control plane that leads");
                leader = error.leader().cloned();
                tokio::time::sleep(backoff.next_wait(rand::random()).min(HOP)).await;
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

    #[tokio::test]
    async fn what_the_command_line_says_of_a_host_is_checked_before_anything_of_it_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        let hopper = Arc::new(Hopper::start().unwrap());
        let node =
            Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
        let identity = NodeIdentity {
            node,
            choices: UnderlayChoices::default(),
            trust_domain: "sealane".parse().unwrap(),
            key: NewKey::load_or_make(&folder, KEY).unwrap().private(),
            chain: vec![],
            roots: vec![],
        };
        store(&folder, &identity).unwrap();
        let start = async |name: Option<&str>, underlay: Option<&str>| {
            let wanted = NodeOptions {
                // Nobody resolves it.
                control: vec!["control.invalid:7443".parse().unwrap()],
                token: None,
                name: name.map(|name| name.parse().unwrap()),
                underlay: underlay.map(|underlay| underlay.parse::<UnderlayChoice>().unwrap().into()),
                expects_others: false,
            };
            let known = load(&folder, &wanted).map_err(|error| error.to_string())?.unwrap();
            let placed = place(known, &wanted, &hopper).await.map_err(|error| error.to_string())?;
            let NodeIdentity { node, choices, .. } = placed.identity;
            Ok::<_, String>((node.underlay.to_string(), choices.to_string(), placed.moved))
        };
        let at = |underlay: &str, choice: &str, moved| Ok((underlay.to_owned(), choice.to_owned(), moved));
        let refused = async |underlay: &str| start(None, Some(underlay)).await.unwrap_err();
        let said = refused("192.0.2.9").await;
        assert!(said.contains("no device of this host has the underlay address 192.0.2.9"), "{said}");
        assert!(refused("203.0.113.0/24").await.contains("no address of this host that others can send to"));
        assert!(refused("no-such-link").await.contains("this host has no interface no-such-link"));
        assert!(start(Some("host-2"), None).await.unwrap_err().contains("joined the mesh as host-1"));
        assert_eq!(start(None, None).await, at("192.0.2.1", "auto", false), "it may come later, as at boot");
        assert_eq!(
            start(None, Some("192.0.2.1")).await,
            at("192.0.2.1", "192.0.2.1", true),
            "so may this one"
        );
        assert_eq!(start(None, Some("127.0.0.1")).await, at("127.0.0.1", "127.0.0.1", true));
        assert_eq!(stored(&folder).node.underlay.to_string(), "192.0.2.1", "until control has taken it");
        assert_eq!(stored(&folder).choices, UnderlayChoices::default());
    }
}
