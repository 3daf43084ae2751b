"""Proxies side by side: all in the same places, workloads of one network on one host, joined by the network's bridge.

The client's place has the outer proxy, the server's place the inner one and the server. A lone proxy is in the
client's place, without TLS; a pair speaks mutual TLS in between. Proxies have CPU 0 for themselves, one thread each;
load and server share CPU 1. So requests per second are bound by the load's CPU where a proxy is quick: judge by the CPU
that a proxy uses per request. Pairs that speak HTTP/2 with the client and with the application carry 64 requests at once
on 4 connections of the client's."""

import sys

from . import load, mesh, peers, site


class Contender:
    """Where the load connects to, and whose CPU is counted."""

    def __init__(self, name, wiring, version, place, address, ports, pids):
        self.name, self.wiring, self.version = name, wiring, version
        http, bulk, http2 = ports
        self.place, self.bulk, self.pids = place, (address, bulk), pids
        self.url = f"http://{address}:{http}/"
        # Of those that carry HTTP/2 from the client to the application.
        self.http2_url = http2 and f"http://{address}:{http2}/"

    @property
    def key(self):
        return f"{self.name}, {self.wiring}"


def _peers(host, options):
    near, far = host.workload("peer-near", "--no-sidecar"), host.workload("peer-far", "--no-sidecar")
    peers.certificates()
    peers.backend(far)
    server = host.address("peer-far")
    yield Contender("direct", "no proxy", "", near, server, (peers.BACKEND_PORT, peers.BULK_PORT, peers.HTTP2_PORT), [])
    make = [peers.nginx_lone, peers.haproxy_lone, peers.nginx_pair, peers.haproxy_pair]
    if options.envoy.exists():
        make += [lambda *place: peers.envoy_lone(options.envoy, *place), lambda *place: peers.envoy_pair(options.envoy, *place)]
    else:
        print(f"note: no {options.envoy}, going on without Envoy", file=sys.stderr)
    for number, start in enumerate(make):
        proxy = start(near, far, server, 9000 + 10 * number)
        site.await_listening(near, proxy.http_port)
        ports = proxy.http_port, proxy.bulk_port, proxy.http2_port
        yield Contender(proxy.name, proxy.wiring, proxy.version, near, "127.0.0.1", ports, proxy.pids())


def _ours(host, options):
    offered = f"{peers.BACKEND_PORT}/http", f"{peers.HTTP2_PORT}/http2", f"{peers.BULK_PORT}/tcp"
    ports = [word for port in offered for word in ("--port", port)]
    version = mesh.version(options.sealane)
    for wiring, service, flags in (("lone", "plain", ["--no-sidecar"]), ("pair, sealane/1 over mTLS", "api", [])):
        near, far = f"near-{service}", f"far-{service}"
        place = host.workload(near)
        peers.backend(host.workload(far, "--service", service, *ports, *flags))
        host.await_ready(service)
        vip = host.vip(service)
        pids = [host.sidecar(near)] + ([] if flags else [host.sidecar(far)])
        site.pin(pids, site.PROXY_CPU)
        ports_there = peers.BACKEND_PORT, peers.BULK_PORT, None if flags else peers.HTTP2_PORT
        yield Contender("Sealane", wiring, version, place, vip, ports_there, pids)


def _costed(contender, work):
    """The figures of a measurement with the CPU seconds that the proxy used meanwhile."""
    before = site.cpu_seconds(contender.pids)
    figures = work()
    figures["cpu"] = site.cpu_seconds(contender.pids) - before
    return figures


def _requests(contender, seconds):
    figures = _costed(contender, lambda: load.http(contender.place, contender.url, seconds))
    _judge(contender, "requests", figures)
    return {"requests_per_second": figures["rate"], "p50": figures["p50"], "p99": figures["p99"],
            "cpu_us_per_request": figures["cpu"] / figures["requests"] * 1e6, "failed": figures["failed"]}


def _connections(contender, seconds):
    figures = _costed(contender, lambda: load.http(contender.place, contender.url, seconds, connections=16, close=True))
    _judge(contender, "new connections", figures)
    return {"connections_per_second": figures["rate"], "cpu_us_per_connection": figures["cpu"] / figures["requests"] * 1e6,
            "failed_connections": figures["failed"]}


def _http2(contender, seconds):
    if not contender.http2_url:
        return {}
    figures = _costed(contender, lambda: load.http2(contender.place, contender.http2_url, seconds))
    _judge(contender, "requests of HTTP/2", figures)
    return {"http2_requests_per_second": figures["rate"], "http2_p50": figures["p50"], "http2_p99": figures["p99"],
            "http2_cpu_us_per_request": figures["cpu"] / figures["requests"] * 1e6}


def _steady(contender, seconds):
    figures = load.steady(contender.place, contender.url, seconds)
    return {"steady_p50": figures["p50"], "steady_p99": figures["p99"]}


def _bulk(contender, seconds):
    figures = _costed(contender, lambda: load.bulk(contender.place, *contender.bulk, seconds))
    return {"gbits": figures["gbits"], "cpu_seconds_per_gigabyte": figures["cpu"] / figures["gigabytes"],
            "resident_mib": site.resident_mib(contender.pids)}


KINDS = (_requests, _http2, _connections, _steady, _bulk)


def _judge(contender, what, figures):
    if figures["failed"] > figures["requests"] / 100:
        raise RuntimeError(f"{contender.key}: {figures['failed']} of {figures['requests']} {what} failed")
    if figures["failed"]:
        print(f"note: {contender.key}: {figures['failed']} of {figures['requests']} {what} failed", file=sys.stderr)


def measure(options):
    host = mesh.single(options.sealane)
    contenders = [*_peers(host, options), *_ours(host, options)]
    idle = {each.key: site.resident_mib(each.pids) for each in contenders}
    rounds = {each.key: [{} for _ in range(options.rounds)] for each in contenders}
    for number in range(options.rounds):
        # All contenders in one kind of slices, then all in the next: who is compared is measured within seconds.
        for kind in KINDS:
            for each in site.turned(contenders, number):
                rounds[each.key][number].update(kind(each, options.seconds))
        for each in contenders:
            figures = rounds[each.key][number]
            print(f"proxy round {number + 1}: {each.key}: {figures['requests_per_second']:.0f}/s, "
                  f"{figures['cpu_us_per_request']:.1f} us CPU, {figures['gbits']:.1f} Gbit/s, "
                  f"{figures['connections_per_second']:.0f} conn/s", file=sys.stderr)
    return {
        "rounds": options.rounds, "seconds": options.seconds,
        "contenders": [{
            "name": each.name, "wiring": each.wiring, "version": each.version, "idle_mib": idle[each.key],
            **{field: site.median([figures[field] for figures in rounds[each.key]]) for field in rounds[each.key][0]},
            "all": rounds[each.key],
        } for each in contenders],
    }
