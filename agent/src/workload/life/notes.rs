//! Notes for whoever attached a workload, about its network and its names there. Pure.

use sealane_proto::resource::{NetworkSnapshot, Workload};
use sealane_proto::types::Alias;

/// The sentences.
pub(super) fn notes(workload: &Workload, snapshot: &NetworkSnapshot) -> Vec<String> {
    strictness(workload, snapshot).into_iter().chain(shadowed(workload, snapshot)).collect()
}

fn strictness(workload: &Workload, snapshot: &NetworkSnapshot) -> Option<String> {
    let Workload { name, network, sidecar, .. } = workload;
    (snapshot.network.mtls().is_strict() && !sidecar).then(|| {
        format!(
            "network {network} is strict (mtls), and workload {name} has no sidecar: services of others refuse its \
             calls, and what it serves itself is open to all of the network, in plain text"
        )
    })
}

/// A service's name stands before a workload's and before an alias.
fn shadowed(workload: &Workload, snapshot: &NetworkSnapshot) -> Vec<String> {
    let Workload { name, network, service, aliases, .. } = workload;
    let own = |label: &str| service.as_ref().is_some_and(|service| service.as_str() == label);
    let is_service =
        |label: &str| own(label) || snapshot.services.iter().any(|one| one.name.as_str() == label);
    let of_itself = is_service(name.as_str()).then(|| {
        let whose = if own(name.as_str()) { "its own service" } else { "a service" };
        format!(
            "workload {name} is called like {whose} in network {network}: the name {name} leads to the service, whichever its \
             instances are, and the workload has no name of its own; another --name gives it one"
        )
    });
    let aliases = aliases.iter().map(Alias::as_str).filter(|alias| is_service(alias) && !own(alias));
    let of_aliases = aliases.map(|alias| {
        format!("alias {alias} does not lead to workload {name}: service {alias} of network {network} has that name")
    });
    of_itself.into_iter().chain(of_aliases).collect()
}

#[cfg(test)]
mod tests {
    use sealane_proto::types::Aliases;

    use super::*;
    use crate::testing;

    fn told(name: &str, service: Option<&str>, aliases: &[&str]) -> Vec<String> {
        let mut snapshot = testing::snapshot();
        snapshot.services = [testing::service("db", "10.42.255.9", ["5432"].into_iter())].into();
        let workload = Workload {
            service: service.map(|service| service.parse().unwrap()),
            aliases: Aliases::parse(aliases).unwrap(),
            ..testing::workload(name, "10.42.0.9")
        };
        shadowed(&workload, &snapshot)
    }

    #[test]
    fn a_workload_whose_name_or_alias_is_a_service_s_is_told_that_it_has_none_of_its_own() {
        let check = |said: Vec<String>, expected: &str| {
            assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
        };
        check(told("api", Some("api"), &[]), "workload api is called like its own service in network shop: ");
        check(told("db", None, &[]), "workload db is called like a service in network shop: ");
        check(told("web", None, &["cache", "db"]), "alias db does not lead to workload web: service db");
        assert!(told("api-1", Some("api"), &["api", "cache"]).is_empty());
        assert!(told("web", None, &[]).is_empty());
    }
}
