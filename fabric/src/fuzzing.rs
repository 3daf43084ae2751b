//! Rules of the host and of its networks, for fuzzing: each function panics where an invariant does not hold.

/// Judges a host's ruleset as nft tells it.
pub fn firewall(data: &[u8]) {
    crate::egress::fuzzing::judged(data);
}

/// Plans what must change in a host's iptables.
pub fn iptables(data: &[u8]) {
    crate::egress::fuzzing::planned(data);
}

/// Reads messages of the kernel's lists of rules.
pub fn nf_tables(data: &[u8]) {
    crate::nft::fuzzing::listed(data);
}
