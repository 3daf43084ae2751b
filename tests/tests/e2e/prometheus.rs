//! A real Prometheus finds the hosts by itself and answers for the services.

use std::fs;
use std::path::{Path, PathBuf};

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually};
use serde_json::Value;

/// Returns the path of a file that the repository ships for Prometheus.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// The shipped configuration, but for its pace, in a folder of its own.
fn configured() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(shipped("prometheus/prometheus.yml")).unwrap();
    fs::write(folder.path().join("prometheus.yml"), config.replace("15s", "1s")).unwrap();
    fs::copy(shipped("prometheus/alerts.yml"), folder.path().join("alerts.yml")).unwrap();
    folder
}

fn start_prometheus(site: &Site, folder: &Path) -> Running {
    let config = format!("--config.file={}", folder.join("prometheus.yml").display());
    let data = format!("--storage.tsdb.path={}", folder.join("data").display());
    let mut command = site.host.command("prometheus");
    command.args([&config, &data, "--web.listen-address=127.0.0.1:9090"]);
    Running::start(command)
}

/// Asks Prometheus a question and returns a value per set of labels.
fn ask(site: &Site, question: &str) -> Vec<Value> {
    let query = format!("query={question}");
    let url = "http://127.0.0.1:9090/api/v1/query";
    let asked = site.command("curl", &["-sS", "--max-time", "10", "-G", "--data-urlencode", &query, url]);
    let answer: Value = serde_json::from_str(&asked.stdout).unwrap_or_default();
    answer["data"]["result"].as_array().cloned().unwrap_or_default()
}

fn value(series: &Value) -> f64 {
    series["value"][1].as_str().unwrap().parse().unwrap()
}

#[test]
fn prometheus_finds_every_host_and_tells_requests_per_second_by_service() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(3, 3);
    let control = mesh.site(1);
    let load = mesh.site(2).load("web", &["http://api:8080/"]);
    let folder = configured();
    let _prometheus = start_prometheus(control, folder.path());

    eventually(PATIENCE, "all three hosts are scraped", || {
        let up = ask(control, r#"up{job="sealane"} == 1"#);
        let mut nodes: Vec<_> = up.iter().map(|series| series["metric"]["node"].clone()).collect();
        nodes.sort_by_key(ToString::to_string);
        (nodes == ["host-1", "host-2", "host-3"]).then_some(())
    });
    let question =
        r#"sum by (destination_service) (rate(sealane_requests_total{direction="inbound"}[10s])) > 0"#;
    eventually(PATIENCE, "Prometheus knows a rate of requests to api", || {
        let rates = ask(control, question);
        let api = rates.iter().find(|series| series["metric"]["destination_service"] == "api")?;
        (value(api) > 0.0).then_some(())
    });
    let control_scraped = ask(control, r#"sealane_control_agents_connected{job="sealane-control"}"#);
    assert_eq!(control_scraped.iter().map(value).collect::<Vec<_>>(), [3.0]);
    let versions = ask(control, r#"{version!="",__name__!="sealane_build_info"}"#);
    assert_eq!(versions, [] as [Value; 0], "an upgrade would give every series another name");
    for question in [
        r#"max by (network, service) (sealane_control_service_ready_instances) == 3"#,
        r#"min by (network, service) (sealane_service_ready_instances) == 3"#,
    ] {
        let ready = ask(control, question);
        assert_eq!(ready.len(), 1, "{question}: {ready:?}");
        assert_eq!(ready[0]["metric"], serde_json::json!({"network": "shop", "service": "api"}));
    }
    let _ = load.stop().ok();
}

#[test]
fn the_exposition_the_rules_and_the_board_are_what_prometheus_understands() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(1, 1);
    let site = mesh.site(1);
    let load = site.load("web", &["http://api:8080/"]);
    load.await_further(10);
    for port in ["9464", "9465"] {
        let check = format!("curl -sS http://127.0.0.1:{port}/metrics | promtool check metrics");
        let checked = site.command("sh", &["-c", &check]).ok();
        assert_eq!(checked.stdout + &checked.stderr, "", "promtool has something to say of port {port}");
    }
    let _ = load.stop().ok();
    let rules = shipped("prometheus/alerts.yml").display().to_string();
    let _ = site.command("promtool", &["check", "rules", &rules]).ok();
    let cases = shipped("prometheus/alerts.test.yml").display().to_string();
    let _ = site.command("promtool", &["test", "rules", &cases]).ok();
    let folder = configured();
    let config = folder.path().join("prometheus.yml").display().to_string();
    let _ = site.command("promtool", &["check", "config", &config]).ok();

    // Whatever the board and the rules ask for is told of. (A counter shows no series before the first event.)
    let told = fs::read_to_string(shipped("../docs/operations.md")).unwrap();
    let text =
        fs::read_to_string(shipped("grafana/sealane.json")).unwrap() + &fs::read_to_string(rules).unwrap();
    let asked = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for name in asked.filter(|word| word.starts_with("sealane_") && !word.starts_with("sealane_meta")) {
        let name = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(told.contains(&format!("`{name}`")), "docs/operations.md does not know {name}");
    }
}

#[test]
fn what_one_shot_workloads_counted_is_kept_under_one_name() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(1, 1);
    let site = mesh.site(1);
    for _ in 0..3 {
        assert_eq!(site.curl("http://api:8080/").ok().stdout, "api-1");
    }
    let labels = [("direction", "outbound"), ("destination_service", "api")];
    eventually(PATIENCE, "the requests of three ended workloads are counted under one name", || {
        let metrics = site.metrics();
        let kept = metrics.sum("sealane_requests_total", &[("workload", "_other"), labels[0], labels[1]]);
        (kept == 3.0 && metrics.sum("sealane_requests_total", &labels) == 3.0).then_some(())
    });
}
