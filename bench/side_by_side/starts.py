"""Starts of workloads on one host, one after another: from the start of `sealane run` until its command has said its first
word, with so many workloads there already. Each offers a port of one of 20 services and listens there, so every other
workload's names, rules and sidecar follow it twice. The host runs control, too. Agent: its resident memory with so many
workloads."""

import subprocess
import sys
import time

from . import mesh, site

SIZES = (10, 50, 200)
# So many starts on either side of a size are measured, up to the last one.
AROUND = 15
SERVICES = 20
COMMAND = ["sh", "-c", "echo; exec iperf3 -s -p 8080"]


def _start(host, number, flags):
    """One workload; how long its start took, in ms."""
    words = ["run", "--network", "bench", "--name", f"w{number}", "--service", f"s{number % SERVICES}", "--port", "8080", *flags]
    command = site.inside(host.where, [str(host.sealane), *words, "--", *COMMAND])
    began = time.monotonic()
    # What a start has to say is in the agent's log as well.
    process = site.attend(command, host.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if not process.stdout.readline():
        raise RuntimeError(f"w{number} did not start")
    return (time.monotonic() - began) * 1e3


def _contender(options, name, flags):
    host = mesh.single(options.sealane, name)
    took, figures = [], {}
    for number in range(max(SIZES)):
        took.append(_start(host, number, flags))
        # One after another, as an operator's scripts are: what follows a start does not meet the next one.
        time.sleep(0.1)
        if number + 1 in SIZES:
            time.sleep(1)
            figures[number + 1] = {"agent_mib": site.resident_mib([host.agent.pid])}
    for size in SIZES:
        around = took[max(0, size - AROUND):size + AROUND]
        figures[size].update(p50=site.percentile(around, 0.5), p90=site.percentile(around, 0.9))
        print(f"starts: {name}, {size} workloads: {figures[size]}", file=sys.stderr)
    host.quit()
    return {"name": name, "sizes": [{"size": size, **figures[size]} for size in SIZES], "all": took}


def measure(options):
    contenders = [("plain", "without a sidecar", ["--no-sidecar"]), ("meshed", "with a sidecar", [])]
    return {
        "how": f"One run; of each size the {2 * AROUND} starts around it, of the largest the {AROUND} before it.",
        "version": mesh.version(options.sealane),
        "contenders": [{**_contender(options, name, flags), "title": title} for name, title, flags in contenders],
    }
