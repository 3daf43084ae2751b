//! Stage of the tour: hosts, the processes on them, and the questions to them.

mod load;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use sealane_lab::{Host, Lab};
use sealane_sys::Process;
use serde_json::Value;

use super::flaw::{Flaw, ensure};

pub(super) use load::Load;

/// Length of a log that is shown when a claim does not hold.
const LOG_TAIL: u64 = 2_000;

/// Hosts, and the processes on them by the name of their log.
pub(super) struct Stage {
    lab: Lab,
    hosts: Vec<Host>,
    binary: PathBuf,
    processes: BTreeMap<String, Child>,
}

impl Stage {
    /// Empty hosts `host-1` and so on.
    pub(super) fn new(hosts: u8) -> Result<Self, Flaw> {
        let binary = env::current_exe().map_err(Flaw::of("cannot find this program's file"))?;
        let mut lab = Lab::new().map_err(Flaw::of("lab"))?;
        let hosts = (1..=hosts)
            .map(|number| lab.host(&format!("host-{number}")))
            .collect::<Result<_, _>>()
            .map_err(Flaw::of("lab"))?;
        Ok(Self { lab, hosts, binary, processes: BTreeMap::new() })
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(super) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The first host, which runs control and the client.
    pub(super) fn first(&self) -> &Host {
        &self.hosts[0]
    }

    /// Starts `sealane ARGUMENTS` on a host; what it says goes to a log of this name.
    pub(super) fn start(&mut self, host: usize, log: &str, arguments: &[&str]) -> Result<(), Flaw> {
        self.start_with(host, log, arguments, &[])
    }

    /// Starts as [`Stage::start`] does, with these variables: a token has no business in a process list.
    pub(super) fn start_with(
        &mut self,
        host: usize,
        log: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<(), Flaw> {
        let fail = || Flaw::of(format!("cannot start sealane {}", arguments.join(" ")));
        let mut options = File::options();
        let file = options.create(true).append(true).open(self.log_path(log)).map_err(fail())?;
        let copy = file.try_clone().map_err(fail())?;
        let mut command = self.sealane(&self.hosts[host]);
        command.args(arguments).envs(variables.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(file).stderr(copy).spawn().map_err(fail())?;
        self.processes.insert(log.to_owned(), child);
        Ok(())
    }

    /// Fails for good when a process that was started has ended by itself.
    pub(super) fn runs(&self, log: &str) -> Result<(), Flaw> {
        let ended = || Flaw::hopeless(format!("{log} has ended"));
        let child = self.processes.get(log).ok_or_else(ended)?;
        Process::open(child.id()).map(drop).map_err(|_| ended())
    }

    /// Ends a process as a crash would: kill -9.
    pub(super) fn kill(&mut self, log: &str) -> Result<(), Flaw> {
        let mut child = self.processes.remove(log).ok_or_else(|| Flaw::new(format!("{log} does not run")))?;
        child.kill().and_then(|()| child.wait()).map_err(Flaw::of(format!("cannot kill {log}")))?;
        Ok(())
    }

    /// Runs `sealane ARGUMENTS` on a host and returns what it printed.
    pub(super) fn ask(&self, host: &Host, arguments: &[&str]) -> Result<String, Flaw> {
        let output = self.output(host, arguments)?;
        ensure(output.status.success(), || {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("`sealane {}` on {} says {}", arguments.join(" "), host.name(), said.trim())
        })?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Runs `sealane ARGUMENTS -o json` on a host and returns what it printed, read.
    pub(super) fn ask_json(&self, host: &Host, arguments: &[&str]) -> Result<Value, Flaw> {
        let arguments = [arguments, &["-o", "json"]].concat();
        let text = self.ask(host, &arguments)?;
        serde_json::from_str(&text).map_err(Flaw::of(format!("sealane {}", arguments.join(" "))))
    }

    /// Runs a command in the client's workload on the first host and returns what it printed.
    pub(super) fn web(&self, command: &[&str]) -> Result<String, Flaw> {
        self.ask(self.first(), &[&["exec", "web", "--"], command].concat())
    }

    /// Lets the client call `api` this often, 10 at a time, and returns the answers, a line each.
    pub(super) fn calls(&self, count: usize, flags: &[&str]) -> Result<String, Flaw> {
        let url = format!("http://api:8080/?[1-{count}]");
        let curl = ["curl", "-sS", "--max-time", "10", "--parallel", "--parallel-max", "10"];
        self.web(&[&curl, flags, &[&url]].concat())
    }

    /// Runs `sealane ARGUMENTS` on a host.
    pub(super) fn output(&self, host: &Host, arguments: &[&str]) -> Result<Output, Flaw> {
        let mut command = self.sealane(host);
        command.args(arguments).stdin(Stdio::null());
        command.output().map_err(Flaw::of(format!("cannot run sealane {}", arguments.join(" "))))
    }

    fn sealane(&self, host: &Host) -> Command {
        let mut command = host.command(&self.binary.to_string_lossy());
        // What the user has set is not meant for these hosts.
        for variable in ["SEALANE_SOCKET", "SEALANE_RUN_DIR", "SEALANE_DATA_DIR"] {
            command.env_remove(variable);
        }
        command
    }

    /// The metrics of a host's agent, as Prometheus would read them.
    pub(super) fn metrics(&self, host: &Host) -> Result<String, Flaw> {
        let mut curl = host.command("curl");
        let output = curl.args(["-sSf", "--max-time", "10", "http://127.0.0.1:9464/metrics"]).output();
        let output = output.map_err(Flaw::of("cannot run curl"))?;
        ensure(output.status.success(), || {
            format!("{} serves no metrics: {}", host.name(), String::from_utf8_lossy(&output.stderr).trim())
        })?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The ends of the logs, for the one who has to find out what went wrong.
    pub(super) fn log_tails(&self) -> String {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.lab.directory())
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default();
        files.retain(|path| path.extension() == Some(OsStr::new("log")));
        files.sort();
        let tails = files.iter().filter_map(|path| {
            let name = path.file_stem()?.to_string_lossy().into_owned();
            let tail = tail(path)?;
            (!tail.trim().is_empty()).then(|| format!("--- {name}\n{}\n", tail.trim_end()))
        });
        tails.collect()
    }

    fn log_path(&self, log: &str) -> PathBuf {
        self.lab.directory().join(format!("{log}.log"))
    }
}

fn tail(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // From the first whole line on.
    Some(if length > LOG_TAIL {
        text.split_once('\n').map_or(text.clone(), |(_, rest)| rest.to_owned())
    } else {
        text
    })
}
