"""Convergence on three hosts: Docker's swarm (an attachable overlay network; instances share a network alias), and Sealane's network by
its plugin, without sidecars and with them; the same dockerds, containers and cables. After that, Sealane again without its control plane.

Starts and ends, one after another and in turn, each of another container: from the moment at which its server listens until it is
resolved by its name and answers over HTTP in a container on another host (0: before), and from the death of its process until its name
is gone there. Deaths and returns of a host: a service has an instance on each of two hosts and is called by its name 100 times a second
from the third; then the switch drops all frames of one of the two, without a word, and later passes them again, for all contenders at
once. A call has failed that is not answered within 1 s; the last failed call counts by its begin."""

import collections
import subprocess
import sys
import threading
import time

from . import containers, engine, mesh, site

# Without control, a host has the addresses that it has, and each rests for a minute after a container that Docker has begun.
ALONE_PAUSE = 8
# So many calls in a row that are answered are an end of failures.
STEADY = 150
# In ms, but for the number of calls that failed.
START_FIGURES, DEATH_FIGURES = ("start", "end"), ("death", "failed", "return")
SERVER = "/usr/bin/python3 /bench/server.py {port} {name} /said/{name}"
FILES = f"-v /usr:/usr:ro -v {containers.FOLDER}:/bench:ro -v /run/bench/said:/said"


class Contender:
    """A network, and the flags by which its containers belong to a service."""

    def __init__(self, name, network, flags):
        self.name, self.network, self.flags = name, network, flags
        # The servers that are called, on the host that stays and on the one that dies.
        self.near = self.far = None

    def start(self, host, name, service):
        host.run(name, self.network, f"{self.flags.format(service=service)} {FILES}", SERVER.format(port=engine.PORT, name=name))


SERVICE = f"--label sealane.service={{service}} --label sealane.port={engine.PORT}"
SWARM = Contender("Swarm's overlay", "swarm", "--network-alias {service}")
BARE = Contender("Sealane, without a sidecar", "bench", f"{SERVICE} {containers.PLAIN}")
MESHED = Contender("Sealane", "bench", SERVICE)
CONTENDERS = (SWARM, BARE, MESHED)


class Calls:
    """The calls of one client to one service."""

    def __init__(self, host, container, service):
        _, place = host.inside(container)
        command = [sys.executable, str(containers.FOLDER / "caller.py"), service, str(engine.PORT)]
        self.process = site.attend(site.inside(place, command), stdout=subprocess.PIPE, text=True)
        self.lock, self.made = threading.Condition(), []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            began, said = line.split()
            with self.lock:
                self.made.append((float(began), said))
                self.lock.notify_all()

    def since(self, moment):
        """The calls that began at this time or later, by their begin."""
        with self.lock:
            return sorted(call for call in self.made if call[0] >= moment)

    def forget(self):
        with self.lock:
            self.made.clear()

    def await_true(self, test, patience):
        """Waits until the calls pass a test; false if they do not in this time."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if test():
                return True
            time.sleep(0.01)
        return False


def _start(host, contender, prober, name, service):
    """One container's life: in ms, what became of it when."""
    at = containers.life(host, prober, name, lambda: contender.start(host, name, service))
    listens = float((host.root / "run/bench/said" / name).read_text())
    return {"start": max(0.0, at.answered - listens) * 1e3, "end": max(0.0, at.gone - at.died) * 1e3}


def _starts(options, contenders, left, probers, phase, pause):
    found = {contender: [] for contender in contenders}
    for number in range(options.starts + 1):
        for contender in site.turned(contenders, number):
            service = f"near-{CONTENDERS.index(contender)}"
            figures = _start(left, contender, probers[contender], f"{phase}{number}-{CONTENDERS.index(contender)}", service)
            # The first one of each finds much to be made.
            if number > 0:
                found[contender].append(figures)
            words = ", ".join(f"{what} {span:.0f}" for what, span in figures.items())
            print(f"convergence, {phase} {number}: {contender.name}: {words} ms", file=sys.stderr)
            time.sleep(pause)
    return found


def _answers(calls, server, moment):
    return [began for began, said in calls.since(moment) if said == server]


def _steady(calls, moment):
    """True if the last calls since then were all answered, and none is waited for."""
    made = calls.since(moment)
    return len(made) >= STEADY and all(said != "-" for _, said in made[-STEADY:])


def _death(options, switch, victim, calls):
    """One death and return of a host; in seconds, and the number of calls that failed."""
    for contender, each in calls.items():
        each.forget()
        began = time.monotonic()
        servers = (contender.near, contender.far)
        if not each.await_true(lambda: _steady(each, began) and all(_answers(each, server, began) for server in servers), options.patience):
            said = collections.Counter(said for _, said in each.since(began))
            raise RuntimeError(f"{contender.name}: calls of a service of {' and '.join(servers)} came to {dict(said)}")
    died = time.monotonic()
    switch.cut(victim)
    for each in calls.values():
        # A call of the first second may be known as failed a second later.
        each.await_true(lambda: time.monotonic() > died + 3 and _steady(each, died), options.patience)
    returned = time.monotonic()
    switch.heal(victim)
    figures = {}
    for contender, each in calls.items():
        each.await_true(lambda: _answers(each, contender.far, returned), options.patience)
        failed = [began for began, said in each.since(died) if said == "-" and began < returned]
        back = _answers(each, contender.far, returned)
        figures[contender] = {
            "death": (max(failed) - died if failed else 0.0) * 1e3, "failed": len(failed),
            "return": (back[0] - returned if back else options.patience) * 1e3,
            "failures": [round(began - died, 3) for began in failed],
        }
    return figures


def _deaths(options, contenders, hosts, switch, callers, phase):
    found = {contender: [] for contender in contenders}
    calls = {contender: Calls(hosts[1], callers[contender], f"far-{CONTENDERS.index(contender)}") for contender in contenders}
    for number in range(options.deaths):
        for contender, figures in _death(options, switch, 2, calls).items():
            found[contender].append(figures)
            words = ", ".join(f"{what} {figures[what]:.0f}" for what in DEATH_FIGURES)
            print(f"convergence, {phase} {number + 1}: {contender.name}: {words}", file=sys.stderr)
    for each in calls.values():
        each.process.kill()
    return found


def _phase(options, contenders, hosts, switch, clients, title):
    left = hosts[0]
    probers = {contender: containers.Prober(hosts[1], clients[contender]) for contender in contenders}
    starts = _starts(options, contenders, left, probers, f"start{title}", ALONE_PAUSE if title else 0)
    deaths = _deaths(options, contenders, hosts, switch, clients, f"death{title}")
    for contender in contenders:
        both = {"starts": starts[contender], "deaths": deaths[contender]}
        shares = {
            figure: [site.percentile([round[figure] for round in rounds], share) for share in (0.5, 0.99)]
            for rounds, figures in zip(both.values(), (START_FIGURES, DEATH_FIGURES)) for figure in figures if rounds
        }
        yield {"name": f"{contender.name}{title and ', without control'}", **shares, **both}


def measure(options):
    switch = site.Switch("192.0.14", 3)
    hosts = engine.hosts(options.sealane, switch.ends)
    clients = {}
    for number, contender in enumerate(CONTENDERS):
        clients[contender] = f"client-{number}"
        contender.near, contender.far = f"one-{number}", f"two-{number}"
        contender.start(hosts[1], clients[contender], f"callers-{number}")
        contender.start(hosts[0], contender.near, f"far-{number}")
        contender.start(hosts[2], contender.far, f"far-{number}")
        # It is known before control is away.
        contender.start(hosts[0], f"near-{number}", f"near-{number}")
    contenders = list(_phase(options, CONTENDERS, hosts, switch, clients, ""))
    site.stop(hosts[0].plane)
    contenders += _phase(options, (BARE, MESHED), hosts, switch, clients, "-alone")
    for host in hosts:
        host.docker("ps -qa | xargs -r docker rm -f")
    return {
        "how": f"Medians and 99th percentiles of {options.starts} starts and ends and of {options.deaths} deaths and returns. "
               f"Docker {engine.version()}.",
        "version": mesh.version(options.sealane),
        "contenders": contenders,
    }
