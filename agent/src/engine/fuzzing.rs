//! Answers of dockerd from anywhere.

use super::event::Event;
use super::view::{Container, ContainerView, Listed, NetworkView};

/// Reads events, one a line.
pub(crate) fn events(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        if let Some(Event::Container(id, _) | Event::Removed(id) | Event::NetworkRemoved(id)) =
            Event::parse(line)
        {
            assert!(id.len() <= line.len());
        }
    }
}

/// Reads one answer as each of the objects that dockerd is asked for; the container, if it is one.
pub(crate) fn views(data: &[u8]) -> Option<Container> {
    let listed: Result<Vec<Listed>, _> = serde_json::from_slice(data);
    listed.into_iter().flatten().for_each(|one| drop(one.runs()));
    let network: Result<NetworkView, _> = serde_json::from_slice(data);
    if let Ok(network) = network {
        let _ = network.into_network("sealane");
    }
    let container: ContainerView = serde_json::from_slice(data).ok()?;
    Some(container.into_container())
}
