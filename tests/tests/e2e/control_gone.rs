//! The control plane is gone for a while.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually, testapp};

#[test]
fn traffic_goes_on_without_control_and_nothing_is_forgotten() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(3, 3);
    let load = mesh.site(2).load("web", &["http://api:8080/"]);
    eventually(PATIENCE, "control knows the client", || {
        mesh.json(&["workload", "ls"]).as_array().unwrap().len().eq(&4).then_some(())
    });
    let state = |mesh: &Mesh| {
        ["network", "service", "workload"].map(|what| {
            let mut views = mesh.json(&[what, "ls"]);
            for view in views.as_array_mut().unwrap() {
                view.as_object_mut().unwrap().remove("generation");
            }
            views
        })
    };
    let before = state(&mesh);
    mesh.control.kill9();
    load.await_further(500);
    mesh.control.start();
    mesh.await_control();
    mesh.await_connected();
    load.await_further(500);
    assert_eq!(state(&mesh), before);
    let _ = load.stop().ok();
}

#[test]
fn what_is_waited_for_is_named_while_control_is_there_and_does_not_answer() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(1, 1);
    let control = Pid::from_raw(mesh.control.pid().cast_signed());
    kill(control, Signal::SIGSTOP).unwrap();
    let mut fresh = mesh.site(1).run(&["--network", "shop", "--name", "fresh"], &["echo", "began"]);
    fresh.wait_for(
        "waiting for control, which does not know workload shop/fresh yet: it has not answered so far\n",
    );
    kill(control, Signal::SIGCONT).unwrap();
    assert_eq!(fresh.wait().ok().stdout, "began\n");
}

#[test]
fn without_control_a_known_service_grows_on_its_host_and_a_new_one_waits_and_says_so() {
    if !isolated() {
        return;
    }
    let (mut mesh, _servers) = Mesh::serving(2, 2);
    let mut load = mesh.site(2).load("web", &["http://api:8080/"]);
    mesh.control.kill9();

    let _third = mesh.site(2).serve("api", "api-3");
    load.await_answer("api-3");

    let flags = ["--network", "shop", "--service", "fresh", "--port", "9000", "--name", "fresh-1"];
    let program = testapp();
    let mut fresh = mesh.site(2).run(&flags, &[program.to_str().unwrap(), "http", "9000", "fresh-1"]);
    fresh.wait_for("waiting for");
    assert!(fresh.stdout().is_empty(), "it started without an identity");
    let waits = mesh.site(2).workload("fresh-1").unwrap()["problem"].to_string();
    assert!(waits.starts_with("\"it waits for control"), "{waits}");
    mesh.control.start();
    fresh.wait_for("listening");
    mesh.await_instances("fresh", 1);
    mesh.await_instances("api", 3);
    let _ = load.stop().ok();
}
