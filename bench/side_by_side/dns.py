"""DNS servers side by side: each answers the same question for a service's name from its own data, in the same place, on
CPU 0; dnsperf asks from CPU 1."""

import json
import sys

from . import load, mesh, peers, site

NAME = "api"
FOLDER = peers.FOLDER


class Server:
    """Where to ask, and whose CPU is counted."""

    def __init__(self, name, version, address, pids):
        self.name, self.version, self.address, self.pids = name, version, address, pids


def _servers(host, place, options):
    vip = host.vip(NAME)
    agent = site.family(host.agent.pid)
    site.pin(agent, site.PROXY_CPU)
    yield Server("Sealane", mesh.version(options.sealane), "127.0.0.11", agent)
    command = ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--no-daemon",
               "--listen-address=127.0.0.53", f"--address=/{NAME}/{vip}", f"--pid-file={FOLDER}/dnsmasq.pid",
               "--conf-file=/dev/null", "--except-interface=eth0"]
    dnsmasq = site.start(command, place, site.PROXY_CPU, "dnsmasq")
    yield Server("dnsmasq", site.shell("dnsmasq -v").split()[2], "127.0.0.53", [dnsmasq.pid])
    config = FOLDER / "unbound.conf"
    config.write_text(f"""
server:
    interface: 127.0.0.54
    num-threads: 1
    do-daemonize: no
    use-syslog: no
    logfile: "{FOLDER}/unbound-server.log"
    username: ""
    chroot: ""
    directory: "{FOLDER}"
    pidfile: "{FOLDER}/unbound.pid"
    module-config: "iterator"
    local-zone: "{NAME}." static
    local-data: "{NAME}. 5 IN A {vip}"
remote-control:
    control-enable: no
""")
    unbound = site.start(["unbound", "-d", "-c", config], place, site.PROXY_CPU, "unbound")
    yield Server("unbound", site.shell("unbound -V").split("\n")[0].split()[1], "127.0.0.54", [unbound.pid])
    if options.hickory.exists():
        hickory = site.start([options.hickory, "127.0.0.55:53", NAME, vip], place, site.PROXY_CPU, "hickory")
        yield Server("hickory-server", _hickory_version(options), "127.0.0.55", [hickory.pid])
    else:
        print(f"note: no {options.hickory}, going on without hickory-server", file=sys.stderr)


def _hickory_version(options):
    lock = (options.docs.parent.parent / "bench/hickory-server/Cargo.lock").read_text()
    return lock.split('name = "hickory-server"\nversion = "')[1].split('"')[0]


def measure(options):
    host = mesh.single(options.sealane)
    peers.backend(host.workload("server", "--service", NAME, "--port", str(peers.BACKEND_PORT)))
    place = host.workload("client", "--no-sidecar")
    host.await_ready(NAME)
    servers = list(_servers(host, place, options))
    names = FOLDER / "names"
    names.write_text(f"{NAME} A\n")
    for server in servers:
        site.await_true(f"{server.name} at {server.address}",
                        lambda at=server: "status: NOERROR" in site.shell(f"dig +time=1 @{at.address} {NAME}", place, check=False))
    rounds = {server.name: [] for server in servers}
    for number in range(options.rounds):
        for server in site.turned(servers, number):
            before = site.cpu_seconds(server.pids)
            figures = load.questions(place, server.address, str(names), options.seconds)
            used = site.cpu_seconds(server.pids) - before
            figures["cpu_us_per_answer"] = used / figures["completed"] * 1e6
            rounds[server.name].append(figures)
            print(f"dns round {number + 1}: {server.name}: {json.dumps(figures)}", file=sys.stderr)
    return {
        "rounds": options.rounds, "seconds": options.seconds,
        "servers": [{
            "name": server.name, "version": server.version,
            **{field: site.median([figures[field] for figures in rounds[server.name]])
               for field in ("rate", "cpu_us_per_answer", "lost")},
            "all": rounds[server.name],
        } for server in servers],
    }
