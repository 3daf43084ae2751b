//! Hosts of the mesh.

use std::time::SystemTime;

use sealane_proto::wire::v1;
use serde::Serialize;

use super::{dash, list, rfc3339, text};
use crate::printer::{self, Row};

/// A host as `node ls` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NodeView {
    name: String,
    underlay: String,
    connected: bool,
    version: Option<String>,
    workloads: u32,
    networks: Vec<String>,
    /// Networks whose newest state the host does not work by yet.
    behind: Vec<String>,
    #[serde(serialize_with = "rfc3339")]
    last_seen: Option<SystemTime>,
}

impl From<v1::NodeView> for NodeView {
    fn from(view: v1::NodeView) -> Self {
        let node = view.node.unwrap_or_default();
        Self {
            name: node.name,
            underlay: node.underlay,
            connected: view.connected,
            version: text(view.version),
            workloads: view.workloads,
            networks: view.networks,
            behind: view.behind,
            last_seen: printer::instant(view.last_seen_unix_seconds),
        }
    }
}

impl Row for NodeView {
    const HEADERS: &'static [&'static str] =
        &["NAME", "UNDERLAY", "STATE", "VERSION", "NETWORKS", "WORKLOADS", "BEHIND"];
    const NONE: &'static str = "no hosts yet: `sealane token create` makes the token that one joins with";

    fn cells(&self, now: SystemTime) -> Vec<String> {
        let state = match (self.connected, self.last_seen) {
            (true, _) => "connected".to_owned(),
            (false, Some(seen)) => format!("lost {}", printer::ago(seen, now)),
            (false, None) => "not connected".to_owned(),
        };
        vec![
            self.name.clone(),
            self.underlay.clone(),
            state,
            dash(self.version.as_ref()),
            list(&self.networks),
            self.workloads.to_string(),
            list(&self.behind),
        ]
    }
}
