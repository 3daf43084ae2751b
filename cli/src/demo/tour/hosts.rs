//! Chapter: hosts join, a network is made.

use serde_json::Value;

use super::NETWORK;
use crate::demo::flaw::{Flaw, ensure, eventually};
use crate::demo::narrator::Narrator;
use crate::demo::stage::Stage;

pub(super) fn chapter(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Flaw> {
    narrator.chapter(
        "Hosts join",
        "The control plane knows what the mesh should be and holds its certificate authority. A host joins with a\n\
         token, which also tells it which authority to trust.",
    );
    narrator.claim("host-1 runs the control plane", || {
        start_control(stage)?;
        Ok(format!("{}:7443", stage.first().address()))
    })?;
    for host in 0..stage.hosts().len() {
        let name = stage.hosts()[host].name().to_owned();
        narrator.claim(&format!("{name} has joined"), || {
            join(stage, host)?;
            Ok(format!("as {}", stage.hosts()[host].address()))
        })?;
    }
    let (name, subnet) = NETWORK;
    narrator.chapter("A network", "Of all hosts that need it, each in a namespace of its own there.");
    narrator.claim(&format!("`sealane network create {name} --subnet {subnet}`"), || {
        let network = stage.ask_json(stage.first(), &["network", "create", name, "--subnet", subnet])?;
        Ok(format!("VXLAN network {}", network["vni"]))
    })
}

/// Starts control on the first host and waits until it answers.
pub(super) fn start_control(stage: &mut Stage) -> Result<(), Flaw> {
    stage.start(0, "control", &["control", "--listen", "0.0.0.0:7443"])?;
    eventually(|| {
        stage.runs("control")?;
        let socket = ["--socket", "/run/sealane/control.sock"];
        stage.ask(stage.first(), &[&["token", "ls"], socket.as_slice()].concat()).map(drop)
    })
}

fn join(stage: &mut Stage, host: usize) -> Result<(), Flaw> {
    let printed = stage.ask(stage.first(), &["token", "create", "--ttl", "1h"])?;
    let token = printed.lines().last().unwrap_or_default().to_owned();
    let control = format!("{}:7443", stage.first().address());
    let name = stage.hosts()[host].name().to_owned();
    let log = format!("agent-{name}");
    stage.start_with(host, &log, &["agent", "--control", &control], &[("SEALANE_TOKEN", &token)])?;
    eventually(|| {
        stage.runs(&log)?;
        let connected = connected(stage)?;
        ensure(connected.contains(&name), || format!("connected are {}", connected.join(", ")))
    })
}

/// The hosts that control has a connection to.
pub(super) fn connected(stage: &Stage) -> Result<Vec<String>, Flaw> {
    let nodes = stage.ask_json(stage.first(), &["node", "ls", "--socket", "/run/sealane/control.sock"])?;
    let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
    let connected = nodes.iter().filter(|node| node["connected"] == Value::Bool(true));
    Ok(connected.filter_map(|node| Some(node["name"].as_str()?.to_owned())).collect())
}
