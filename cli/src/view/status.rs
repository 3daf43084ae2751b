//! State of control or an agent.

mod details;

use std::time::{Duration, SystemTime};

use sealane_proto::wire::v1;
use serde::Serialize;

use super::{dash, generation, rfc3339, text};
use crate::failure::Failure;
use crate::printer::{self, Sheet};
pub(crate) use details::Details;

/// A certificate that ends so soon should have been renewed long ago.
const RENEWED_BEFORE: Duration = Duration::from_secs(24 * 3600);

/// View of `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StatusView {
    /// `control`, `standby` or `agent`.
    role: String,
    version: String,
    uptime_seconds: u64,
    trust_domain: Option<String>,
    /// Of an agent.
    node: Option<String>,
    /// Of an agent: where control is, and whether it is connected.
    control: Option<String>,
    control_connected: bool,
    /// Of a standby: where the control plane is that leads.
    leader: Option<String>,
    /// Of control: the newest.
    generation: Option<String>,
    nodes: u32,
    /// Of control: an agent knows of none but its own host.
    nodes_connected: Option<u32>,
    networks: u32,
    services: u32,
    workloads: u32,
    /// Of an agent: the hosts that share a network with it, and those to which its channel stands.
    peers: Option<u32>,
    peers_connected: Option<u32>,
    certificates: Vec<CertificateView>,
    problems: Vec<String>,
    /// Things to decide or know, though nothing is wrong.
    notes: Vec<String>,
    details: Details,
    /// Of control: the agent that runs on the same host.
    agent: Option<Box<StatusView>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CertificateView {
    identity: String,
    #[serde(serialize_with = "rfc3339")]
    expires: Option<SystemTime>,
}

impl StatusView {
    /// Builds the view from the process's own words, and the things behind its counts.
    pub(crate) fn new(status: v1::StatusResponse, details: Details, now: SystemTime) -> Self {
        let ending = status.certificates.iter().filter_map(|certificate| {
            let end = printer::instant(certificate.expires_unix_seconds)?;
            let soon = end.duration_since(now).unwrap_or_default() < RENEWED_BEFORE;
            soon.then(|| {
                let (identity, left) = (&certificate.identity, printer::remaining(end, now));
                format!("certificate of {identity} ends {left}; see that control is reachable and the clocks are right")
            })
        });
        let ending: Vec<String> = ending.collect();
        let problems = status.problems.into_iter().chain(details.problems().cloned()).chain(ending).collect();
        let certificates = status.certificates.into_iter().map(|certificate| CertificateView {
            identity: certificate.identity,
            expires: printer::instant(certificate.expires_unix_seconds),
        });
        let is_agent = status.role == "agent";
        Self {
            role: status.role,
            version: status.version,
            uptime_seconds: status.uptime_seconds,
            trust_domain: text(status.trust_domain),
            node: text(status.node),
            control: text(status.control),
            control_connected: status.control_connected,
            leader: text(status.leader),
            generation: generation(status.generation),
            nodes: status.nodes,
            nodes_connected: (!is_agent).then_some(status.nodes_connected),
            networks: status.networks,
            services: status.services,
            workloads: status.workloads,
            peers: is_agent.then_some(status.peers),
            peers_connected: is_agent.then_some(status.peers_connected),
            certificates: certificates.collect(),
            problems,
            notes: status.notes,
            details,
            agent: None,
        }
    }

    /// Returns true if control says this.
    pub(crate) fn is_control(&self) -> bool {
        self.nodes_connected.is_some()
    }

    /// Returns true if nothing is wrong.
    pub(crate) fn is_well(&self) -> bool {
        self.problems.is_empty()
    }

    /// Adds what the agent of the same host says of itself. Of the mesh, control knows more.
    pub(crate) fn beside(&mut self, agent: Result<Self, Failure>) {
        match agent {
            Ok(mut agent) => {
                let of_the_mesh = |problem: &String| agent.details.problems().any(|known| known == problem);
                let of_a_lost_host = |problem: &String| {
                    self.details.lost().any(|name| problem.starts_with(&format!("node {name} is ")))
                };
                agent.problems.retain(|problem| !of_the_mesh(problem) && !of_a_lost_host(problem));
                self.problems.extend(agent.problems.iter().cloned());
                self.agent = Some(Box::new(agent));
            }
            Err(failure) => self.problems.push(failure.sentence()),
        }
    }

    fn certificate_lines(&self, now: SystemTime) -> impl Iterator<Item = (&'static str, String)> {
        self.certificates.iter().map(move |certificate| {
            let ends = certificate.expires.map_or_else(|| "-".to_owned(), |end| printer::remaining(end, now));
            // The trust domain's own is the authority's: nobody renews it.
            let authority = certificate.identity.matches('/').count() == 2;
            let how = if authority { "authority, ends" } else { "renewed before it ends" };
            ("certificate", format!("{}, {how} {ends}", certificate.identity))
        })
    }

    fn agent_line(&self) -> String {
        let node = self.node.as_deref().unwrap_or("this host's");
        let up = printer::age(Duration::from_secs(self.uptime_seconds));
        let connected =
            if self.control_connected { "connected to control" } else { "not connected to control" };
        let channels = self.channels().map(|channels| format!(", channels {channels}")).unwrap_or_default();
        format!("{node}, version {}, up {up}, {connected}{channels}", self.version)
    }

    /// Counts the channels to other hosts, where there are any.
    fn channels(&self) -> Option<String> {
        let (peers, connected) = self.peers.filter(|peers| *peers > 0).zip(self.peers_connected)?;
        Some(format!("to {connected} of {peers} hosts"))
    }
}

impl Sheet for StatusView {
    fn lines(&self, now: SystemTime) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("role", self.role.clone()),
            ("version", self.version.clone()),
            ("up", printer::age(Duration::from_secs(self.uptime_seconds))),
        ];
        let known =
            [("trust domain", &self.trust_domain), ("node", &self.node), ("generation", &self.generation)];
        lines.extend(known.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
        match &self.control {
            Some(address) if self.control_connected => {
                lines.push(("control", format!("{address}, connected")))
            }
            Some(address) => lines.push(("control", format!("{address}, not connected"))),
            // Hosts are connected to the one that leads.
            None if self.role == "standby" => {
                lines.push(("leader", dash(self.leader.as_ref())));
                lines.push(("nodes", self.nodes.to_string()));
            }
            None => lines.push(match self.nodes_connected {
                Some(connected) => ("nodes", format!("{connected} of {} connected", self.nodes)),
                None => ("control", "not connected".to_owned()),
            }),
        }
        let counts =
            [("networks", self.networks), ("services", self.services), ("workloads", self.workloads)];
        lines.extend(counts.map(|(name, count)| (name, count.to_string())));
        lines.extend(self.channels().map(|channels| ("channels", channels)));
        lines.extend(self.details.lines(now));
        lines.extend(self.certificate_lines(now));
        if let Some(agent) = &self.agent {
            lines.push(("agent", agent.agent_line()));
            lines.extend(agent.certificate_lines(now));
        }
        match self.problems.as_slice() {
            [] => lines.push(("problems", "none".to_owned())),
            problems => lines.extend(problems.iter().map(|problem| ("problem", problem.clone()))),
        }
        lines.extend(self.notes.iter().map(|note| ("note", note.clone())));
        lines
    }
}
