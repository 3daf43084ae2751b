//! Networks of both families.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, Running, Site, eventually};

/// Shop with IPv6, whose services take plain calls as well.
fn shop() -> Mesh {
    let mesh = Mesh::start(2);
    let create = ["network", "create", "shop", "--subnet", "fd42:0:0:7::/64", "--subnet", "10.42.0.0/16"];
    let _ = mesh.sealane(&create).ok();
    mesh.permissive()
}

/// An HTTP server that says its name. Listens at every address of both families, or of IPv4 alone as `--ipv4` asks.
const SERVER: &str = "
import http.server, socket, sys
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET if sys.argv[2:] == ['--ipv4'] else socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = (sys.argv[1] + '\\n').encode()
        self.send_response(200); self.send_header('content-length', str(len(body))); self.end_headers()
        self.wfile.write(body)
Server(('', 8080), Handler).serve_forever()
";

/// Answers every datagram with its own name.
const UDP_SERVER: &str = "
import socket, sys
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(('::', 9000))
while True:
    data, caller = server.recvfrom(2048)
    server.sendto(sys.argv[1].encode(), caller)
";

/// Sends a datagram until one is answered.
const UDP_CLIENT: &str = "
import socket, sys
info = socket.getaddrinfo(sys.argv[1], 9000, socket.AF_INET6, socket.SOCK_DGRAM)[0]
client = socket.socket(*info[:3])
client.settimeout(1)
for attempt in range(20):
    client.sendto(b'?', info[4])
    try:
        print(client.recv(2048).decode()); break
    except TimeoutError:
        pass
";

fn serve(site: &Site, flags: &[&str], name: &str, program: &str) -> Running {
    run(site, flags, name, &["/usr/bin/python3", "-c", program, name])
}

fn serve_ipv4(site: &Site, flags: &[&str], name: &str) -> Running {
    run(site, flags, name, &["/usr/bin/python3", "-c", SERVER, name, "--ipv4"])
}

fn run(site: &Site, flags: &[&str], name: &str, command: &[&str]) -> Running {
    site.run(&[&["--network", "shop", "--name", name][..], flags].concat(), command)
}

fn address(site: &Site, name: &str) -> String {
    let ipv4 = site.workload(name).unwrap()["address"].as_str().unwrap().to_owned();
    let ipv4: std::net::Ipv4Addr = ipv4.parse().unwrap();
    let bits = 0xfd42_0000_0000_0007_u128 << 64 | u128::from(ipv4.to_bits());
    std::net::Ipv6Addr::from_bits(bits).to_string()
}

#[test]
fn names_calls_and_datagrams_go_over_ipv6_with_and_without_a_sidecar() {
    if !isolated() {
        return;
    }
    let mesh = shop();
    let service = ["--service", "api", "--port", "8080"];
    let _servers = [
        serve(mesh.site(1), &service, "api-1", SERVER),
        serve(mesh.site(2), &service, "api-2", SERVER),
        serve(mesh.site(2), &["--service", "raw", "--port", "8080", "--no-sidecar"], "raw-1", SERVER),
        serve(mesh.site(1), &["--service", "echo", "--port", "9000/udp"], "echo-1", UDP_SERVER),
    ];
    for (name, ready) in [("api", 2), ("raw", 1), ("echo", 1)] {
        mesh.await_instances(name, ready);
    }
    let direct = address(mesh.site(1), "api-1");
    for site in [1, 2] {
        for flags in [&["--network", "shop"][..], &["--network", "shop", "--no-sidecar"]] {
            let run = |command: &[&str]| mesh.site(site).run(flags, command).wait();
            let curl = |host: &str| {
                let url = format!("http://{host}:8080/");
                run(&["curl", "-6", "-sS", "--max-time", "10", &url]).ok().stdout
            };
            assert!(["api-1\n", "api-2\n"].contains(&curl("api").as_str()), "{site} {flags:?}");
            assert_eq!(curl("raw"), "raw-1\n");
            assert_eq!(curl("api-2.shop"), "api-2\n");
            assert_eq!(curl(&format!("[{direct}]")), "api-1\n");
            assert_eq!(run(&["/usr/bin/python3", "-c", UDP_CLIENT, "echo"]).ok().stdout, "echo-1\n");
            let _ = run(&["ping", "-6", "-c", "1", "-W", "5", &direct]).ok();
            let said = run(&["dig", "+short", "-x", &direct]).ok().stdout;
            assert_eq!(said, "api-1.shop.\n");
        }
    }
    // What their kernels say before they have addresses is no forgery.
    for site in mesh.sites() {
        assert_eq!(site.metrics().sum("sealane_spoofed_packets_total", &[("network", "shop")]), 0.0);
    }
}

#[test]
fn ipv6_names_lead_to_the_instances_that_listen_for_it_and_to_none_where_nobody_does() {
    if !isolated() {
        return;
    }
    let mesh = shop();
    let bare = |service: &'static str| ["--service", service, "--port", "8080", "--no-sidecar"];
    let _servers = [
        serve_ipv4(mesh.site(1), &bare("mixed"), "mixed-4"),
        serve(mesh.site(2), &bare("mixed"), "mixed-6", SERVER),
        serve_ipv4(mesh.site(1), &bare("old"), "old-1"),
        serve_ipv4(mesh.site(2), &["--service", "led", "--port", "8080"], "led-1"),
    ];
    for (name, ready) in [("mixed", 2), ("old", 1), ("led", 1)] {
        mesh.await_instances(name, ready);
    }
    let both = address(mesh.site(2), "mixed-6");
    for site in [1, 2] {
        for flags in [&["--network", "shop"][..], &["--network", "shop", "--no-sidecar"]] {
            let run = |command: &[&str]| mesh.site(site).run(flags, command).wait();
            let aaaa = |name: &str| run(&["dig", "+short", name, "AAAA"]).ok().stdout;
            assert_eq!(aaaa("tasks.mixed.shop"), format!("{both}\n"), "{site} {flags:?}");
            assert_eq!(aaaa("mixed-4.shop"), "");
            assert_eq!(aaaa("old.shop"), "");
            let curl = |family: &str, host: &str| {
                let url = format!("http://{host}:8080/");
                run(&["curl", family, "-sS", "--max-time", "10", &url])
            };
            assert_eq!(curl("-6", "mixed").ok().stdout, "mixed-6\n");
            assert_eq!(curl("-6", "led").ok().stdout, "led-1\n", "its sidecar finds it");
            let url = "http://old:8080/";
            assert_eq!(run(&["curl", "-sS", "--max-time", "10", url]).ok().stdout, "old-1\n");
        }
    }
}

#[test]
fn calls_over_ipv6_go_through_the_sidecars() {
    if !isolated() {
        return;
    }
    let mesh = shop();
    let _server = serve(mesh.site(1), &["--service", "api", "--port", "8080"], "api-1", SERVER);
    mesh.await_instances("api", 1);
    let capture = mesh.capture();
    let flags = ["--network", "shop", "--service", "caller", "--port", "1"];
    let curl =
        ["curl", "-6", "-sS", "--max-time", "10", "-H", "x-secret: plainly-visible", "http://api:8080/"];
    assert_eq!(mesh.site(2).run(&flags, &curl).wait().ok().stdout, "api-1\n");
    let frames = capture.stop().unwrap();
    assert!(!frames.is_empty());
    assert!(!frames.contain(b"plainly-visible"), "a call over IPv6 is sent without encryption");
    // Whoever has no sidecar calls plainly, and is told from those who have one.
    let direct = address(mesh.site(1), "api-1");
    let url = format!("http://[{direct}]:8080/");
    let plain = ["curl", "-sS", "--max-time", "10", &url];
    assert_eq!(
        mesh.site(2).run(&["--network", "shop", "--no-sidecar"], &plain).wait().ok().stdout,
        "api-1\n"
    );
    for port in [15001, 15006] {
        let url = format!("http://[{direct}]:{port}/");
        let refused = mesh.site(2).run(&["--network", "shop", "--no-sidecar"], &["curl", "-sS", &url]).wait();
        assert_eq!(refused.code(), 7, "connection refused: {refused}");
    }
}

#[test]
fn an_application_that_listens_on_ipv6_alone_is_ready_and_called_over_either_family_by_its_sidecar() {
    if !isolated() {
        return;
    }
    let mesh = shop();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display();
    let config = format!(
        "daemon off; user root; worker_processes 1; pid {root}/pid; error_log stderr; events {{}}\n\
         http {{ access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
           fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
           server {{ listen [::]:8080; listen [::]:8081; listen [::]:8082 http2; return 200 $server_addr; }} }}\n"
    );
    let path = folder.path().join("nginx.conf");
    std::fs::write(&path, config).unwrap();
    let ports = ["--service", "web", "--port", "8080", "--port", "8081/tcp", "--port", "8082"];
    let flags = [&["--network", "shop", "--name", "web-1"][..], &ports].concat();
    let _nginx = mesh.site(1).run(&flags, &["/usr/sbin/nginx", "-c", path.to_str().unwrap()]);
    // Its service's address does not lead there, its own does.
    let flags =
        [&["--network", "shop", "--name", "bare-1", "--no-sidecar", "--service", "bare"], &ports[2..]]
            .concat();
    let _bare = mesh.site(1).run(&flags, &["/usr/sbin/nginx", "-c", path.to_str().unwrap()]);
    mesh.await_instances("web", 1);
    let own = address(mesh.site(1), "web-1");
    for sidecar in [&[][..], &["--no-sidecar"]] {
        for family in ["-4", "-6"] {
            for (port, version) in
                [("8080", "--http1.1"), ("8081", "--http1.1"), ("8082", "--http2-prior-knowledge")]
            {
                let url = format!("http://web:{port}/");
                let curl = ["curl", family, version, "-sS", "--max-time", "10", &url];
                let flags = [&["--network", "shop"], sidecar].concat();
                let said = mesh.site(2).run(&flags, &curl).wait().ok().stdout;
                assert_eq!(said, own, "{sidecar:?} {family} {port}");
            }
        }
    }
    assert_eq!(mesh.site(1).instances("bare"), 0);
    for sidecar in [&[][..], &["--no-sidecar"]] {
        let curl = ["curl", "-6", "-sS", "--max-time", "10", "http://bare-1:8081/"];
        let flags = [&["--network", "shop"], sidecar].concat();
        let called = address(mesh.site(1), "bare-1");
        eventually(PATIENCE, "it is called at its IPv6 address", || {
            (mesh.site(2).run(&flags, &curl).wait().stdout == called).then_some(())
        });
    }
}

#[test]
fn nobody_speaks_for_another_and_what_is_not_there_is_unreachable_at_once() {
    if !isolated() {
        return;
    }
    let mesh = shop();
    let _holder = mesh.site(1).run(&["--network", "shop", "--name", "holder"], &["sleep", "1000"]);
    eventually(PATIENCE, "the holder is attached", || mesh.site(1).workload("holder"));
    let within = |command: &[&str]| mesh.site(1).exec("holder", command);
    let addresses = within(&["ip", "-6", "-o", "addr", "show", "dev", "eth0"]).ok().stdout;
    assert_eq!(addresses.lines().count(), 1, "{addresses}");
    assert!(addresses.contains(&address(mesh.site(1), "holder")), "{addresses}");
    let outside = within(&["curl", "-6", "-sS", "--max-time", "3", "http://[2001:db8::1]/"]);
    assert_eq!(outside.code(), 7, "{outside}");
    let gateway = "fd42:0:0:7::a2a:1";
    let _ = within(&["ping", "-6", "-c", "1", "-W", "5", gateway]).ok();
    // An address that is somebody else's: nothing of it leaves.
    let stolen = "fd42:0:0:7::a2a:63";
    let _ = within(&["ip", "addr", "add", stolen, "dev", "eth0", "nodad"]).ok();
    let ping = within(&["ping", "-6", "-c", "1", "-W", "1", "-I", stolen, gateway]);
    assert_ne!(ping.code(), 0, "{ping}");
}

#[test]
fn networks_that_a_workload_could_not_tell_apart_are_refused_by_name() {
    if !isolated() {
        return;
    }
    let mesh = shop();
    let create = ["network", "create", "wide", "--subnet", "10.44.0.0/16", "--subnet", "fd42::/56"];
    let _ = mesh.sealane(&create).ok();
    let refused = mesh.site(1).run(&["--network", "shop", "--network", "wide"], &["true"]).wait();
    assert_eq!(refused.code(), 125, "{refused}");
    let words = "network wide (fd42::/56) and network shop (fd42:0:0:7::/64) overlap";
    assert!(refused.stderr.contains(words), "{refused}");
    for network in ["shop", "wide"] {
        let _ = mesh.site(1).run(&["--network", network], &["true"]).wait().ok();
    }
    // One after the other is no way in either.
    let _ = mesh.site(1).command("ip", &["netns", "add", "legacy"]).ok();
    let attach = |network| mesh.site(1).sealane(&["attach", "/run/netns/legacy", "--network", network]);
    let _ = attach("shop").ok();
    let refused = attach("wide");
    let words = "subnet fd42::/56 of network wide overlaps fd42:0:0:7::/64 of interface sl0";
    assert!(refused.code() == 1 && refused.stderr.contains(words), "{refused}");
}

#[test]
fn subnets_are_one_of_each_family() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::start(1);
    let table: [(&[&str], i32, &str); 3] = [
        (&["--subnet", "fd42::/64"], 2, "needs an IPv4 subnet"),
        (&["--subnet", "10.42.0.0/16", "--subnet", "10.43.0.0/16"], 2, "several IPv4 subnets"),
        (&["--subnet", "10.42.0.0/16", "--subnet", "fd42::1/64"], 2, "did you mean fd42::/64"),
    ];
    for (subnets, code, expected) in table {
        let refused = mesh.sealane(&[&["network", "create", "shop"], subnets].concat());
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.stderr.contains(expected), "{refused}");
    }
    let both = ["network", "create", "shop", "--subnet", "fd42::/64", "--subnet", "10.42.0.0/16"];
    assert!(mesh.sealane(&both).ok().stdout.contains("10.42.0.0/16, fd42::/64"));
    assert_eq!(mesh.json(&["network", "inspect", "shop"])["subnet6"], "fd42::/64");
}
