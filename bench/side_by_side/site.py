"""Places to run programs in, and what running them costs."""

import atexit
import contextlib
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")
LOAD_CPU, PROXY_CPU = 1, 0
# What makes control groups makes them below this one.
CONTROL_GROUP = "sealane-bench"
_started = []


def isolated(arguments):
    """Runs this program anew in namespaces of its own: what it makes there ends with it."""
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    try:
        return subprocess.run([*unshare, sys.executable, *arguments])
    finally:
        _remove_control_groups()


def _remove_control_groups():
    """Control groups are the machine's, and outlive the processes that made them."""
    for hierarchy in (pathlib.Path("/sys/fs/cgroup"), *pathlib.Path("/sys/fs/cgroup").iterdir()):
        for group, _, _ in os.walk(hierarchy / CONTROL_GROUP, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(group)


def settle():
    """Prepares the namespaces that [`isolated`] made."""
    shell("mount -t tmpfs tmpfs /run && mkdir -p /run/netns /run/bench && ip link set lo up")
    # Many short connections: ports enough for all of them.
    shell("ulimit -n 65536 2>/dev/null; sysctl -qw net.ipv4.ip_local_port_range='1024 65535'")
    atexit.register(stop_all)


def shell(script, place=None, check=True):
    """Runs a script to its end and returns what it prints."""
    done = subprocess.run(inside(place, ["sh", "-c", script]), capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{script}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def inside(place, command):
    """The command, run in the network namespace at the path `place`, or on the host whose files a process holds, by its number."""
    if isinstance(place, int):
        return ["nsenter", f"--target={place}", "--net", "--mount", "--uts", "--", *command]
    return ["nsenter", f"--net={place}", "--", *command] if place else command


def start(command, place=None, cpu=None, log=None, env=None):
    """Starts a program that runs until the end of the benchmark."""
    if cpu is not None:
        command = ["taskset", "-c", str(cpu), *command]
    output = open(f"/run/bench/{log}.log", "w") if log else subprocess.DEVNULL
    process = subprocess.Popen(
        inside(place, [str(word) for word in command]),
        stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})},
    )
    process.log = log
    _started.append(process)
    return process


def attend(command, env=None, stdin=subprocess.DEVNULL, **streams):
    """Starts a program that is looked at as it goes; it ends with the benchmark, or before."""
    process = subprocess.Popen([str(word) for word in command], stdin=stdin, env={**os.environ, **(env or {})}, **streams)
    atexit.register(process.kill)
    return process


def _quit(process):
    """Words of a program that ended when it should not have."""
    log = pathlib.Path("/run/bench") / f"{process.log}.log"
    said = log.read_text()[-1000:] if process.log else ""
    return f"{' '.join(process.args)}: exit {process.returncode}\n{said}"


def stop(process):
    if process in _started:
        _started.remove(process)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def stop_all():
    for process in reversed(list(_started)):
        if process.poll() is None:
            stop(process)


def place(name):
    """A new network namespace and its path."""
    shell(f"ip netns add {name} && ip -n {name} link set lo up")
    return f"/run/netns/{name}"


def join(a, address_a, b, address_b, mtu=1500):
    """A cable between two places."""
    name = f"c{abs(hash((a, b))) % 10**8}"
    shell(f"ip link add {name} mtu {mtu} type veth peer name {name}b mtu {mtu}")
    for end, where, address in ((name, a, address_a), (f"{name}b", b, address_b)):
        there = pathlib.Path(where).name
        shell(f"ip link set {end} netns {there} && ip -n {there} link set {end} name eth0 up"
              f" && ip -n {there} address add {address}/24 dev eth0")


class Switch:
    """A switch with a place `engine-1` and on at each port; ports are numbered from 0, addresses from 1 in a network of 24 bits."""

    def __init__(self, network, ports):
        self.ends = []
        shell("ip netns add switch && ip -n switch link add switch type bridge && ip -n switch link set switch up")
        for number in range(1, ports + 1):
            where = place(f"engine-{number}")
            shell(f"""set -e
                ip -n switch link add port{number - 1} type veth peer name eth0 netns engine-{number}
                ip -n switch link set port{number - 1} master switch up
                ip -n engine-{number} link set eth0 up
                ip -n engine-{number} address add {network}.{number}/24 dev eth0""")
            self.ends.append((where, f"{network}.{number}"))

    def cut(self, port):
        """Drops all frames of a port and to it; its link stays up."""
        shell(f"bridge -n switch link set dev port{port} state disabled")

    def heal(self, port):
        shell(f"bridge -n switch link set dev port{port} state forwarding")


def await_true(what, test, patience=20.0):
    """Waits for a condition that programs bring about; names it when it does not come."""
    deadline = time.monotonic() + patience
    while not test():
        for process in _started:
            if process.poll() is not None:
                raise RuntimeError(_quit(process))
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {patience} s for {what}")
        time.sleep(0.02)


def await_listening(where, port):
    await_true(f"port {port} in {where}", lambda: shell(f"ss -Hltn sport = :{port}", where).strip())


def pin(pids, cpu):
    for pid in pids:
        shell(f"taskset -acp {cpu} {pid}")


def family(pid):
    """A process and its children: a server and its workers."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in family(int(child)))]


def cpu_seconds(pids):
    """What these processes have used so far, in user space and in the kernel: by their CPU clocks, since /proc counts ticks of
    10 ms."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def machine_seconds():
    """What the whole machine has used so far, idle time and steal left out."""
    user, nice, system, _idle, _wait, irq, softirq = map(int, pathlib.Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def resident_mib(pids):
    total = 0
    for pid in pids:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        total += int(status.split("VmRSS:")[1].split()[0])
    return total / 1024


def median(values):
    """Of what was measured; none when nothing was."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None


def turned(contenders, number):
    """The contenders in the order of this round: nobody is always the first, or behind the same one."""
    turn = number % len(contenders)
    return contenders[turn:] + contenders[:turn]


def _pairs(each, reference, field):
    """A figure and the reference's, round by round; both were measured within seconds."""
    pairs = ((ours[field], theirs[field]) for ours, theirs in zip(each["all"], reference["all"]))
    return [pair for pair in pairs if all(pair)]


def ratios(each, reference, field):
    return [ours / theirs for ours, theirs in _pairs(each, reference, field)]


def differences(each, reference, field):
    return [ours - theirs for ours, theirs in _pairs(each, reference, field)]


def quartiles(values):
    """The lower quartile, the median and the upper quartile."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
