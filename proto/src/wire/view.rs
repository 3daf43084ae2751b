//! What control and agents show of a network alike.

use super::v1;
use crate::resource::{NetworkSnapshot, Service, Workload};

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
    /// The services of a network; `is_ready` says which of their instances count as ready.
    pub fn all(
        snapshot: &NetworkSnapshot,
        is_ready: impl Fn(&Workload) -> bool,
    ) -> impl Iterator<Item = Self> {
        snapshot.services.iter().map(move |service| Self::of(snapshot, service, &is_ready))
    }

    fn of(snapshot: &NetworkSnapshot, service: &Service, is_ready: impl Fn(&Workload) -> bool) -> Self {
        let all = snapshot.workloads.iter();
        let instances = all.filter(|workload| workload.service.as_ref() == Some(&service.name));
        Self {
            network: snapshot.network.name.to_string(),
            service: Some(service.into()),
            ready: count(instances.clone().filter(|instance| is_ready(instance)).count()),
            instances: count(instances.count()),
            mtls: service.mtls_in(&snapshot.network).to_string(),
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
