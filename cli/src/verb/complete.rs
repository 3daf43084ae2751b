//! Names for shells that complete a command line: asked of whoever answers on this host, quickly or not at all.

use std::time::Duration;

use sealane_proto::client::unix_channel;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::read_client::ReadClient;
use tonic::transport::Channel;

use crate::args::{Common, Complete};
use crate::client::{AGENT_SOCKET, CONTROL_SOCKET, converse};
use crate::failure::Failure;
use crate::printer::Printer;

/// How long whoever presses a key waits.
const PATIENCE: Duration = Duration::from_millis(800);

/// What a word of a command line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Network,
    Node,
    Service,
    Workload,
}

/// `sealane __complete`: a name per line; nothing when none fits, or when nobody answers.
pub(crate) fn call(complete: &Complete, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let Some(kind) = kind_of(&complete.words) else { return Ok(()) };
    let names = converse(async {
        let asked = tokio::time::timeout(PATIENCE, names(kind, common)).await;
        Ok(asked.ok().flatten().unwrap_or_default())
    })?;
    let begun = complete.words.last().map_or("", String::as_str);
    let fitting: Vec<String> = names.into_iter().filter(|name| name.starts_with(begun)).collect();
    if fitting.is_empty() { Ok(()) } else { printer.text(&fitting.join("\n")) }
}

/// What the last word is to name, after those before it. Pure.
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
        Some(flag) if flag.starts_with('-') && flag != "--force" => return None,
        Some(_) | None => {}
    }
    let mut places = Vec::new();
    let mut is_value = false;
    for word in before {
        let flag = word.starts_with('-');
        if !flag && !is_value {
            places.push(word);
        }
        is_value = flag && !word.contains('=') && word != "--force";
    }
    match places.as_slice() {
        ["node", "inspect" | "drain" | "undrain" | "rm"] => Some(Kind::Node),
        ["service", "inspect" | "endpoints" | "rm"] | ["get" | "delete", "service"] => Some(Kind::Service),
        ["network", "inspect" | "set" | "rm"] | ["get" | "delete", "network"] => Some(Kind::Network),
        ["workload", "inspect"] | ["exec" | "detach" | "identity"] | ["sidecar", "restart"] => {
            Some(Kind::Workload)
        }
        _ => None,
    }
}

async fn names(kind: Kind, common: &Common) -> Option<Vec<String>> {
    let mut client = ReadClient::new(channel(common).await?);
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
}
