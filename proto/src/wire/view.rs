//! What control and agents show of a network alike.

use std::collections::HashMap;

use super::v1;
use crate::resource::{NetworkSnapshot, Workload};
use crate::types::ServiceName;

impl From<&NetworkSnapshot> for v1::NetworkView {
    fn from(snapshot: &NetworkSnapshot) -> Self {
        Self {
            network: Some((&snapshot.network).into()),
            generation: Some(snapshot.generation.into()),
            blocks: snapshot.blocks.iter().map(Into::into).collect(),
            services: count(snapshot.services.len()),
            workloads: count(snapshot.workloads.len()),
        }
    }
}

impl v1::ServiceView {
    /// The services of a network; `is_ready` says which of their instances count as ready, which those outside every network all do.
    /// Each workload is looked at once.
    pub fn all(
        snapshot: &NetworkSnapshot,
        is_ready: impl Fn(&Workload) -> bool,
    ) -> impl Iterator<Item = Self> {
        let mut counted: HashMap<&ServiceName, (usize, usize)> = HashMap::new();
        for workload in &snapshot.workloads {
            if let Some(service) = &workload.service {
                let (instances, ready) = counted.entry(service).or_default();
                *instances += 1;
                *ready += usize::from(is_ready(workload));
            }
        }
        snapshot.services.iter().map(move |service| {
            let (instances, ready) = counted.get(&service.name).copied().unwrap_or_default();
            let outside = service.external.instances.len();
            let (instances, ready) = (instances + outside, ready + outside);
            Self {
                network: snapshot.network.name.to_string(),
                service: Some(service.into()),
                ready: count(ready),
                instances: count(instances),
                mtls: service.mtls_in(&snapshot.network).to_string(),
            }
        })
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
