"""Overlays side by side, each between two hosts of its own on a cable of their own: nothing (plain veth), a VXLAN and
bridge made by hand (bridge-nf-call 0), and Sealane's network. Sealane's leads to the world outside unless it is made
with `--egress deny`, so the one made by hand is measured without a way out and with one (a masquerade on the host, as Docker
has it), and each of Sealane's is compared to the one that does the same. With a service, the kernel also tracks the
flows of workloads without a sidecar. Client and server have a CPU each; the rest of the machine does nothing else, so its
whole CPU time is the path's.

A way out costs every packet of a host, whoever makes it: masquerade begins connection tracking."""

import sys

from . import load, mesh, peers, site

CLIENT_CPU, SERVER_CPU = 0, 1
ECHO_PORT = 5300


class Path:
    """Two ends and the address at which the client's end reaches the server's; `beside` names the paths that it is
    compared to."""

    def __init__(self, name, near, far, server, beside=()):
        self.name, self.near, self.far, self.server, self.beside = name, near, far, server, beside


BY_HAND, LEADING_OUT = "VXLAN and bridge by hand", "VXLAN and bridge by hand, with a way out"


def _by_hand(name, left, right, way_out=False):
    """A container on each host, behind a bridge with a VXLAN device without learning."""
    ends = []
    for (host, underlay), (_, other), number in ((left, right, 1), (right, left, 2)):
        there = host.rsplit("/", 1)[1]
        container, netns = f"{there}-hand", f"{there}-bridge"
        ends.append(site.place(container))
        site.place(netns)
        mac, peer = (f"02:00:00:00:00:0{each}" for each in (number, 3 - number))
        site.shell(f"""set -e
            ip -n {there} link add vx mtu 1450 type vxlan id 77 local {underlay} dstport 4789 nolearning
            ip -n {there} link set vx netns {netns}
            ip -n {netns} link add name br0 mtu 1450 type bridge
            ip -n {netns} link add port mtu 1450 type veth peer name eth0 mtu 1450 netns {container}
            for port in vx port; do ip -n {netns} link set $port master br0 up; done
            ip -n {netns} link set br0 up
            ip netns exec {netns} sysctl -qw net.bridge.bridge-nf-call-iptables=0 || true
            bridge -n {netns} fdb replace {peer} dev vx dst {other} self
            ip -n {container} link set eth0 address {mac} up
            ip -n {container} address add 10.77.0.{number}/24 dev eth0
            ip -n {container} neighbour replace 10.77.0.{3 - number} lladdr {peer} dev eth0
        """)
        if way_out:
            site.shell(f"""set -e
                ip -n {netns} link add out mtu 1450 type veth peer name hand mtu 1450 netns {there}
                ip -n {netns} address add 10.77.0.254/24 dev br0
                ip -n {netns} address add 169.254.1.2/30 dev out
                ip -n {netns} link set out up
                ip -n {there} address add 169.254.1.1/30 dev hand
                ip -n {there} link set hand up
                ip -n {netns} route add default via 169.254.1.1
                ip -n {there} route add 10.77.0.0/24 via 169.254.1.2
                ip -n {container} route add default via 10.77.0.254
                for each in {netns} {there}; do ip netns exec $each sysctl -qw net.ipv4.ip_forward=1; done
                ip netns exec {there} nft 'table ip hand {{ chain postrouting {{
                    type nat hook postrouting priority 100; iifname "hand" masquerade; }}; }}'
                ip netns exec {container} ping -qc1 -W5 {other}
            """)
    return Path(name, *ends, "10.77.0.2")


def _ends(label, network):
    """Two hosts' addresses on a cable of their own."""
    ends = [(site.place(f"{label}-{side}"), f"192.0.{network}.{number}") for side, number in (("left", 1), ("right", 2))]
    site.join(*ends[0], *ends[1])
    return ends


def _paths(options):
    bare = _ends("bare", 10)
    yield Path("plain veth", bare[0][0], bare[1][0], bare[1][1])
    yield _by_hand(BY_HAND, *bare)
    yield _by_hand(LEADING_OUT, *_ends("leading", 11), way_out=True)
    left, right = mesh.pair(options.sealane, _ends("shut", 12), "--egress deny")
    near, far = left.workload("near", "--no-sidecar"), right.workload("far", "--no-sidecar")
    yield Path("Sealane, egress denied", near, far, right.address("far"), [BY_HAND])
    left, right = mesh.pair(options.sealane, _ends("open", 13))
    near, far = left.workload("near", "--no-sidecar"), right.workload("far", "--no-sidecar")
    yield Path("Sealane", near, far, right.address("far"), [LEADING_OUT, BY_HAND])
    left.say("network create served --subnet 10.43.0.0/16")
    near = left.workload("near-served", "--no-sidecar", network="served")
    far = right.workload("far-served", "--no-sidecar", "--service", "served", "--port", "80", network="served")
    yield Path("Sealane, with a service", near, far, right.address("far-served"), [LEADING_OUT])


def serve(path):
    """Starts the servers at a path's far end."""
    site.start(["iperf3", "-s", "-p", peers.BULK_PORT], path.far, SERVER_CPU)
    site.start(["sockperf", "server", "-i", path.server, "-p", ECHO_PORT], path.far, SERVER_CPU)
    config = peers.FOLDER / f"overlay-{'-'.join(path.name.split())}.conf"
    config.write_text(f"""worker_processes 1; pid {config}.pid; daemon off; error_log stderr crit;
        events {{ worker_connections 4096; }}
        http {{ access_log off; server {{ listen {peers.BACKEND_PORT} backlog=4096; return 200 "{peers.BODY}"; }} }}""")
    site.start(["nginx", "-c", config], path.far, SERVER_CPU)
    for port in (peers.BULK_PORT, peers.BACKEND_PORT):
        site.await_listening(path.far, port)
    site.await_true("sockperf", lambda: site.shell(f"ss -Hlun sport = :{ECHO_PORT}", path.far).strip())


def _bulk(streams):
    def kind(path, seconds):
        before = site.machine_seconds()
        figures = load.bulk(path.near, path.server, peers.BULK_PORT, seconds, streams, CLIENT_CPU)
        cost = (site.machine_seconds() - before) / figures["gigabytes"]
        return {f"gbits_{streams}": figures["gbits"], f"cpu_seconds_per_gigabyte_{streams}": cost}
    return kind


def _datagrams(path, seconds):
    return {"packets_per_second": load.small_datagrams(path.near, path.server, peers.BULK_PORT, seconds, CLIENT_CPU)["packets"]}


def _trips(path, seconds):
    trips = load.ping_pong(path.near, path.server, ECHO_PORT, seconds, CLIENT_CPU)
    return {"rtt_p50": trips["p50"], "rtt_p99": trips["p99"]}


def _connections(path, seconds):
    url = f"http://{path.server}:{peers.BACKEND_PORT}/"
    return {"connections_per_second": load.http(path.near, url, seconds, connections=16, close=True)["rate"]}


KINDS = (_bulk(1), _bulk(4), _datagrams, _trips, _connections)


def measured(paths, number, options):
    """Every figure of the paths, once: all paths in one kind of slices, then all in the next."""
    figures = {path.name: {} for path in paths}
    for kind in KINDS:
        for path in site.turned(paths, number):
            figures[path.name].update(kind(path, options.seconds))
    return figures


def measure(options):
    paths = list(_paths(options))
    for path in paths:
        serve(path)
    rounds = {path.name: [] for path in paths}
    for number in range(options.rounds):
        for name, figures in measured(paths, number, options).items():
            rounds[name].append(figures)
            print(f"overlay round {number + 1}: {name}: {figures['gbits_1']:.1f}/{figures['gbits_4']:.1f} Gbit/s, "
                  f"{figures['packets_per_second']:.0f} packets/s, {figures['rtt_p50']:.0f} us", file=sys.stderr)
    return {
        "rounds": options.rounds, "seconds": options.seconds, "version": mesh.version(options.sealane),
        "paths": [{
            "name": path.name, "beside": path.beside,
            **{field: site.median([figures[field] for figures in rounds[path.name]]) for field in rounds[path.name][0]},
            "all": rounds[path.name],
        } for path in paths],
    }
