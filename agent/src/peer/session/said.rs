//! This host's facts as octets: encoded once, told to every peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use sealane_proto::peer::{HeldFacts, row_digest};
use sealane_proto::resource::{OwnerFacts, Workload};
use sealane_proto::types::{NetworkName, WorkloadName};
use sealane_proto::wire::v1;

/// Words of this host about its workloads, network by network.
pub(crate) type Said = Arc<BTreeMap<NetworkName, Arc<SaidFacts>>>;

/// Words of this host about its workloads in one network.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SaidFacts {
    /// Version, and digest of all rows.
    pub(super) held: HeldFacts,
    /// Messages of the workloads.
    pub(super) rows: BTreeMap<WorkloadName, Bytes>,
}

impl SaidFacts {
    /// Encodes the facts; one that has been encoded already is shared.
    pub(crate) fn all(facts: &BTreeMap<NetworkName, Arc<OwnerFacts>>, before: &Said) -> Said {
        let said = facts.iter().map(|(network, facts)| {
            let known = before.get(network).filter(|known| known.held.edition == facts.edition());
            (network.clone(), known.cloned().unwrap_or_else(|| Arc::new(Self::of(facts))))
        });
        Arc::new(said.collect())
    }

    fn of(facts: &OwnerFacts) -> Self {
        let encode = |workload: &Workload| Bytes::from(v1::Workload::from(workload).encode_to_vec());
        let rows: BTreeMap<_, _> =
            facts.workloads.iter().map(|workload| (workload.name.clone(), encode(workload))).collect();
        let digest = rows.values().fold(0, |sum: u64, row| sum.wrapping_add(row_digest(row)));
        let held = HeldFacts { network: facts.network.clone(), edition: facts.edition(), digest };
        Self { held, rows }
    }
}
