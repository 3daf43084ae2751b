"""Cost of an agent that does nothing but know its peers: one real agent whose host shares a network with so many others, each a
real agent in a place of its own behind one router. Nothing runs in the network, so everything that the agent does is echoes, signs
of life on the channels, and its link to control. CPU is that of its process, by its CPU clock; packets that a place receives are
handled by the kernel while another place sends them, so a part of the kernel's time for echoes is here and a part elsewhere.
Bytes are those of its cable, Ethernet headers included. The other agents ask more rarely (--peer-timeout 60s), so that the
machine is not busy with them."""

import json
import pathlib
import sys
import time

from . import mesh, site

SIZES = (10, 100)
SECONDS = 60
SETTLED = 15


def _plug(number):
    """A host's place and its underlay address. Each has a cable to the router alone, so that nobody's table of neighbours is long."""
    name, address = f"host{number}", f"10.99.{number // 250}.{number % 250 + 1}"
    where = site.place(name)
    site.shell(f"ip link add p{number} netns router type veth peer name eth0 netns {name}"
               f" && ip -n router link set p{number} up && ip -n router address add 10.98.0.1/32 dev p{number}"
               f" && ip -n router route add {address} dev p{number}"
               f" && ip -n {name} link set eth0 up && ip -n {name} address add {address}/32 dev eth0"
               f" && ip -n {name} route add default via 10.98.0.1 dev eth0 onlink")
    return where, address


def _metric(host, name):
    lines = site.shell("curl -s http://127.0.0.1:9464/metrics", host.where).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and not line.startswith("#"))


def _switches(pid):
    """Context switches of all its threads that it asked for: its sleeps."""
    total = 0
    for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        total += int(status.read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return total


def _bytes(host):
    counted = json.loads(site.shell("ip -j -s link show eth0", host.where))[0]["stats64"]
    return counted["rx"]["bytes"] + counted["tx"]["bytes"]


def _figures(host, peers):
    pid = host.agent.pid
    def now():
        return time.monotonic(), site.cpu_seconds([pid]), _switches(pid), _bytes(host)
    before = now()
    time.sleep(SECONDS)
    span, cpu, switches, octets = (after - earlier for after, earlier in zip(now(), before))
    return {
        "peers": peers, "cpu_percent": 100 * cpu / span, "wakes_per_second": switches / span,
        "bytes_per_second_and_peer": octets / span / peers, "resident_mib": site.resident_mib([pid]),
    }


def measure(options):
    site.shell("sysctl -qw net.ipv4.ip_forward=1", site.place("router"))
    hosts, figures = [], []
    for number in range(max(SIZES) + 1):
        where, address = _plug(number)
        host = mesh.Host(options.sealane, f"host{number}", where, address)
        hosts.append(host)
        if number == 0:
            host.control()
        # The first one is measured.
        host.join(hosts[0], *([] if number == 0 else ["--peer-timeout", "60s"]))
        if number == 0:
            host.say("network create bench --subnet 10.42.0.0/16")
        host.workload(f"w{number}", "--no-sidecar")
        if number in SIZES:
            site.await_true(f"{number} channels", lambda: _metric(hosts[0], "sealane_agent_peer_connected") == number, 120)
            time.sleep(SETTLED)
            figures.append(_figures(hosts[0], number))
            print(f"watch: {figures[-1]}", file=sys.stderr)
    return {"how": f"One run of {SECONDS} s each.", "version": mesh.version(options.sealane), "contenders": [{"name": "sealane", "sizes": figures}]}
