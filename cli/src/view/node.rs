//! Hosts of the mesh.

use std::time::SystemTime;

use sealane_proto::wire::v1;
use serde::Serialize;

use super::{WorkloadView, dash, list, rfc3339, text};
use crate::printer::{self, Row, Sheet};

/// A host as `node ls` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NodeView {
    name: String,
    /// `None` while another host has it.
    underlay: Option<String>,
    /// Address of the other family.
    underlay_other: Option<String>,
    /// Bytes inside a tunnel that its ways to the other hosts allow, as far as it told.
    mtu: Option<u32>,
    /// `None` where nobody knows that: an agent of other hosts.
    connected: Option<bool>,
    version: Option<String>,
    workloads: u32,
    networks: Vec<String>,
    /// Networks whose newest state the host does not work by yet.
    behind: Vec<String>,
    #[serde(serialize_with = "rfc3339")]
    last_seen: Option<SystemTime>,
    #[serde(serialize_with = "rfc3339")]
    joined: Option<SystemTime>,
    /// True if its services' instances get no new calls.
    drained: bool,
    /// Of an agent: what calls from its workloads to this host came to, when they fail.
    unreached: Option<String>,
    /// Of an agent: since when its channel to this host stands.
    #[serde(serialize_with = "rfc3339")]
    channel_since: Option<SystemTime>,
    /// Of an agent: why it does not.
    channel_problem: Option<String>,
    /// Of an agent: `reachable`, `suspect`, `unreachable` or `unknown`, by its echoes; null for itself and from control.
    reach: Option<String>,
    /// Time of an echo to it and back, in microseconds.
    rtt_micros: Option<u64>,
    /// The share of the last echoes to it that got no answer, in a thousand.
    loss_permille: Option<u32>,
    /// The longest packets to it that pass, in bytes with the outer headers.
    path_mtu: Option<u32>,
    /// The token that it last joined by; null: not known here.
    token: Option<String>,
    /// The networks that it may carry by that token; none: all; null: not known here.
    allowed: Option<Vec<String>>,
}

/// A host with what runs on it, as `node inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NodeSheet {
    #[serde(flatten)]
    node: NodeView,
    running: Vec<WorkloadView>,
}

impl NodeSheet {
    /// The host with its workloads.
    pub(crate) fn new(node: v1::NodeView, workloads: impl Iterator<Item = v1::WorkloadView>) -> Self {
        Self { node: node.into(), running: workloads.map(Into::into).collect() }
    }
}

impl Sheet for NodeSheet {
    fn lines(&self, now: SystemTime) -> Vec<(&'static str, String)> {
        let node = &self.node;
        let at =
            |instant: Option<SystemTime>| instant.map_or_else(|| "-".to_owned(), |at| printer::ago(at, now));
        let mut lines = vec![
            ("name", node.name.clone()),
            ("underlay", node.place()),
            ("mtu", node.mtu.map_or_else(|| "-".to_owned(), |mtu| format!("{mtu} inside"))),
            ("state", node.state(now)),
            ("version", dash(node.version.as_ref())),
            ("joined", at(node.joined)),
            ("last seen", at(node.last_seen)),
            ("channel", node.channel(now)),
            ("token", dash(node.token.as_ref())),
            (
                "may carry",
                match node.allowed.as_deref() {
                    None => dash(None),
                    Some([]) => "any network".to_owned(),
                    Some(allowed) => list(allowed),
                },
            ),
            ("networks", list(&node.networks)),
            ("behind", list(&node.behind)),
        ];
        lines.extend(node.way().map(|way| ("way", way)));
        lines.extend(self.running.iter().map(|workload| ("workload", workload.line())));
        lines
    }
}

impl From<v1::NodeView> for NodeView {
    fn from(view: v1::NodeView) -> Self {
        let node = view.node.unwrap_or_default();
        Self {
            name: node.name,
            underlay: text(node.underlay),
            underlay_other: text(node.underlay_other),
            mtu: Some(node.mtu).filter(|&mtu| mtu != 0),
            connected: (!view.by_hearsay).then_some(view.connected),
            version: text(view.version),
            workloads: view.workloads,
            networks: view.networks,
            behind: view.behind,
            last_seen: printer::instant(view.last_seen_unix_seconds),
            joined: printer::instant(view.joined_unix_seconds),
            drained: view.drained,
            unreached: text(view.unreached),
            channel_since: printer::instant(view.channel_since_unix_seconds),
            channel_problem: text(view.channel_problem),
            reach: text(view.reach),
            rtt_micros: Some(view.rtt_micros).filter(|&micros| micros != 0),
            loss_permille: view.loss_permille,
            path_mtu: Some(view.path_mtu).filter(|&mtu| mtu != 0),
            allowed: (!view.token.is_empty()).then_some(view.allowed),
            token: text(view.token),
        }
    }
}

impl NodeView {
    /// Addresses on the network beneath.
    fn place(&self) -> String {
        match (&self.underlay, &self.underlay_other) {
            (Some(first), Some(other)) => format!("{first},{other}"),
            (first, _) => dash(first.as_ref()),
        }
    }

    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns true if it is known not to be connected.
    pub(crate) fn is_lost(&self) -> bool {
        self.connected == Some(false)
    }

    /// Describes the channel between the host that is asked and this one.
    fn channel(&self, now: SystemTime) -> String {
        match (self.channel_since, &self.channel_problem) {
            (Some(since), _) => format!("up {}", printer::age(now.duration_since(since).unwrap_or_default())),
            (None, Some(problem)) => format!("down, {problem}"),
            (None, None) => dash(None),
        }
    }

    fn state(&self, now: SystemTime) -> String {
        let state = match (self.connected, self.last_seen) {
            (Some(true), _) => "connected".to_owned(),
            (Some(false), Some(seen)) => format!("lost {}", printer::ago(seen, now)),
            (Some(false), None) => "not connected".to_owned(),
            (None, _) => "unknown: control tells this host nothing now".to_owned(),
        };
        let drained = if self.drained { ", drained" } else { "" };
        let unreached = self.unreached.as_ref().map_or("", |_| ", calls to it fail");
        // A host that answers, or was never asked, is as it should be.
        let reach = self.reach.as_deref().filter(|reach| ["suspect", "unreachable"].contains(reach));
        let reach = reach.map(|reach| format!(", {reach}")).unwrap_or_default();
        format!("{state}{drained}{reach}{unreached}")
    }

    /// Describes the way from the host that answers to this one.
    fn way(&self) -> Option<String> {
        let reach = self.reach.clone()?;
        // Figures of a time at which it answered say nothing about now.
        let (rtt_micros, path_mtu) = match reach.as_str() {
            "unreachable" => (None, None),
            _ => (self.rtt_micros, self.path_mtu),
        };
        let rtt = rtt_micros.map(|micros| format!(", {:.2} ms there and back", micros as f64 / 1_000.0));
        let loss = self.loss_permille.map(|loss| format!(", {:.1} % lost", f64::from(loss) / 10.0));
        let mtu = path_mtu.map(|mtu| format!(", packets of {mtu} bytes pass"));
        Some([rtt, loss, mtu].into_iter().flatten().fold(reach, |way, part| way + &part))
    }
}

impl Row for NodeView {
    const HEADERS: &'static [&'static str] =
        &["NAME", "UNDERLAY", "STATE", "VERSION", "NETWORKS", "WORKLOADS", "BEHIND"];
    const NONE: &'static str = "no hosts yet: `sealane token create` makes the token that one joins with";

    fn cells(&self, now: SystemTime) -> Vec<String> {
        vec![
            self.name.clone(),
            self.place(),
            self.state(now),
            dash(self.version.as_ref()),
            list(&self.networks),
            self.workloads.to_string(),
            list(&self.behind),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_does_not_know_of_other_hosts_is_no_failure() {
        let check = |view: v1::NodeView, state: &str, connected: serde_json::Value| {
            let view = NodeView::from(view);
            assert_eq!(view.cells(SystemTime::now())[2..4], [state, "-"]);
            assert_eq!(serde_json::to_value(&view).unwrap()["connected"], connected);
        };
        let by_hearsay = v1::NodeView { by_hearsay: true, ..Default::default() };
        let unknown = "unknown: control tells this host nothing now";
        check(by_hearsay.clone(), unknown, serde_json::Value::Null);
        let drained = v1::NodeView { drained: true, ..by_hearsay.clone() };
        check(drained, &format!("{unknown}, drained"), serde_json::Value::Null);
        let silent = v1::NodeView { unreached: "calls to api-1 fail: timeout".into(), ..by_hearsay };
        check(silent, &format!("{unknown}, calls to it fail"), serde_json::Value::Null);
        check(v1::NodeView::default(), "not connected", false.into());
        let connected = v1::NodeView { connected: true, ..Default::default() };
        for (reach, state) in [("", ""), ("unknown", ""), ("reachable", ""), ("unreachable", ", unreachable")]
        {
            let view = v1::NodeView { reach: reach.into(), ..connected.clone() };
            check(view, &format!("connected{state}"), true.into());
        }
    }

    #[test]
    fn the_way_to_a_host_is_told_as_far_as_it_is_known() {
        let way = |view: v1::NodeView| NodeView::from(view).way();
        assert_eq!(way(v1::NodeView::default()), None);
        let unknown = v1::NodeView { reach: "unknown".into(), ..Default::default() };
        assert_eq!(way(unknown.clone()).as_deref(), Some("unknown"));
        let known = v1::NodeView {
            reach: "suspect".into(),
            rtt_micros: 1_230,
            loss_permille: Some(125),
            path_mtu: 1_380,
            ..Default::default()
        };
        let said = "suspect, 1.23 ms there and back, 12.5 % lost, packets of 1380 bytes pass";
        assert_eq!(way(known.clone()).as_deref(), Some(said));
        let away = v1::NodeView { reach: "unreachable".into(), ..known };
        assert_eq!(way(away).as_deref(), Some("unreachable, 12.5 % lost"), "nothing passes now");
    }
}
