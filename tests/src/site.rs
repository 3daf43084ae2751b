//! A host of the mesh.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealane_lab::Host;
use sealane_sys::Process;
use serde_json::Value;

use crate::{Daemon, Finished, Load, Metrics, PATIENCE, Running, eventually, sealane, testapp};

/// A host and the agent on it.
#[derive(Debug)]
pub struct Site {
    /// The host.
    pub host: Arc<Host>,
    /// Agent of the host.
    pub agent: Daemon,
}

impl Site {
    pub(crate) fn new(host: Arc<Host>, agent: Daemon) -> Self {
        Self { host, agent }
    }

    /// Runs a program on the host to its end.
    #[must_use]
    #[track_caller]
    pub fn command(&self, program: &str, arguments: &[&str]) -> Finished {
        self.begin(program, arguments).wait()
    }

    /// Runs a script of shell on the host; returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.command("sh", &["-ec", script]).ok().stdout
    }

    /// Starts a program on the host.
    #[must_use]
    #[track_caller]
    pub fn begin(&self, program: &str, arguments: &[&str]) -> Running {
        let mut command = self.host.command(program);
        command.args(arguments);
        Running::start(command)
    }

    /// Starts a program on the host and waits until it has said `word`.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    #[track_caller]
    pub fn start(&self, program: &str, arguments: &[&str], word: &str) -> Running {
        let mut running = self.begin(program, arguments);
        running.wait_for(word);
        running
    }

    /// Starts an HTTP server in the network namespace at a path, by no means of Sealane's; it answers with `name`.
    ///
    /// # Panics
    /// When it does not listen.
    #[must_use]
    #[track_caller]
    pub fn serve_in(&self, namespace: &str, port: &str, name: &str) -> Running {
        let net = format!("--net={namespace}");
        self.start("nsenter", &[&net, testapp().to_str().unwrap(), "http", port, name], "listening")
    }

    /// Runs a verb to its end.
    #[must_use]
    #[track_caller]
    pub fn sealane(&self, arguments: &[&str]) -> Finished {
        self.command(sealane().to_str().unwrap(), arguments)
    }

    /// Starts an etcd of one member on the host, whose state outlives it.
    #[must_use]
    #[track_caller]
    pub fn etcd(&self, address: &str) -> Running {
        let url = format!("http://{address}");
        let flags = ["--name", "one", "--data-dir", "/var/lib/etcd", "--max-txn-ops", "16384"];
        let urls = ["--listen-client-urls", &url, "--advertise-client-urls", &url];
        let etcd = self.begin("/usr/bin/etcd", &[&flags[..], &urls[..]].concat());
        self.await_port(address);
        etcd
    }

    /// Waits until somebody listens at an address.
    #[track_caller]
    pub(crate) fn await_port(&self, address: &str) {
        let (host, port) = address.split_once(':').unwrap();
        crate::eventually(crate::PATIENCE, "somebody listens", || {
            let look = format!("exec 3<>/dev/tcp/{host}/{port}");
            self.command("bash", &["-c", &look]).status.success().then_some(())
        });
    }

    /// State of the host's control plane, in its own words; `None` when none answers.
    #[must_use]
    #[track_caller]
    pub fn control_status(&self) -> Option<Value> {
        let asked = self.sealane(&["status", "-o", "json", "--socket", "/run/sealane/control.sock"]);
        serde_json::from_str(&asked.stdout).ok()
    }

    /// Asks the host's agent by a reading verb and returns its JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.sealane(&[arguments, &["-o", "json", "--socket", "/run/sealane/agent.sock"]].concat()).json()
    }

    /// Starts a command as a workload, with the words between `run` and `--`.
    #[must_use]
    #[track_caller]
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Running {
        let mut run = self.host.command(sealane().to_str().unwrap());
        run.arg("run").args(flags).arg("--").args(command);
        Running::start(run)
    }

    /// Starts a command in the network `shop`.
    #[must_use]
    #[track_caller]
    pub fn shop(&self, command: &[&str]) -> Running {
        self.run(&["--network", "shop"], command)
    }

    /// Runs a command in the namespace of a workload to its end.
    #[must_use]
    #[track_caller]
    pub fn exec(&self, workload: &str, command: &[&str]) -> Finished {
        self.sealane(&[&["exec", workload, "--"], command].concat())
    }

    /// Asks a URL from a new workload of `shop`.
    #[must_use]
    #[track_caller]
    pub fn curl(&self, url: &str) -> Finished {
        self.shop(&["curl", "-sS", "--max-time", "10", url]).wait()
    }

    /// Asks a URL from a workload that is there.
    #[must_use]
    #[track_caller]
    pub fn curl_as(&self, workload: &str, url: &str) -> Finished {
        self.exec(workload, &["curl", "-sS", "--max-time", "10", url])
    }

    /// Starts an instance `name` of `service` in `shop`: an HTTP server on port 8080 that answers with its name.
    ///
    /// # Panics
    /// When it does not listen.
    #[must_use]
    #[track_caller]
    pub fn serve(&self, service: &str, name: &str) -> Running {
        let flags = ["--network", "shop", "--service", service, "--port", "8080", "--name", name];
        let mut server = self.run(&flags, &[testapp().to_str().unwrap(), "http", "8080", name]);
        server.wait_for("listening");
        server
    }

    /// Starts requests from a workload `name` of `shop` that go on until they are stopped.
    ///
    /// # Panics
    /// When none is answered.
    #[must_use]
    #[track_caller]
    pub fn load(&self, name: &str, arguments: &[&str]) -> Load {
        let program = testapp();
        let command = [&[program.to_str().unwrap(), "load"], arguments].concat();
        Load::of(self.run(&["--network", "shop", "--name", name], &command))
    }

    /// Returns the findings of `check` in an area: verdicts and words.
    #[must_use]
    #[track_caller]
    pub fn findings(&self, area: &str) -> Vec<(String, String)> {
        let checked = self.sealane(&["check", "-o", "json"]);
        let all: Value =
            serde_json::from_str(&checked.stdout).unwrap_or_else(|error| panic!("{error}: {checked}"));
        let word = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
        let of = all.as_array().unwrap().iter().filter(|finding| finding["area"] == area);
        of.map(|finding| (word(finding, "verdict"), word(finding, "finding"))).collect()
    }

    /// Waits until the agent is ready.
    ///
    /// # Panics
    /// When it ends or does not get there.
    #[track_caller]
    pub fn await_ready(&mut self) {
        let what = format!("the agent of {} is ready", self.host.name());
        eventually(PATIENCE, &what, || {
            self.agent.assert_runs();
            self.http("/ready").is_some_and(|(status, _)| status == 200).then_some(())
        });
    }

    /// Waits until this host sees as many ready instances of a service of `shop`.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn await_instances(&self, service: &str, ready: u64) {
        let what = format!("{} sees {ready} ready instances of {service}", self.host.name());
        eventually(PATIENCE, &what, || (self.instances(service) == ready).then_some(()));
    }

    /// Returns the number of ready instances of a service of `shop` that this host sees.
    #[must_use]
    #[track_caller]
    pub fn instances(&self, service: &str) -> u64 {
        let services = self.json(&["service", "ls", "--network", "shop"]);
        let of = services.as_array().unwrap().iter().find(|view| view["name"] == service);
        of.map_or(0, |view| view["ready"].as_u64().unwrap())
    }

    /// A workload as this host's agent sees it.
    #[must_use]
    #[track_caller]
    pub fn workload(&self, name: &str) -> Option<Value> {
        let workloads = self.json(&["workload", "ls"]);
        workloads.as_array().unwrap().iter().find(|view| view["name"] == name).cloned()
    }

    /// Waits until this host's agent lists a workload no more.
    ///
    /// # Panics
    /// When it goes on to.
    #[track_caller]
    pub fn await_gone(&self, workload: &str) {
        let what = format!("workload {workload} is gone");
        eventually(PATIENCE, &what, || self.workload(workload).is_none().then_some(()));
    }

    /// The problems that the host's agent tells of, as JSON: `[]` when all is well.
    #[must_use]
    #[track_caller]
    pub fn problems(&self) -> String {
        self.json(&["status"])["problems"].to_string()
    }

    /// The agent's metrics.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let (status, body) = self.http("/metrics").unwrap_or_else(|| panic!("nobody answers at port 9464"));
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// Asks the agent's metrics port; `None` when nobody answers.
    #[must_use]
    pub fn http(&self, path: &str) -> Option<(u16, String)> {
        let mut connection = self.host.within(|| TcpStream::connect("127.0.0.1:9464")).unwrap().ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(connection, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Pids of Sealane's processes of this host that run this verb, such as `proxy`.
    ///
    /// # Panics
    /// When /proc cannot be read.
    #[must_use]
    pub fn processes(&self, verb: &str) -> Vec<u32> {
        let own = self.host.within(|| fs::read_link("/proc/thread-self/ns/mnt").unwrap()).unwrap();
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut found: Vec<u32> = pids
            .filter(|pid: &u32| {
                let folder = Path::new("/proc").join(pid.to_string());
                let here = fs::read_link(folder.join("ns/mnt")).is_ok_and(|link| link == own);
                let line = fs::read(folder.join("cmdline")).unwrap_or_default();
                here && line.split(|byte| *byte == 0).nth(1) == Some(verb.as_bytes())
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Ends everything of Sealane on this host as a reboot does: processes, namespaces, links, rules, what is not on
    /// disk. The next agent finds another boot.
    ///
    /// # Panics
    /// When the agent does not run.
    #[track_caller]
    pub fn power_off(&mut self) {
        self.agent.kill9();
        for pid in ["keep", "proxy"].iter().flat_map(|verb| self.processes(verb)) {
            Process::open(pid).unwrap().kill().unwrap();
        }
        let script = "for p in $(awk '{print $5}' /proc/self/mountinfo | grep -e ^/run/sealane -e ^/run/netns/ | tac); \
                      do umount -l $p || ! mountpoint -q $p; done; rm -rf /run/sealane /run/netns/*; nft flush ruleset; \
                      cat /proc/sys/kernel/random/uuid > /run/boot_id; \
                      mount --bind /run/boot_id /proc/sys/kernel/random/boot_id";
        let _ = self.sh(script);
    }

    /// Kills the host's keep.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[track_caller]
    pub fn kill9_keep(&self) {
        let keeps = self.processes("keep");
        assert_eq!(keeps.len(), 1, "keep runs once on {}: {keeps:?}", self.host.name());
        Process::open(keeps[0]).unwrap().kill().unwrap();
    }
}
