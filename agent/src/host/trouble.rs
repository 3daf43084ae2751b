//! Problems of a network on this host, in words.

use sealane_proto::resource::Network;
use sealane_proto::types::{Mtls, NetworkName, NodeName, WorkloadName};

/// So many workloads are named in a sentence.
const NAMED: usize = 8;

/// Kind of a network's problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NetworkTrouble {
    /// The network cannot be set up.
    Kernel,
    /// There is no way out of it.
    Egress,
    /// The kernel does not take what control says of other hosts' workloads.
    Rows,
    /// The network's packets are too long for this host's ways to the others.
    Packets,
    /// Workloads have lost their way into it.
    CutOff,
    /// Workloads have addresses that control gives to others.
    Evicted,
    /// Workloads have the names of others.
    Namesakes,
    /// Services have no instance within reach.
    OutOfReach,
    /// The network cannot be kept on disk.
    Disk,
    /// Control knows nothing of it.
    Unknown,
}

/// The line that creates a network as this host knows it: its workloads keep their addresses.
pub(super) fn creation(network: &Network) -> String {
    let Network { name, subnet, subnet6, mtu, egress, mtls, .. } = network;
    let mut line = format!("sealane network create {name} --subnet {subnet}");
    let subnet6 = subnet6.map(|subnet6| format!(" --subnet {subnet6}"));
    let mtu = mtu.map(|mtu| format!(" --mtu {mtu}"));
    let egress = egress.is_denied().then(|| " --egress deny".to_owned());
    // Strict is what a new one is anyway.
    let mtls = (!mtls.is_some_and(Mtls::is_strict)).then(|| " --mtls permissive".to_owned());
    let hosts: Vec<&str> = network.hosts.iter().map(NodeName::as_str).collect();
    let hosts = (!hosts.is_empty()).then(|| format!(" --hosts {}", hosts.join(",")));
    [subnet6, mtu, egress, mtls, hosts].into_iter().flatten().for_each(|flag| line.push_str(&flag));
    line
}

impl NetworkTrouble {
    /// Describes it for `status`.
    pub(super) fn sentence(self, network: &NetworkName, error: &str) -> String {
        match self {
            Self::Kernel => format!("network {network} cannot be set up: {error}"),
            Self::Egress => {
                format!("workloads of network {network} may not reach the world outside: {error}")
            }
            Self::Rows => format!(
                "workloads of network {network} on another host are not reached from here: {error}; `sealane node ls` shows the \
                 hosts' addresses: give that host another --underlay, or remove it"
            ),
            Self::Packets => {
                format!(
                    "packets of network {network} are too long for this host's ways to the others: {error}"
                )
            }
            Self::CutOff => format!(
                "workloads of network {network} are cut off, somebody removed their interfaces and the handles of \
                 their namespaces: {error}; end them and start them again"
            ),
            Self::Evicted => format!(
                "workloads of network {network} have addresses that others have, since the network was removed and made again, or this \
                 host's addresses were given away, while control was not heard here: {error}; they are cut off: end them and \
                 start them again"
            ),
            Self::Namesakes => format!(
                "workloads of network {network} have one name on two hosts, which were started while the hosts did not hear each other: \
                 {error}; the one by which other hosts do not go is cut off from them: end it and start it under another name, or \
                 control accepts one of the two when it is back"
            ),
            Self::OutOfReach => format!(
                "services of network {network} have no instance that can be reached from here, and keep those that they have: \
                 {error}; `sealane node ls` shows which hosts do not answer"
            ),
            Self::Disk => format!("what control said of network {network} cannot be kept: {error}"),
            Self::Unknown => format!(
                "control knows no network {network}; its workloads here go on as they are and hear of no others: end them, or \
                 create the network as it was, and control takes them in by itself: `{error}`"
            ),
        }
    }
}

/// Names the workloads of a network that cannot be set up, and says what they have.
pub(super) fn concerned(workloads: &[WorkloadName]) -> String {
    let named: Vec<&str> = workloads.iter().take(NAMED).map(WorkloadName::as_str).collect();
    let further = match workloads.len().saturating_sub(NAMED) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    match named.as_slice() {
        [] => String::new(),
        named => format!(
            "; what runs in it here goes on as far as it can and hears of no change: {}{further}",
            named.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_workloads_of_a_network_that_cannot_be_set_up_are_named_up_to_a_number() {
        let names = |count: usize| -> Vec<WorkloadName> {
            (0..count).map(|number| format!("w{number}").parse().unwrap()).collect()
        };
        assert_eq!(concerned(&names(0)), "");
        assert!(concerned(&names(2)).ends_with(": w0, w1"));
        assert!(concerned(&names(11)).ends_with("w7 and 3 more"));
    }

    #[test]
    fn a_network_that_control_does_not_know_is_named_with_the_line_that_makes_it_as_it_was() {
        let plain = Network { mtls: Some(Mtls::Strict), ..testing::snapshot().content.network };
        assert_eq!(creation(&plain), "sealane network create shop --subnet 10.42.0.0/16");
        let all = Network {
            subnet6: "fd42::/64".parse().ok(),
            mtu: "1400".parse().ok(),
            egress: sealane_proto::resource::Egress::Deny,
            mtls: None,
            hosts: ["host-2", "host-1"].iter().map(|name| name.parse().unwrap()).collect(),
            ..plain
        };
        assert_eq!(
            creation(&all),
            "sealane network create shop --subnet 10.42.0.0/16 --subnet fd42::/64 --mtu 1400 --egress deny --mtls permissive \
             --hosts host-1,host-2"
        );
        let said = NetworkTrouble::Unknown.sentence(&all.name, &creation(&all));
        assert!(
            said.starts_with("control knows no network shop; ") && said.ends_with("--hosts host-1,host-2`"),
            "{said}"
        );
    }
}
