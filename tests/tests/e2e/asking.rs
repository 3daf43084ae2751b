//! Sidecars that are told of what their workloads call.

use std::time::Instant;

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually};

/// A workload that asks what it is told to: a line has a word and a URL, and the answer the word again.
struct Caller(Running);

impl Caller {
    fn start(site: &Site, name: &str) -> Self {
        let script = "while read word url; do echo \"$word: $(curl -sS --max-time 30 $url 2>&1)\"; done";
        Self(site.run(&["--network", "shop", "--name", name], &["sh", "-c", script]))
    }

    fn begin(&mut self, word: &str, url: &str) {
        self.0.say(&format!("{word} {url}\n"));
    }

    fn ask(&mut self, word: &str, url: &str, answer: &str) {
        self.begin(word, url);
        self.0.wait_for(&format!("{word}: {answer}"));
    }
}

/// The URL of a service by its address, which needs no name.
fn url(mesh: &Mesh, service: &str) -> String {
    let services = mesh.json(&["service", "ls"]);
    let found = services.as_array().unwrap().iter().find(|found| found["name"] == service);
    let address = found.unwrap_or_else(|| panic!("no {service} in {services}"))["vip"].as_str().unwrap();
    format!("http://{address}:8080/")
}

fn told(site: &Site) -> f64 {
    site.metrics().sum("sealane_sidecar_told_total", &[])
}

#[test]
fn a_first_call_works_without_a_second_try_also_while_the_agent_starts_anew() {
    if !isolated() {
        return;
    }
    let (mut mesh, _api) = Mesh::serving(2, 1);
    let _db = ["db", "cache"].map(|service| mesh.site(1).serve(service, &format!("{service}-1")));
    mesh.await_instances("db", 1);
    mesh.await_instances("cache", 1);
    let [api, db, cache] = ["api", "db", "cache"].map(|service| url(&mesh, service));
    let mut caller = Caller::start(mesh.site(2), "caller");
    caller.ask("first", &api, "api-1");
    caller.ask("second", &api, "api-1");
    let asked = |mesh: &Mesh| mesh.site(2).metrics().sum("sealane_first_call_wait_seconds_count", &[]);
    assert_eq!(asked(&mesh), 1.0);

    mesh.site_mut(2).agent.kill9();
    caller.ask("known", &api, "api-1");
    caller.begin("unknown", &db);
    mesh.site_mut(2).agent.start();
    caller.0.wait_for("unknown: db-1");
    mesh.site_mut(2).await_ready();
    eventually(PATIENCE, "the sidecar is back", || (asked(&mesh) == 2.0).then_some(()));
    let _more = mesh.site(1).serve("db", "db-2");
    mesh.await_instances("db", 2);
    let mut count = 0;
    eventually(PATIENCE, "it hears of what it was told of by the agent before", || {
        count += 1;
        caller.ask(&format!("both-{count}"), &db, "db-");
        caller.0.stdout().contains(": db-2").then_some(())
    });

    // Nobody says what is there: the call does not go past the sidecar, and the next one does better.
    mesh.site_mut(2).agent.kill9();
    let since = Instant::now();
    caller.ask("away", &cache, "curl: (");
    assert!(since.elapsed().as_secs() >= 9, "{:?}", since.elapsed());
    caller.ask("still", &api, "api-1");
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    caller.ask("back", &cache, "cache-1");
}

#[test]
fn changes_of_services_that_a_workload_does_not_call_do_not_reach_its_sidecar() {
    if !isolated() {
        return;
    }
    let (mesh, _api) = Mesh::serving(2, 1);
    let _db = mesh.site(1).serve("db", "db-1");
    mesh.await_instances("db", 1);
    let mut caller = Caller::start(mesh.site(2), "caller");
    caller.ask("first", "http://api:8080/", "api-1");
    let before = told(mesh.site(2));
    let _others = ["db-2", "db-3"].map(|name| mesh.site(1).serve("db", name));
    mesh.site(2).await_instances("db", 3);
    mesh.await_instances("db", 3);
    assert_eq!(told(mesh.site(2)), before);
    let _more = mesh.site(1).serve("api", "api-2");
    mesh.await_instances("api", 2);
    eventually(PATIENCE, "it hears of another instance of what it calls", || {
        (told(mesh.site(2)) > before).then_some(())
    });
    caller.ask("later", "http://db:8080/", "db-");
}

#[test]
fn who_is_called_without_a_sidecar_learns_who_calls() {
    if !isolated() {
        return;
    }
    let (mesh, _api) = Mesh::serving(2, 1);
    let mesh = mesh.permissive();
    let bare = ["--network", "shop", "--name", "bare-1", "--service", "bare", "--no-sidecar"];
    let curl = ["curl", "-sS", "--max-time", "10", "--retry", "20", "--retry-all-errors", "http://api:8080/"];
    assert_eq!(mesh.site(2).run(&bare, &curl).wait().ok().stdout, "api-1");
    let labels = [
        ("direction", "inbound"),
        ("source_service", "bare"),
        ("destination_service", "api"),
        ("tls", "false"),
    ];
    eventually(PATIENCE, "the call is counted by its caller's name", || {
        (mesh.site(1).metrics().sum("sealane_connections_total", &labels) >= 1.0).then_some(())
    });
}
