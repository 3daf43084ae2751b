//! Meshes whose control planes share an etcd.

use crate::{Daemon, Mesh, PATIENCE, Running, Site, eventually};

/// Returns the address of a port of a host.
fn at(number: usize, port: u16) -> String {
    format!("192.0.2.{}:{port}", 10 + number)
}

impl Mesh {
    /// Hosts on the first two of which control planes run that share an etcd on the last one, and agents on all, which are told of
    /// both; all are ready. The first control plane leads.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn sharing(hosts: usize) -> (Self, Running) {
        let mut mesh = Self::hosts(hosts);
        let etcd = mesh.site(hosts).etcd(&at(hosts, 2379));
        mesh.controls = format!("{},{}", at(1, 7443), at(2, 7443));
        (mesh.sharing_at(&format!("http://{}", at(hosts, 2379)), 2), etcd)
    }

    /// Hosts on the first three of which control planes run, and members of the etcd that they share; agents on all, which are told
    /// of the first control plane alone. All are ready, and the first control plane leads.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn sharing_three(hosts: usize) -> (Self, Vec<Running>) {
        let mesh = Self::hosts(hosts);
        let etcds = (1..=3).map(|number| mesh.site(number).etcd_of_three(number)).collect();
        (1..=3).for_each(|number| mesh.site(number).await_port(&at(number, 2379)));
        let urls = [1, 2, 3].map(|number| format!("http://{}", at(number, 2379))).join(",");
        (mesh.sharing_at(&urls, 3), etcds)
    }

    /// Starts control planes on the first hosts, and all agents.
    fn sharing_at(mut self, urls: &str, controls: usize) -> Self {
        let folder = self.directory();
        let control = |site: &Site, number: usize| {
            site.sh("umask 077; mkdir -p /var/lib; echo 0123456789abcdef0123456789abcdef >/var/lib/mesh.key");
            let advertise = at(number, 7443);
            let flags = ["control", "--listen", "0.0.0.0:7443", "--store", "etcd", "--etcd", urls];
            let flags =
                [&flags[..], &["--key-file", "/var/lib/mesh.key", "--advertise", &advertise]].concat();
            Daemon::new(site.host.clone(), folder.join(format!("control-{number}.log")), &flags)
        };
        self.control = control(self.site(1), 1);
        self.others = (2..=controls).map(|number| control(self.site(number), number)).collect();
        self.control.start();
        eventually(PATIENCE, "the first control plane leads", || {
            self.control.assert_runs();
            (self.site(1).control_status()?["role"] == "control").then_some(())
        });
        let mut mesh = self.up();
        for number in 2..=controls {
            mesh.others[number - 2].start();
            eventually(PATIENCE, "another control plane stands by", || {
                mesh.others[number - 2].assert_runs();
                (mesh.site(number).control_status()?["role"] == "standby").then_some(())
            });
        }
        mesh
    }
}

impl Site {
    /// Starts the member of an etcd of three on the host of this number, whose state outlives it.
    #[must_use]
    pub fn etcd_of_three(&self, number: usize) -> Running {
        let cluster = [1, 2, 3].map(|number| format!("etcd-{number}=http://{}", at(number, 2380))).join(",");
        let name = format!("etcd-{number}");
        let [clients, peers] = [2379, 2380].map(|port| format!("http://{}", at(number, port)));
        let flags = ["--name", &name, "--data-dir", "/var/lib/etcd", "--max-txn-ops", "16384"];
        let of_clients = ["--listen-client-urls", &clients, "--advertise-client-urls", &clients];
        let of_peers = ["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers];
        let all = [&flags[..], &of_clients, &of_peers, &["--initial-cluster", &cluster]].concat();
        self.begin("/usr/bin/etcd", &all)
    }
}
