//! Words for whoever names a service where a workload is meant. Pure.

use sealane_proto::resource::Workload;
use sealane_proto::types::WorkloadRef;

/// Number of instances that are named.
const NAMED: usize = 5;

/// Says what the instances of the service `wanted` among `own` are called; `None` when there is none.
pub(crate) fn instances<'a>(wanted: &WorkloadRef, own: impl Iterator<Item = &'a Workload>) -> Option<String> {
    let is_instance = |workload: &&Workload| {
        let named = workload.service.as_ref().is_some_and(|service| service.as_str() == wanted.name.as_str());
        named && wanted.network.as_ref().is_none_or(|network| workload.network == *network)
    };
    let mut names: Vec<String> = own.filter(is_instance).map(|one| one.shown().to_string()).collect();
    names.sort();
    let rest = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let last = names.pop()?;
    let (service, others) = (&wanted.name, names.join(", "));
    Some(match (names.is_empty(), rest) {
        (true, _) => format!("{service} is a service, whose instance here is {last}"),
        (false, 0) => format!("{service} is a service, whose instances here are {others} and {last}"),
        (false, _) => {
            format!("{service} is a service, whose instances here are {others}, {last} and {rest} more")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn whoever_names_a_service_is_told_what_its_instances_are_called() {
        let api = |number: usize| Workload {
            service: Some("api".parse().unwrap()),
            ..testing::workload(&format!("api-{number}"), &format!("10.42.0.{number}"))
        };
        let own: Vec<Workload> = (1..=7).map(api).chain([testing::workload("tool", "10.42.0.9")]).collect();
        let told = |wanted: &str, own: &[Workload]| instances(&wanted.parse().unwrap(), own.iter());
        assert_eq!(told("api", &own[..1]).unwrap(), "api is a service, whose instance here is api-1");
        assert_eq!(
            told("api.shop", &own[..3]).unwrap(),
            "api is a service, whose instances here are api-1, api-2 and api-3"
        );
        assert!(told("api", &own).unwrap().ends_with("are api-1, api-2, api-3, api-4, api-5 and 2 more"));
        assert_eq!(told("api.office", &own), None);
        assert_eq!(told("tool", &own), None);
    }
}
