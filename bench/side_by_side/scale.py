"""Thousands of hosts at one control plane, which keeps its store on a disk and has the machine together with the load. The hosts are
simulated in one process (the crate `scale`): each joins with a key of its own, has a connection with mutual TLS and a stream, sends signs
of life, reports its endpoints and acknowledges each state and delta at once, without applying it. There is no peer for this; `--base BINARY`
measures another revision's binary by the same load and compares.

A change is one of three in turn: a new endpoint, another readiness, the end of an endpoint. It has settled when control says that every host
that carries the network works by it, counted from the moment at which it was due. CPU and bytes of a change are control's, without
what hosts that do nothing cost in the same time. After a rate at which some change did not settle in time, higher ones are not tried.

A real agent: one real host with one workload and its sidecar, on a network with 10,000 endpoints of simulated hosts, in a place of its
own. Its CPU and its sidecar's are by their CPU clocks, without what they take while nothing changes; disk is what the agent writes. First
the workload calls services that it has never called, one after another; what its sidecar adds to these calls is by the sidecar's own count."""

import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from . import mesh, site

RATES = (1, 10, 100, 1000)
# The names of shapes, the plans, and the goals: the 99th percentile in ms by changes a second.
SHAPES = {
    "100": ({"hosts": 100, "networks": 1, "endpoints": 1_000, "services": 100, "prefix": 12, "rates": RATES}, {}),
    "500": ({"hosts": 500, "networks": 1, "endpoints": 5_000, "services": 500, "prefix": 12, "rates": RATES}, {100: 100}),
    "1000": ({"hosts": 1_000, "networks": 1, "endpoints": 10_000, "services": 1_000, "prefix": 12, "rates": (1, 10, 50, 100, 1000)}, {50: 200}),
    "5000": ({"hosts": 5_000, "networks": 100, "endpoints": 200_000, "services": 200, "prefix": 16, "rates": RATES}, {100: 100, 1000: 500}),
}
REAL = "real"
REAL_PLAN = {"hosts": 20, "networks": 1, "endpoints": 10_000, "services": 1_000, "prefix": 12, "rates": ()}
REAL_RATES = (1, 10, 100)
NAMES = (*SHAPES, REAL)
NETWORK, WORKLOAD = "net-000", "real-1"
# Underlay addresses of simulated hosts: control listens at all of them, and each host connects from its own.
UNDERLAYS = "172.16.0.0/12"
# Control's store and the real agent's state are there: what they sync is on a disk.
DISK = "/var/tmp"
IDLE = 5
FIRST_CALLS = 100
# The sidecar takes each connection at once, and asks its agent then.
CALLER = "import socket, sys, time\nfor vip in sys.argv[1:]:\n  with socket.create_connection((vip, 8080)): time.sleep(0.02)"


class Load:
    """The process that simulates hosts, with the control plane that it starts."""

    def __init__(self, options, sealane, place, data, plan):
        self.name, self.patience = place.rsplit("/", 1)[1], options.patience
        self.run, self.log = pathlib.Path("/run/bench") / self.name / "run", pathlib.Path("/run/bench") / f"{self.name}.log"
        self.run.parent.mkdir(exist_ok=True)
        whole = {**plan, "sealane": str(sealane), "data": data, "run": str(self.run), "log": str(self.log), "seconds": options.span,
                 "patience": options.patience}
        self.process = site.attend(site.inside(place, [options.loader, json.dumps(whole)]),
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def steps(self):
        """The steps as they come. Each part of one ends within the patience, so one that takes several times as long never will."""
        while True:
            watchdog = threading.Timer(6 * self.patience + 60, self.process.kill)
            watchdog.start()
            line = self.process.stdout.readline()
            watchdog.cancel()
            if not line:
                return
            step = json.loads(line)
            said = {name: value for name, value in step.items() if name != "complaints" or value}
            print(f"scale: {self.name}: {json.dumps(said)}", file=sys.stderr)
            yield step

    def until(self, name):
        for step in self.steps():
            if step["step"] == name:
                return step
        raise RuntimeError(f"{self.name}: the load ended before {name!r}\n{self.said()}")

    def ask(self, words):
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()

    def end(self):
        """Lets it come to its end; true if that was a good one."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        return self.process.wait() == 0

    def said(self):
        return self.log.read_text()[-2000:] if self.log.exists() else ""


@contextlib.contextmanager
def _on_disk():
    folder = tempfile.mkdtemp(prefix="sealane-bench-", dir=DISK)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place(name):
    where = site.place(name)
    site.shell(f"ip -n {name} route add local {UNDERLAYS} dev lo")
    return where


def _per_change(step, idle, field):
    """Of one change, without what hosts that do nothing cost meanwhile."""
    free = idle[field] / idle["seconds"] * step["seconds"] if idle else 0
    return max(0.0, step[field] - free) / step["changes"]


def _shape(options, sealane, name, plan):
    """One run of a shape; with what was measured until it ended too early, if it did."""
    where = _place(name)
    with _on_disk() as data:
        load = Load(options, sealane, where, data, plan)
        steps = list(load.steps())
        failed = None if load.end() else load.said() or "the load ended early"
    idle = next((step for step in steps if step["step"] == "idle"), None)
    for step in steps:
        if step["step"] == "rate":
            step["cpu_ms_per_change"] = _per_change(step, idle, "control_cpu_seconds") * 1e3
            step["kib_per_change"] = _per_change(step, idle, "bytes") / 1024
    return {"steps": steps, "failed": failed}


def _written(pid):
    """Bytes that a process has made the kernel write to disks."""
    return int(pathlib.Path(f"/proc/{pid}/io").read_text().split("\nwrite_bytes:")[1].split()[0])


def _sum(host, series):
    """Sums what the host's metrics have of series that begin so."""
    lines = site.shell("curl -s http://127.0.0.1:9464/metrics", host.where).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series))


def _rows(host):
    return _sum(host, "sealane_overlay_fdb_rows{")


def _first_calls(host, workload):
    """Calls to services one after another, each for the first time, as the sidecar feels them; nothing where it knew them all."""
    vips = [each["vip"] for each in json.loads(host.say("service ls -o json"))][:FIRST_CALLS]
    subprocess.run(site.inside(workload, ["python3", "-c", CALLER, *vips]), check=True)
    waits = "sealane_first_call_wait_seconds"
    count, total = _sum(host, f"{waits}_count"), _sum(host, f"{waits}_sum")
    lines = site.shell("curl -s http://127.0.0.1:9464/metrics", host.where).splitlines()
    short = sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{waits}_bucket") and 'le="0.002"' in line)
    return {"calls": count, "mean_ms": total / count * 1e3, "under_2_ms": short / count} if count else None


def _costs(host, sidecar):
    agent = host.agent.pid
    return {"at": time.monotonic(), "agent": site.cpu_seconds([agent]), "sidecar": site.cpu_seconds([sidecar]), "written": _written(agent)}


def _real_rate(load, host, sidecar, rate, idle):
    """Changes at one rate, as the real host feels them."""
    before = _costs(host, sidecar)
    load.ask(rate)
    step = load.until("rate")
    after = _costs(host, sidecar)
    spent = {field: after[field] - before[field] for field in before}
    figures = {"rate": rate, "changes": step["changes"], "unsettled": step["unsettled"], "settled": step["settled"]}
    for who in ("agent", "sidecar"):
        used = max(0.0, spent[who] - idle[who] / idle["at"] * spent["at"])
        figures[f"{who}_cpu_ms"] = used * 1e3 / step["changes"]
        figures[f"{who}_share"] = spent[who] / spent["at"]
    figures["agent_mib"], figures["sidecar_mib"] = site.resident_mib([host.agent.pid]), site.resident_mib([sidecar])
    figures["written_kib"] = spent["written"] / 1024 / step["changes"]
    return figures


def _real(options, sealane, tag):
    """A real host on a network of simulated ones."""
    where = _place(f"plane{tag}")
    far = site.place(f"real{tag}")
    site.join(where, "192.0.2.1", far, "192.0.2.2")
    site.shell(f"ip -n real{tag} route add default via 192.0.2.1")
    with _on_disk() as data, _on_disk() as agent_data:
        load = Load(options, sealane, where, data, {**REAL_PLAN, "serves": True})
        load.until("serving")
        control = mesh.Host(sealane, f"plane{tag}", where, "192.0.2.1")
        host = mesh.Host(sealane, f"real{tag}", far, "192.0.2.2")
        host.env["SEALANE_DATA_DIR"] = agent_data
        host.join(control)
        time.sleep(IDLE)
        figures = {"bare_mib": site.resident_mib([host.agent.pid]), "rates": []}
        began = time.monotonic()
        workload = host.workload(WORKLOAD, "--service", "service-0000", "--port", "8080/http", network=NETWORK)
        site.await_true("rows of all endpoints", lambda: _rows(host) >= REAL_PLAN["endpoints"], options.patience)
        figures["rows_after"] = time.monotonic() - began
        sidecar = host.sidecar(WORKLOAD, NETWORK)
        time.sleep(IDLE)
        before = _costs(host, sidecar)
        time.sleep(IDLE)
        after = _costs(host, sidecar)
        idle = {field: after[field] - before[field] for field in before}
        figures["agent_mib"], figures["sidecar_mib"] = site.resident_mib([host.agent.pid]), site.resident_mib([sidecar])
        figures["first_calls"] = _first_calls(host, workload)
        for rate in REAL_RATES:
            figures["rates"].append(_real_rate(load, host, sidecar, rate, idle))
            if figures["rates"][-1]["unsettled"]:
                break
        load.end()
        host.quit()
    return figures


def _tried(name, run):
    """The figures of a run, or why there are none: others go on."""
    try:
        return run()
    except (RuntimeError, OSError, ValueError) as error:
        print(f"scale: {name}: {error}", file=sys.stderr)
        return {"failed": str(error)}


def measure(options):
    if not options.loader.exists():
        sys.exit(f"error: no {options.loader}: run `cargo build --release -p sealane-scale`, or name it with --loader")
    binaries = [("", options.sealane), *([("-base", options.base)] if options.base else [])]
    wanted = options.shapes or NAMES
    shapes = []
    for name, (plan, goals) in SHAPES.items():
        if name in wanted:
            runs = {tag: _tried(name, lambda: _shape(options, binary, f"mesh-{name}{tag}", plan)) for tag, binary in binaries}
            shapes.append({"name": name, **plan, "goals": goals, **runs[""], "base": runs.get("-base")})
    figures = {
        "how": f"One run of {options.span:g} s at each rate; what has not settled {options.patience:g} s later counts as such.",
        "version": mesh.version(options.sealane), "shapes": shapes,
    }
    if REAL in wanted:
        runs = {tag: _tried(REAL, lambda: _real(options, binary, tag)) for tag, binary in binaries}
        figures[REAL] = {**REAL_PLAN, **runs[""], "base": runs.get("-base")}
    return figures
