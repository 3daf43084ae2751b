//! Names in a namespace of somebody else's: Docker's resolver begins there at any moment, by a rule that leads what is asked
//! of 127.0.0.11 to it. What is not tracked is not led astray. Pure.

use std::net::Ipv4Addr;

/// The table's family.
pub(super) const FAMILY: &str = "ip";
/// The table's name.
pub(super) const NAME: &str = "sealane-names";

/// The table that keeps the questions to our resolver at `address` ours, and its answers.
pub(super) fn table(address: Ipv4Addr) -> String {
    let body = format!(
        "    chain output {{\n        type filter hook output priority raw; policy accept;\n        ip daddr {address} meta \
         l4proto {{ tcp, udp }} th dport 53 notrack\n        ip saddr {address} meta l4proto {{ tcp, udp }} th sport 53 \
         notrack\n    }}\n"
    );
    super::table::stamped(FAMILY, NAME, "names of Sealane's networks are answered here", &body)
}
