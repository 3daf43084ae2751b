//! An application of Docker Compose, the same file up on several hosts.

use sealane_lab::isolated;
use sealane_tests::{Dockerd, Finished, Mesh, PATIENCE, Release, Site, eventually};
use serde_json::Value;

/// The file is as it would be on one host, but for its network's driver.
const FILE: &str = r#"
services:
  api:
    image: bb:1
    command: ["sh", "-c", "mkdir -p /www && hostname >/www/index.html && exec httpd -f -p 8080 -h /www"]
    environment: ["GREETING=${GREETING:-hello}"]
    labels: {sealane.service: api, sealane.port: "8080"}
    networks: [shop]
    stop_grace_period: 1s
    healthcheck: {test: ["CMD", "wget", "-qO-", "http://127.0.0.1:8080/"], interval: 1s, timeout: 5s, retries: 30}
  client:
    image: bb:1
    command: sleep 100000
    stop_grace_period: 1s
    depends_on: {api: {condition: service_healthy}}
    networks: [shop]
  debug:
    image: bb:1
    command: sleep 100000
    stop_grace_period: 1s
    profiles: [debug]
    networks: [shop]
networks:
  shop:
    driver: sealane
    driver_opts: {sealane.network: shop}
    ipam: {driver: sealane}
"#;

/// Compose on one host: version 2 is a word of Docker's, version 1 a program.
struct Compose<'a> {
    site: &'a Site,
    version: u8,
}

impl<'a> Compose<'a> {
    fn on(site: &'a Site) -> Self {
        let version = if site.docker(&["compose", "version"]).status.success() { 2 } else { 1 };
        Self { site, version }
    }

    fn call(&self, words: &str) -> Finished {
        let program = if self.version == 1 { "docker-compose" } else { "docker compose" };
        let script = format!("cd /run/app && {program} -p demo {words}");
        self.site.command("sh", &["-c", &script])
    }

    /// The name of a service's container.
    fn name(&self, service: &str, number: u8) -> String {
        let separator = if self.version == 1 { '_' } else { '-' };
        format!("demo{separator}{service}{separator}{number}")
    }

    /// The numbers of interfaces and of workloads that Docker's containers have here.
    fn left(&self) -> (usize, usize) {
        let links = self.site.command("ip", &["-br", "link"]).ok().stdout;
        let links = links.lines().filter(|line| line.starts_with("sl")).count();
        let workloads = self.site.json(&["workload", "ls"]);
        let own = |view: &&Value| view["node"] == self.site.host.name();
        (links, workloads.as_array().unwrap().iter().filter(own).count())
    }
}

fn start(releases: [Release; 2]) -> (Mesh, Vec<Dockerd>) {
    let (mesh, dockerds) = Mesh::docker(&releases);
    for site in mesh.sites() {
        let write = format!("mkdir -p /run/app && cat >/run/app/compose.yaml <<'END'\n{FILE}END\n");
        let _ = site.command("sh", &["-c", &write]).ok();
    }
    (mesh, dockerds)
}

#[test]
fn one_compose_file_is_one_application_on_two_hosts() {
    if isolated() {
        span_two_hosts([Release::Machine, Release::Trixie]);
    }
}

#[test]
fn one_compose_file_is_one_application_on_two_hosts_with_the_newest_docker() {
    if isolated() {
        span_two_hosts([Release::Forky, Release::Trixie]);
    }
}

fn span_two_hosts(releases: [Release; 2]) {
    let (mesh, _dockerds) = start(releases);
    let hosts: Vec<Compose<'_>> = mesh.sites().map(Compose::on).collect();
    let [one, two] = &hosts[..] else { panic!("two hosts") };
    let _ = one.call("up -d").ok();
    mesh.await_instances("api", 1);
    let _ = two.call("up -d").ok();
    mesh.await_instances("api", 2);
    let answers = || {
        let mut hosts: Vec<String> = (0..20).map(|_| fetch(two, "api")).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.len()
    };
    eventually(PATIENCE, "both instances answer", || (answers() == 2).then_some(()));

    // More of it, and a part that is asked for.
    let _ = two.call("up -d --scale api=3").ok();
    mesh.await_instances("api", 4);
    let _ = two.call("--profile debug up -d --scale api=3").ok();
    let debug = two.name("debug", 1).replace('_', "-");
    eventually(PATIENCE, "the debugger is there", || two.site.workload(&debug));
    let before = two.left();

    // Other containers in their places, and nothing of the former ones.
    let _ = two.call("--profile debug up -d --scale api=3 --force-recreate").ok();
    mesh.await_instances("api", 4);
    eventually(PATIENCE, "nothing more is there than before", || (two.left() == before).then_some(()));
    assert!(!fetch(two, "api").is_empty());

    for host in &hosts {
        let _ = host.call("--profile debug down -t 1").ok();
        eventually(PATIENCE, "nothing is left", || (host.left() == (0, 0)).then_some(()));
    }
    mesh.await_instances("api", 0);
    // And once more.
    let _ = one.call("up -d").ok();
    mesh.await_instances("api", 1);
    let _ = one.call("down -t 1").ok();
}

/// The answer to a name, as the client of this host hears it.
fn fetch(host: &Compose<'_>, name: &str) -> String {
    host.site.fetch(&host.name("client", 1), &format!("http://{name}:8080/")).ok().stdout
}
