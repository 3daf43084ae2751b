//! Process of Sealane's own.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sealane_lab::Host;

use crate::{PATIENCE, eventually, sealane};

/// A process that can be killed and started again with the same command line.
#[derive(Debug)]
pub struct Daemon {
    host: Arc<Host>,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    pub(crate) fn new(host: Arc<Host>, log: PathBuf, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { host, arguments, log, child: None }
    }

    /// Starts it, if it does not run.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&mut self) {
        if self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none()) {
            return;
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.host.command(sealane().to_str().unwrap());
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Returns the process id.
    ///
    /// # Panics
    /// When it was not started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Ends it without a chance to say anything.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn kill9(&mut self) {
        let mut child = self.child.take().unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it had ended before:\n{}", self.tail());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end (SIGTERM) and waits for the end.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        let child = self.child.as_ref().unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.end()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        eventually(PATIENCE, "the process ends", || child.try_wait().unwrap())
    }

    /// Fails the test when it has ended.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn assert_runs(&mut self) {
        let ended = self.child.as_mut().unwrap().try_wait().unwrap();
        assert!(ended.is_none(), "sealane {} ended: {ended:?}\n{}", self.arguments.join(" "), self.tail());
    }

    /// All it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The newest lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let newest = &lines[lines.len().saturating_sub(60)..];
        format!("--- {}\n{}\n", self.log.display(), newest.join("\n"))
    }
}
