//! Names for shells that complete a command line: asked of whoever answers on this host, quickly or not at all.

use std::time::Duration;

use sealane_proto::document;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::admin_client::AdminClient;
use tonic::transport::Channel;

use crate::args::{Common, Complete};
use crate::client::{AGENT_SOCKET, CONTROL_SOCKET, answering, converse, reader};
use crate::failure::Failure;
use crate::printer::Printer;

/// Time that whoever presses a key waits.
const PATIENCE: Duration = Duration::from_millis(800);

/// Kind of name that a word of a command line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
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
    /// A workload of this host that has a sidecar, and an identity.
    SidecarHere,
    /// A workload of this host that `attach` began.
    Attached,
    /// A host that has its share of calls.
    UndrainedNode,
    /// A host whose calls go elsewhere.
    DrainedNode,
    Token,
    /// A kind of documents.
    Document,
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
fn kind_of(words: &[String]) -> Option<Kind> {
    let (last, before) = words.split_last()?;
    let before: Vec<&str> = before.iter().skip(1).map(String::as_str).collect();
    if last.starts_with('-') || before.contains(&"--") {
        return None;
    }
    match before.last().copied() {
        Some("--network" | "--networks") => return Some(Kind::Network),
        Some("--service") => return Some(Kind::Service),
        Some("--from") => return Some(Kind::WorkloadHere),
        Some("--node" | "--hosts") => return Some(Kind::Node),
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
        ["node", "inspect" | "rm"] => Some(Kind::Node),
        ["node", "drain"] => Some(Kind::UndrainedNode),
        ["node", "undrain"] => Some(Kind::DrainedNode),
        ["service", "inspect" | "endpoints"] | ["get", "service"] => Some(Kind::Service),
        ["service", "rm"] => Some(Kind::IdleService),
        ["service", "deregister"] => Some(Kind::Registered),
        ["delete", "service"] => Some(Kind::DeclaredOfNetwork),
        ["get" | "delete" | "schema"] => Some(Kind::Document),
        ["token", "revoke"] => Some(Kind::Token),
        ["network", "inspect" | "set" | "rm"] | ["get" | "delete", "network"] => Some(Kind::Network),
        ["workload", "inspect"] => Some(Kind::Workload),
        ["exec"] => Some(Kind::WorkloadHere),
        ["identity"] | ["sidecar", "restart"] => Some(Kind::SidecarHere),
        ["detach"] => Some(Kind::Attached),
        _ => None,
    }
}

async fn names(kind: Kind, common: &Common) -> Option<Vec<String>> {
    let mut names = match kind {
        Kind::Document => return Some(document::Kind::ALL.map(|kind| kind.name().to_lowercase()).to_vec()),
        Kind::Network => {
            let mut client = reader(channel(common).await?);
            let networks = client.list_networks(v1::ListNetworksRequest {}).await.ok()?.into_inner().networks;
            networks.into_iter().filter_map(|view| Some(view.network?.name)).collect()
        }
        Kind::Node => nodes(channel(common).await?, |_| true).await?,
        Kind::DrainedNode => nodes(channel(common).await?, |view| view.drained).await?,
        Kind::UndrainedNode => nodes(channel(common).await?, |view| !view.drained).await?,
        Kind::Service => services(channel(common).await?, |_, _| true, false).await?,
        Kind::DeclaredOfNetwork => {
            services(channel(common).await?, |_, service| service.declared, true).await?
        }
        Kind::IdleService => {
            let is_idle =
                |view: &v1::ServiceView, service: &v1::Service| !service.declared && view.instances == 0;
            services(channel(common).await?, is_idle, false).await?
        }
        Kind::Registered => {
            services(channel(common).await?, |_, service| !service.external.is_empty(), false).await?
        }
        Kind::Token => {
            let mut client = AdminClient::new(channel(common).await?);
            let tokens =
                client.list_tokens(v1::ListTokensRequest {}).await.ok()?.into_inner().tokens.into_iter();
            tokens.filter(|token| token.state != "revoked").map(|token| token.id).collect()
        }
        Kind::Workload => workloads(channel(common).await?, |_, _| true).await?,
        Kind::WorkloadHere => workloads(agent(common).await?, |view, _| !view.begun_by.is_empty()).await?,
        Kind::SidecarHere => {
            let has_sidecar = |view: &v1::WorkloadView, workload: &v1::Workload| {
                !view.begun_by.is_empty() && workload.sidecar
            };
            workloads(agent(common).await?, has_sidecar).await?
        }
        Kind::Attached => workloads(agent(common).await?, |view, _| view.begun_by == "attach").await?,
    };
    names.sort();
    names.dedup();
    Some(names)
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
            ("sealane node inspect ", Some(Kind::Node)),
            ("sealane node drain ", Some(Kind::UndrainedNode)),
            ("sealane node undrain ", Some(Kind::DrainedNode)),
            ("sealane node rm --force ho", Some(Kind::Node)),
            ("sealane exec ", Some(Kind::WorkloadHere)),
            ("sealane detach ", Some(Kind::Attached)),
            ("sealane identity ", Some(Kind::SidecarHere)),
            ("sealane workload inspect ", Some(Kind::Workload)),
            ("sealane run --network ", Some(Kind::Network)),
            ("sealane run --network shop --service a", Some(Kind::Service)),
            ("sealane service rm ", Some(Kind::IdleService)),
            ("sealane service deregister ", Some(Kind::Registered)),
            ("sealane -o json service inspect ", Some(Kind::Service)),
            ("sealane get network ", Some(Kind::Network)),
            ("sealane get service a", Some(Kind::Service)),
            ("sealane delete service ", Some(Kind::DeclaredOfNetwork)),
            ("sealane delete --dry-run network ", Some(Kind::Network)),
            ("sealane get ", Some(Kind::Document)),
            ("sealane -o json delete s", Some(Kind::Document)),
            ("sealane schema ", Some(Kind::Document)),
            ("sealane token revoke ", Some(Kind::Token)),
            ("sealane sidecar restart ", Some(Kind::SidecarHere)),
            ("sealane network create shop --hosts a,b", Some(Kind::Node)),
            ("sealane run --no-sidecar --network ", Some(Kind::Network)),
            ("sealane dns query api --from ", Some(Kind::WorkloadHere)),
            ("sealane token create --node ", Some(Kind::Node)),
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
