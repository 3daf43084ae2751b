"""The peers' proxies, each in the wiring in which it is fastest here. All of them keep connections to the next hop."""

import json
import pathlib

from . import site

FOLDER = pathlib.Path("/run/bench")
CERTIFICATES = FOLDER / "tls"
BACKEND_PORT, HTTP2_PORT, BULK_PORT = 8080, 8081, 5201
BODY = "x" * 256


def backend(place):
    """nginx that answers 496 bytes from memory, by HTTP/1 and by HTTP/2, and iperf3 beside it."""
    config = f"""
        worker_processes 1; pid {FOLDER}/backend.pid; daemon off; error_log stderr crit;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; default_type text/plain;
            server {{ listen {BACKEND_PORT} backlog=4096; listen {HTTP2_PORT} http2 backlog=4096; return 200 "{BODY}"; }}
        }}"""
    path = FOLDER / "backend.conf"
    path.write_text(config)
    site.start(["nginx", "-c", path], place, site.LOAD_CPU, "backend")
    site.start(["iperf3", "-s", "-p", str(BULK_PORT)], place, site.LOAD_CPU, "iperf")
    for port in (BACKEND_PORT, HTTP2_PORT, BULK_PORT):
        site.await_listening(place, port)


def certificates():
    """An authority and a certificate for each side, P-256 as ours."""
    CERTIFICATES.mkdir()
    new_key = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    site.shell(f"""cd {CERTIFICATES} && exec 2>&1
        {new_key} -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
        for side in client server; do
            {new_key} -subj /CN=$side -keyout $side.key -out $side.csr
            printf 'subjectAltName=DNS:%s\\n' $side > $side.ext
            openssl x509 -req -in $side.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $side.ext -out $side.crt
            cat $side.crt $side.key > $side.pem
        done""")


class Proxy:
    """A peer's processes, and the ports in the client's place that lead through them; HTTP/2 leads through some only."""

    def __init__(self, name, wiring, version):
        self.name, self.wiring, self.version = name, wiring, version
        self.processes = []
        self.http_port = self.bulk_port = self.http2_port = None

    def run(self, command, place, log):
        self.processes.append(site.start(command, place, site.PROXY_CPU, log))

    def pids(self):
        return [pid for process in self.processes for pid in site.family(process.pid)]


def _nginx_file(name, body, stream=False):
    path = FOLDER / f"{name}.conf"
    module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n" if stream else ""
    path.write_text(f"""{module}worker_processes 1; pid {FOLDER}/{name}.pid; daemon off; error_log stderr crit;
        events {{ worker_connections 8192; }}
        {body}""")
    return path


def _nginx_version():
    return site.shell("nginx -v 2>&1").strip().split("/")[-1].split()[0]


def nginx_lone(near, _far, server, port):
    proxy = Proxy("nginx", "lone", _nginx_version())
    proxy.http_port, proxy.bulk_port = port, port + 1
    path = _nginx_file("nginx-lone", f"""
        http {{
            access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
            upstream api {{ server {server}:{BACKEND_PORT}; keepalive 256; keepalive_requests 1000000000; }}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location / {{ proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ""; }}
            }}
        }}
        stream {{ server {{ listen 127.0.0.1:{port + 1}; proxy_pass {server}:{BULK_PORT}; proxy_buffer_size 64k; }} }}""", True)
    proxy.run(["nginx", "-c", path], near, "nginx-lone")
    return proxy


def nginx_pair(near, far, server, port):
    proxy = Proxy("nginx", "pair, bytes over mTLS", _nginx_version())
    proxy.http_port, proxy.bulk_port = port, port + 1
    outer = "".join(f"""
        server {{
            listen 127.0.0.1:{port + at} backlog=4096; proxy_pass {server}:{port + at}; proxy_buffer_size 64k; proxy_ssl on;
            proxy_ssl_certificate {CERTIFICATES}/client.crt; proxy_ssl_certificate_key {CERTIFICATES}/client.key;
            proxy_ssl_trusted_certificate {CERTIFICATES}/ca.pem; proxy_ssl_verify on; proxy_ssl_name server;
            proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse on;
        }}""" for at in (0, 1))
    inner = "".join(f"""
        server {{
            listen {port + at} ssl backlog=4096; proxy_pass 127.0.0.1:{target}; proxy_buffer_size 64k;
            ssl_certificate {CERTIFICATES}/server.crt; ssl_certificate_key {CERTIFICATES}/server.key;
            ssl_client_certificate {CERTIFICATES}/ca.pem; ssl_verify_client on; ssl_protocols TLSv1.3;
            ssl_session_cache shared:s{at}:10m;
        }}""" for at, target in ((0, BACKEND_PORT), (1, BULK_PORT)))
    proxy.run(["nginx", "-c", _nginx_file("nginx-in", f"stream {{ {inner} }}", True)], far, "nginx-in")
    proxy.run(["nginx", "-c", _nginx_file("nginx-out", f"stream {{ {outer} }}", True)], near, "nginx-out")
    return proxy


def _haproxy(name, body):
    path = FOLDER / f"{name}.cfg"
    path.write_text(f"""
global
    nbthread 1
    maxconn 4000
    tune.ssl.default-dh-param 2048
    tune.bufsize 32768
    tune.h2.max-concurrent-streams 100
    tune.h2.initial-window-size 1048576
defaults
    mode http
    maxconn 4000
    timeout client 1h
    timeout server 1h
    timeout connect 5s
    option http-keep-alive
    http-reuse always
{body}""")
    return ["haproxy", "-db", "-f", path]


def _haproxy_version():
    return site.shell("haproxy -v").split()[2].split("-")[0]


def haproxy_lone(near, _far, server, port):
    proxy = Proxy("haproxy", "lone", _haproxy_version())
    proxy.http_port, proxy.bulk_port = port, port + 1
    proxy.run(_haproxy("haproxy-lone", f"""
listen http
    bind 127.0.0.1:{port}
    server api {server}:{BACKEND_PORT}
listen bulk
    mode tcp
    option splice-auto
    bind 127.0.0.1:{port + 1}
    server api {server}:{BULK_PORT}
"""), near, "haproxy-lone")
    return proxy


def haproxy_pair(near, far, server, port):
    proxy = Proxy("haproxy", "pair, HTTP/2 over mTLS", _haproxy_version())
    proxy.http_port, proxy.bulk_port, proxy.http2_port = port, port + 1, port + 2
    towards = f"ssl verify required ca-file {CERTIFICATES}/ca.pem crt {CERTIFICATES}/client.pem verifyhost server"
    accepting = f"ssl crt {CERTIFICATES}/server.pem ca-file {CERTIFICATES}/ca.pem verify required"
    proxy.run(_haproxy("haproxy-in", f"""
listen http
    bind :{port} {accepting} alpn h2
    server api 127.0.0.1:{BACKEND_PORT}
listen bulk
    mode tcp
    bind :{port + 1} {accepting}
    server api 127.0.0.1:{BULK_PORT}
listen http2
    bind :{port + 2} {accepting} alpn h2
    server api 127.0.0.1:{HTTP2_PORT} proto h2
"""), far, "haproxy-in")
    proxy.run(_haproxy("haproxy-out", f"""
listen http
    bind 127.0.0.1:{port}
    server api {server}:{port} {towards} alpn h2
listen bulk
    mode tcp
    bind 127.0.0.1:{port + 1}
    server api {server}:{port + 1} {towards}
listen http2
    bind 127.0.0.1:{port + 2} proto h2
    server api {server}:{port + 2} {towards} alpn h2
"""), near, "haproxy-out")
    return proxy


def _envoy_tls(side, other=None, alpn=None):
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": f"{CERTIFICATES}/{side}.crt"},
                              "private_key": {"filename": f"{CERTIFICATES}/{side}.key"}}],
        "validation_context": {"trusted_ca": {"filename": f"{CERTIFICATES}/ca.pem"}},
        **({"alpn_protocols": [alpn]} if alpn else {}),
    }
    kind = "Upstream" if other else "Downstream"
    config = {"@type": f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}TlsContext",
              "common_tls_context": common}
    config.update({"sni": other} if other else {"require_client_certificate": True})
    return {"name": "tls", "typed_config": config}


def _envoy_address(host, port):
    return {"socket_address": {"address": host, "port_value": port}}


def _envoy_tcp(name, listen, target, accept=None, connect=None):
    chain = {"filters": [{"name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name, "cluster": name}}]}
    if accept:
        chain["transport_socket"] = accept
    listener = {"name": name, "address": _envoy_address(*listen), "filter_chains": [chain]}
    return listener, _envoy_cluster(name, target, connect)


def _envoy_cluster(name, target, connect=None):
    cluster = {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _envoy_address(*target)}}]}]},
        "circuit_breakers": {"thresholds": [{"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}]}}
    if connect:
        cluster["transport_socket"] = connect
    return cluster


def _envoy_http(name, listen, target, accept=None, connect=None, http2=False):
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name, "generate_request_id": False,
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}]}]}}
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    if accept:
        chain["transport_socket"] = accept
    listener = {"name": name, "address": _envoy_address(*listen), "filter_chains": [chain]}
    cluster = _envoy_cluster(name, target, connect)
    if http2:
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}}
    return listener, cluster


def _envoy(binary, name, *parts):
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps({"static_resources": {
        "listeners": [listener for listener, _ in parts], "clusters": [cluster for _, cluster in parts]}}))
    return [binary, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


def _envoy_version(binary):
    # "<path>  version: <commit>/<version>/<...>"
    return site.shell(f"{binary} --version").split("version: ")[1].split("/")[1]


def envoy_lone(binary, near, _far, server, port):
    proxy = Proxy("Envoy", "lone", _envoy_version(binary))
    proxy.http_port, proxy.bulk_port = port, port + 1
    http = _envoy_http("http", ("127.0.0.1", port), (server, BACKEND_PORT))
    bulk = _envoy_tcp("bulk", ("127.0.0.1", port + 1), (server, BULK_PORT))
    proxy.run(_envoy(binary, "envoy-lone", http, bulk), near, "envoy-lone")
    return proxy


def envoy_pair(binary, near, far, server, port):
    proxy = Proxy("Envoy", "pair, bytes over mTLS", _envoy_version(binary))
    proxy.http_port, proxy.bulk_port, proxy.http2_port = port, port + 1, port + 2
    accept, connect = _envoy_tls("server"), _envoy_tls("client", "server")
    inner = [_envoy_tcp(f"in{at}", ("0.0.0.0", port + at), ("127.0.0.1", target), accept=accept)
             for at, target in ((0, BACKEND_PORT), (1, BULK_PORT))]
    outer = [_envoy_tcp(f"out{at}", ("127.0.0.1", port + at), (server, port + at), connect=connect) for at in (0, 1)]
    secured = {"accept": _envoy_tls("server", alpn="h2")}, {"connect": _envoy_tls("client", "server", "h2")}
    inner.append(_envoy_http("in2", ("0.0.0.0", port + 2), ("127.0.0.1", HTTP2_PORT), http2=True, **secured[0]))
    outer.append(_envoy_http("out2", ("127.0.0.1", port + 2), (server, port + 2), http2=True, **secured[1]))
    proxy.run(_envoy(binary, "envoy-in", *inner), far, "envoy-in")
    proxy.run(_envoy(binary, "envoy-out", *outer), near, "envoy-out")
    return proxy
