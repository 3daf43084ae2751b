//! Checks of the host's own packet filter: it must let Sealane's outer packets in, and its workloads' packets out. Rules
//! are read, never changed.

use std::collections::BTreeSet;
use std::process::Command;

use sealane_fabric::egress::{self, Fate, Firewall, Obstacle, closed_inputs, mentions};
use sealane_fabric::nft::Listing;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::Finding;
use crate::args::Check;

/// The host's ruleset as nft tells it.
pub(super) fn rules() -> Option<Listing> {
    let listed = Command::new("nft").args(["-j", "list", "ruleset"]).output().ok()?;
    // Where that fails, the kernel check says so.
    listed.status.success().then(|| Listing::read(&listed.stdout).unwrap_or_default())
}

pub(super) fn check(check: &Check, rules: &Listing) -> Vec<Finding> {
    let wanted = [
        ("udp", check.vxlan_port.get(), "VXLAN from the other hosts"),
        ("tcp", check.peer_port.get(), "calls of the other hosts"),
        ("tcp", 7443, "hosts that join, on the control host"),
        ("tcp", check.metrics_port.get(), "Prometheus"),
    ];
    let closed = closed_inputs(rules);
    if closed.is_empty() {
        return vec![Finding::ok("firewall", "no input chain drops by default")];
    }
    let mut findings = Vec::new();
    for chain in &closed {
        for (kind, port, what) in wanted {
            if !mentions(rules, kind, port) {
                findings.push(Finding::warning(
                    "firewall",
                    format!("{chain} drops by default, and no rule speaks of {port}/{kind} ({what})"),
                    format!("let it in from the hosts of the mesh: `{kind} dport {port} accept`"),
                ));
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "firewall",
            "every input chain that drops by default speaks of Sealane's ports",
        ));
    }
    findings
}

/// Checks that packets of workloads to the outside would be forwarded; the agent puts rules into iptables where they
/// are needed, and into no other's tables.
pub(super) fn forwarding(rules: &Listing, agent_runs: bool) -> Vec<Finding> {
    let asked = Hopper::start().map_err(|error| error.to_string()).and_then(|hopper| {
        let own = NetNs::current().map_err(|error| error.to_string())?;
        egress::inspect(&hopper, &own)
    });
    let by_iptables = matches!(asked, Ok(Firewall::Open | Firewall::Passed(_) | Firewall::Closed(_)));
    let mut findings: Vec<Finding> =
        egress::obstacles(rules, &uplinks(), by_iptables).iter().map(in_the_way).collect();
    match asked {
        Ok(Firewall::NoIptables | Firewall::Open) if findings.is_empty() => {
            findings.push(Finding::ok("forwarding", "nothing drops what is forwarded"));
        }
        Ok(Firewall::NoIptables | Firewall::Open) => {}
        Ok(Firewall::Passed(chain)) => findings.push(Finding::ok(
            "forwarding",
            format!("dropped by default; Sealane's rules in {chain} let its workloads out"),
        )),
        Ok(Firewall::Closed(chain)) if agent_runs => findings.push(Finding::warning(
            "forwarding",
            format!("dropped by default, and no rules of Sealane's stand in {chain}"),
            "right if no network has --egress allow; otherwise the agent puts them there within a minute",
        )),
        Ok(Firewall::Closed(chain)) => findings.push(Finding::ok(
            "forwarding",
            format!("dropped by default; the agent will let its workloads out by rules in {chain}"),
        )),
        Err(error) => findings.push(Finding::warning(
            "forwarding",
            format!("cannot be judged: {error}"),
            "see `iptables -S FORWARD`",
        )),
    }
    findings
}

fn in_the_way(obstacle: &Obstacle) -> Finding {
    let Obstacle { chain, fate, firewalld } = obstacle;
    let text = match fate {
        Fate::Dropped => format!("{chain} drops what workloads send to the world outside, or the answers"),
        Fate::Unsure => {
            format!("it cannot be told whether {chain} lets through what workloads send to the world outside")
        }
    };
    let remedy = if *firewalld {
        "`firewall-cmd --permanent --zone=trusted --add-interface=sealane+`, then `firewall-cmd --reload`"
    } else {
        "let `iifname \"sealane*\"` and `oifname \"sealane*\" ct state established,related` through there"
    };
    Finding::warning("forwarding", text, format!("{remedy}; right as it is if no network has --egress allow"))
}

/// The devices that lead to the world outside.
fn uplinks() -> Vec<String> {
    let listed = Command::new("ip").args(["-4", "-o", "route", "show", "default"]).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    let devices: BTreeSet<&str> =
        words.windows(2).filter(|pair| pair[0] == "dev").map(|pair| pair[1]).collect();
    devices.into_iter().map(str::to_owned).collect()
}
