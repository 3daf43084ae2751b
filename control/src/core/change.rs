//! The alphabet of changes: each puts or removes one record, in memory and in the store alike.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use sealane_proto::identity::SerialPrefix;
use sealane_proto::resource::{Block, Network, Service, Workload};
use sealane_proto::types::{NetworkName, NodeName, ServiceName, WorkloadName};

use super::{Idle, NodeRecord, Recovery, RemovedNode, Rest, TokenRecord};

/// Change of one record: put or removed. Removing a network expects that everything in it has been removed before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the record and where it belongs")]
pub enum Change {
    /// A network is there, its content last changed at this revision.
    PutNetwork { network: Network, changed: u64 },
    /// A network is no more.
    RemoveNetwork(NetworkName),
    /// A host has joined.
    PutNode(NodeRecord),
    /// A host is no more.
    RemoveNode(NodeName),
    /// A block is leased.
    PutBlock { network: NetworkName, block: Block },
    /// A block is free.
    RemoveBlock { network: NetworkName, range: Ipv4Net },
    /// A service is there.
    PutService { network: NetworkName, service: Service },
    /// A service is no more.
    RemoveService { network: NetworkName, name: ServiceName },
    /// A workload is there.
    PutWorkload(Workload),
    /// A workload is no more.
    RemoveWorkload { network: NetworkName, name: WorkloadName },
    /// A token admits hosts.
    PutToken(TokenRecord),
    /// A token is forgotten.
    RemoveToken(String),
    /// The store was restored, and this is known of it.
    PutRecovery(Recovery),
    /// The restoration is forgotten.
    RemoveRecovery,
    /// A host's certificates are good for nothing.
    PutRemoved(RemovedNode),
    /// The removed host's certificates have all ended.
    ForgetRemoved(SerialPrefix),
    /// Addresses that nobody has rest.
    PutRest { network: NetworkName, range: Ipv4Net, rest: Rest },
    /// The addresses may be given again.
    RemoveRest { network: NetworkName, range: Ipv4Net },
    /// A service has no instance.
    PutIdle { network: NetworkName, name: ServiceName, idle: Idle },
    /// A service has an instance again, or is no more.
    RemoveIdle { network: NetworkName, name: ServiceName },
}

/// Objects that changes touch: whatever is derived from these must be derived anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Networks whose snapshots may differ.
    pub networks: BTreeSet<NetworkName>,
    /// True if hosts joined or moved.
    pub nodes: bool,
    /// True if there are other tokens.
    pub tokens: bool,
}
