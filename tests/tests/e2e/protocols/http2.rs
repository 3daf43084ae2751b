//! HTTP/2 with nghttp2's programs and curl.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually};

use super::Folder;

#[test]
fn requests_of_http2_are_balanced_one_by_one_and_counted_by_both_sides() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let folder = Folder::new("http2");
    folder.write("page", "a page");
    folder.write("large", vec![b'x'; 3 << 20]);
    let flags = ["--network", "shop", "--service", "api", "--port", "8080"];
    let server = ["nghttpd", "--no-tls", "--address=0.0.0.0", "-d", &folder.path(""), "8080"];
    let _servers = [mesh.site(1).run(&flags, &server), mesh.site(2).run(&flags, &server)];
    mesh.await_instances("api", 2);

    let curl = ["curl", "-sS", "--max-time", "20", "--http2-prior-knowledge", "-w", " by %{http_version}"];
    let page = mesh.site(2).shop(&[&curl[..], &["http://api:8080/page"]].concat()).wait().ok();
    assert_eq!(page.stdout, "a page by 2");
    let command =
        [&curl[..5], &["-o", "/dev/null", "-w", "%{size_download}", "http://api:8080/large"]].concat();
    assert_eq!(mesh.site(2).shop(&command).wait().ok().stdout, (3 << 20).to_string());

    let load = ["h2load", "-n", "600", "-c", "3", "-m", "20", "http://api:8080/page"];
    let load = mesh.site(2).shop(&load).wait().ok();
    assert!(load.stdout.contains("600 succeeded, 0 failed, 0 errored"), "{load}");
    let received = |n: usize| {
        let labels = [("direction", "inbound"), ("destination_service", "api"), ("code_class", "2xx")];
        mesh.site(n).metrics().sum("sealane_requests_total", &labels)
    };
    eventually(PATIENCE, "both receivers together counted every request", || {
        (received(1) + received(2)).eq(&602.0).then_some(())
    });
    // More than the connections would bring.
    assert!(received(1) > 10.0 && received(2) > 10.0, "{} and {}", received(1), received(2));
}

#[test]
fn a_client_of_http2_is_told_that_its_server_speaks_http1_only() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 1);
    let curl = ["curl", "-sS", "--max-time", "20", "--http2-prior-knowledge", "http://api:8080/"];
    let answer = mesh.site(2).shop(&curl).wait().ok();
    assert!(answer.stdout.contains("api gave no answer: "), "{answer}");
}
