"""A Sealane mesh of the real binary: control, agents, workloads."""

import json
import os
import pathlib

from . import site


class Host:
    """One host: its agent's folders, and the place its programs run in."""

    def __init__(self, sealane, name, where, underlay):
        self.sealane, self.name, self.where, self.underlay = sealane, name, where, underlay
        folder = pathlib.Path("/run/bench") / name
        self.run_dir = folder / "run"
        self.env = {"SEALANE_RUN_DIR": str(self.run_dir), "SEALANE_DATA_DIR": str(folder / "data")}
        self.agent = self.plane = None
        folder.mkdir(exist_ok=True)

    def start(self, *arguments, log, cpu=None):
        return site.start([self.sealane, *arguments], self.where, cpu, log, self.env)

    def say(self, line):
        env = " ".join(f"{name}={value}" for name, value in self.env.items())
        return site.shell(f"{env} {self.sealane} {line}", self.where)

    def control(self):
        self.plane = self.start("control", "--listen", f"{self.underlay}:7443", log=f"control-{self.name}")
        return self

    def join(self, control, *flags):
        token = control.say("token create").split()[-1]
        self.agent = self.start(
            "agent", "--control", f"{control.underlay}:7443", "--token", token, "--name", self.name,
            "--underlay", self.underlay, *flags, log=f"agent-{self.name}")
        site.await_true(f"agent {self.name}", lambda: self._node_connected(control))

    def quit(self):
        """Ends everything that runs on the host."""
        for process in filter(None, (self.agent, self.plane)):
            site.stop(process)
        site.shell(f"ip netns pids {self.where.rsplit('/', 1)[1]} | xargs -r kill -9")
        self.say("clean --yes")

    def _node_connected(self, control):
        nodes = json.loads(control.say("node ls -o json") or "[]")
        return any(node["name"] == self.name and node["connected"] for node in nodes)

    def workload(self, name, *flags, network="bench"):
        """A workload that does nothing itself; returns its place, for programs to be started in."""
        self.start("run", "--network", network, "--name", name, *flags, "--", "sleep", "infinity", log=f"run-{self.name}-{name}")
        path = self.run_dir / "netns" / f"{network}.{name}"
        site.await_true(f"workload {name}", lambda: self._attached(name))
        return str(path)

    def _attached(self, name):
        return "entered" in self.say(f"exec {name} -- echo entered || true")

    def sidecar(self, name, network="bench"):
        """The process of a workload's sidecar."""
        record = next((self.run_dir / "sidecars").glob(f"{network}.{name}*"))
        return int(record.read_text().split()[0])

    def address(self, name):
        known = json.loads(self.say("workload ls -o json"))
        return next(workload["address"] for workload in known if workload["name"] == name)

    def vip(self, service):
        known = json.loads(self.say("service ls -o json"))
        return next(each["vip"] for each in known if each["name"] == service)

    def await_ready(self, service):
        def ready():
            known = json.loads(self.say("service ls -o json"))
            return any(each["name"] == service and each["ready"] for each in known)
        site.await_true(f"service {service}", ready)


def single(sealane, name="host"):
    """A mesh of one host of this name with network `bench`."""
    where = site.place(name)
    site.join(where, "192.0.2.1", site.place(f"{name}-elsewhere"), "192.0.2.2")
    host = Host(sealane, name, where, "192.0.2.1").control()
    host.join(host)
    host.say("network create bench --subnet 10.42.0.0/16")
    return host


def pair(sealane, ends, *flags):
    """A mesh of two hosts in these places, with these underlay addresses, and network `bench` made with `flags`."""
    left, right = (Host(sealane, where.rsplit("/", 1)[1], where, underlay) for where, underlay in ends)
    left.control()
    left.join(left)
    right.join(left)
    left.say(" ".join(["network create bench --subnet 10.42.0.0/16", *flags]))
    return left, right


def version(sealane):
    return os.popen(f"{sealane} --version").read().split()[-1]
