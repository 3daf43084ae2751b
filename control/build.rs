//! Generates the messages and clients of etcd's API; protox compiles them, so no protoc is needed.

use std::error::Error;

const FILE: &str = "wire/etcd.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FILE}");
    let descriptors = protox::compile([FILE], ["wire"])?;
    tonic_prost_build::configure().build_transport(false).build_server(false).compile_fds(descriptors)?;
    Ok(())
}
