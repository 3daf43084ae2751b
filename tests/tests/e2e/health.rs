//! Instances are ready while their checks pass: HTTP, TCP, gRPC and commands.

use std::fs;
use std::path::Path;

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually, sealane, testapp};

/// Waits until the workload is not ready, and says so in these words.
#[track_caller]
fn await_problem(site: &Site, workload: &str, words: &str) {
    eventually(PATIENCE, &format!("{workload} is out: {words}"), || {
        let view = site.workload(workload)?;
        let problem = view["problem"].as_str().unwrap_or_default().to_owned();
        (view["ready"] == false && problem.contains(words)).then_some(())
    });
}

#[track_caller]
fn await_ready(site: &Site, workload: &str) {
    eventually(PATIENCE, &format!("{workload} is ready"), || {
        site.workload(workload).filter(|view| view["ready"] == true && view["problem"].is_null()).map(drop)
    });
}

/// Starts nginx as an instance of `web`, which says 503 at /health while there is a file `down` in its folder.
fn nginx(site: &Site, name: &str, folder: &Path) -> Running {
    fs::create_dir_all(folder).unwrap();
    let at = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log stderr;\n\
         events {{}}\n\
         http {{ access_log {at}/access.log combined; client_body_temp_path {at}; proxy_temp_path {at}; \
           fastcgi_temp_path {at}; uwsgi_temp_path {at}; scgi_temp_path {at};\n\
           server {{ listen 8080; location / {{ return 200 {name}; }}\n\
             location /health {{ if (-f {at}/down) {{ return 503; }} return 204; }} }} }}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).unwrap();
    let flags = ["--network", "shop", "--service", "web", "--port", "8080/http", "--name", name];
    site.run(&flags, &["nginx", "-c", file.to_str().unwrap()])
}

#[test]
fn instances_of_a_service_get_calls_while_its_check_over_http_passes() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(2);
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("web.yaml");
    let declare = |mesh: &Mesh, check: &str| {
        let text = format!(
            "apiVersion: sealane.dev/v1\nkind: Service\nmetadata: {{name: web, network: shop}}\n\
             spec: {{ports: [{{port: 8080, protocol: http}}], check: {check}}}\n"
        );
        fs::write(&document, text).unwrap();
        mesh.sealane(&["apply", "-f", document.to_str().unwrap(), "--wait"])
    };
    let refused = declare(&mesh, "{http: /health, grpc: ''}");
    assert!(refused.code() == 1 && refused.stderr.contains("spec.check.grpc"), "{refused}");
    let _ = declare(&mesh, "{http: /health, status: 200-299, interval: 100ms, unhealthy: 2}").ok();
    let folders = [1, 2].map(|number| folder.path().join(format!("web-{number}")));
    let _servers: Vec<Running> =
        (1..=2).map(|n| nginx(mesh.site(n), &format!("web-{n}"), &folders[n - 1])).collect();
    mesh.await_instances("web", 2);
    let load = mesh.site(1).load("client", &["http://web:8080/"]);

    fs::write(folders[1].join("down"), "").unwrap();
    await_problem(mesh.site(2), "web-2", "its check http:/health");
    await_problem(mesh.site(2), "web-2", "status 503, where 200-299 is expected");
    mesh.await_instances("web", 1);
    assert!(mesh.site(2).problems().contains("status 503"), "{}", mesh.site(2).problems());
    // Other hosts and control say what its host has found.
    await_problem(mesh.site(1), "web-2", "status 503, where 200-299 is expected");
    let known =
        mesh.sealane(&["service", "endpoints", "web.shop", "--socket", "/run/sealane/control.sock"]).ok();
    assert!(known.stdout.contains("not ready, host-2 says: its check http:/health"), "{known}");
    // The next agent takes neither of them for what it is not.
    for number in 1..=2 {
        mesh.site_mut(number).agent.kill9();
        mesh.site_mut(number).agent.start();
        mesh.site_mut(number).await_ready();
    }
    await_problem(mesh.site(2), "web-2", "status 503");
    load.await_further(200);
    let late = mesh.site(1).load("late", &["http://web:8080/", "--requests", "100"]).stop().ok();
    assert_eq!(late.answers.into_keys().collect::<Vec<_>>(), ["web-1"]);

    fs::remove_file(folders[1].join("down")).unwrap();
    await_ready(mesh.site(1), "web-2");
    mesh.await_instances("web", 2);
    let report = load.stop().ok();
    println!("{} requests, none failed", report.requests);
    eventually(PATIENCE, "checks are counted", || {
        let checks = mesh.site(1).metrics().sum("sealane_health_checks_total", &[("probe", "http")]);
        (checks > 0.0).then_some(())
    });
    // Nobody who calls does so from where checks come from.
    let log = fs::read_to_string(folders[0].join("access.log")).unwrap();
    let (asked, called): (Vec<&str>, Vec<&str>) =
        log.lines().partition(|line| line.contains("sealane-check"));
    assert!(asked.iter().all(|line| line.starts_with("127.0.0.1 ")), "{asked:?}");
    assert!(!called.is_empty() && !called.iter().any(|line| line.starts_with("127.0.0.1 ")), "{called:?}");

    let _ = declare(&mesh, "{http: /, status: '204', interval: 100ms, unhealthy: 1}").ok();
    await_problem(mesh.site(1), "web-1", "status 200, where 204 is expected");
}

#[test]
fn a_workload_has_a_check_of_its_own_by_tcp() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let flags = ["--network", "shop", "--service", "redis", "--port", "6379", "--name", "redis-1"];
    let health =
        ["--health", "tcp", "--health-port", "7000", "--health-interval", "100ms", "--health-retries", "2"];
    let redis = ["redis-server", "--save", "", "--protected-mode", "no", "--bind", "0.0.0.0"];
    let mut server = site.run(&[&flags[..], &health].concat(), &redis);
    server.wait_for("Ready to accept connections");
    await_problem(site, "redis-1", "tcp at 10.42.");
    await_problem(site, "redis-1", "efused");
    let program = testapp();
    let mut beside = site.begin(
        sealane().to_str().unwrap(),
        &["exec", "redis-1", "--", program.to_str().unwrap(), "http", "7000", "x"],
    );
    beside.wait_for("listening");
    await_ready(site, "redis-1");
    beside.kill9();
    await_problem(site, "redis-1", "efused");
}

/// A health service that serves while there is no file at the path of its first argument.
const GRPC: &str = r#"
import os, sys, grpc
from concurrent import futures
def check(request, context):
    if request == b'\n\x05other':
        context.abort(grpc.StatusCode.NOT_FOUND, 'no such service')
    return b'\x08\x02' if os.path.exists(sys.argv[1]) else b'\x08\x01'
server = grpc.server(futures.ThreadPoolExecutor(2))
handler = grpc.unary_unary_rpc_method_handler(check)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler('grpc.health.v1.Health', {'Check': handler}),))
server.add_insecure_port('0.0.0.0:9000')
server.start()
print('serving', flush=True)
server.wait_for_termination()
"#;

#[test]
fn a_workload_is_ready_while_its_health_service_of_grpc_says_so() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let (site, folder) = (mesh.site(1), tempfile::tempdir().unwrap());
    let down = folder.path().join("down");
    let serve = |name: &str, probe: &str| {
        let flags = ["--network", "shop", "--service", "greeter", "--port", "9000/grpc", "--name", name];
        let health = ["--health", probe, "--health-interval", "100ms", "--health-timeout", "2s"];
        let program = ["/usr/bin/python3", "-c", GRPC, down.to_str().unwrap()];
        let mut server = site.run(&[&flags[..], &health].concat(), &program);
        server.wait_for("serving");
        server
    };
    let _servers = [serve("greeter-1", "grpc"), serve("greeter-2", "grpc:other")];
    await_ready(site, "greeter-1");
    await_problem(site, "greeter-2", "does not know this service");
    fs::write(&down, "").unwrap();
    await_problem(site, "greeter-1", "it says NOT_SERVING");
    fs::remove_file(&down).unwrap();
    await_ready(site, "greeter-1");
}

#[test]
fn a_workload_is_ready_while_a_command_in_its_namespace_exits_with_0() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(1);
    let folder = tempfile::tempdir().unwrap();
    let down = folder.path().join("down");
    let serve = |site: &Site, name: &str, command: &str| {
        let flags = ["--network", "shop", "--service", "api", "--port", "8080", "--name", name];
        let probe = format!("exec:{command}");
        let health = ["--health", &probe, "--health-interval", "100ms", "--health-timeout", "1s"];
        let program = testapp();
        let mut server =
            site.run(&[&flags[..], &health].concat(), &[program.to_str().unwrap(), "http", "8080", name]);
        server.wait_for("listening");
        server
    };
    let test = format!("ip addr show eth0 && ! cat {}", down.display());
    let _good = serve(mesh.site(1), "api-1", &test);
    let _slow = serve(mesh.site(1), "api-2", "sleep 86399");
    await_ready(mesh.site(1), "api-1");
    await_problem(mesh.site(1), "api-2", "no answer within 1s");
    fs::write(&down, "it is down\n").unwrap();
    await_problem(mesh.site(1), "api-1", "exit status: 1");
    mesh.site_mut(1).agent.kill9();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    await_problem(mesh.site(1), "api-1", "exit status: 1");
    fs::remove_file(&down).unwrap();
    await_ready(mesh.site(1), "api-1");
    // Whatever takes too long is ended with all that it has started.
    let sleeping = || mesh.site(1).command("pgrep", &["-fc", "^sleep 86399"]).stdout;
    eventually(PATIENCE, "at most one sleeps", || {
        (sleeping().trim().parse::<u32>().ok()? <= 1).then_some(())
    });
}
