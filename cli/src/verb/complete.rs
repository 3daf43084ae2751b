//! Names for shells that complete a command line: asked of whoever answers on this host, quickly or not at all.

use std::time::Duration;

use sealane_proto::document::DocumentKind;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::admin_client::AdminClient;
use sealane_proto::wire::v1::fellows_client::FellowsClient;
use sealane_sys::run_dir::{AGENT_SOCKET, CONTROL_SOCKET};
use tonic::transport::Channel;

use crate::args::{Common, Complete};
use crate::client::{answering, converse, reader};
use crate::failure::Failure;
use crate::printer::Printer;

/// Time that whoever presses a key waits.
const PATIENCE: Duration = Duration::from_millis(800);

/// Kind of name that a word of a command line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameKind {
    /// A control plane that was stopped or is lost.
    AbsentControl,
    Network,
    Node,
    Service,
    /// A service that a document made.
    DeclaredOfNetwork,
    /// A service that is there by its instances alone, and has none left.
    IdleService,
    /// A service that a host has registered.
    Registered,
    Workload,
    /// A workload of this host.
    WorkloadHere,
    /// A workload of this host that is not drained.
    Undrained,
    /// A workload of this host that is drained.
    Drained,
    /// A workload of this host that has a sidecar, and an identity.
    SidecarHere,
    /// A workload of this host that `attach` began; not a runtime's, which ends there.
    Attached,
    /// A host that has its share of calls.
    UndrainedNode,
    /// A host whose calls go elsewhere.
    DrainedNode,
    Token,
    /// A kind of documents.
    Document,
    /// A kind of objects that have a history.
    Subject,
}

/// Flags without a value that may stand before a name.
const SWITCHES: &[&str] = &["--force", "--dry-run", "--ignore-not-found", "--no-sidecar", "--wait", "--yes"];

/// `sealane __complete`: a name per line; nothing when none fits, or when nobody answers.
pub(crate) fn call(complete: &Complete, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let Some(kind) = kind_of(&complete.words) else { return Ok(()) };
    let names = converse(async {
        let asked = tokio::time::timeout(PATIENCE, names(kind, common)).await;
        Ok(asked.ok().flatten().unwrap_or_default())
    })?;
    let fitting = fitting(names, complete.words.last().map_or("", String::as_str));
    if fitting.is_empty() { Ok(()) } else { printer.text(&fitting.join("\n")) }
}

/// The names that begin as the word does, or as the last part of a list does. Pure.
fn fitting(names: Vec<String>, word: &str) -> Vec<String> {
    let (before, begun) = match word.rfind(',') {
        Some(comma) => word.split_at(comma + 1),
        None => ("", word),
    };
    let fitting = names.into_iter().filter(|name| name.starts_with(begun));
    fitting.map(|name| format!("{before}{name}")).collect()
}

/// Returns the kind of name that the last word is to be, after those before it. Pure.
fn kind_of(words: &[String]) -> Option<NameKind> {
    let (last, before) = words.split_last()?;
    let before: Vec<&str> = before.iter().skip(1).map(String::as_str).collect();
    if last.starts_with('-') || before.contains(&"--") {
        return None;
    }
    match before.last().copied() {
        Some("--network" | "--networks" | "-n") => return Some(NameKind::Network),
        Some("--service") => return Some(NameKind::Service),
        Some("--from") => return Some(NameKind::WorkloadHere),
        Some("--node" | "--hosts") => return Some(NameKind::Node),
        // Any other flag has a value of its own, or none: then the shell's own completion knows more.
        Some(flag) if flag.starts_with('-') && !SWITCHES.contains(&flag) => return None,
        Some(_) | None => {}
    }
    let mut places = Vec::new();
    let mut is_value = false;
    for word in before {
        let flag = word.starts_with('-');
        if !flag && !is_value {
            places.push(word);
        }
        is_value = flag && !word.contains('=') && !SWITCHES.contains(&word);
    }
    match places.as_slice() {
        ["node", "inspect" | "rm"] | ["history", "host"] => Some(NameKind::Node),
        ["node", "drain"] => Some(NameKind::UndrainedNode),
        ["node", "undrain"] => Some(NameKind::DrainedNode),
        ["service", "inspect" | "endpoints"] | ["get" | "diff" | "history", "service"] => {
            Some(NameKind::Service)
        }
        ["service", "rm"] => Some(NameKind::IdleService),
        ["service", "deregister"] => Some(NameKind::Registered),
        ["delete", "service"] => Some(NameKind::DeclaredOfNetwork),
        ["get" | "delete" | "schema" | "diff"] => Some(NameKind::Document),
        ["history"] => Some(NameKind::Subject),
        ["control", "rm"] => Some(NameKind::AbsentControl),
        ["token", "revoke"] | ["history", "token"] => Some(NameKind::Token),
        ["network", "inspect" | "set" | "grow" | "rm"]
        | ["get" | "delete" | "diff" | "history", "network"] => Some(NameKind::Network),
        ["workload", "inspect"] => Some(NameKind::Workload),
        ["exec"] | ["workload", "set"] => Some(NameKind::WorkloadHere),
        ["workload", "drain"] => Some(NameKind::Undrained),
        ["workload", "undrain"] => Some(NameKind::Drained),
        ["identity"] | ["sidecar", "restart"] => Some(NameKind::SidecarHere),
        ["detach"] => Some(NameKind::Attached),
        _ => None,
    }
}

/// Kinds of things that the history tells of.
const SUBJECTS: [&str; 6] = ["network", "service", "httproute", "grpcroute", "host", "token"];

async fn names(kind: NameKind, common: &Common) -> Option<Vec<String>> {
    let mut names = match kind {
        NameKind::Document => {
            return Some(DocumentKind::ALL.map(|kind| kind.name().to_lowercase()).to_vec());
        }
        NameKind::Subject => return Some(SUBJECTS.map(ToOwned::to_owned).to_vec()),
        NameKind::Network => {
            let mut client = reader(channel(common).await?);
            let networks = client.list_networks(v1::ListNetworksRequest {}).await.ok()?.into_inner().networks;
            networks.into_iter().filter_map(|view| Some(view.network?.name)).collect()
        }
        NameKind::Node => nodes(channel(common).await?, |_| true).await?,
        NameKind::DrainedNode => nodes(channel(common).await?, |view| view.drained).await?,
        NameKind::UndrainedNode => nodes(channel(common).await?, |view| !view.drained).await?,
        NameKind::Service => services(channel(common).await?, |_, _| true, false).await?,
        NameKind::DeclaredOfNetwork => {
            services(
                channel(common).await?,
                |_, service| service.declared && service.registrar.is_empty(),
                true,
            )
            .await?
        }
        NameKind::IdleService => {
            let is_idle =
                |view: &v1::ServiceView, service: &v1::Service| !service.declared && view.instances == 0;
            services(channel(common).await?, is_idle, false).await?
        }
        NameKind::Registered => {
            services(channel(common).await?, |_, service| !service.external.is_empty(), false).await?
        }
        NameKind::AbsentControl => absent_controls(channel(common).await?).await?,
        NameKind::Token => {
            let mut client = AdminClient::new(channel(common).await?);
            let tokens =
                client.list_tokens(v1::ListTokensRequest {}).await.ok()?.into_inner().tokens.into_iter();
            tokens.filter(|token| token.state != "revoked").map(|token| token.id).collect()
        }
        NameKind::Workload => workloads(channel(common).await?, |_, _| true).await?,
        NameKind::WorkloadHere => {
            workloads(agent(common).await?, |view, _| !view.begun_by.is_empty()).await?
        }
        NameKind::Undrained => workloads(agent(common).await?, |view, one| is_own(view, one, false)).await?,
        NameKind::Drained => workloads(agent(common).await?, |view, one| is_own(view, one, true)).await?,
        NameKind::SidecarHere => {
            let has_sidecar = |view: &v1::WorkloadView, workload: &v1::Workload| {
                !view.begun_by.is_empty() && workload.sidecar
            };
            workloads(agent(common).await?, has_sidecar).await?
        }
        NameKind::Attached => workloads(agent(common).await?, |view, _| view.begun_by == "attach").await?,
    };
    names.sort();
    names.dedup();
    Some(names)
}

async fn absent_controls(channel: Channel) -> Option<Vec<String>> {
    let listed = FellowsClient::new(channel).list(v1::ListControlsRequest {}).await.ok()?.into_inner();
    let absent = listed.controls.into_iter().filter(|view| view.generation.is_none());
    Some(absent.map(|view| view.address).collect())
}

/// Returns true for one of the answering host's that is drained or not.
fn is_own(view: &v1::WorkloadView, workload: &v1::Workload, drained: bool) -> bool {
    !view.begun_by.is_empty() && workload.kept_weight.is_some() == drained
}

async fn nodes(channel: Channel, fits: impl Fn(&v1::NodeView) -> bool) -> Option<Vec<String>> {
    let nodes = reader(channel).list_nodes(v1::ListNodesRequest {}).await.ok()?.into_inner().nodes;
    let fitting = nodes.into_iter().filter(|view| fits(view));
    Some(fitting.filter_map(|view| Some(view.node?.name)).collect())
}

async fn services(
    channel: Channel,
    fits: impl Fn(&v1::ServiceView, &v1::Service) -> bool,
    with_network: bool,
) -> Option<Vec<String>> {
    let services = reader(channel).list_services(v1::ListServicesRequest::default()).await.ok()?;
    let named = services.into_inner().services.into_iter().filter_map(|view| {
        let service = view.service.as_ref().filter(|service| fits(&view, service))?;
        Some(if with_network { format!("{}.{}", service.name, view.network) } else { service.name.clone() })
    });
    Some(named.collect())
}

async fn workloads(
    channel: Channel,
    fits: impl Fn(&v1::WorkloadView, &v1::Workload) -> bool,
) -> Option<Vec<String>> {
    let workloads = reader(channel).list_workloads(v1::ListWorkloadsRequest::default()).await.ok()?;
    let named = workloads.into_inner().workloads.into_iter().filter_map(|view| {
        let workload = view.workload.as_ref().filter(|workload| fits(&view, workload))?;
        Some(workload.name.clone())
    });
    Some(named.collect())
}

/// Connects to this host's agent, which knows which workloads are its own.
async fn agent(common: &Common) -> Option<Channel> {
    answering(common, &[AGENT_SOCKET]).await
}

/// Connects to control, or where there is none, to the agent.
async fn channel(common: &Common) -> Option<Channel> {
    answering(common, &[CONTROL_SOCKET, AGENT_SOCKET]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_what_its_verb_or_flag_is_about() {
        let table = [
            ("sealane node inspect ", Some(NameKind::Node)),
            ("sealane node drain ", Some(NameKind::UndrainedNode)),
            ("sealane node undrain ", Some(NameKind::DrainedNode)),
            ("sealane node rm --force ho", Some(NameKind::Node)),
            ("sealane exec ", Some(NameKind::WorkloadHere)),
            ("sealane workload drain --wait ", Some(NameKind::Undrained)),
            ("sealane workload undrain w", Some(NameKind::Drained)),
            ("sealane workload set ", Some(NameKind::WorkloadHere)),
            ("sealane network grow ", Some(NameKind::Network)),
            ("sealane detach ", Some(NameKind::Attached)),
            ("sealane identity ", Some(NameKind::SidecarHere)),
            ("sealane workload inspect ", Some(NameKind::Workload)),
            ("sealane run --network ", Some(NameKind::Network)),
            ("sealane run --network shop --service a", Some(NameKind::Service)),
            ("sealane service rm ", Some(NameKind::IdleService)),
            ("sealane service deregister ", Some(NameKind::Registered)),
            ("sealane -o json service inspect ", Some(NameKind::Service)),
            ("sealane get network ", Some(NameKind::Network)),
            ("sealane get service a", Some(NameKind::Service)),
            ("sealane delete service ", Some(NameKind::DeclaredOfNetwork)),
            ("sealane delete --dry-run network ", Some(NameKind::Network)),
            ("sealane get ", Some(NameKind::Document)),
            ("sealane -o json delete s", Some(NameKind::Document)),
            ("sealane schema ", Some(NameKind::Document)),
            ("sealane token revoke ", Some(NameKind::Token)),
            ("sealane control rm ", Some(NameKind::AbsentControl)),
            ("sealane history ", Some(NameKind::Subject)),
            ("sealane history --limit 5 host ", Some(NameKind::Node)),
            ("sealane history -n ", Some(NameKind::Network)),
            ("sealane diff --at 7 service ", Some(NameKind::Service)),
            ("sealane sidecar restart ", Some(NameKind::SidecarHere)),
            ("sealane network create shop --hosts a,b", Some(NameKind::Node)),
            ("sealane run --no-sidecar --network ", Some(NameKind::Network)),
            ("sealane dns query api --from ", Some(NameKind::WorkloadHere)),
            ("sealane token create --node ", Some(NameKind::Node)),
            ("sealane exec web -- ", None),
            ("sealane exec web ", None),
            ("sealane node ", None),
            ("sealane node drain --", None),
            ("sealane run --name ", None),
            ("sealane ", None),
            ("", None),
        ];
        for (line, expected) in table {
            let words: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
            assert_eq!(kind_of(&words), expected, "{line:?}");
        }
    }

    #[test]
    fn the_last_part_of_a_list_is_completed() {
        let names = || ["host-1", "host-2", "web"].map(ToOwned::to_owned).to_vec();
        assert_eq!(fitting(names(), "h"), ["host-1", "host-2"]);
        assert_eq!(fitting(names(), "host-1,host-2"), ["host-1,host-2"]);
        assert_eq!(fitting(names(), "web,h"), ["web,host-1", "web,host-2"]);
        assert!(fitting(names(), "x").is_empty());
    }
}
