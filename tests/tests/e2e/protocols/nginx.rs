//! nginx as the application: HTTP/1 as it is spoken in the field, and TLS of its own.

use sealane_lab::isolated;
use sealane_tests::{Mesh, Running};

use super::{Folder, client};

/// nginx with a large page, a page of chunks and a port with TLS.
fn serve(mesh: &Mesh, folder: &Folder) -> Running {
    folder.write("large", (0_u32..).flat_map(u32::to_be_bytes).take(20 << 20).collect::<Vec<_>>());
    folder.write("part.html", "part");
    folder.write("chunks.html", "<!--#include file=\"part.html\" --> and part");
    let key = rcgen::generate_simple_self_signed(vec!["web".to_owned()]).unwrap();
    let certificate = folder.write("certificate.pem", key.cert.pem());
    let private = folder.write("key.pem", key.signing_key.serialize_pem());
    let root = folder.path("");
    let config = format!(
        "daemon off; user root; worker_processes 1; pid {root}pid; error_log stderr;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {root}body; proxy_temp_path {root}proxy;\n\
           fastcgi_temp_path {root}fastcgi; uwsgi_temp_path {root}uwsgi; scgi_temp_path {root}scgi;\n\
           server {{ listen 8080; listen 8443 ssl; root {root}; ssi on;\n\
             ssl_certificate {certificate}; ssl_certificate_key {private};\n\
             location /put {{ client_max_body_size 0; proxy_pass http://127.0.0.1:8081; }} }}\n\
           server {{ listen 8081; client_max_body_size 0;\n\
             location / {{ return 201 \"$request_method $content_length\"; }} }} }}\n"
    );
    let config = folder.write("nginx.conf", config);
    let flags = ["--network", "shop", "--service", "web", "--port", "8080", "--port", "8443/tls"];
    mesh.site(1).run(&flags, &["/usr/sbin/nginx", "-c", &config])
}

#[test]
fn nginx_is_called_with_keep_alive_ranges_chunks_uploads_and_its_own_tls() {
    if !isolated() {
        return;
    }
    let (mesh, folder) = (Mesh::shop(2), Folder::new("nginx"));
    let _nginx = serve(&mesh, &folder);
    mesh.await_instances("web", 1);
    let _client = client(&mesh);
    let curl = |arguments: &[&str]| {
        let curl = ["curl", "-sS", "--max-time", "20"];
        mesh.site(2).exec("web", &[&curl[..], arguments].concat()).ok().stdout
    };
    let (large, url) = (folder.path("got"), "http://web:8080/large");
    curl(&["-o", &large, url]);
    assert!(std::fs::read(&large).unwrap() == std::fs::read(folder.path("large")).unwrap());
    // Two requests on one connection, the second of a part.
    let part = ["-r", "5-104", "-w", "%{http_code} %{num_connects} %{size_download}\n"];
    let twice = ["-o", "/dev/null", url, "-o", "/dev/null", url];
    let said = curl(&[&part[..], &twice].concat());
    assert_eq!(said, "206 1 100\n206 0 100\n");
    assert_eq!(curl(&["http://web:8080/chunks.html"]), "part and part");
    let head = curl(&["-I", "http://web:8080/chunks.html"]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nServer: nginx"), "{head}");
    let put = curl(&["-T", &folder.path("large"), "-H", "Expect: 100-continue", "http://web:8080/put"]);
    assert_eq!(put, "PUT 20971520");
    assert_eq!(curl(&["--http1.0", "http://web:8080/part.html"]), "part");
    assert_eq!(curl(&["--cacert", &folder.path("certificate.pem"), "https://web:8443/part.html"]), "part");
    let labels = [("destination_service", "web"), ("server_name", "web")];
    assert_eq!(mesh.site(2).metrics().sum("sealane_tls_connections_total", &labels), 1.0);
}
