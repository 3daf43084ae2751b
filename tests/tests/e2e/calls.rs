//! Calls by name across hosts.

use sealane_lab::isolated;
use sealane_tests::{LoadReport, Mesh, PATIENCE, eventually, testapp};

#[test]
fn requests_reach_every_instance_and_are_counted_with_both_identities_and_cannot_be_read_underway() {
    if !isolated() {
        return;
    }
    const MARKER: &str = "a-marker-that-nobody-else-writes";
    let (mesh, _servers) = Mesh::serving(3, 3);
    let capture = mesh.capture();

    let program = testapp();
    let client = ["--network", "shop", "--service", "web", "--port", "9090", "--name", "web-1"];
    let requests = ["load", "http://api:8080/", "--requests", "300", "--header"];
    let header = format!("X-Secret: {MARKER}");
    let command = [&[program.to_str().unwrap()], &requests[..], &[&header]].concat();
    let mut web = mesh.site(2).run(&client, &command);
    web.wait_for("\"requests\"");

    let frames = capture.stop().unwrap();
    assert!(frames.vxlan().any(|packet| packet.vni >= 0x10_0000), "nothing crossed in VXLAN");
    assert!(!frames.contain(MARKER.as_bytes()), "a request can be read on the underlay");
    let report = LoadReport::of(&web.wait()).ok();
    assert_eq!(report.requests, 300);
    let by: Vec<&str> = report.answers.keys().map(String::as_str).collect();
    assert_eq!(by, ["api-1", "api-2", "api-3"], "{report:?}");

    let received = |n: usize| {
        let labels = [("direction", "inbound"), ("source_service", "web"), ("destination_service", "api")];
        mesh.site(n).metrics().sum("sealane_requests_total", &labels)
    };
    eventually(PATIENCE, "the receivers counted 300 requests of web's", || {
        (1..=3).map(received).sum::<f64>().eq(&300.0).then_some(())
    });
    let buckets = [("destination_service", "api"), ("direction", "inbound"), ("le", "+Inf")];
    for family in ["sealane_request_first_byte_seconds_bucket", "sealane_request_duration_seconds_bucket"] {
        assert_eq!(mesh.site(1).metrics().sum(family, &buckets), received(1), "{family}");
    }
}

#[test]
fn what_has_no_sidecar_is_read_underway_so_a_capture_would_show_it() {
    if !isolated() {
        return;
    }
    const MARKER: &str = "a-marker-that-nobody-else-writes";
    let mesh = Mesh::shop(2).permissive();
    let server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let url = format!("http://{}:8080/", server.within(own_address));
    let capture = mesh.capture();
    let flags = ["--network", "shop", "--no-sidecar"];
    let header = format!("X-Secret: {MARKER}");
    let curl = ["curl", "-sS", "--max-time", "10", "-H", &header, &url];
    assert_eq!(mesh.site(2).run(&flags, &curl).wait().ok().stdout, "api-1");
    assert!(capture.stop().unwrap().contain(MARKER.as_bytes()));
}

/// The address of the namespace that the calling thread is in.
pub(crate) fn own_address() -> std::net::Ipv4Addr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("10.42.255.254:9").unwrap();
    match socket.local_addr().unwrap().ip() {
        std::net::IpAddr::V4(address) => address,
        std::net::IpAddr::V6(address) => panic!("{address}"),
    }
}
