//! Namespaces that somebody else made: attached, used, and given back as they were.

use nix::sys::signal::Signal;
use sealane_lab::isolated;
use sealane_tests::{Finished, Mesh, PATIENCE, Site, eventually};
use serde_json::Value;

/// A namespace with a network of its own, as a container has.
fn make_namespace(site: &Site, name: &str) {
    let script = format!(
        "ip netns add {name} && ip -n {name} link add eth0 type bridge && \
         ip -n {name} addr add 172.30.0.2/24 dev eth0 && ip -n {name} link set eth0 up && \
         ip -n {name} route add default via 172.30.0.1"
    );
    let _ = site.command("sh", &["-c", &script]).ok();
}

fn attach(site: &Site, words: &[&str]) -> Finished {
    site.sealane(&[&["attach"], words, &["-o", "json"]].concat())
}

fn attached(site: &Site, words: &[&str]) -> Value {
    attach(site, words).ok().json()
}

/// The problems that the host's agent tells of.
fn problems(site: &Site) -> Vec<String> {
    let status = site.json(&["status"]);
    let problems = status["problems"].as_array().unwrap().iter();
    problems.map(|problem| problem.as_str().unwrap().to_owned()).collect()
}

/// Lists the traces of Sealane in a namespace.
fn traces(site: &Site, namespace: &str) -> String {
    let look = format!("ip -n {namespace} -br link | grep ^sl; ip netns exec {namespace} nft list tables");
    site.command("sh", &["-c", &look]).stdout
}

#[test]
fn no_plain_caller_reaches_an_application_while_its_namespace_is_attached() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    make_namespace(site, "legacy");
    let _server = site.serve_in("/run/netns/legacy", "8080", "legacy");
    // All addresses near the first one, at once and without an end.
    let call = "echo began; while :; do curl -sZ --max-time 0.2 'http://10.42.0.[20-24]:8080/'; done";
    let mut caller = site.run(&["--network", "shop", "--no-sidecar"], &["sh", "-c", call]);
    caller.wait_for("began");
    for last in 20..25 {
        let address = format!("10.42.0.{last}");
        let words = [
            "/run/netns/legacy",
            "--network",
            "shop",
            "--service",
            "web",
            "--port",
            "8080",
            "--ip",
            &address,
        ];
        let told = attached(site, &words);
        let workload = told["workload"].as_str().unwrap();
        let _ = site.sealane(&["detach", workload]).ok();
        site.await_gone(workload);
    }
    assert!(!caller.stdout().contains("legacy"), "{}", caller.stdout());
}

#[test]
fn a_namespace_is_attached_by_path_and_given_back_as_it_was() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(2);
    let _api = mesh.site(2).serve("api", "api-1");
    make_namespace(mesh.site(1), "legacy");
    let routes =
        |mesh: &Mesh| mesh.site(1).command("ip", &["-n", "legacy", "route", "show", "dev", "eth0"]).stdout;
    let before = routes(&mesh);
    let words =
        ["/run/netns/legacy", "--network", "shop", "--service", "web", "--port", "8080", "--name", "legacy"];
    let told = attached(mesh.site(1), &words);
    assert_eq!(told["attachments"][0]["interface"], "sl0", "{told}");
    assert_eq!(told["nameserver"], "127.0.0.11", "{told}");
    let _server = mesh.site(1).serve_in("/run/netns/legacy", "8080", "legacy");
    mesh.await_instances("web", 1);
    mesh.await_instances("api", 1);
    let check = |mesh: &Mesh| {
        let call = mesh.site(2).curl("http://web:8080/").ok();
        assert_eq!(call.stdout, "legacy");
        let call = mesh.site(1).curl_as("legacy", "http://api:8080/").ok();
        assert_eq!(call.stdout, "api-1");
        assert_eq!(routes(mesh), before, "what was there stays");
    };
    check(&mesh);

    let again = attach(mesh.site(1), &words[..3]);
    assert!(again.stderr.contains("in network shop already, as workload legacy"), "{again}");
    let other = attach(mesh.site(1), &["/proc/1/ns/mnt", "--network", "shop"]);
    assert!(other.stderr.contains("it is a namespace of another kind"), "{other}");
    let workload = mesh.site(1).workload("legacy").unwrap();
    mesh.site_mut(1).agent.kill9();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    check(&mesh);
    assert_eq!(mesh.site(1).workload("legacy").unwrap(), workload);

    let _ = mesh.site(1).sealane(&["detach", "legacy"]).ok();
    assert_eq!(traces(mesh.site(1), "legacy"), "");
    mesh.site(1).await_gone("legacy");
    assert!(mesh.site(1).processes("proxy").is_empty(), "its sidecar has ended");
    assert_eq!(routes(&mesh), before);

    let told = attached(mesh.site(1), &words);
    assert_eq!(told["workload"], "legacy", "{told}");
    let _ = mesh.site(1).command("ip", &["netns", "del", "legacy"]).ok();
    mesh.site(1).await_gone("legacy");
}

#[test]
fn an_attachment_by_pid_ends_with_its_process_also_while_the_agent_is_gone() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(1);
    let start =
        |site: &Site| site.start("unshare", &["-n", "sh", "-c", "echo there; exec sleep 1000"], "there");
    let (first, mut second) = (start(mesh.site(1)), start(mesh.site(1)));
    let pid = first.pid().to_string();
    let told = attached(mesh.site(1), &["--pid", &pid, "--network", "shop", "--name", "first"]);
    assert_eq!(told["attachments"][0]["network"], "shop", "{told}");
    // The path of a process means the process.
    let path = format!("/proc/{}/ns/net", second.pid());
    let _ = attached(mesh.site(1), &[&path, "--network", "shop", "--name", "second"]);
    first.signal(Signal::SIGKILL);
    mesh.site(1).await_gone("first");
    mesh.site_mut(1).agent.kill9();
    second.kill9();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    mesh.site(1).await_gone("second");
    eventually(PATIENCE, "no sidecar is left", || mesh.site(1).processes("proxy").is_empty().then_some(()));
}

#[test]
fn what_was_attached_before_a_reboot_is_named_until_it_is_attached_again_or_forgotten() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(1);
    for name in ["legacy", "other"] {
        make_namespace(mesh.site(1), name);
        let _ = attached(mesh.site(1), &[&format!("/run/netns/{name}"), "--network", "shop", "--name", name]);
    }
    let mut runner = mesh.site(1).shop(&["sh", "-c", "echo began; exec sleep infinity"]);
    runner.wait_for("began");
    mesh.site_mut(1).power_off();
    drop(runner);
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    let told = |mesh: &Mesh| -> Vec<String> {
        let problems = problems(mesh.site(1)).into_iter();
        problems.filter(|problem| problem.contains("workload ")).collect()
    };
    let [legacy, other] = eventually(PATIENCE, "both are named", || told(&mesh).try_into().ok());
    let words = "workload shop/legacy (/run/netns/legacy) was attached before this host was started anew";
    assert!(legacy.contains(words), "{legacy}");
    assert!(legacy.contains("sealane attach NAMESPACE --network shop --name legacy"), "{legacy}");

    make_namespace(mesh.site(1), "legacy");
    let _ = attached(mesh.site(1), &["/run/netns/legacy", "--network", "shop", "--name", "legacy"]);
    assert_eq!(told(&mesh), [other]);
    mesh.site(1).await_gone("other");
    let _ = mesh.site(1).sealane(&["detach", "other"]).ok();
    assert!(told(&mesh).is_empty());
}

#[test]
fn what_cannot_be_attached_is_refused_by_name() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    make_namespace(site, "legacy");
    let _ = mesh.sealane(&["network", "create", "near", "--subnet", "172.30.0.0/16"]).ok();
    let _runner = site.serve("api", "api-1");
    let table: [(&[&str], &str); 6] = [
        (&["/proc/self/ns/net", "--network", "shop"], "the host's own network namespace"),
        (&["/run/netns/nothing", "--network", "shop"], "cannot open network namespace /run/netns/nothing"),
        (&["/etc/passwd", "--network", "shop"], "not a namespace"),
        (&["/run/netns/legacy", "--network", "near"], "overlaps 172.30.0.0/24 of interface eth0"),
        (&["/run/sealane/netns/net-shop", "--network", "shop"], "the namespace of network shop itself"),
        (&["--container", "0123456789ab", "--network", "shop"], "no running container 0123456789ab"),
    ];
    for (words, expected) in table {
        let refused = attach(site, words);
        assert_eq!(refused.code(), 1, "{refused}");
        assert!(refused.stderr.contains(expected), "{refused}");
    }
    let detach = site.sealane(&["detach", "api-1"]);
    assert!(detach.stderr.contains("started by `sealane run`"), "{detach}");
    assert_eq!(traces(site, "legacy"), "", "nothing stays of what was refused");
}

#[test]
fn a_resolver_that_is_there_keeps_its_address() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let _api = site.serve("api", "api-1");
    mesh.await_instances("api", 1);
    make_namespace(site, "docker");
    let _ = site.command("ip", &["-n", "docker", "link", "set", "lo", "up"]).ok();
    let script = "import socket,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n\
                  s.bind(('127.0.0.11',40053))\nprint('bound',flush=True)\ntime.sleep(1000)";
    let _resolver = site.start("ip", &["netns", "exec", "docker", "/usr/bin/python3", "-c", script], "bound");
    let told = attach(site, &["/run/netns/docker", "--network", "shop", "--name", "web"]).ok();
    assert!(told.stderr.contains("127.0.0.11 is in use in the namespace"), "{told}");
    let told = told.json();
    assert_eq!(told["nameserver"], "127.0.0.12", "{told}");
    let resolv = site.command("cat", &[told["resolv_conf"].as_str().unwrap()]).ok().stdout;
    assert!(resolv.starts_with("nameserver 127.0.0.12\n"), "{resolv}");
    let call = site.curl_as("web", "http://api:8080/").ok();
    assert_eq!(call.stdout, "api-1");
}

#[test]
fn a_workload_whose_interface_and_handle_somebody_removed_gets_them_back() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let site = mesh.site(1);
    let _api = site.serve("api", "api-1");
    let mut web =
        site.run(&["--network", "shop", "--name", "web"], &["sh", "-c", "echo began; exec sleep infinity"]);
    web.wait_for("began");
    assert_eq!(problems(site), [""; 0]);
    let script =
        format!("umount -l /run/sealane/netns/shop.web; nsenter -t {} -n ip link del eth0", web.pid());
    let _ = site.command("sh", &["-ec", &script]).ok();
    // The next look at the whole network is a minute away at most.
    eventually(3 * PATIENCE, "the workload calls again", || {
        let call = site.sealane(&["exec", "web", "--", "curl", "-sS", "--max-time", "2", "http://api:8080/"]);
        (call.stdout == "api-1").then_some(())
    });
    assert_eq!(problems(site), [""; 0]);
    web.kill9();
}

#[test]
fn names_are_answered_where_they_were_when_docker_s_resolver_begins_in_the_namespace() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let _api = mesh.site(1).serve("api", "api-1");
    make_namespace(mesh.site(1), "legacy");
    let told = attached(mesh.site(1), &["/run/netns/legacy", "--network", "shop", "--name", "legacy"]);
    assert_eq!(told["nameserver"], "127.0.0.11", "{told}");
    // As `docker network connect` does it.
    let rules = "add table ip nat; add chain ip nat out { type nat hook output priority -100; }; \
                 add rule ip nat out ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40053";
    let _ = mesh.site(1).command("ip", &["netns", "exec", "legacy", "nft", rules]).ok();
    let found = mesh.site(1).exec("legacy", &["getent", "hosts", "api"]).ok();
    assert!(found.stdout.contains("api"), "{found}");
    let in_namespace = |words: &[&str]| {
        mesh.site(1).command("ip", &[&["netns", "exec", "legacy", "nft"], words].concat()).ok().stdout
    };
    in_namespace(&["delete", "table", "ip", "sealane-names"]);
    eventually(PATIENCE, "the rules of names are back", || {
        in_namespace(&["list", "tables"]).contains("sealane-names").then_some(())
    });
    assert_eq!(mesh.site(1).metrics().sum("sealane_kernel_drift_total", &[("table", "nft")]), 1.0);
    // Docker's resolver knows its own containers, and asks us for what it does not know.
    let script = "import socket\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.bind(('127.0.0.11', 40053))\n\
                  print('bound', flush=True)\n\
                  while True:\n    \
                  q, asker = s.recvfrom(4096)\n    \
                  known = q[12:17].lower() == b'\\x03ub2\\0'\n    \
                  a = known and q[17:19] == b'\\0\\1'\n    \
                  flags = b'\\x81\\x80' if known else b'\\x81\\x83'\n    \
                  question = q[12:q.index(b'\\0', 12) + 5]\n    \
                  record = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\5\\0\\4\\x0a\\x09\\x09\\x09' if a else b''\n    \
                  s.sendto(q[:2] + flags + b'\\0\\1\\0' + bytes([a]) + b'\\0\\0\\0\\0' + question + record, asker)";
    let resolver = ["netns", "exec", "legacy", "/usr/bin/python3", "-c", script];
    let mut docker = mesh.site(1).start("ip", &resolver, "bound");
    let found = mesh.site(1).exec("legacy", &["getent", "ahostsv4", "ub2"]).ok();
    assert!(found.stdout.contains("10.9.9.9"), "{found}");
    let missing = mesh.site(1).exec("legacy", &["getent", "ahostsv4", "nobody"]);
    assert!(!missing.status.success(), "{missing}");
    docker.kill9();
    let _ = mesh.site(1).sealane(&["detach", "legacy"]).ok();
    let left = traces(mesh.site(1), "legacy");
    assert!(!left.contains("sealane"), "{left}");
}
