//! Generates the wire messages; protox compiles them, so no protoc is needed.

use std::error::Error;

const FILES: [&str; 6] = ["model", "control", "admin", "agent", "sidecar", "peer"];

fn main() -> Result<(), Box<dyn Error>> {
    let files = FILES.map(|name| format!("wire/sealane/v1/{name}.proto"));
    for file in &files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["wire"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        // Encoded once for all sidecars.
        .bytes(".sealane.v1.SidecarConfig.state")
        .bytes(".sealane.v1.SidecarChange.change")
        // Encoded once for all hosts.
        .bytes(".sealane.v1.ControlMessage.state")
        .bytes(".sealane.v1.ControlMessage.delta")
        // Encoded once for all peers.
        .bytes(".sealane.v1.PeerFacts.workloads")
        .compile_fds(descriptors)?;
    Ok(())
}
