//! Bad input is refused with its name and its cure, and leaves nothing half-made.

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, eventually, sealane};

#[track_caller]
fn check(refused: &Finished, code: i32, words: &[&str]) {
    assert_eq!(refused.code(), code, "{refused}");
    for word in words {
        assert!(refused.stderr.contains(word), "{word:?} is not in {refused}");
    }
}

#[test]
fn bad_words_are_refused_by_name_and_change_nothing() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let before = mesh.json(&["network", "ls"]);
    let create: [(&[&str], i32, &[&str]); 8] = [
        (&["store", "--subnet", "192.0.2.0/24"], 1, &["192.0.2.11 of host host-1", "is free"]),
        (&["localhost", "--subnet", "10.50.0.0/16"], 1, &["localhost is reserved"]),
        (&["shop", "--subnet", "10.50.0.0/16"], 1, &["shop"]),
        (&["store", "--subnet", "10.50.0.0/33"], 2, &["--subnet", "10.50.0.0/33"]),
        (&["store", "--subnet", "10.50.0.1/16"], 2, &["10.50.0.0/16"]),
        (&["store", "--subnet", "fd00::/64"], 2, &["IPv6"]),
        (&["Store", "--subnet", "10.50.0.0/16"], 2, &["lower-case"]),
        (&["store"], 2, &["--subnet"]),
    ];
    for (words, code, said) in create {
        check(&mesh.sealane(&[&["network", "create"], words].concat()), code, said);
    }
    assert_eq!(mesh.json(&["network", "ls"]), before);
    check(&mesh.sealane(&["network", "rm", "nowhere"]), 1, &["nowhere"]);
    check(&mesh.sealane(&["network", "inspect", "nowhere"]), 1, &["nowhere"]);

    let run: [(&[&str], &[&str]); 12] = [
        (&["--network", "nowhere"], &["nowhere"]),
        (&["--network", "shop", "--service", "api", "--port", "70000"], &["70000", "65535"]),
        (&["--network", "shop", "--service", "api", "--port", "0"], &["65535"]),
        (&["--network", "shop", "--service", "api", "--port", "15001"], &["15001"]),
        (&["--network", "shop", "--ip", "10.99.0.7"], &["10.99.0.7", "shop"]),
        (&["--network", "shop", "--ip", "10.42.0.1"], &["10.42.0.1"]),
        (&["--network", "shop", "--mtls", "strict"], &["--port"]),
        (
            &["--network", "shop", "--service", "api", "--port", "53/udp", "--mtls", "strict"],
            &["--port 53/udp", "datagrams"],
        ),
        (&["--network", "shop", "--name", "localhost"], &["--name: localhost", "take another"]),
        (&["--network", "shop", "--service", "10", "--port", "80"], &["--service: 10", "0.0.0.10"]),
        (&["--network", "shop", "--alias", "localhost"], &["--alias: localhost"]),
        (&["--network", "shop", "--weight", "5"], &["--weight 5", "--service"]),
    ];
    for (flags, said) in run {
        check(&mesh.site(1).run(flags, &["true"]).wait(), 125, said);
    }
    eventually(PATIENCE, "no workload stays", || {
        mesh.json(&["workload", "ls"]).as_array().unwrap().is_empty().then_some(())
    });
    assert!(mesh.site(1).processes("proxy").is_empty());
}

#[test]
fn nobody_at_the_socket_is_status_3_and_names_who_is_missing() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(1);
    check(&mesh.sealane(&["token", "create"]), 3, &["control", "hint:"]);
    check(&mesh.sealane(&["status"]), 3, &["hint:"]);
    check(&mesh.site(1).run(&["--network", "shop"], &["true"]).wait(), 125, &["agent", "hint:"]);
}

#[test]
fn without_root_each_verb_says_that_it_needs_it() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(1);
    let copy = "/run/sealane-for-all";
    let _ = mesh.site(1).command("install", &["-m", "755", sealane().to_str().unwrap(), copy]).ok();
    let verbs: [&[&str]; 5] = [
        &["control"],
        &["agent", "--control", "192.0.2.11:7443"],
        &["up"],
        &["run", "--network", "shop", "--", "true"],
        &["clean", "--yes"],
    ];
    for verb in verbs {
        let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", copy];
        let refused = mesh.site(1).command("setpriv", &[&nobody[..], verb].concat());
        let code = if verb[0] == "run" { 125 } else { 1 };
        check(&refused, code, &["root"]);
    }
}

#[test]
fn a_second_control_or_agent_on_the_same_folders_is_refused_and_the_first_undisturbed() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(1);
    let second = mesh.sealane(&["control", "--listen", "0.0.0.0:7445"]);
    check(&second, 1, &["/run/sealane"]);
    let second = mesh.sealane(&["agent", "--control", "192.0.2.11:7443"]);
    check(&second, 1, &["/run/sealane"]);
    let taken = ["control", "--data-dir", "/var/lib/second", "--run-dir", "/run/second"];
    let ports = ["--metrics", "127.0.0.1:9466", "--listen", "0.0.0.0:7443"];
    check(&mesh.sealane(&[&taken[..], &ports, &["--trust-domain", "typo"]].concat()), 1, &["7443"]);
    let made = mesh.site(1).command("ls", &["/var/lib"]).ok();
    assert!(!made.stdout.contains("second"), "a start that failed has left its store: {made}");
    mesh.control.assert_runs();
    mesh.site_mut(1).agent.assert_runs();
    let _server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
}

#[test]
fn a_full_disk_is_named_and_control_goes_on_when_there_is_room_again() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(1);
    let prepare = "mkdir -p /var/lib/small && mount -t tmpfs -o size=4m tmpfs /var/lib/small";
    let _ = mesh.site(1).command("sh", &["-c", prepare]).ok();
    let mut control = mesh.site(1).host.command(sealane().to_str().unwrap());
    control.args(["control", "--listen", "0.0.0.0:7443", "--data-dir", "/var/lib/small/data"]);
    let mut control = sealane_tests::Running::start(control);
    eventually(PATIENCE, "control answers", || {
        assert!(control.runs(), "{}", control.stderr());
        mesh.sealane(&["node", "ls"]).status.success().then_some(())
    });
    mesh.create_shop();
    let fill = "dd if=/dev/zero of=/var/lib/small/fill bs=4k 2>/dev/null; true";
    let _ = mesh.site(1).command("sh", &["-c", fill]).ok();
    // What fits into space the store has already is still written; sooner or later nothing does.
    let (mut number, mut made) = (0, 0);
    let refused = eventually(PATIENCE, "the disk is full", || {
        number += 1;
        let (name, subnet) =
            (format!("net-{number}"), format!("10.{}.{}.0/24", 50 + number / 250, number % 250));
        let created = mesh.sealane(&["network", "create", &name, "--subnet", &subnet]);
        made += usize::from(created.status.success());
        (!created.status.success()).then_some(created)
    });
    check(&refused, 1, &["/var/lib/small"]);
    assert_eq!(
        mesh.json(&["network", "ls"]).as_array().unwrap().len(),
        made + 1,
        "what was refused is not there"
    );
    let _ = mesh.site(1).command("rm", &["/var/lib/small/fill"]).ok();
    let _ = mesh.sealane(&["network", "create", "roomy", "--subnet", "10.60.0.0/16"]).ok();
}

#[test]
fn no_room_at_all_stops_control_from_starting_and_says_why() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(1);
    let prepare = "mkdir -p /var/lib/small && mount -t tmpfs -o size=4k tmpfs /var/lib/small";
    let _ = mesh.site(1).command("sh", &["-c", prepare]).ok();
    let refused = mesh.sealane(&["control", "--data-dir", "/var/lib/small"]);
    check(&refused, 1, &["/var/lib/small", "space"]);
}
