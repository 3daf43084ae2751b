//! Records of everything that Docker was told and must be answered by ever after: its networks and endpoints. On disk
//! before each answer.

use std::collections::BTreeMap;

use sealane_proto::types::{MacAddr, NetworkName, OverlayIp};
use serde::{Deserialize, Serialize};

use crate::attachment::Hold;
use crate::disk::{DiskError, Folder};

/// A network of Docker's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network {
    /// Ours.
    pub(super) network: NetworkName,
    /// The pool that IPAM has given it.
    pub(super) pool: String,
    /// True if its containers get no way out by Docker.
    pub(super) internal: bool,
    /// The pool of IPv6 that IPAM has given it.
    #[serde(default)]
    pub(super) pool6: Option<String>,
}

/// A container's end of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Endpoint {
    /// Docker's network.
    pub(super) network_id: String,
    /// Ours.
    pub(super) network: NetworkName,
    /// Address in the network.
    pub(super) address: OverlayIp,
    /// Ethernet address.
    pub(super) mac: String,
    /// Holder that has reserved them.
    pub(super) hold: String,
    /// The path of its container's namespace, from its joining until its leaving.
    pub(super) sandbox: Option<String>,
    /// The boot in which it joined.
    #[serde(default)]
    pub(super) boot: String,
    /// Container of the end, once that is known.
    #[serde(default)]
    pub(super) owner: Option<Owner>,
}

impl Endpoint {
    /// Returns the holder of its workload and its address.
    pub(super) fn hold(&self) -> Option<Hold> {
        self.hold.parse().ok()
    }

    /// Returns the Ethernet address.
    pub(super) fn mac(&self) -> Option<MacAddr> {
        self.mac.parse().ok()
    }
}

/// The container that an end is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// Id of the container.
    pub(super) container: String,
    /// The name that it had when its end was attached.
    pub(super) name: String,
    /// True if one of its ports is enough for it to be ready.
    pub(super) any_port: bool,
}

/// An address that a container had, and has again when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Past {
    /// The container's id.
    pub(super) container: String,
    /// Docker's network.
    pub(super) network_id: String,
    /// Ours.
    pub(super) network: NetworkName,
    /// The address.
    pub(super) address: OverlayIp,
    /// Holder that keeps it meanwhile; nobody after a while.
    pub(super) hold: Option<String>,
}

impl Past {
    /// Returns the holder that keeps the address meanwhile.
    pub(super) fn hold(&self) -> Option<Hold> {
        self.hold.as_ref()?.parse().ok()
    }

    fn name(&self) -> String {
        format!("{}.{}", self.container, self.network_id)
    }
}

/// Everything, by Docker's ids.
#[derive(Debug)]
pub(super) struct Book {
    folder: Folder,
    networks: BTreeMap<String, Network>,
    endpoints: BTreeMap<String, Endpoint>,
    past: BTreeMap<String, Past>,
}

const NETWORK: &str = "network.";
const ENDPOINT: &str = "endpoint.";
const PAST: &str = "past.";
/// Number of former addresses that are remembered.
const MOST: usize = 1024;

impl Book {
    /// Reads the records in `folder`. A record that cannot be read is as if it was not there.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn recall(folder: Folder) -> Result<Self, DiskError> {
        let (mut networks, mut endpoints, mut past) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for name in folder.names()? {
            let bytes = match folder.read(&name) {
                Ok(bytes) => bytes.unwrap_or_default(),
                Err(error) => {
                    tracing::error!(%error, name, "a record of Docker's is lost");
                    continue;
                }
            };
            if let Some(id) = name.strip_prefix(NETWORK) {
                networks.extend(read(&name, &bytes).map(|network| (id.to_owned(), network)));
            } else if let Some(id) = name.strip_prefix(ENDPOINT) {
                endpoints.extend(read(&name, &bytes).map(|endpoint| (id.to_owned(), endpoint)));
            } else if let Some(id) = name.strip_prefix(PAST) {
                past.extend(read(&name, &bytes).map(|past| (id.to_owned(), past)));
            }
        }
        Ok(Self { folder, networks, endpoints, past })
    }

    pub(super) fn network(&self, id: &str) -> Option<&Network> {
        self.networks.get(id)
    }

    pub(super) fn networks(&self) -> impl Iterator<Item = (&String, &Network)> {
        self.networks.iter()
    }

    pub(super) fn endpoint(&self, id: &str) -> Option<&Endpoint> {
        self.endpoints.get(id)
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&String, &Endpoint)> {
        self.endpoints.iter()
    }

    /// # Errors
    /// When it cannot be written; nothing is changed then.
    pub(super) fn put_network(&mut self, id: &str, network: Network) -> Result<(), DiskError> {
        self.folder.write(&format!("{NETWORK}{id}"), &bytes(&network))?;
        self.networks.insert(id.to_owned(), network);
        Ok(())
    }

    /// # Errors
    /// As [`Book::put_network`].
    pub(super) fn put_endpoint(&mut self, id: &str, endpoint: Endpoint) -> Result<(), DiskError> {
        self.folder.write(&format!("{ENDPOINT}{id}"), &bytes(&endpoint))?;
        self.endpoints.insert(id.to_owned(), endpoint);
        Ok(())
    }

    /// The addresses that containers had.
    pub(super) fn past(&self) -> impl Iterator<Item = &Past> {
        self.past.values()
    }

    /// A container may have its address again. With too many of them it gets another one.
    ///
    /// # Errors
    /// As [`Book::put_network`].
    pub(super) fn remember(&mut self, past: Past) -> Result<(), DiskError> {
        let name = past.name();
        if self.past.len() < MOST || self.past.contains_key(&name) {
            self.folder.write(&format!("{PAST}{name}"), &bytes(&past))?;
            self.past.insert(name, past);
        }
        Ok(())
    }

    /// # Errors
    /// As [`Book::put_network`].
    pub(super) fn forget(&mut self, past: &Past) -> Result<(), DiskError> {
        let name = past.name();
        if self.past.contains_key(&name) {
            self.folder.remove(&format!("{PAST}{name}"))?;
            self.past.remove(&name);
        }
        Ok(())
    }

    /// An endpoint is of this container. One that has left needs no owner.
    ///
    /// # Errors
    /// As [`Book::put_network`].
    pub(super) fn own(&mut self, id: &str, owner: Owner) -> Result<(), DiskError> {
        match self.endpoints.get(id).cloned() {
            Some(known) if known.owner.as_ref() != Some(&owner) => {
                self.put_endpoint(id, Endpoint { owner: Some(owner), ..known })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// # Errors
    /// As [`Book::put_network`].
    pub(super) fn remove_network(&mut self, id: &str) -> Result<(), DiskError> {
        if self.networks.contains_key(id) {
            self.folder.remove(&format!("{NETWORK}{id}"))?;
            self.networks.remove(id);
        }
        Ok(())
    }

    /// # Errors
    /// As [`Book::put_network`].
    pub(super) fn remove_endpoint(&mut self, id: &str) -> Result<Option<Endpoint>, DiskError> {
        if self.endpoints.contains_key(id) {
            self.folder.remove(&format!("{ENDPOINT}{id}"))?;
        }
        Ok(self.endpoints.remove(id))
    }
}

fn bytes(record: &impl Serialize) -> Vec<u8> {
    // These have no map with other keys than text, which alone could fail.
    serde_json::to_vec(record).unwrap_or_default()
}

fn read<T: for<'a> Deserialize<'a>>(name: &str, bytes: &[u8]) -> Option<T> {
    let complain = |error: &serde_json::Error| tracing::error!(%error, name, "a record of Docker's is lost");
    serde_json::from_slice(bytes).inspect_err(complain).ok()
}

/// Records for tests.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A network of Docker's in ours, `shop`.
    pub(in crate::door::docker) fn network() -> Network {
        Network {
            network: "shop".parse().unwrap(),
            pool: "sealane/shop".to_owned(),
            internal: false,
            pool6: None,
        }
    }

    /// An end of Docker's network `n` in ours, `shop`, that somebody holds.
    pub(in crate::door::docker) fn endpoint(hold: &str) -> Endpoint {
        Endpoint {
            network_id: "n".to_owned(),
            network: "shop".parse().unwrap(),
            address: "10.42.0.9".parse().unwrap(),
            mac: "02:00:0a:2a:00:09".to_owned(),
            hold: hold.to_owned(),
            sandbox: None,
            boot: String::new(),
            owner: None,
        }
    }

    /// An empty book, and its folder.
    pub(in crate::door::docker) fn book() -> (tempfile::TempDir, Book) {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::recall(Folder::open(dir.path().join("docker")).unwrap()).unwrap();
        (dir, book)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_endpoints_are_read_back_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Book::recall(Folder::open(dir.path().join("docker")).unwrap()).unwrap();
        let sandbox = Some("/run/docker/netns/1".to_owned());
        let (network, endpoint) =
            (testing::network(), Endpoint { sandbox, ..testing::endpoint("docker/4f1c") });
        let mut book = open();
        book.put_network("n", network.clone()).unwrap();
        book.put_endpoint("e", endpoint.clone()).unwrap();
        let mut book = open();
        assert_eq!((book.network("n"), book.endpoint("e")), (Some(&network), Some(&endpoint)));
        let past = Past {
            container: "c".to_owned(),
            network_id: "n".to_owned(),
            network: "shop".parse().unwrap(),
            address: "10.42.0.9".parse().unwrap(),
            hold: Some("docker/4f1c".to_owned()),
        };
        book.remember(past.clone()).unwrap();
        assert!(open().past().eq([&past]));
        book.forget(&past).unwrap();
        assert_eq!(open().past().count(), 0);
        book.remove_network("n").unwrap();
        assert_eq!(book.remove_endpoint("e").unwrap(), Some(endpoint));
        assert_eq!(book.remove_endpoint("e").unwrap(), None);
        assert_eq!((open().networks().count(), open().endpoints().count()), (0, 0));
    }
}
