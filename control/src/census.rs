//! Census of the mesh, as series: hosts by state, services with their instances. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealane_base::metrics::{Family, Reading, Series};
use sealane_proto::census;
use sealane_proto::resource::Workload;
use sealane_proto::types::NodeName;
use sealane_proto::wire::v1::ServiceView;

use crate::registry::{AgentPresence, Directory, LostHosts, PublishedNetwork};

/// The families of one scrape.
pub(crate) fn families(
    directory: &Directory,
    seen: &BTreeMap<NodeName, AgentPresence>,
    lost: &LostHosts,
) -> Vec<Family> {
    let connected = directory.nodes.keys().filter(|name| seen.get(name).is_some_and(|seen| seen.connected));
    let connected = connected.count();
    let states = [("connected", connected), ("lost", directory.nodes.len() - connected)];
    let states = states.map(|(state, count)| Series {
        labels: vec![("state".to_owned(), state.to_owned())],
        reading: Reading::Value(count as f64),
    });
    let help = "Hosts of the mesh: connected to this control plane, or lost.";
    let hosts = Family::gauge("sealane_control_hosts", help, states.into());
    let services = directory.networks.values().flat_map(|network| {
        let snapshot = network.snapshot();
        ServiceView::all(&snapshot, |workload| is_ready(workload, lost)).collect::<Vec<_>>()
    });
    [hosts, addresses(directory)].into_iter().chain(census::services("sealane_control", services)).collect()
}

/// The family of networks' addresses.
fn addresses(directory: &Directory) -> Family {
    let of = |published: &Arc<PublishedNetwork>| {
        let space = published.space();
        let states = [("free", space.free()), ("hosts", space.hosts), ("services", space.services)];
        let network = published.network().name.to_string();
        states.map(|(state, count)| Series {
            labels: vec![("network".to_owned(), network.clone()), ("state".to_owned(), state.to_owned())],
            reading: Reading::Value(count as f64),
        })
    };
    let help =
        "Addresses of each network: in nobody's block, in blocks of hosts, in blocks of service addresses.";
    let series = directory.networks.values().flat_map(of).collect();
    Family::gauge("sealane_control_network_addresses", help, series)
}

/// The family that says whether the store takes changes.
pub(crate) fn store(writable: bool) -> Family {
    let help = "Whether the store, and the folder that it is in, can be written: 1 or 0.";
    Family::flag("sealane_control_store_writable", help, writable)
}

/// Returns true if a workload counts as ready: on a lost host nobody knows.
pub(crate) fn is_ready(workload: &Workload, lost: &LostHosts) -> bool {
    workload.ready && !lost.contains_key(&workload.node)
}
