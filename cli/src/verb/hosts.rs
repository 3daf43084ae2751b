//! Hosts that something is for, and that are no part of the mesh.

use sealane_proto::document::{Document, nearest};
use sealane_proto::types::Hosts;
use sealane_proto::wire::v1;
use tonic::transport::Channel;

use crate::client::{answer, reader};
use crate::printer::Printer;

/// Names what a document is about, with the hosts that it is for, if it names any.
pub(super) fn of(document: &Document) -> Option<(String, &Hosts)> {
    Some(match document {
        Document::Network(network) => (format!("network {}", network.metadata.name), &network.spec.hosts),
        Document::Service(service) => {
            let (name, network) = (&service.metadata.name, &service.metadata.network);
            (format!("service {name} in network {network}"), &service.spec.hosts)
        }
        Document::HttpRoute(_) | Document::GrpcRoute(_) => return None,
    })
}

/// Says of each host that is named and not there that it is not: hosts may be named before they join, and be misspelt.
pub(super) async fn warn(channel: Channel, named: &[(String, &Hosts)], printer: &Printer) {
    if named.iter().all(|(_, hosts)| hosts.are_all()) {
        return;
    }
    let listed = answer(reader(channel).list_nodes(v1::ListNodesRequest {})).await;
    // What was asked for is done: that the hosts cannot be listed now changes nothing.
    let Ok(listed) = listed else { return };
    let known: Vec<String> =
        listed.nodes.into_iter().map(|view| view.node.unwrap_or_default().name).collect();
    for warning in warnings(named, &known) {
        printer.talk(&warning);
    }
}

fn warnings(named: &[(String, &Hosts)], known: &[String]) -> Vec<String> {
    let of = |(what, hosts): &(String, &Hosts)| {
        let missing = hosts.iter().filter(|host| !known.iter().any(|name| name == host.as_str()));
        let lines = missing.map(|host| {
            let meant = nearest(host.as_str(), known.iter().map(String::as_str));
            let meant = meant.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
            format!(
                "warning: no host is named {host} yet{meant}; {what} is for it once one joins under that name, and \
                 `sealane node ls` shows those that are there"
            )
        });
        lines.collect::<Vec<_>>()
    };
    named.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_and_not_there_is_told_with_who_may_be_meant() {
        let known = ["host-1".to_owned(), "db-2".to_owned()];
        let hosts = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Hosts>();
        let shop = hosts(&["host-1", "hots-1", "queen"]);
        let said = warnings(&[("network shop".to_owned(), &shop)], &known);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0]
                .starts_with("warning: no host is named hots-1 yet (did you mean host-1?); network shop is")
        );
        assert!(said[1].starts_with("warning: no host is named queen yet; network shop is for it once"));
        assert!(warnings(&[("network shop".to_owned(), &hosts(&["db-2"]))], &known).is_empty());
        assert!(warnings(&[("network shop".to_owned(), &Hosts::default())], &known).is_empty());
    }
}
