//! Resources for tests beside those of the fabric.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
pub(crate) use sealane_fabric::testing::{Chance, block, random_network, service, snapshot, workload};
use sealane_proto::identity::{Principal, SpiffeId};

use crate::certs::WorkloadIdentity;
use crate::certs::key::Validity;

/// A container's labels.
pub(crate) fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// An identity of the network that nobody would believe.
pub(crate) fn identity() -> Arc<WorkloadIdentity> {
    let principal = Principal::Service("shop".parse().unwrap(), "api".parse().unwrap());
    let now = SystemTime::now();
    Arc::new(WorkloadIdentity {
        spiffe_id: SpiffeId { trust_domain: "sealane".parse().unwrap(), principal },
        chain: vec![],
        roots: vec![],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(vec![0])),
        validity: Validity { not_before: now, not_after: now + Duration::from_secs(3600) },
    })
}
