//! A mesh: control on the first host, an agent on every one.

use std::sync::Arc;

use sealane_lab::{Capture, Lab};
use serde_json::Value;

use crate::{Daemon, Finished, PATIENCE, Release, Running, Site, eventually};

/// A mesh on hosts `host-1`, `host-2`, ... of a lab.
#[derive(Debug)]
pub struct Mesh {
    /// The control plane, on the first host.
    pub control: Daemon,
    /// Further control planes, on the hosts after the first one.
    pub others: Vec<Daemon>,
    /// Addresses of all control planes, as agents are told.
    pub(crate) controls: String,
    sites: Vec<Site>,
    lab: Lab,
}

impl Mesh {
    /// A mesh of this many hosts, all of them ready.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn start(hosts: usize) -> Self {
        Self::hosts(hosts).up()
    }

    /// The same hosts with further flags of control's.
    #[must_use]
    pub fn control_flags(mut self, flags: &[&str]) -> Self {
        let arguments = [&["control", "--listen", "0.0.0.0:7443"], flags].concat();
        let log = self.lab.directory().join("control.log");
        self.control = Daemon::new(self.sites[0].host.clone(), log, &arguments);
        self
    }

    /// Starts control and every agent, until all are ready.
    ///
    /// # Panics
    /// When one does not come up.
    #[must_use]
    #[track_caller]
    pub fn up(self) -> Self {
        let hosts = self.sites.len();
        self.up_to(hosts)
    }

    /// Starts control and the agents of the first hosts, until all of these are ready.
    ///
    /// # Panics
    /// When one does not come up.
    #[must_use]
    #[track_caller]
    pub fn up_to(mut self, hosts: usize) -> Self {
        self.control.start();
        self.await_control();
        for number in 1..=hosts {
            self.join(number);
        }
        for number in 1..=hosts {
            self.site_mut(number).await_ready();
        }
        self
    }

    /// The same, with a network `shop` (10.42.0.0/16).
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn shop(hosts: usize) -> Self {
        let mesh = Self::start(hosts);
        mesh.create_shop();
        mesh
    }

    /// Creates the network `shop` (10.42.0.0/16).
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    pub fn create_shop(&self) {
        let _ = self.sealane(&["network", "create", "shop", "--subnet", "10.42.0.0/16"]).ok();
    }

    /// Lets sidecars of `shop` take plain calls as well, at any port.
    ///
    /// # Panics
    /// When that is refused.
    #[must_use]
    #[track_caller]
    pub fn permissive(self) -> Self {
        let _ = self.sealane(&["network", "set", "shop", "--mtls", "permissive"]).ok();
        self
    }

    /// The same, with ready instances `api-1`, `api-2`, ... of `api`, one on each of the first hosts.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn serving(hosts: usize, instances: usize) -> (Self, Vec<Running>) {
        let mesh = Self::shop(hosts);
        let serve = |number| mesh.site(number).serve("api", &format!("api-{number}"));
        let servers: Vec<Running> = (1..=instances).map(serve).collect();
        mesh.await_instances("api", instances as u64);
        (mesh, servers)
    }

    /// Hosts on which nothing runs yet.
    ///
    /// # Panics
    /// When the lab cannot be built.
    #[must_use]
    pub fn hosts(hosts: usize) -> Self {
        Self::on(&vec![Release::Machine; hosts])
    }

    /// The same, one host of each of these releases.
    ///
    /// # Panics
    /// When the lab cannot be built, or a release is missing.
    #[must_use]
    pub fn on(releases: &[Release]) -> Self {
        let mut lab = Lab::new().unwrap();
        let folder = lab.directory().to_owned();
        let sites = releases.iter().zip(1..).map(|(release, number)| {
            let name = format!("host-{number}");
            let host = match release.root() {
                Some(root) => lab.host_of(&name, &root),
                None => lab.host(&name),
            };
            let host = Arc::new(host.unwrap());
            let log = folder.join(format!("agent-{number}.log"));
            let agent = Daemon::new(host.clone(), log, &["agent", "--control", "192.0.2.11:7443"]);
            Site::new(host, agent)
        });
        let sites: Vec<Site> = sites.collect();
        let log = folder.join("control.log");
        let control = Daemon::new(sites[0].host.clone(), log, &["control", "--listen", "0.0.0.0:7443"]);
        Self { control, others: vec![], controls: "192.0.2.11:7443".to_owned(), sites, lab }
    }

    /// Folder of the processes' logs.
    pub(crate) fn directory(&self) -> std::path::PathBuf {
        self.lab.directory().to_owned()
    }

    /// Waits until control answers.
    ///
    /// # Panics
    /// When it ends or does not.
    #[track_caller]
    pub fn await_control(&mut self) {
        eventually(PATIENCE, "control answers", || {
            self.control.assert_runs();
            self.sealane(&["node", "ls"]).status.success().then_some(())
        });
    }

    /// A token for one who joins.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn token(&self) -> String {
        let created = self.sealane(&["token", "create"]).ok();
        created.stdout.lines().last().unwrap().to_owned()
    }

    /// Starts the agent of a host with a token of its own.
    #[track_caller]
    pub fn join(&mut self, number: usize) {
        let token = self.token();
        self.join_by(number, &token);
    }

    /// Starts the agent of a host with this token.
    #[track_caller]
    pub fn join_by(&mut self, number: usize, token: &str) {
        let log = self.lab.directory().join(format!("agent-{number}.log"));
        let controls = self.controls.clone();
        let site = self.site_mut(number);
        let arguments = ["agent", "--control", &controls, "--token", token];
        site.agent = Daemon::new(site.host.clone(), log, &arguments);
        site.agent.start();
    }

    /// Starts the agent of a host with these flags, beside where control is unless they say so.
    pub fn restart_agent(&mut self, number: usize, flags: &[&str]) {
        let log = self.lab.directory().join(format!("agent-{number}.log"));
        let site = self.site_mut(number);
        let control: &[&str] =
            if flags.contains(&"--control") { &[] } else { &["--control", "192.0.2.11:7443"] };
        let arguments = [&["agent"], control, flags].concat();
        site.agent = Daemon::new(site.host.clone(), log, &arguments);
        site.agent.start();
    }

    /// The host with this number, from 1 on.
    #[must_use]
    #[track_caller]
    pub fn site(&self, number: usize) -> &Site {
        &self.sites[number - 1]
    }

    /// The same, to start and end things.
    #[must_use]
    #[track_caller]
    pub fn site_mut(&mut self, number: usize) -> &mut Site {
        &mut self.sites[number - 1]
    }

    /// All hosts.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter()
    }

    /// Runs a verb on the control host.
    #[must_use]
    #[track_caller]
    pub fn sealane(&self, arguments: &[&str]) -> Finished {
        self.sites[0].sealane(arguments)
    }

    /// Runs a verb on the control host and returns its JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.sealane(&[arguments, &["-o", "json"]].concat()).json()
    }

    /// Waits until control and every host that carries `shop` see this many ready instances of a service.
    ///
    /// # Panics
    /// When one does not.
    #[track_caller]
    pub fn await_instances(&self, service: &str, ready: u64) {
        let what = format!("control sees {ready} ready instances of {service}");
        eventually(PATIENCE, &what, || {
            let services = self.json(&["service", "ls", "--network", "shop"]);
            let of = services.as_array().unwrap().iter().find(|view| view["name"] == service);
            (of.map_or(0, |view| view["ready"].as_u64().unwrap()) == ready).then_some(())
        });
        for site in &self.sites {
            let networks = site.json(&["network", "ls"]);
            if networks.as_array().unwrap().iter().any(|network| network["name"] == "shop") {
                site.await_instances(service, ready);
            }
        }
    }

    /// Waits until control sees every host connected.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn await_connected(&self) {
        eventually(PATIENCE, "every host is connected", || {
            let nodes = self.json(&["node", "ls"]);
            nodes.as_array().unwrap().iter().all(|node| node["connected"] == true).then_some(())
        });
    }

    /// Records what crosses the underlay.
    ///
    /// # Panics
    /// When that cannot be done.
    #[must_use]
    pub fn capture(&self) -> Capture {
        self.lab.capture().unwrap()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.control.tail());
            for site in &self.sites {
                eprintln!("{}", site.agent.tail());
            }
        }
    }
}
