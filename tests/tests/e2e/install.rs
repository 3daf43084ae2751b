//! Installation, the return after a reboot, and the words of `check` before and after.

use std::path::Path;
use std::process::Command;

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually, sealane};

/// Runs one of the Makefile's targets about an installation below `root`.
fn make(target: &str, root: &Path) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut make = Command::new("make");
    make.arg("-C").arg(folder).arg(target);
    make.arg(format!("DESTDIR={}", root.display())).arg(format!("BINARY={}", sealane().display()));
    let made = make.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn make_install_installs_a_binary_and_units_that_systemd_understands() {
    let root = tempfile::tempdir().unwrap();
    make("install", root.path());
    let at = |path: &str| root.path().join(path);
    let version = Command::new(at("usr/local/bin/sealane")).arg("--version").output().unwrap();
    assert!(version.status.success());
    let shared = [
        "man/man1/sealane-network-create.1",
        "sealane/service.conf",
        "bash-completion/completions/sealane",
        "zsh/site-functions/_sealane",
        "fish/vendor_completions.d/sealane.fish",
    ];
    let shared = shared.map(|name| at(&format!("usr/local/share/{name}")));
    assert!(shared.iter().all(|file| std::fs::metadata(file).unwrap().len() > 0));
    let units = ["control", "agent", "attach@"]
        .map(|name| at(&format!("usr/local/lib/systemd/system/sealane-{name}.service")));
    // The programs that the units start are looked for where they are now.
    for unit in &units {
        let text = std::fs::read_to_string(unit).unwrap();
        let here = text.replace("/usr/local/bin/", &format!("{}/usr/local/bin/", root.path().display()));
        std::fs::write(unit, here).unwrap();
    }
    let verified =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("sealane")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");

    std::fs::write(at("etc/default/sealane"), "SEALANE_CONTROL=192.0.2.10:7443\n").unwrap();
    make("install", root.path());
    let kept = std::fs::read_to_string(at("etc/default/sealane")).unwrap();
    assert_eq!(kept, "SEALANE_CONTROL=192.0.2.10:7443\n", "settings are the host's own");
    make("uninstall", root.path());
    let gone = units.iter().chain(&shared).all(|file| !file.exists());
    assert!(!at("usr/local/bin/sealane").exists() && gone);
}

#[test]
fn docker_install_puts_a_socket_in_place_that_systemd_understands_and_uninstall_leaves_no_trace() {
    let root = tempfile::tempdir().unwrap();
    make("install", root.path());
    let text = root.path().display().to_string();
    let docker = |verb: &str| {
        let done = Command::new(sealane()).args(["docker", verb, "--root", &text]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let before = files(root.path());
    docker("install");
    docker("install");
    let at = |path: &str| root.path().join(path);
    let spec = std::fs::read_to_string(at("etc/docker/plugins/sealane.spec")).unwrap();
    assert_eq!(spec, "unix:///run/docker/plugins/sealane.sock\n");
    let unit = at("usr/local/lib/systemd/system/sealane-agent.service");
    let here =
        std::fs::read_to_string(&unit).unwrap().replace("/usr/local/bin/", &format!("{text}/usr/local/bin/"));
    std::fs::write(&unit, here).unwrap();
    let folders = format!("{text}/etc/systemd/system:{text}/usr/local/lib/systemd/system:");
    let mut verify = Command::new("systemd-analyze");
    verify.env("SYSTEMD_UNIT_PATH", folders).args(["verify", "--man=no", "sealane-docker.socket"]);
    let verified = verify.output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !said.contains("sealane"), "{said}");
    docker("uninstall");
    docker("uninstall");
    assert_eq!(files(root.path()), before);
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let found = Command::new("find").arg(folder).args(["-type", "f"]).output().unwrap();
    let mut files: Vec<_> = String::from_utf8(found.stdout).unwrap().lines().map(Into::into).collect();
    files.sort();
    files
}

#[test]
fn a_mesh_comes_back_from_its_disks_when_every_host_was_rebooted() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(2);
    let server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let before = mesh.json(&["network", "inspect", "shop"]);
    let vip = |mesh: &Mesh| mesh.json(&["service", "ls"])[0]["vip"].clone();
    let address = vip(&mesh);

    mesh.control.kill9();
    drop(server);
    for number in 1..=2 {
        mesh.site_mut(number).power_off();
    }
    mesh.control.start();
    mesh.await_control();
    for number in 1..=2 {
        mesh.site_mut(number).agent.start();
    }
    for number in 1..=2 {
        mesh.site_mut(number).await_ready();
    }
    mesh.await_connected();

    let _server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let answer = mesh.site(2).curl("http://api:8080/").ok();
    assert_eq!(answer.stdout, "api-1");
    let after = mesh.json(&["network", "inspect", "shop"]);
    for field in ["subnet", "vni"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    let blocks = after["blocks"].as_array().unwrap();
    assert!(
        before["blocks"].as_array().unwrap().iter().all(|block| blocks.contains(block)),
        "{before} {after}"
    );
    assert_eq!(vip(&mesh), address);
}

#[test]
fn check_names_what_is_in_the_way_before_and_says_what_works_afterwards() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::hosts(2);
    let fresh = mesh.site(2).sealane(&["check"]);
    assert!(fresh.status.success(), "{fresh}");
    assert!(fresh.stdout.contains("neither control nor agent runs here"), "{fresh}");
    assert!(!fresh.stdout.contains('\u{1b}'), "no colours where there is no terminal");

    let firewall = "nft add table inet fw; nft 'add chain inet fw in { type filter hook input priority 0; policy drop; }'; \
                    nft add rule inet fw in iif lo accept";
    let _ = mesh.site(2).command("sh", &["-c", firewall]).ok();
    let closed = mesh.site(2).findings("firewall");
    assert!(
        closed.iter().any(|(verdict, text)| verdict == "warning" && text.contains("4789/udp")),
        "{closed:?}"
    );
    let _ = mesh.site(2).command("nft", &["delete", "table", "inet", "fw"]).ok();
    assert_eq!(mesh.site(2).findings("firewall")[0].0, "ok");

    let taken = mesh.site(2).host.within(|| std::net::TcpListener::bind("0.0.0.0:9464").unwrap()).unwrap();
    let ports = mesh.site(2).findings("ports");
    assert!(
        ports.iter().any(|(verdict, text)| verdict == "warning" && text.contains("9464/tcp is in use")),
        "{ports:?}"
    );
    drop(taken);

    let mut mesh = mesh.up();
    mesh.create_shop();
    let _servers: Vec<_> = (1..=2).map(|n| mesh.site(n).serve("api", &format!("api-{n}"))).collect();
    mesh.await_instances("api", 2);
    eventually(PATIENCE, "everything is well on a host that works", || {
        let checked = mesh.site(2).sealane(&["check"]);
        let whole = checked.stdout.contains("is connected to")
            && checked.stdout.contains("packets of 1500 bytes reach host-1");
        (checked.status.success() && whole).then_some(())
    });

    mesh.control.kill9();
    eventually(PATIENCE, "a control plane that is gone is a problem", || {
        let agent = mesh.site(2).findings("agent");
        agent
            .iter()
            .any(|(verdict, text)| verdict == "problem" && text.contains("control is not there"))
            .then_some(())
    });
}
