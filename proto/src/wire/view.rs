//! What control and agents show of a network alike.

use super::v1;
use crate::resource::{NetworkSnapshot, Service};

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
    /// The services of a network.
    pub fn all(snapshot: &NetworkSnapshot) -> impl Iterator<Item = Self> {
        snapshot.services.iter().map(|service| Self::of(snapshot, service))
    }

    fn of(snapshot: &NetworkSnapshot, service: &Service) -> Self {
        let all = snapshot.workloads.iter();
        let instances = all.filter(|workload| workload.service.as_ref() == Some(&service.name));
        Self {
            network: snapshot.network.name.to_string(),
            service: Some(service.into()),
            ready: count(instances.clone().filter(|instance| instance.ready).count()),
            instances: count(instances.count()),
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
