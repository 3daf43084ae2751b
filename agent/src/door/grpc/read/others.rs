//! Knowledge of the other hosts: by control's word, and by the outcome of its own workloads' calls. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use sealane_proto::resource::{NetworkSnapshot, Workload};
use sealane_proto::sidecar::EndpointTrouble;
use sealane_proto::types::{NodeName, WorkloadName};

use crate::attachment::AttachmentId;

/// Number of instances that a status names.
const NAMED: usize = 12;

/// An instance that calls of this host do not reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreached {
    /// The instance.
    pub(super) to: AttachmentId,
    /// Host of the instance.
    pub(super) node: NodeName,
    /// Workloads whose calls fail.
    from: BTreeSet<WorkloadName>,
    reason: String,
    failures: u64,
    lasting: Duration,
}

impl Unreached {
    /// Describes the instance, for its line of a list.
    pub(super) fn words(&self) -> String {
        format!("calls from this host to {} fail: {}", self.to.workload, self.reason)
    }

    fn sentence(&self, own: &NodeName) -> String {
        let first = self.from.first().map(ToString::to_string).unwrap_or_default();
        let from = match self.from.len() {
            0 | 1 => first,
            2 => format!("{first} and another workload"),
            many => format!("{first} and {} other workloads", many - 1),
        };
        let (network, to, node) = (&self.to.network, &self.to.workload, &self.node);
        let (is_own, fix) = (node == own, self.advice(own));
        let host = if is_own { "this host".to_owned() } else { format!("host {node}") };
        let (reason, failures, seconds) = (&self.reason, self.failures, self.lasting.as_secs());
        format!(
            "calls from {from} in network {network} to {to} on {host} fail: {reason}, {failures} in {seconds} s and no success \
             since; {fix}"
        )
    }

    /// Advises what to look at, by what came of the calls.
    fn advice(&self, own: &NodeName) -> String {
        let (to, node) = (&self.to, &self.node);
        let on = if node == own { "here".to_owned() } else { format!("on {node}") };
        match self.reason.as_str() {
            // The way there was found, and who is there speaks.
            "identity" | "handshake" => format!(
                "see `sealane identity {}.{}` and `sealane check` {on}: its certificate or a clock is wrong",
                to.workload, to.network
            ),
            "unreachable" => {
                format!("nothing takes connections at its port: see the log of its application {on}")
            }
            "reset" | "protocol" | "malformed" => {
                format!("its application breaks them off or says what cannot be read: see its log {on}")
            }
            "refused" | "saturated" => {
                format!(
                    "it takes no more: start further instances, or see `sealane_connections_refused_total` {on}"
                )
            }
            "gone" => {
                format!(
                    "it is ending, or its sidecar has been replaced: if it stays so, see the agent's log {on}"
                )
            }
            // Nobody answered, or not to the end.
            _ if node == own => "see `sealane workload ls`, and the log of its application".to_owned(),
            _ => format!("see that {node} is up and that VXLAN (UDP, 4789 by default) passes both ways"),
        }
    }
}

/// The instances that the sidecars' calls do not reach; what is not there any more is left out.
pub(super) fn unreached<'a>(
    troubles: &[(AttachmentId, EndpointTrouble)],
    networks: impl Iterator<Item = &'a NetworkSnapshot>,
) -> Vec<Unreached> {
    let mut found: BTreeMap<AttachmentId, Unreached> = BTreeMap::new();
    for snapshot in networks {
        let own = troubles.iter().filter(|(from, _)| from.network == snapshot.network.name);
        for (from, trouble) in own {
            let is_there = |known: &&Workload| trouble.address == known.address.to_ipv4();
            let Some(to) = snapshot.workloads.iter().find(is_there) else { continue };
            let entry = found.entry(AttachmentId::of(to)).or_insert_with(|| Unreached {
                to: AttachmentId::of(to),
                node: to.node.clone(),
                from: BTreeSet::new(),
                reason: trouble.reason.clone(),
                failures: 0,
                lasting: Duration::ZERO,
            });
            entry.from.insert(from.workload.clone());
            entry.failures += trouble.failures;
            entry.lasting = entry.lasting.max(trouble.lasting);
        }
    }
    found.into_values().collect()
}

/// Describes them, a sentence each.
pub(super) fn sentences(unreached: &[Unreached], own: &NodeName) -> Vec<String> {
    let mut sentences: Vec<String> = unreached.iter().take(NAMED).map(|one| one.sentence(own)).collect();
    if unreached.len() > NAMED {
        let more = unreached.len() - NAMED;
        sentences
            .push(format!("calls to {more} further instances fail; `sealane workload ls` names them all"));
    }
    sentences
}

/// Describes a host that control has lost.
pub(super) fn lost(name: &NodeName, since: Option<SystemTime>, now: SystemTime) -> String {
    let ago = since.and_then(|since| now.duration_since(since).ok());
    let state = match ago {
        Some(ago) => format!("disconnected for {} s", ago.as_secs()),
        None => "not connected since control started".to_owned(),
    };
    format!(
        "node {name} is {state}, control says: its instances do not count as ready here; if the host is dead, `sealane node \
         drain {name}` on the control host keeps new calls away from it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{snapshot, workload};

    fn trouble(address: &str, failures: u64, seconds: u64) -> EndpointTrouble {
        EndpointTrouble {
            address: address.parse().unwrap(),
            reason: "timeout".to_owned(),
            failures,
            lasting: Duration::from_secs(seconds),
        }
    }

    fn id(workload: &str) -> AttachmentId {
        AttachmentId { network: "shop".parse().unwrap(), workload: workload.parse().unwrap() }
    }

    #[test]
    fn failing_calls_are_named_once_per_instance_with_its_host() {
        let mut shop = snapshot();
        let mut api = workload("api-1", "10.42.1.3");
        api.node = "host-3".parse().unwrap();
        shop.workloads = [api].into();
        let troubles = [
            (id("web-1"), trouble("10.42.1.3", 2, 9)),
            (id("web-2"), trouble("10.42.1.3", 1, 4)),
            (id("web-1"), trouble("10.42.9.9", 5, 5)),
        ];
        let found = unreached(&troubles, std::iter::once(&shop));
        assert_eq!(found.len(), 1, "an address that nobody has any more is nobody's trouble: {found:?}");
        assert_eq!(found[0].words(), "calls from this host to api-1 fail: timeout");
        let said = sentences(&found, &"host-1".parse().unwrap());
        let expected = "calls from web-1 and another workload in network shop to api-1 on host host-3 fail: timeout, 3 in 9 s \
                        and no success since; see that host-3 is up";
        assert!(said[0].starts_with(expected), "{said:?}");
        let own = sentences(&found, &"host-3".parse().unwrap());
        assert!(
            own[0].contains("on this host fail") && own[0].ends_with("log of its application"),
            "{own:?}"
        );
    }

    #[test]
    fn what_is_advised_fits_what_came_of_the_calls() {
        let mut shop = snapshot();
        let mut api = workload("api-1", "10.42.1.3");
        api.node = "host-3".parse().unwrap();
        shop.workloads = [api].into();
        for (reason, advice) in [
            ("timeout", "see that host-3 is up and that VXLAN"),
            ("connect", "see that host-3 is up and that VXLAN"),
            ("connection_lost", "see that host-3 is up and that VXLAN"),
            ("identity", "see `sealane identity api-1.shop` and `sealane check` on host-3"),
            ("handshake", "see `sealane identity api-1.shop` and `sealane check` on host-3"),
            (
                "unreachable",
                "nothing takes connections at its port: see the log of its application on host-3",
            ),
            ("reset", "see its log on host-3"),
            ("refused", "start further instances"),
        ] {
            let trouble = EndpointTrouble { reason: reason.to_owned(), ..trouble("10.42.1.3", 2, 9) };
            let found = unreached(&[(id("web-1"), trouble)], std::iter::once(&shop));
            let said = sentences(&found, &"host-1".parse().unwrap());
            assert!(said[0].contains(advice), "{reason}: {said:?}");
        }
    }

    #[test]
    fn a_lost_host_is_named_with_what_ends_its_calls() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let said = lost(&"host-3".parse().unwrap(), Some(now - Duration::from_secs(40)), now);
        assert!(
            said.starts_with("node host-3 is disconnected for 40 s")
                && said.contains("`sealane node drain host-3`")
        );
        assert!(lost(&"host-3".parse().unwrap(), None, now).contains("since control started"));
    }
}
