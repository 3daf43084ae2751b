//! Changes: each puts or removes one record, in memory and in the store alike.

use std::collections::BTreeSet;

use sealane_proto::types::NetworkName;

use super::Change;
use super::record::{Edit, Kept, Mesh};

/// Objects that changes touch: whatever is derived from these must be derived anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Networks whose snapshots may differ.
    pub networks: BTreeSet<NetworkName>,
    /// True if hosts joined or moved.
    pub nodes: bool,
    /// True if there are other tokens.
    pub tokens: bool,
}

impl Change {
    /// A record of the mesh is there, and as this says.
    pub fn put<R: Kept<Home = Mesh>>(record: R) -> Self {
        R::change(Edit::Put(Mesh, record))
    }

    /// A record of the mesh is no more.
    #[must_use]
    pub fn remove<R: Kept<Home = Mesh>>(name: R::Name) -> Self {
        R::change(Edit::Remove(Mesh, name))
    }

    /// A record of a network is there, and as this says.
    pub fn put_in<R: Kept<Home = NetworkName>>(network: &NetworkName, record: R) -> Self {
        R::change(Edit::Put(network.clone(), record))
    }

    /// A record of a network is no more.
    #[must_use]
    pub fn remove_in<R: Kept<Home = NetworkName>>(network: &NetworkName, name: R::Name) -> Self {
        R::change(Edit::Remove(network.clone(), name))
    }
}
