//! Service addresses in the kernel: without a sidecar, and for datagrams.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use sealane_lab::isolated;
use sealane_tests::names::A;
use sealane_tests::{LoadReport, Mesh, PATIENCE, Running, Site, eventually, testapp};

#[test]
fn a_client_of_datagrams_with_one_port_moves_when_its_instance_is_killed() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(3);
    let mut servers: Vec<_> = (1..=3).map(|n| datagrams(mesh.site(n), &format!("echo-{n}"), &[])).collect();
    mesh.await_instances("echo", 3);
    for (client, flag) in [("beside", &[][..]), ("without", &["--no-sidecar"])] {
        let client = holder(mesh.site(1), client, flag);
        let vip = address(&client, "echo");
        let socket = client.within(|| UdpSocket::bind("0.0.0.0:4000").unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket.connect((vip, 9000)).unwrap();
        let patient = || eventually(PATIENCE, "an answer", || ask(&socket).ok());
        let first = patient();
        assert!((0..50).all(|_| patient() == first), "a flow stays");

        // Neither the end of the agent nor its return is noticed, and nothing is written anew.
        mesh.site_mut(1).agent.kill9();
        assert_eq!(patient(), first);
        mesh.site_mut(1).agent.start();
        mesh.site_mut(1).await_ready();
        mesh.await_instances("echo", 3);
        assert_eq!(patient(), first);
        let table = client.within(|| nft(&["list", "table", "inet", "sealane-services-shop"]));
        assert!(table.contains("svc/echo/udp/9000/"), "{table}");

        let at: usize = first.strip_prefix("echo-").unwrap().parse().unwrap();
        let killed = Instant::now();
        servers[at - 1].kill9();
        let next = eventually(PATIENCE, "another instance answers", || {
            ask(&socket).ok().filter(|name| *name != first)
        });
        println!("{next} answers {:?} after {first} was killed", killed.elapsed());
        servers[at - 1] = datagrams(mesh.site(at), &first, &[]);
        mesh.await_instances("echo", 3);
        assert_eq!(patient(), next, "a flow stays where it is served");
    }
    // Counted since the agent came back.
    let freed = mesh.site(1).metrics().sum("sealane_service_flows_freed_total", &[]);
    assert!(freed >= 1.0, "{freed}");
}

#[test]
fn calls_without_a_sidecar_are_spread_by_weight_as_are_those_with_one() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2).permissive();
    let program = testapp();
    let serve = |site: usize, name: &str, weight: &str| {
        let flags =
            ["--network", "shop", "--service", "api", "--port", "8080", "--weight", weight, "--name", name];
        let mut server = mesh.site(site).run(&flags, &[program.to_str().unwrap(), "http", "8080", name]);
        server.wait_for("listening");
        server
    };
    let _servers = [serve(1, "api-1", "1"), serve(2, "api-2", "4"), serve(2, "api-3", "0")];
    // The drained one takes no work, and does not count.
    mesh.await_instances("api", 2);
    // By weight 80 and 320 are expected. A sidecar minds latency, too: api-1 is nearer, and gets at most all of those
    // for which it was drawn as one of two, which are 144.
    for (flag, times) in [(&["--no-sidecar"][..], 2), (&[], 1)] {
        let flags = [&["--network", "shop"], flag].concat();
        let load = ["load", "http://api:8080/", "--requests", "400", "--fresh"];
        let command = [&[program.to_str().unwrap()][..], &load].concat();
        let report = LoadReport::of(&mesh.site(1).run(&flags, &command).wait().ok()).ok();
        let count = |name: &str| report.answers.get(name).copied().unwrap_or(0);
        println!("{flag:?}: {:?}", report.answers);
        assert_eq!(count("api-3"), 0, "one that is drained gets nothing");
        assert!(count("api-1") > 0 && count("api-2") > times * count("api-1"), "{:?}", report.answers);
    }
    let view = mesh.site(1).workload("api-2").unwrap();
    assert_eq!(view["weight"], 4);
    let refused = mesh.site(1).run(&["--network", "shop", "--weight", "1001"], &["true"]).wait();
    assert!(refused.code() == 125 && refused.stderr.contains("from 0 to 1000"), "{refused}");
}

#[test]
fn an_instance_reaches_itself_and_what_leads_nowhere_is_refused_at_once() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    // One number over both transports; only TCP is served on 9001.
    let ports = ["--port", "9000", "--port", "9001/tcp"];
    let script = "testapp udp 9000 echo & testapp http 9000 http & exec testapp http 9001 x";
    let script = script.replace("testapp", &format!("'{}'", testapp().display()));
    let flags =
        ["--network", "shop", "--service", "echo", "--name", "echo", "--no-sidecar", "--port", "9000/udp"];
    let _server = mesh.site(1).run(&[&flags[..], &ports].concat(), &["sh", "-c", &script]);
    mesh.await_instances("echo", 1);
    let (beside, without) =
        (holder(mesh.site(2), "beside", &[]), holder(mesh.site(2), "without", &["--no-sidecar"]));
    let own = mesh.site(1);
    let vip = address(&without, "echo");
    assert_eq!(address(&beside, "echo"), vip);

    let url = format!("http://{vip}:9000/");
    assert_eq!(own.exec("echo", &["curl", "-sS", "-m", "20", &url]).ok().stdout, "http", "itself");
    let itself = own.exec("echo", &["sh", "-c", "echo $$"]).ok();
    assert!(!itself.stdout.is_empty());
    for client in [&without, &beside] {
        let (tcp, udp) = client.within(|| (get(vip, 9000), exchange(vip, 9000)));
        assert_eq!((tcp.unwrap().as_str(), udp.unwrap().as_str()), ("http", "echo"));
        let unmapped = client.within(|| exchange(vip, 9001)).unwrap_err();
        assert_eq!(unmapped.kind(), io::ErrorKind::ConnectionRefused, "datagrams to a port of TCP");
    }
    let started = Instant::now();
    let refused = without.within(|| TcpStream::connect((vip, 9002)).unwrap_err());
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert!(started.elapsed() < Duration::from_secs(2), "not after ARP gave up");
    for (site, client) in [(2, "beside"), (2, "without"), (1, "echo")] {
        let _ = mesh.site(site).exec(client, &["ping", "-n", "-c1", "-W10", &vip.to_string()]).ok();
    }
}

#[test]
fn two_hundred_workloads_without_sidecars_reach_a_service_and_follow_a_change() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let program = testapp();
    let serve = |name: &str| {
        let flags =
            ["--network", "shop", "--service", "api", "--port", "8080", "--name", name, "--no-sidecar"];
        let mut server = mesh.site(1).run(&flags, &[program.to_str().unwrap(), "http", "8080", name]);
        server.wait_for("listening");
        server
    };
    let (mut first, _second) = (serve("api-1"), serve("api-2"));
    mesh.await_instances("api", 2);
    let started = Instant::now();
    let start = |n: usize| start(mesh.site(1 + n % 2), &format!("client-{n}"), &["--no-sidecar"]);
    let clients: Vec<Running> = (0..200).map(start).collect();
    let clients: Vec<_> = clients.into_iter().map(Running::entered).collect();
    println!("200 workloads after {:?}", started.elapsed());
    let vip = address(&clients[0], "api");
    for client in &clients {
        let name = client.within(|| get(vip, 8080)).unwrap();
        assert!(name.starts_with("api-"), "{name}");
    }
    let changed = Instant::now();
    first.kill9();
    for client in &clients {
        eventually(PATIENCE, "only the instance that is left answers", || {
            let chains = client.within(|| nft(&["list", "map", "inet", "sealane-services-shop", "services"]));
            let one = client.within(|| get(vip, 8080)).ok()?;
            (chains.contains("svc/api/tcp/8080") && one == "api-2").then_some(())
        });
    }
    println!("looked through after {:?}", changed.elapsed());
    for site in mesh.sites() {
        let metrics = site.metrics();
        let programmed = metrics.sum("sealane_service_program_seconds_count", &[]);
        let seconds = metrics.sum("sealane_service_program_seconds_sum", &[]);
        println!("{}: {programmed} changes in {seconds} s", site.host.name());
        assert!(programmed >= 100.0 && metrics.sum("sealane_service_ports", &[("network", "shop")]) == 1.0);
    }
}

/// Starts an instance of `echo` that answers datagrams at port 9000 with its name.
fn datagrams(site: &Site, name: &str, flags: &[&str]) -> Running {
    let own = ["--network", "shop", "--service", "echo", "--port", "9000/udp", "--name", name];
    let mut server =
        site.run(&[&own[..], flags].concat(), &[testapp().to_str().unwrap(), "udp", "9000", name]);
    server.wait_for("listening");
    server
}

fn start(site: &Site, name: &str, flags: &[&str]) -> Running {
    site.run(&[&["--network", "shop", "--name", name], flags].concat(), &["sleep", "1000"])
}

/// A workload that does nothing by itself.
fn holder(site: &Site, name: &str, flags: &[&str]) -> Running {
    start(site, name, flags).entered()
}

/// The service's address, as soon as the workload's resolver knows it.
fn address(client: &Running, service: &str) -> Ipv4Addr {
    eventually(PATIENCE, "the name leads somewhere", || client.ask(service, A).addresses.first().copied())
}

fn ask(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"?")?;
    let mut name = [0; 64];
    let length = socket.recv(&mut name)?;
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

fn exchange(vip: Ipv4Addr, port: u16) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.connect((vip, port))?;
    ask(&socket)
}

/// The body of one answer.
fn get(vip: Ipv4Addr, port: u16) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&SocketAddr::from((vip, port)), PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
}

fn nft(arguments: &[&str]) -> String {
    let output = std::process::Command::new("nft").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
