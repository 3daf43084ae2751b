"""Containers side by side: Docker's own bridge (one host), an attachable overlay network of Docker's swarm, and Sealane's network by
its plugin, without a sidecar and with one; the latter three between the same two hosts with the same dockerds.

Starts, one after another and in turn: how long `docker run` takes, and when the container is resolved by its name and answers over
HTTP in a container on the other host (on the bridge: on the same one) after that has returned; 0: before. Ends: from `docker kill`
being typed, and from the container's process being dead, until the other container's resolver has no such name. Crowds: many `docker
run` at once, half of them on either host; the share of the machine's CPU time that all of Sealane's processes had meanwhile, and the
memory (PSS) by which dockerd and all of Sealane's processes grew for each container. Paths: as for overlays."""

import os
import pathlib
import select
import subprocess
import sys
import threading
import time
import types

from . import engine, mesh, overlay, peers, site

CROWDS = 3
# What comes after a start does not meet the next one.
PAUSE = 0.2
PLAIN = "--label sealane.sidecar=off"
# Programs that run in a container's network.
FOLDER = pathlib.Path(__file__).resolve().parent


class Contender:
    """A network, how its containers are started, and how they are called there."""

    def __init__(self, name, network, flags=""):
        self.name, self.network, self.flags = name, network, flags
        self.starts, self.crowds = [], []

    def of(self, name):
        """The flags of a container that serves by this name."""
        return self.flags.format(name=name)


BRIDGE = Contender("Docker's bridge, one host", "bridged")
SWARM = Contender("Swarm's overlay", "swarm")
BARE = Contender("Sealane, without a sidecar", "bench", PLAIN)
MESHED = Contender("Sealane", "bench", f"--label sealane.service={{name}} --label sealane.port={engine.PORT}")
CONTENDERS = (BRIDGE, SWARM, BARE, MESHED)


class Prober:
    """Asks in the network of a container on a host."""

    def __init__(self, host, container):
        _, place = host.inside(container)
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self.process = subprocess.Popen(site.inside(place, [sys.executable, str(FOLDER / "prober.py")]), **streams)

    def tell(self, line):
        self.process.stdin.write(line + "\n")

    def hear(self, word):
        said = self.process.stdout.readline().split()
        if said[:1] != [word]:
            raise RuntimeError(f"{word}: the prober has ended")
        return float(said[1])


def _death(pid):
    """Waits in a thread of its own for the end of a process; a list that has its time then."""
    at, handle = [], os.pidfd_open(pid)

    def wait():
        select.select([handle], [], [])
        at.append(time.monotonic())
        os.close(handle)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread, at


def life(host, prober, name, start):
    """One container's life, from `start`: the times at which something became of it."""
    prober.tell(f"up {name}")
    began = time.monotonic()
    start()
    ran = time.monotonic()
    resolved, answered = prober.hear("resolved"), prober.hear("answered")
    time.sleep(PAUSE)
    pid, _ = host.inside(name)
    thread, died = _death(pid)
    prober.tell(f"down {name}")
    typed = time.monotonic()
    host.docker(f"kill {name}")
    gone = prober.hear("gone")
    thread.join()
    host.docker(f"rm -f {name}")
    time.sleep(PAUSE)
    return types.SimpleNamespace(began=began, ran=ran, resolved=resolved, answered=answered, typed=typed, died=died[0], gone=gone)


def _start(host, contender, prober, name):
    """One container's life: in ms, what became of it when."""
    at = life(host, prober, name, lambda: host.run(name, contender.network, contender.of(name)))
    spans = {"run": at.ran - at.began, "resolved": max(0.0, at.resolved - at.ran), "answered": max(0.0, at.answered - at.ran),
             "whole": at.answered - at.began, "killed": at.gone - at.typed, "dead": max(0.0, at.gone - at.died)}
    return {what: span * 1e3 for what, span in spans.items()}


def _processes(program):
    """The pids of a program."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(folder / "exe") == str(program):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _memory(pids):
    """PSS in MiB."""
    total = 0
    for pid in pids:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(text.split("\nPss:")[1].split()[0])
    return total / 1024


def _used(pids):
    """CPU seconds of these processes and of their children that have ended."""
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += sum(map(int, fields[11:15]))
    return total / site.TICKS


def _crowd(hosts, contender, size):
    """So many containers at once."""
    ours, engines = (lambda: _processes(hosts[0].sealane)), [host.engine.pid for host in hosts]
    memory, used, machine = _memory(ours() + engines), _used(ours()), site.machine_seconds()
    began, names, running = time.monotonic(), [], []
    for number, host in enumerate(hosts):
        names.append([f"crowd-{number}-{each}" for each in range(size // 2)])
        lines = (f"docker run -d --name {name} --network {contender.network} {contender.of(name)} {engine.IMAGE} "
                 f"httpd -f -p {engine.PORT} -h /www & pids=\"$pids $!\"" for name in names[-1])
        script = "\n".join([*lines, "for pid in $pids; do wait $pid || exit 1; done"])
        running.append(subprocess.Popen(site.inside(host.where, ["sh", "-c", script]), stdout=subprocess.DEVNULL))
    if any(process.wait() for process in running):
        raise RuntimeError(f"{contender.name}: not all of the crowd has started")
    seconds = time.monotonic() - began
    share = (_used(ours()) - used) / (site.machine_seconds() - machine)
    # What is started is furnished, and what was done for it at rest.
    time.sleep(3)
    grown = _memory(ours() + engines) - memory
    for host, own in zip(hosts, names):
        host.docker(f"rm -f {' '.join(own)}")
    time.sleep(3)
    return {"seconds": seconds, "share": share, "mib": grown / size}


def _paths(left, right):
    """Containers that do nothing themselves, in each network."""
    sleep = "sleep 1000000"
    served = f"--label sealane.service=far --label sealane.port={peers.BACKEND_PORT},{peers.BULK_PORT}"
    for name, network, near_flags, far_flags, beside in (
        (SWARM.name, "swarm", "", "", []),
        ("Sealane, egress denied, without a sidecar", "shut", PLAIN, PLAIN, [SWARM.name]),
        (BARE.name, "bench", PLAIN, PLAIN, [SWARM.name]),
        (MESHED.name, "bench", "", served, [SWARM.name]),
    ):
        there = f"path-{len(name)}"
        left.run(f"{there}-near", network, near_flags, sleep)
        right.run(f"{there}-far", network, far_flags, sleep)
        near, far = (host.inside(f"{there}-{end}")[1] for host, end in ((left, "near"), (right, "far")))
        path = overlay.Path(name, near, far, right.address_of(f"{there}-far", network), beside)
        overlay.serve(path)
        if far_flags == served:
            left.await_ready("far")
        site.shell(f"ping -qc1 -W5 {path.server} || ping -qc1 -W5 {path.server}", near)
        yield path


def _starts(options, left, right):
    probers = {}
    for contender in CONTENDERS:
        asker = left if contender is BRIDGE else right
        client = f"client-{CONTENDERS.index(contender)}"
        asker.run(client, contender.network, contender.of(client))
        probers[contender] = Prober(asker, client)
    for number in range(options.starts + 1):
        for contender in site.turned(CONTENDERS, number):
            figures = _start(left, contender, probers[contender], f"c{number}-{CONTENDERS.index(contender)}")
            # The first one of each finds much to be made.
            if number > 0:
                contender.starts.append(figures)
            words = ", ".join(f"{what} {span:.0f}" for what, span in figures.items())
            print(f"containers, start {number}: {contender.name}: {words} ms", file=sys.stderr)


def _rounds(options, paths):
    rounds = {path.name: [] for path in paths}
    for number in range(options.rounds):
        for name, figures in overlay.measured(paths, number, options).items():
            rounds[name].append(figures)
            print(f"containers, path round {number + 1}: {name}: {figures}", file=sys.stderr)
    return [{
        "name": path.name, "beside": path.beside,
        **{field: site.median([figures[field] for figures in rounds[path.name]]) for field in rounds[path.name][0]},
        "all": rounds[path.name],
    } for path in paths]


def measure(options):
    ends = [(site.place(f"engine-{number}"), f"192.0.14.{number}") for number in (1, 2)]
    site.join(*ends[0], *ends[1])
    left, right = engine.hosts(options.sealane, ends)
    _starts(options, left, right)
    for number in range(CROWDS):
        for contender in CONTENDERS:
            figures = _crowd((left, right), contender, options.crowd)
            contender.crowds.append(figures)
            print(f"containers, crowd {number + 1}: {contender.name}: {figures}", file=sys.stderr)
    paths = _rounds(options, list(_paths(left, right)))
    for host in (left, right):
        host.docker("ps -qa | xargs -r docker rm -f")
    spans = CONTENDERS[0].starts[0]
    return {
        "how": f"Medians and 99th percentiles of {options.starts} starts and ends; medians of {CROWDS} crowds of {options.crowd}, and of "
               f"{options.rounds} rounds of the paths in slices of {options.seconds} s. Docker {engine.version()}.",
        "version": mesh.version(options.sealane),
        "contenders": [{
            "name": each.name,
            **{what: [site.percentile([figures[what] for figures in each.starts], share) for share in (0.5, 0.99)] for what in spans},
            **{what: site.median([figures[what] for figures in each.crowds]) for what in each.crowds[0]},
            "starts": each.starts, "all": each.crowds,
        } for each in CONTENDERS],
        "paths": paths,
    }
