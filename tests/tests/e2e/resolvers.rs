//! Names as C libraries and tools find them: search lists, both families at once, large answers.

use std::path::{Path, PathBuf};
use std::process::Command;

use sealane_lab::isolated;
use sealane_tests::{Mesh, Running};

/// A domain that the hosts search, in which every name exists, elsewhere.
const ELSEWHERE: &str = "198.51.100.7";

#[test]
fn c_libraries_find_services_first_in_the_network_and_then_where_the_host_looks() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let testapp = sealane_tests::testapp();
    let mut upstream = site.host.command(testapp.to_str().unwrap());
    let mut upstream = Running::start({
        upstream.args(["nameserver", "192.0.2.11"]);
        upstream
    });
    upstream.wait_for("listening");
    let host_conf = "printf 'search corp.example\\nnameserver 192.0.2.11\\n' > /etc/resolv.conf";
    let _written = site.command("sh", &["-c", host_conf]).ok();
    let _servers = [site.serve("api", "api-1"), site.serve("api", "api-2")];
    mesh.await_instances("api", 2);
    let service = mesh.json(&["service", "ls"])[0]["vip"].as_str().unwrap().to_owned();
    let programs = compile();
    let mut instances: Vec<String> = ["api-1", "api-2"]
        .map(|name| site.workload(name).unwrap()["address"].as_str().unwrap().to_owned())
        .into();
    instances.sort();
    let every = instances.join(" ");
    let table = [
        ("api", service.as_str()),
        ("api.shop", &service),
        ("API", &service),
        ("tasks.api", &every),
        ("tasks.api.shop", &every),
        ("nobody.shop.", "nothing"),
        ("printer", ELSEWHERE),
        ("www.example.com", ELSEWHERE),
    ];
    for program in &programs {
        let names = table.map(|(name, _)| name);
        let command = [&[program.to_str().unwrap()], &names[..]].concat();
        let said = site.shop(&command).wait().ok().stdout;
        let expected: Vec<String> = table.map(|(name, found)| format!("{name}: {found}")).into();
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{}", program.display());
    }
}

#[test]
fn ports_instances_and_addresses_are_found_by_name() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let flags = ["--network", "shop", "--service", "web", "--port", "http=8080", "--name"];
    let testapp = sealane_tests::testapp();
    let serve = |site: usize, name| {
        let command = [testapp.to_str().unwrap(), "http", "8080", name];
        let mut server = mesh.site(site).run(&[&flags[..], &[name]].concat(), &command);
        server.wait_for("listening");
        server
    };
    let _servers = [serve(1, "web-1"), serve(2, "web-2")];
    mesh.await_instances("web", 2);
    let vip = mesh.json(&["service", "ls"])[0]["vip"].as_str().unwrap().to_owned();
    let [first, second] = [(1, "web-1"), (2, "web-2")]
        .map(|(site, name)| mesh.site(site).workload(name).unwrap()["address"].as_str().unwrap().to_owned());
    // A workload of its own network namespace and resolv.conf, as long as dig runs.
    let dig = |words: &[&str]| {
        let said = mesh.site(1).shop(&[&["dig", "+short", "+tries=1"], words].concat()).wait().ok().stdout;
        let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for transport in ["+notcp", "+tcp"] {
        let dig = |words: &[&str]| dig(&[words, &[transport]].concat());
        assert_eq!(dig(&["SRV", "_http._tcp.web.shop"]), ["0 0 8080 web.shop."]);
        assert_eq!(dig(&["SRV", "_8080._tcp.web"]), ["0 0 8080 web.shop."]);
        let each = ["0 1 8080 web-1.shop.", "0 1 8080 web-2.shop."];
        assert_eq!(dig(&["SRV", "_http._tcp.tasks.web"]), each);
        let mut both = [first.as_str(), &second];
        both.sort_unstable();
        assert_eq!(dig(&["tasks.web.shop"]), both);
        assert_eq!(dig(&["-x", &first]), ["web-1.shop."]);
        assert_eq!(dig(&["-x", &vip]), ["web.shop."]);
        assert_eq!(dig(&["SRV", "_http._udp.web.shop"]), [""; 0]);
    }
}

/// A program that asks the C library for each of its arguments, by glibc and by musl.
fn compile() -> [PathBuf; 2] {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/resolve.c");
    ["cc", "musl-gcc"].map(|compiler| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("resolve-{compiler}"));
        let mut command = Command::new(compiler);
        if compiler == "musl-gcc" {
            command.arg("-static");
        }
        let compiled = command.arg("-o").arg(&program).arg(&source).status().unwrap();
        assert!(compiled.success(), "{compiler} cannot compile {}", source.display());
        program
    })
}
