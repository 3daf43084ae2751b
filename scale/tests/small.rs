//! A small mesh of simulated hosts at a control plane of the real binary.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::process::{Command, Stdio};

use sealane_lab::isolated;
use sealane_tests::sealane;
use serde_json::{Value, json};

/// Runs a plan of six hosts with these further fields; returns its steps.
fn steps(plan: &Value) -> Vec<Value> {
    for command in ["link set lo up", "route add local 172.16.0.0/12 dev lo"] {
        assert!(Command::new("ip").args(command.split(' ')).status().unwrap().success(), "ip {command}");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut whole = json!({
        "sealane": sealane(), "data": at("data"), "run": at("run"), "log": at("log"), "hosts": 6, "networks": 2,
        "endpoints": 30, "services": 5, "prefix": 16, "seconds": 0.5, "patience": 60,
    });
    whole.as_object_mut().unwrap().append(&mut plan.clone().as_object_mut().unwrap().clone());
    let mut program = Command::new(env!("CARGO_BIN_EXE_sealane-scale"));
    let output =
        program.arg(whole.to_string()).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(steps: &[Value]) -> Vec<&str> {
    steps.iter().map(|step| step["step"].as_str().unwrap()).collect()
}

#[test]
fn hosts_of_a_small_mesh_join_settle_changes_and_come_back() {
    if !isolated() {
        return;
    }
    let steps = steps(&json!({ "rates": [4, 40] }));
    let expected =
        ["start", "join", "streams", "carry", "fill", "idle", "rate", "rate", "reconnect", "restart", "end"];
    assert_eq!(names(&steps), expected);
    assert_eq!((&steps[1]["hosts"], &steps[3]["without"]), (&json!(6), &json!(0)));
    for step in &steps {
        let unsettled = step.get("unsettled").unwrap_or(&json!(0)).clone();
        assert_eq!((unsettled, &step["refused"]), (json!(0), &json!(0)), "{step}");
    }
    assert_eq!(steps[7]["changes"], json!(20));
    // Three hosts of each network get every change of it, several at once perhaps.
    let news = steps[7]["states"].as_u64().unwrap() + steps[7]["deltas"].as_u64().unwrap();
    assert!((6..=60).contains(&news) && steps[7]["astray"] == json!(0), "{}", steps[7]);
    assert_eq!((&steps[8]["lost_streams"], &steps[9]["lost_streams"]), (&json!(0), &json!(6)));
}

#[test]
fn a_control_plane_that_serves_ends_with_its_input() {
    if !isolated() {
        return;
    }
    let steps = steps(&json!({ "rates": [], "serves": true }));
    assert_eq!(names(&steps), ["start", "join", "streams", "carry", "fill", "idle", "serving"]);
}
