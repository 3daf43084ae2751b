"""Load generators and what they say."""

import json
import pathlib
import re
import signal
import subprocess
import sys
import time

from . import site

_UNITS = {"us": 1, "ms": 1e3, "s": 1e6}


def _microseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * _UNITS[unit]


def _slice(place, command, seconds):
    """What a program says that runs until it is interrupted: those that count whole seconds know no shorter slices."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(site.inside(place, ["taskset", "-c", str(site.LOAD_CPU), *command]), **streams)
    try:
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGINT)
    return process.communicate()


def _whole(seconds):
    return max(1, round(seconds))


def http(place, url, seconds, connections=64, close=False):
    """wrk, one thread: requests per second, p50 and p99 in microseconds, failures."""
    header = ["-H", "Connection: close"] if close else []
    said, errors = _slice(place, ["wrk", "-t1", f"-c{connections}", "-d1h", "--latency", *header, url], seconds)
    if "Requests/sec" not in said:
        raise RuntimeError(f"wrk {url}: {said}{errors}")
    failed = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", said)))
    failed += sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", said)))
    requests = int(re.search(r"(\d+) requests in", said).group(1))
    return {
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", said).group(1)),
        "requests": requests,
        "p50": _microseconds(re.search(r"\n\s+50%\s+(\S+)", said).group(1)),
        "p99": _microseconds(re.search(r"\n\s+99%\s+(\S+)", said).group(1)),
        "failed": failed,
    }


def _h2load(place, url, seconds, *flags):
    """h2load with these flags: its report, and the time of each request in microseconds."""
    log = pathlib.Path("/run/bench/h2load.log")
    log.unlink(missing_ok=True)
    command = ["taskset", "-c", str(site.LOAD_CPU), "h2load", *flags,
               f"-D{round(seconds * 1000)}ms", f"--log-file={log}", url]
    said = subprocess.run(site.inside(place, command), capture_output=True, text=True, check=True).stdout
    lines = log.read_text().splitlines() if log.exists() else []
    return said, [int(line.split("\t")[2]) for line in lines]


def steady(place, url, seconds, rate=8000, connections=16):
    """h2load at a steady rate over HTTP/1.1: p50 and p99 in microseconds."""
    said, times = _h2load(place, url, seconds, "--h1", f"-c{connections}", f"--rps={rate // connections}")
    # Not `succeeded`: h2load does not see a status in front of an empty reason phrase (what wrk saw says whether all is well).
    done, errored = (int(re.search(rf"(\d+) {what}", said).group(1)) for what in ("done", "errored"))
    if errored:
        raise RuntimeError(f"h2load {url} at {rate}/s for {seconds} s: {errored} of {done} failed")
    if done < rate * seconds * 0.9:
        print(f"note: {url} answers {done / seconds:.0f}/s of {rate}/s asked for", file=sys.stderr)
    if not done:
        return {"p50": None, "p99": None}
    return {"p50": site.percentile(times, 0.5), "p99": site.percentile(times, 0.99)}


def http2(place, url, seconds, connections=4, streams=16):
    """h2load over HTTP/2 without TLS, one thread: requests per second, p50 and p99 in microseconds, failures."""
    said, times = _h2load(place, url, seconds, "-t1", f"-c{connections}", f"-m{streams}")
    done, succeeded = (int(re.search(rf"(\d+) {what}", said).group(1)) for what in ("done", "succeeded"))
    if not succeeded:
        raise RuntimeError(f"h2load {url}: {said}")
    return {"rate": done / seconds, "requests": done, "failed": done - succeeded,
            "p50": site.percentile(times, 0.5), "p99": site.percentile(times, 0.99)}


def bulk(place, host, port, seconds, streams=1, cpu=site.LOAD_CPU):
    """iperf3 over TCP: Gbit/s as received, and gigabytes."""
    said = _iperf(place, host, port, seconds, cpu, "-P", str(streams))
    received = said["end"]["sum_received"]
    return {"gbits": received["bits_per_second"] / 1e9, "gigabytes": received["bytes"] / 1e9}


def small_datagrams(place, host, port, seconds, cpu):
    """iperf3 with 64-byte datagrams: received per second."""
    said = _iperf(place, host, port, seconds, cpu, "-u", "-l", "64", "-b", "0")
    total = said["end"]["sum"]
    return {"packets": (total["packets"] - total["lost_packets"]) / total["seconds"]}


def _iperf(place, host, port, seconds, cpu, *flags):
    pinned = ["taskset", "-c", str(cpu)] if cpu is not None else []
    command = [*pinned, "iperf3", "-J", "-c", host, "-p", str(port), "-t", str(_whole(seconds)), *flags]
    said = {}

    def taken():
        done = subprocess.run(site.inside(place, command), capture_output=True, text=True)
        said.update(json.loads(done.stdout))
        # The server takes one client at a time, and listens anew when it has parted from the last one.
        return not any(part in said.get("error", "") for part in ("server is busy", "Connection refused"))

    site.await_true(f"iperf3 at {host}:{port}", lambda: said.clear() or taken())
    if "error" in said:
        raise RuntimeError(f"iperf3 to {host}:{port}: {said['error']}")
    return said


def ping_pong(place, host, port, seconds, cpu):
    """sockperf over UDP, one packet in flight: round trips in microseconds."""
    command = ["taskset", "-c", str(cpu), "sockperf", "ping-pong", "-i", host, "-p", str(port), "-t", str(_whole(seconds)),
               "--full-rtt"]
    said = site.shell(" ".join(command), place)
    at = lambda share: float(re.search(rf"percentile {share}\d* =\s+([\d.]+)", said).group(1))  # noqa: E731
    return {"p50": at("50."), "p99": at("99.0")}


def questions(place, server, names, seconds):
    """dnsperf: answers per second and what was lost."""
    said, errors = _slice(place, ["dnsperf", "-s", server, "-d", names, "-l", "3600", "-c", "8", "-q", "200"], seconds)
    if "Queries per second" not in said:
        raise RuntimeError(f"dnsperf {server}: {said}{errors}")
    return {
        "rate": float(re.search(r"Queries per second:\s+([\d.]+)", said).group(1)),
        "completed": int(re.search(r"Queries completed:\s+(\d+)", said).group(1)),
        "lost": int(re.search(r"Queries lost:\s+(\d+)", said).group(1)),
        "codes": re.search(r"Response codes:\s+(.*)", said).group(1),
    }
