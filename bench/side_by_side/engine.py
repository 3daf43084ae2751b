"""Hosts with a dockerd each, in a swarm and in a Sealane mesh at once: both networks have the same hosts, cable and engine."""

import json
import pathlib
import subprocess

from . import mesh, site

IMAGE = "bench:1"
PORT = 8080
# Docker's default is Sealane's: here both are on one host.
SWARM_VXLAN_PORT = 4790
_FILES = """set -e
    mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/bench/{name} /run/bench/said /run/lock
    mount -t tmpfs -o mode=755 tmpfs /var/lib
    mount -t sysfs sysfs /sys && mount -t tmpfs cgroups /sys/fs/cgroup
    cut -d: -f2 /proc/self/cgroup | while read -r group; do
        case $group in
            '') continue;;
            name=*) options=none,$group;;
            *) options=$group;;
        esac
        folder=/sys/fs/cgroup/${{group#name=}}
        mkdir $folder && mount -t cgroup -o $options cgroup $folder
    done
    ls /sys/fs/cgroup | grep -q . || mount -t cgroup2 cgroup /sys/fs/cgroup
    echo nameserver {underlay} >/run/resolv.conf && mount --bind /run/resolv.conf /etc/resolv.conf
    hostname {name}; sysctl -qw net.ipv4.ip_forward=1
    : >/run/ready; exec sleep infinity"""
_BUSYBOX = f"""set -e
    mkdir -p /run/image/bin /run/image/www /run/image/usr && cd /run/image && cp /bin/busybox bin/
    for name in lib lib64; do ln -s usr/$name $name; done
    for name in sh httpd sleep; do ln -s busybox bin/$name; done
    echo here >www/index.html
    tar -c . | docker import - {IMAGE}"""


class Host(mesh.Host):
    """A host with files of its own where engines write, a dockerd, and an agent that is its plugin."""

    def __init__(self, sealane, name, netns, underlay):
        script = _FILES.format(name=name, underlay=underlay)
        files = ["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", script]
        process = site.start(files, netns, log=f"files-{name}")
        super().__init__(sealane, name, process.pid, underlay)
        self.root = pathlib.Path(f"/proc/{process.pid}/root")
        site.await_true(f"files of {name}", (self.root / "run/ready").exists)
        # Names that Docker does not know are answered at once: there are none.
        site.start(["dnsmasq", "-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--local=/#/", "--user=root", "--bind-interfaces",
                    f"--listen-address={underlay}", "--pid-file="], self.where, log=f"upstream-{name}")
        self.engine = site.start(
            ["dockerd", "--userland-proxy=false", f"--cgroup-parent=/{site.CONTROL_GROUP}", "--dns", underlay], self.where,
            log=f"dockerd-{name}")
        site.await_true(f"dockerd of {name}", lambda: self._answers(), 60)
        site.shell(_BUSYBOX, self.where)

    def _answers(self):
        return subprocess.run(site.inside(self.where, ["docker", "version"]), capture_output=True).returncode == 0

    def docker(self, line):
        return site.shell(f"docker {line}", self.where).strip()

    def run(self, name, network, flags="", command=f"httpd -f -p {PORT} -h /www"):
        """Starts a container."""
        return self.docker(f"run -d --name {name} --network {network} {flags} {IMAGE} {command}")

    def inside(self, container):
        """The pid of a container and the place of its network."""
        pid = int(self.docker(f"inspect -f '{{{{.State.Pid}}}}' {container}"))
        return pid, f"/proc/{pid}/ns/net"

    def address_of(self, container, network):
        networks = json.loads(self.docker(f"inspect -f '{{{{json .NetworkSettings.Networks}}}}' {container}"))
        return networks[network]["IPAddress"]


def hosts(sealane, ends):
    """Hosts in these places, in one swarm with the attachable network `swarm` and one mesh with the networks `bench` and,
    without a way out, `shut`; each has Docker's own bridge `bridged` as well. The first has control and is the swarm's manager."""
    made = [Host(sealane, f"engine-{number}", where, underlay) for number, (where, underlay) in enumerate(ends, 1)]
    left = made[0].control()
    for host in made:
        host.join(left, "--docker-plugin")
    left.docker(f"swarm init --advertise-addr {left.underlay} --data-path-port {SWARM_VXLAN_PORT}")
    token = left.docker("swarm join-token -q worker")
    for host in made[1:]:
        host.docker(f"swarm join --advertise-addr {host.underlay} --token {token} {left.underlay}:2377")
    left.docker("network create -d overlay --attachable --subnet 10.77.0.0/16 swarm")
    left.say("network create bench --subnet 10.42.0.0/16")
    left.say("network create shut --subnet 10.43.0.0/16 --egress deny")
    for host in made:
        for network in ("bench", "shut"):
            host.docker(f"network create -d sealane --ipam-driver sealane -o sealane.network={network} {network}")
        host.docker("network create bridged")
    return made


def version():
    return site.shell("dockerd --version").split()[2].rstrip(",").split("+")[0]
