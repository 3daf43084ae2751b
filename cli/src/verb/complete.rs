//! Names for shells that complete a command line: asked of whoever answers on this host, quickly or not at all.

use std::time::Duration;

use sealane_proto::client::unix_channel;
use sealane_proto::document;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::admin_client::AdminClient;
use tonic::transport::Channel;

use crate::args::{Common, Complete};
use crate::client::{AGENT_SOCKET, CONTROL_SOCKET, converse, reader};
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
    /// A service as `NAME.NETWORK`.
    ServiceOfNetwork,
    Workload,
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
        Some("--from") => return Some(Kind::Workload),
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
        ["node", "inspect" | "drain" | "undrain" | "rm"] => Some(Kind::Node),
        ["service", "inspect" | "endpoints" | "rm"] | ["get", "service"] => Some(Kind::Service),
        ["delete", "service"] => Some(Kind::ServiceOfNetwork),
        ["get" | "delete" | "schema"] => Some(Kind::Document),
        ["token", "revoke"] => Some(Kind::Token),
        ["network", "inspect" | "set" | "rm"] | ["get" | "delete", "network"] => Some(Kind::Network),
        ["workload", "inspect"] | ["exec" | "detach" | "identity"] | ["sidecar", "restart"] => {
            Some(Kind::Workload)
        }
        _ => None,
    }
}

async fn names(kind: Kind, common: &Common) -> Option<Vec<String>> {
    if kind == Kind::Document {
        return Some(document::Kind::ALL.map(|kind| kind.name().to_lowercase()).to_vec());
    }
    let channel = channel(common).await?;
    let mut client = reader(channel.clone());
    let mut names: Vec<String> = match kind {
        Kind::Network => {
            let networks = client.list_networks(v1::ListNetworksRequest {}).await.ok()?.into_inner().networks;
            networks.into_iter().filter_map(|view| Some(view.network?.name)).collect()
        }
        Kind::Node => {
            let nodes = client.list_nodes(v1::ListNodesRequest {}).await.ok()?.into_inner().nodes;
            nodes.into_iter().filter_map(|view| Some(view.node?.name)).collect()
        }
        Kind::Service => {
            let services = client.list_services(v1::ListServicesRequest::default()).await.ok()?;
            services.into_inner().services.into_iter().filter_map(|view| Some(view.service?.name)).collect()
        }
        Kind::ServiceOfNetwork => {
            let services = client.list_services(v1::ListServicesRequest::default()).await.ok()?;
            let services = services.into_inner().services.into_iter();
            services.filter_map(|view| Some(format!("{}.{}", view.service?.name, view.network))).collect()
        }
        Kind::Token => {
            let tokens = AdminClient::new(channel).list_tokens(v1::ListTokensRequest {}).await.ok()?;
            let tokens = tokens.into_inner().tokens.into_iter();
            tokens.filter(|token| token.state != "revoked").map(|token| token.id).collect()
        }
        Kind::Document => return None,
        Kind::Workload => {
            let workloads = client.list_workloads(v1::ListWorkloadsRequest::default()).await.ok()?;
            workloads
                .into_inner()
                .workloads
                .into_iter()
                .filter_map(|view| Some(view.workload?.name))
                .collect()
        }
    };
    names.sort();
    names.dedup();
    Some(names)
}

/// Whoever answers now; nobody is waited for.
async fn channel(common: &Common) -> Option<Channel> {
    if let Some(socket) = &common.socket {
        return unix_channel(socket).await.ok();
    }
    match unix_channel(&common.run_dir.join(CONTROL_SOCKET)).await {
        Ok(channel) => Some(channel),
        Err(_) => unix_channel(&common.run_dir.join(AGENT_SOCKET)).await.ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_what_its_verb_or_flag_is_about() {
        let table = [
            ("sealane node drain ", Some(Kind::Node)),
            ("sealane node rm --force ho", Some(Kind::Node)),
            ("sealane exec ", Some(Kind::Workload)),
            ("sealane run --network ", Some(Kind::Network)),
            ("sealane run --network shop --service a", Some(Kind::Service)),
            ("sealane service rm ", Some(Kind::Service)),
            ("sealane -o json service inspect ", Some(Kind::Service)),
            ("sealane get network ", Some(Kind::Network)),
            ("sealane get service a", Some(Kind::Service)),
            ("sealane delete service ", Some(Kind::ServiceOfNetwork)),
            ("sealane delete --dry-run network ", Some(Kind::Network)),
            ("sealane get ", Some(Kind::Document)),
            ("sealane -o json delete s", Some(Kind::Document)),
            ("sealane schema ", Some(Kind::Document)),
            ("sealane token revoke ", Some(Kind::Token)),
            ("sealane sidecar restart ", Some(Kind::Workload)),
            ("sealane network create shop --hosts a,b", Some(Kind::Node)),
            ("sealane run --no-sidecar --network ", Some(Kind::Network)),
            ("sealane dns query api --from ", Some(Kind::Workload)),
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
