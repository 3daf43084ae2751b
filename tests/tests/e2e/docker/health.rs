//! Docker has the word on a container: on whether it gets calls, and on what it is called.

use sealane_lab::isolated;
use sealane_tests::{CREATE, Mesh, PATIENCE, SERVE, eventually};

use super::{HEALTH, await_nothing_left, follow_health};

/// The answer that a workload of `shop` on the host without Docker gets from a name.
fn got(mesh: &Mesh, name: &str) -> String {
    mesh.site(2).exec("asker", &["curl", "-sS", "--max-time", "2", &format!("http://{name}:8080/")]).stdout
}

#[test]
fn a_container_gets_calls_while_it_is_healthy_and_runs() {
    if !isolated() {
        return;
    }
    let (mesh, _engines) = Mesh::shop(2).with_docker(1);
    let host = mesh.site(1);
    let _ = host.docker(&CREATE).ok();
    let labels = ["--label", "sealane.service=api", "--label", "sealane.port=8080"];
    let run = ["run", "-d", "--network", "shop", "--name", "api-1"];
    let _ = host.docker(&[&run[..], &HEALTH, &labels, &["bb:1", "sh", "-c", SERVE]].concat()).ok();
    follow_health(&mesh, host, "api-1");
    let _ = host.docker(&["exec", "api-1", "rm", "/ok"]).ok();
    mesh.await_instances("api", 0);
    let _ = host.docker(&["exec", "api-1", "sh", "-c", ": >/ok"]).ok();
    mesh.await_instances("api", 1);
    let _ = host.docker(&["kill", "api-1"]).ok();
    mesh.await_instances("api", 0);
    let _ = host.docker(&["rm", "-f", "api-1"]).ok();
    await_nothing_left(host);
}

#[test]
fn a_container_is_found_by_what_docker_and_compose_call_it_now() {
    if !isolated() {
        return;
    }
    let (mesh, _engines) = Mesh::shop(2).permissive().with_docker(1);
    let host = mesh.site(1);
    let _asker = mesh.site(2).run(&["--network", "shop", "--name", "asker"], &["sleep", "1000"]);
    eventually(PATIENCE, "somebody may ask", || mesh.site(2).workload("asker").map(drop));
    let _ = host.docker(&CREATE).ok();
    let serve = |word: &str| SERVE.replace("hello", word);
    let run = |name: &str, more: &[&str], word: &str| {
        let line = ["run", "-d", "--network", "shop", "--name", name];
        host.docker(&[&line[..], more, &["bb:1", "sh", "-c", &serve(word)]].concat()).ok().stdout
    };
    let answers = |name: &str, word: &str| {
        let what = format!("{name} answers {word}");
        eventually(PATIENCE, &what, || (got(&mesh, name) == format!("{word}\n")).then_some(()));
    };
    let id = run("web", &[], "before");
    answers("web", "before");
    answers(&id[..12], "before");
    let _ = host.docker(&["rename", "web", "web_old"]).ok();
    answers("web_old", "before");
    eventually(PATIENCE, "the old name is nobody's", || got(&mesh, "web").is_empty().then_some(()));
    // What people say is what it is called now, as workloads' names are written.
    assert!(mesh.site(2).workload("web-old").is_some() && mesh.site(2).workload("web").is_none());
    assert_eq!(host.sealane(&["exec", "web-old", "--", "echo", "entered"]).ok().stdout, "entered\n");
    let former = host.sealane(&["exec", "web", "--", "true"]);
    assert!(former.stderr.contains("there is no workload web on host"), "{former}");
    // A name that was left is another's to have.
    let _ = run("web", &[], "after");
    answers("web", "after");
    answers("web_old", "before");

    let of = |service: &str| format!("com.docker.compose.service={service}");
    let project = "com.docker.compose.project=demo";
    let compose =
        |service: &str| vec!["--label".to_owned(), of(service), "--label".to_owned(), project.to_owned()];
    let (db, cache) = (compose("db"), compose("cache"));
    let words = |of: &[String], more: &[&'static str]| -> Vec<String> {
        of.iter().cloned().chain(more.iter().map(|word| (*word).to_owned())).collect()
    };
    let db = words(&db, &["--expose", "8080", "--expose", "9999"]);
    let cache = words(&cache, &[]);
    let _ = run("demo-db-1", &db.iter().map(String::as_str).collect::<Vec<_>>(), "db");
    let _ = run("demo-cache-1", &cache.iter().map(String::as_str).collect::<Vec<_>>(), "cache");
    // A service of the ports that it exposes, of which it listens on one.
    mesh.await_instances("db", 1);
    for (name, word) in
        [("db", "db"), ("db.demo.shop", "db"), ("cache", "cache"), ("cache.demo.shop", "cache")]
    {
        answers(name, word);
    }
}
