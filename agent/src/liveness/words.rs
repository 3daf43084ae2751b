//! Sentences about hosts that cannot be reached, by keys that begin with `liveness`.

use std::collections::BTreeMap;

use sealane_fabric::overlay::{narrow_remedy, overhead};
use sealane_proto::types::{NetworkName, NodeName, UnderlayAddr, UnderlayAddrs, Vni};

use super::core::{Narrow, Passing};

/// Number of hosts with a sentence of their own.
pub(super) const NAMED: usize = 8;

/// Begin of the sentence of a host that reaches no other one.
pub(crate) const ALONE: &str = "this host reaches none of the";

/// Names the hosts that do not answer, of `all` that are watched.
pub(super) fn unreachable(
    hosts: &[(&NodeName, &UnderlayAddrs)],
    all: usize,
    port: u16,
) -> BTreeMap<String, String> {
    if all > 1 && hosts.len() == all {
        let alone = format!(
            "{ALONE} {all} hosts that share a network with it: its workloads call instances on this host \
             alone, where there are some; see that its network is up and that no firewall drops UDP port {port}"
        );
        return BTreeMap::from([("liveness/all".to_owned(), alone)]);
    }
    let sentence = |(name, underlay): &(&NodeName, &UnderlayAddrs)| {
        let sentence = format!(
            "node {name} ({underlay}) cannot be reached from this host by UDP port {port}: its instances get no calls from here \
             where others are ready; see that it is up and that no firewall drops that port in either direction"
        );
        (format!("liveness/{name}"), sentence)
    };
    let mut sentences: BTreeMap<String, String> = hosts.iter().take(NAMED).map(sentence).collect();
    if let Some(more) = hosts.len().checked_sub(NAMED).filter(|more| *more > 0) {
        let more =
            format!("{more} further nodes cannot be reached from this host; `sealane node ls` shows them");
        sentences.insert("liveness/more".to_owned(), more);
    }
    sentences
}

/// Names hosts that have never answered.
pub(super) fn silent<'a>(
    hosts: impl Iterator<Item = (&'a NodeName, &'a UnderlayAddrs)>,
    port: u16,
) -> BTreeMap<String, String> {
    let sentence = |(name, underlay): (&NodeName, &UnderlayAddrs)| {
        let sentence = format!(
            "node {name} ({underlay}) has answered no echo of this host since its agent started, and gets calls all the same: it is \
             down, or a firewall drops UDP port {port} in one direction, or its agent is older than this one"
        );
        (format!("liveness/silent/{name}"), sentence)
    };
    hosts.take(NAMED).map(sentence).collect()
}

/// Names hosts on the way to whom long packets are lost.
pub(super) fn narrow<'a>(
    hosts: impl Iterator<Item = ((&'a NodeName, UnderlayAddr), Narrow)>,
) -> BTreeMap<String, String> {
    let sentence = |((name, underlay), Narrow { passes, lost }): ((&NodeName, UnderlayAddr), Narrow)| {
        let remedy = |passes| narrow_remedy("this host", Some(lost), passes);
        let (done, remedy) = match passes {
            Passing::Bytes(passes) => {
                let told = passes.saturating_sub(overhead(underlay.family()));
                let done =
                    format!("at most {passes} bytes pass, and workloads are told so (path MTU {told})");
                (done, remedy(Some(passes)))
            }
            Passing::Sought => ("how long they may be is being looked for".to_owned(), remedy(None)),
            Passing::Less(least) => (
                format!(
                    "not even {least} bytes pass, so that transfers of workloads stand still or are slow"
                ),
                format!(
                    "raise the MTU of the network beneath to {lost}: no network works with less than {least}"
                ),
            ),
        };
        let sentence = format!(
            "packets of {lost} bytes to node {name} ({underlay}) are lost on the way, short ones are not: {done}; {remedy}"
        );
        (format!("liveness/length/{name}"), sentence)
    };
    hosts.take(NAMED).map(sentence).collect()
}

/// Host to which packets are lost whose checksums a device of this host makes.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub(super) node: NodeName,
    pub(super) underlay: UnderlayAddr,
    /// Device by which packets to it leave, where that can be found out.
    pub(super) device: Option<String>,
}

/// Names hosts to which such packets are lost, a sentence per device, and their number in all.
pub(super) fn wrong(hosts: &[Lost], all: usize) -> BTreeMap<String, String> {
    let mut devices: BTreeMap<Option<&String>, Vec<&Lost>> = BTreeMap::new();
    hosts.iter().for_each(|host| devices.entry(host.device.as_ref()).or_default().push(host));
    let sentence = |(device, hosts): (Option<&String>, Vec<&Lost>)| {
        let names = hosts.iter().map(|host| format!("{} ({})", host.node, host.underlay));
        let names = names.collect::<Vec<_>>().join(", ");
        let way = hosts
            .first()
            .map(|host| format!(" with the device that `ip route get {}` shows", host.underlay.to_ip()));
        let (named, shown, to_find) = match device {
            Some(device) => (format!("network device {device}"), device.as_str(), String::new()),
            None => ("a network device of this host".to_owned(), "DEVICE", way.unwrap_or_default()),
        };
        let sentence = format!(
            "packets of TCP and UDP to node {names} are lost where {named} is left to make their checksums, which are wrong when they \
             arrive; echoes and packets with the kernel's checksums arrive: have the kernel make them all by `ethtool -K {shown} tx \
             off`{to_find}, and if that helps at each start of this host"
        );
        (format!("liveness/checksum/{shown}"), sentence)
    };
    let mut sentences: BTreeMap<String, String> = devices.into_iter().map(sentence).collect();
    if let Some(more) = all.checked_sub(hosts.len()).filter(|more| *more > 0) {
        let more = format!(
            "packets with a device's checksums are lost on the way to {more} further nodes; `sealane check --peers` shows them"
        );
        sentences.insert("liveness/checksum".to_owned(), more);
    }
    sentences
}

/// Names hosts that are not watched as their addresses are those of others.
pub(super) fn colliding(hosts: &BTreeMap<NodeName, NodeName>) -> BTreeMap<String, String> {
    let sentence = |(name, other): (&NodeName, &NodeName)| {
        let sentence = format!(
            "node {name} is not watched from here: the address that follows from its name is node {other}'s; let one of them join \
             under another name"
        );
        (format!("liveness/address/{name}"), sentence)
    };
    hosts.iter().take(NAMED).map(sentence).collect()
}

/// Explains that a network has the VNI of echoes.
pub(super) fn taken(network: &NetworkName) -> String {
    format!(
        "network {network} has VNI {}, by which hosts watch each other: dead hosts keep getting calls from here until the network \
         is created again",
        Vni::ECHO
    )
}

/// Explains that the routes of narrow ways cannot be set up.
pub(super) fn untold(error: &dyn std::fmt::Display) -> String {
    format!(
        "workloads cannot be told how long their packets to some hosts may be, and long ones are lost: {error}"
    )
}

/// Explains that the device cannot be set up.
pub(super) fn blind(error: &dyn std::fmt::Display) -> String {
    format!("this host cannot find out which others are dead, and keeps calling them: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_up_to_a_number_and_who_reaches_nobody_is_alone() {
        let hosts: Vec<(NodeName, UnderlayAddrs)> = (1..=10)
            .map(|last| (format!("h{last:02}").parse().unwrap(), format!("192.0.2.{last}").parse().unwrap()))
            .collect();
        let of = |count: usize, all: usize| {
            let hosts: Vec<_> = hosts.iter().take(count).map(|(name, underlay)| (name, underlay)).collect();
            unreachable(&hosts, all, 4789)
        };
        assert_eq!(of(0, 0).len() + of(0, 3).len(), 0);
        assert!(of(1, 1)["liveness/h01"].starts_with("node h01 (192.0.2.1) cannot be reached"), "one of one");
        assert_eq!(of(2, 3).len(), 2);
        assert!(of(10, 20)["liveness/more"].starts_with("2 further nodes"));
        assert!(of(3, 3)["liveness/all"].starts_with("this host reaches none of the 3 hosts"));
    }

    #[test]
    fn wrong_checksums_are_named_once_per_device_with_what_to_type() {
        let lost = |node: &str, device: Option<&str>| Lost {
            node: node.parse().unwrap(),
            underlay: "192.0.2.1".parse().unwrap(),
            device: device.map(ToOwned::to_owned),
        };
        assert!(wrong(&[], 0).is_empty());
        let hosts = [lost("h01", Some("eth0")), lost("h02", Some("eth0")), lost("h03", None)];
        let said = wrong(&hosts, 5);
        assert_eq!(said.len(), 3, "{said:?}");
        let of_device = &said["liveness/checksum/eth0"];
        assert!(
            of_device.contains("to node h01 (192.0.2.1), h02 (192.0.2.1) are lost where network device eth0")
        );
        assert!(of_device.contains("`ethtool -K eth0 tx off`, and"), "{of_device}");
        let of_none = &said["liveness/checksum/DEVICE"];
        assert!(
            of_none
                .contains("`ethtool -K DEVICE tx off` with the device that `ip route get 192.0.2.1` shows")
        );
        assert!(said["liveness/checksum"].contains("to 2 further nodes"), "{said:?}");
    }

    #[test]
    fn a_narrow_way_is_named_with_the_length_that_passes() {
        let (name, underlay) = ("h01".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let said = |passes| {
            let narrow = Narrow { passes, lost: 1_500 };
            super::narrow(std::iter::once(((&name, underlay), narrow))).remove("liveness/length/h01").unwrap()
        };
        let sought = said(Passing::Sought);
        assert!(sought.starts_with("packets of 1500 bytes to node h01 (192.0.2.1) are lost on the way"));
        let found = said(Passing::Bytes(1_380));
        assert!(found.contains("at most 1380 bytes pass, and workloads are told so (path MTU 1330)"));
        assert!(found.contains("beneath to 1500, or lower that of this host's device to 1380:"));
        let none = said(Passing::Less(626));
        assert!(none.contains("not even 626 bytes pass") && none.contains("beneath to 1500: no"), "{none}");
    }
}
