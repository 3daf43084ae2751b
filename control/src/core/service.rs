//! The end of a service.

use sealane_proto::resource::External;
use sealane_proto::types::{NetworkName, NodeName, ServiceName};

use super::{Command, Decision, State, Timestamp};

/// A service without instances is no more; its address rests until every host has forgotten it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveService {
    /// Network of the service.
    pub network: NetworkName,
    /// Name of the service.
    pub name: ServiceName,
}

/// Reasons for which a service is not removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoveServiceRefusal {
    /// There is no such network.
    #[error("there is no network {0}; see `sealane network ls`")]
    NoNetwork(NetworkName),
    /// There is none.
    #[error("there is no service {name} in network {network}; see `sealane service ls --network {network}`")]
    NotFound {
        /// The network.
        network: NetworkName,
        /// The name.
        name: ServiceName,
    },
    /// The service has instances.
    #[error("service {name} in network {network} has {}; end them first", instances(*.count, .examples))]
    InUse {
        /// The network.
        network: NetworkName,
        /// The name.
        name: ServiceName,
        /// Number of its instances.
        count: usize,
        /// Some of them, with their hosts.
        examples: String,
    },
    /// A host has registered the service, and would go on to.
    #[error(
        "service {name} of network {network} is registered by node {node}; hint: `sealane service deregister \
         {name}.{network}` there, or `sealane node rm {node}` if that host is gone"
    )]
    Registered {
        /// The network.
        network: NetworkName,
        /// The name.
        name: ServiceName,
        /// The host.
        node: NodeName,
    },
    /// A document gives the service external instances.
    #[error(
        "service {name} of network {network} has a document with {count} external instance{}; hint: `sealane delete \
         service {name}.{network}` ends it", if *.count == 1 { "" } else { "s" }
    )]
    External {
        /// The network.
        network: NetworkName,
        /// The name.
        name: ServiceName,
        /// Number of its external instances.
        count: usize,
    },
}

fn instances(count: usize, examples: &str) -> String {
    if count == 1 {
        format!("1 instance, {examples}")
    } else {
        format!("{count} instances, such as {examples}")
    }
}

impl Command for RemoveService {
    type Outcome = ();
    type Refusal = RemoveServiceRefusal;

    fn decide(self, state: &State, now: Timestamp) -> Result<Decision<()>, RemoveServiceRefusal> {
        let Self { network, name } = self;
        let Some(known) = state.networks.get(&network) else {
            return Err(RemoveServiceRefusal::NoNetwork(network));
        };
        let Some(service) = known.services.get(&name) else {
            return Err(RemoveServiceRefusal::NotFound { network, name });
        };
        let External { instances: external, registrar, .. } = &service.external;
        check_registrar(state, &network, &name)?;
        if registrar.is_none() && !external.is_empty() {
            return Err(RemoveServiceRefusal::External { network, name, count: external.len() });
        }
        let count = known.instances_of(&name).count();
        if count > 0 {
            let some = known.instances_of(&name).take(3);
            let some: Vec<String> = some.map(|one| format!("{} on {}", one.name, one.node)).collect();
            return Err(RemoveServiceRefusal::InUse { network, name, count, examples: some.join(", ") });
        }
        Ok(Decision { changes: known.end(&name, now), outcome: () })
    }
}
/// Refuses to end a service that a host of the mesh has registered: it would register it again.
pub(super) fn check_registrar(
    state: &State,
    network: &NetworkName,
    name: &ServiceName,
) -> Result<(), RemoveServiceRefusal> {
    let known = state.networks.get(network).and_then(|known| known.services.get(name));
    let registrar = known.and_then(|service| service.external.registrar.as_ref());
    match registrar.filter(|node| state.nodes.contains_key(*node)) {
        Some(node) => Err(RemoveServiceRefusal::Registered {
            network: network.clone(),
            name: name.clone(),
            node: node.clone(),
        }),
        None => Ok(()),
    }
}
