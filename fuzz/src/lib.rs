//! Everything that Sealane reads from others, as targets of a fuzzer.
//!
//! A target is a function that takes any bytes and panics where an invariant does not hold: what is read is within its bounds,
//! and written so that it is read again; pieces mean what the whole means. `make fuzz TIME=60` runs each with libFuzzer
//! (`FUZZ=NAME` one), and the tests run each over its corpus, `corpus/NAME`, and mutations of it. What a fuzzer has found
//! is put into the corpus.

mod dns;

/// Function that takes any bytes.
pub type Target = fn(&[u8]);

/// Name and function of each target.
pub const TARGETS: [(&str, Target); 25] = [
    ("cni", sealane_cli::fuzzing::cni),
    ("detection", sealane_proxy::fuzzing::detection),
    ("dhcp", sealane_agent::fuzzing::dhcp),
    ("dns_answer", sealane_agent::fuzzing::dns_answer),
    ("dns_query", dns::query),
    ("docker_engine", sealane_agent::fuzzing::docker_engine),
    ("docker_plugin", sealane_agent::fuzzing::docker_plugin),
    ("documents", sealane_cli::fuzzing::documents),
    ("documents_json", sealane_proto::fuzzing::documents),
    ("firewall", sealane_fabric::fuzzing::firewall),
    ("http1_body", sealane_proxy::fuzzing::http1_body),
    ("http1_head", sealane_proxy::fuzzing::http1_head),
    ("http2_screen", sealane_proxy::fuzzing::http2_screen),
    ("iptables", sealane_fabric::fuzzing::iptables),
    ("keep_protocol", sealane_keep::fuzzing::keep_protocol),
    ("labels", labels),
    ("netavark", sealane_cli::fuzzing::netavark),
    ("nf_tables", sealane_fabric::fuzzing::nf_tables),
    ("peer_channel", sealane_agent::fuzzing::peer_channel),
    ("rules", sealane_proxy::fuzzing::rules),
    ("sidecar_channel", sealane_proto::fuzzing::sidecar_channel),
    ("tunnel_frames", sealane_proxy::fuzzing::tunnel_frames),
    ("tunnel_opening", sealane_proxy::fuzzing::tunnel_opening),
    ("wire_messages", sealane_proto::fuzzing::wire_messages),
    ("words", sealane_proto::fuzzing::words),
];

/// The function of this target.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// Reads labels, `KEY=VALUE` a line.
fn labels(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let labels = text.lines().filter_map(|line| line.split_once('='));
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    if let Err(refused) = sealane_agent::labels::read(&labels, "label") {
        assert!(refused.len() <= 1024 + 10 * text.len(), "{refused}");
    }
}
