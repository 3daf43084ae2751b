//! Services whose instances run outside every network: by name from workloads of every host, out of names and balancing with their
//! checks, registered on the control host or by a host for itself.

use std::path::Path;
use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, Running, Site, eventually, testapp};
use serde_json::Value;

/// A mesh of two hosts with `shop`, and a third host that has nothing of it: 192.0.2.13.
fn beside_a_stranger() -> Mesh {
    let mesh = Mesh::hosts(3).up_to(2);
    mesh.create_shop();
    mesh
}

fn redis(site: &Site) -> Running {
    let arguments = ["--port", "6379", "--protected-mode", "no", "--save", "", "--dir", "/run"];
    site.start("redis-server", &arguments, "Ready to accept connections")
}

fn http(site: &Site, port: &str, name: &str) -> Running {
    site.start(testapp().to_str().unwrap(), &["http", port, name], "listening")
}

fn register(site: &Site, name: &str, network: &str, address: &str, more: &[&str]) -> Finished {
    let words = ["service", "register", name, "--network", network, "--address", address];
    site.sealane(&[&words[..], more].concat())
}

/// The numbers of a service's instances that are ready, and of all of them, as a host sees it.
fn counted(site: &Site, service: &str) -> Option<(u64, u64)> {
    let services = site.json(&["service", "ls"]);
    let found = services.as_array().unwrap().iter().find(|view| view["name"] == service)?;
    Some((found["ready"].as_u64().unwrap(), found["instances"].as_u64().unwrap()))
}

#[track_caller]
fn await_counted(site: &Site, service: &str, expected: (u64, u64)) {
    let what = format!("{service} has {expected:?} instances as {} sees it", site.host.name());
    eventually(PATIENCE, &what, || (counted(site, service) == Some(expected)).then_some(()));
}

fn problems(site: &Site) -> String {
    let said = site.sealane(&["status"]);
    said.stdout + &said.stderr
}

#[test]
fn a_database_outside_is_called_by_name_and_is_out_of_names_and_balancing_when_its_check_fails() {
    if !isolated() {
        return;
    }
    let mesh = beside_a_stranger();
    let database = redis(mesh.site(3));
    let checked = || {
        let flags = ["--port", "sql=6379/tcp", "--check", "tcp", "--interval", "300ms"];
        register(mesh.site(1), "db", "shop", "192.0.2.13:6379", &flags).ok()
    };
    let _ = checked();
    let ask = |number: usize, flags: &[&str]| {
        let flags = [&["--network", "shop"], flags].concat();
        mesh.site(number).run(&flags, &["redis-cli", "-h", "db", "ping"]).wait()
    };
    for number in 1..=2 {
        for flags in [&[][..], &["--no-sidecar"]] {
            let answer = ask(number, flags);
            assert_eq!(answer.stdout.trim(), "PONG", "{answer}");
        }
    }
    let inspected = mesh.sealane(&["service", "inspect", "db"]).ok().stdout;
    assert!(inspected.contains("192.0.2.13:6379, called in plain"), "{inspected}");
    assert!(inspected.contains("tcp, every 300ms, by every host for itself"), "{inspected}");
    let endpoints = mesh.sealane(&["service", "endpoints", "db"]).ok().stderr;
    assert!(
        endpoints.contains("outside every network: `sealane service inspect db.shop` shows them"),
        "{endpoints}"
    );

    drop(database);
    let began = Instant::now();
    for number in 1..=2 {
        await_counted(mesh.site(number), "db", (0, 1));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let said = problems(mesh.site(2));
    assert!(
        said.contains("service shop/db: its external instance 192.0.2.13:6379 is out of names"),
        "{said}"
    );
    let refused = ask(2, &["--no-sidecar"]);
    assert!(refused.stderr.contains("refused"), "{refused}");

    let _database = redis(mesh.site(3));
    for number in 1..=2 {
        await_counted(mesh.site(number), "db", (1, 1));
        assert_eq!(ask(number, &[]).stdout.trim(), "PONG");
    }
    let said = problems(mesh.site(2));
    assert!(!said.contains("shop/db"), "{said}");
    let again = checked();
    assert!(again.stderr.contains("unchanged"), "{again}");
    let _ = mesh.sealane(&["service", "deregister", "db"]).ok();
    assert_eq!(mesh.json(&["service", "ls"]), Value::Array(vec![]));
}

#[test]
fn instances_at_ports_of_their_own_share_the_calls_with_and_without_a_sidecar() {
    if !isolated() {
        return;
    }
    let mesh = beside_a_stranger();
    let one = http(mesh.site(3), "8081", "one");
    let _two = http(mesh.site(3), "8082", "two");
    let document = mesh.site(1).host.within(|| {
        let path = Path::new("/run/web.yaml");
        std::fs::write(
            path,
            "apiVersion: sealane.dev/v1\nkind: Service\nmetadata: {name: web, network: shop}\nspec:\n  ports: [{port: 80, protocol: http}]\n  \
             external: [192.0.2.13:8081, 192.0.2.13:8082]\n  check: {http: /, interval: 300ms}\n",
        )
        .unwrap();
        path.display().to_string()
    });
    let document = document.unwrap();
    let applied = mesh.sealane(&["apply", "-f", &document, "--wait"]).ok();
    assert!(applied.stdout.contains("service web in network shop created"), "{applied}");
    let _ = mesh.sealane(&["diff", "-f", &document]).ok();
    let ask = |flags: &[&str]| {
        let flags = [&["--network", "shop"], flags].concat();
        let script = "for i in $(seq 40); do curl -sS --max-time 5 http://web/; echo; done | sort | uniq";
        mesh.site(2).run(&flags, &["sh", "-c", script]).wait().stdout
    };
    for flags in [&[][..], &["--no-sidecar"]] {
        assert_eq!(ask(flags), "one\ntwo\n", "{flags:?}");
    }
    drop(one);
    await_counted(mesh.site(2), "web", (1, 2));
    for flags in [&[][..], &["--no-sidecar"]] {
        assert_eq!(ask(flags), "two\n", "{flags:?}");
    }
    // What a host leaves out stays in the document.
    let shown = mesh.site(2).json(&["get", "service", "web.shop"]);
    assert_eq!(shown["spec"]["external"].as_array().unwrap().len(), 2, "{shown}");
    let gone = mesh.sealane(&["delete", "service", "web.shop"]).ok();
    assert!(gone.stdout.contains("deleted"), "{gone}");
}

/// The same mesh, whose second host registers what files in /run/services.d say.
fn beside_a_registrar() -> Mesh {
    let mut mesh = beside_a_stranger();
    mesh.site_mut(2).agent.kill9();
    mesh.restart_agent(2, &["--services-dir", "/run/services.d"]);
    mesh.site_mut(2).await_ready();
    mesh
}

#[test]
fn a_host_registers_services_in_files_of_its_own_and_what_is_refused_leaves_none() {
    if !isolated() {
        return;
    }
    let mesh = beside_a_registrar();
    let _server = http(mesh.site(3), "8080", "outside");
    let _own = http(mesh.site(2), "8090", "own");
    let _ = register(mesh.site(2), "web", "shop", "192.0.2.13:8080", &[]).ok();
    for number in 1..=2 {
        assert_eq!(mesh.site(number).curl("http://web:8080/").stdout, "outside");
    }
    let listed = mesh.sealane(&["service", "inspect", "web"]).ok().stdout;
    assert!(listed.contains("node host-2"), "{listed}");
    for verb in ["deregister", "rm"] {
        let refused = mesh.sealane(&["service", verb, "web"]);
        assert!(refused.stderr.contains("registered by node host-2"), "{refused}");
    }
    for (address, why) in
        [("10.42.0.9:80", "inside network shop"), ("127.0.0.1:80", "loopback"), ("[::1]:80", "IPv6")]
    {
        let refused = register(mesh.site(2), "bad", "shop", address, &[]);
        assert!(!refused.status.success() && refused.stderr.contains(why), "{refused}");
    }
    assert_eq!(mesh.site(2).command("ls", &["/run/services.d"]).stdout, "web.shop.json\n");

    // Its own address is out of reach for its own workloads, and of use for others'.
    let _ = register(mesh.site(2), "own", "shop", "192.0.2.12:8090", &[]).ok();
    assert_eq!(mesh.site(1).curl("http://own:8090/").stdout, "own");
    await_counted(mesh.site(2), "own", (0, 1));
    let said = problems(mesh.site(2));
    assert!(said.contains("it is an address of this host"), "{said}");

    let _ = mesh.site(2).sealane(&["service", "deregister", "web"]).ok();
    let twice = mesh.site(2).sealane(&["service", "deregister", "web.shop"]);
    assert!(twice.stderr.contains("not registered by this host"), "{twice}");
    let names = mesh.json(&["service", "ls"]);
    assert_eq!((names.as_array().unwrap().len(), &names[0]["name"]), (1, &Value::from("own")));
}

#[test]
fn a_bad_file_is_named_with_its_line_and_changes_nothing() {
    if !isolated() {
        return;
    }
    let mut mesh = beside_a_registrar();
    let _server = http(mesh.site(3), "8080", "outside");
    let write = |site: &Site, address: &str| {
        let text = format!(
            "apiVersion: sealane.dev/v1\nkind: Service\nmetadata: {{name: more, network: shop}}\nspec:\n  ports: [{{port: 8080}}]\n  external: \
             [{address}]\n"
        );
        let done = site.host.within(|| {
            std::fs::create_dir_all("/run/services.d")?;
            std::fs::write("/run/services.d/more.yaml", text)
        });
        done.unwrap().unwrap();
    };
    let named = |site: &Site, stays: &str| {
        eventually(PATIENCE, "the file is named with its line", || {
            let said = problems(site);
            (said.contains("more.yaml:6:") && said.contains(stays)).then_some(())
        });
    };
    write(mesh.site(2), "192.0.2.13");
    let more = "http://more:8080/";
    eventually(PATIENCE, "the file is read", || (mesh.site(1).curl(more).stdout == "outside").then_some(()));
    write(mesh.site(2), "127.0.0.1");
    named(mesh.site(2), "what the file said before stays in effect");
    assert_eq!(mesh.site(1).curl(more).stdout, "outside");
    // Nor does an agent that never understood the file take anything back.
    mesh.site_mut(2).agent.kill9();
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    named(mesh.site(2), "no service that this host registered before is taken back");
    assert_eq!(mesh.site(1).curl(more).stdout, "outside");
    let _ = mesh.site(2).command("rm", &["/run/services.d/more.yaml"]).ok();
    eventually(PATIENCE, "the host's services are as its files are", || {
        (mesh.json(&["service", "ls"]) == Value::Array(vec![])).then_some(())
    });
}

#[test]
fn a_host_registers_nothing_in_networks_that_its_token_was_not_made_for() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::hosts(2).up_to(1);
    for (name, subnet) in [("shop", "10.42.0.0/16"), ("office", "10.43.0.0/16")] {
        let _ = mesh.sealane(&["network", "create", name, "--subnet", subnet]).ok();
    }
    let created = mesh.sealane(&["token", "create", "--networks", "office"]).ok();
    let token = created.stdout.lines().last().unwrap().to_owned();
    mesh.restart_agent(2, &["--token", &token, "--services-dir", "/run/services.d"]);
    mesh.site_mut(2).await_ready();
    let two = mesh.site(2);
    eventually(PATIENCE, "host-2 is connected", || {
        (two.json(&["status"])["control_connected"] == true).then_some(())
    });
    let register = |network: &str| register(mesh.site(2), "db", network, "192.0.2.50:5432", &[]);
    let refused = register("shop");
    assert!(refused.stderr.contains("joined by a token for network office"), "{refused}");
    let _ = register("office").ok();
    assert_eq!(mesh.json(&["service", "ls"])[0]["network"], "office");
    // What a removed host has registered goes with it.
    mesh.site_mut(2).agent.kill9();
    let _ = mesh.sealane(&["node", "rm", "host-2", "--force"]).ok();
    assert_eq!(mesh.json(&["service", "ls"]), Value::Array(vec![]));
}
