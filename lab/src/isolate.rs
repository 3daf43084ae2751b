//! Entering namespaces that end with their owner.
//!
//! [`start`] runs a program in new pid, mount, network, UTS and IPC namespaces. Their first process is a forked copy
//! of the caller that does nothing but reap; it is killed when the caller ends, and the kernel then kills the rest
//! and frees what they held. The program is its child, so it may leave zombies and ignore signals as elsewhere.

mod groups;
mod init;
mod test;

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use sealane_sys::Process;

use crate::LabError;

pub use test::isolated;

/// Set inside, to the label that [`start`] was given.
pub(crate) const VARIABLE: &str = "SEALANE_LAB";

/// Set inside, to what [`control_group`] returns.
const GROUP: &str = "SEALANE_LAB_GROUP";

/// The label of the isolation that this process runs in, if it does.
#[must_use]
pub fn label() -> Option<String> {
    env::var(VARIABLE).ok().filter(|label| !label.is_empty())
}

/// The name of the control group, in every hierarchy, below which programs of the isolation make theirs: control groups are the machine's
/// alone. [`Isolated::wait`] removes it.
#[must_use]
pub fn control_group() -> Option<String> {
    env::var(GROUP).ok().filter(|group| !group.is_empty())
}

/// A program in namespaces of its own. Dropping it does not end it; the end of this process does.
#[derive(Debug)]
pub struct Isolated {
    first: Process,
    owner: JoinHandle<io::Result<ExitStatus>>,
    group: String,
}

/// Folders to look for programs in: the system's, and only then those of this process's `PATH`. Shims that stand in front of the
/// system's programs (pyenv's, for one) need homes and working folders that a host of the lab does not have.
#[must_use]
pub fn search_path() -> OsString {
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let own = env::var_os("PATH").unwrap_or_default();
    let folders = system.into_iter().chain(env::split_paths(&own));
    env::join_paths(folders).unwrap_or(own)
}

/// Starts `command` in namespaces of its own, with [`search_path`], in a process group of its own, so that Ctrl-C reaches the caller alone.
///
/// Inside, `label` is what [`label`] returns.
///
/// # Errors
/// Without root, or when the kernel refuses.
pub fn start(mut command: Command, label: &str) -> Result<Isolated, LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NeedsRoot);
    }
    let group = groups::name();
    command.env(VARIABLE, label).env(GROUP, &group).env("PATH", search_path());
    let own = Process::open(std::process::id()).map_err(|error| LabError::System {
        what: "watch this process".into(),
        source: io::Error::other(error),
    })?;
    let fail = || LabError::system::<io::Error>("start a program in namespaces of its own");
    let (started, start) = mpsc::sync_channel(1);
    // Both the new pid namespace for children and the parent whose death kills are a thread's, not a process's:
    // this thread starts the program and lives as long as it.
    let owner = thread::Builder::new().name("lab-owner".into()).spawn(move || {
        let mut child = match init::spawn(command, own) {
            Ok(child) => child,
            Err(error) => {
                let _ = started.send(Err(error));
                return Err(io::Error::other("not started"));
            }
        };
        let _ = started.send(Process::of_child(&child).map_err(io::Error::other));
        child.wait()
    });
    let owner = owner.map_err(fail())?;
    let first = start.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended"))).map_err(fail())?;
    Ok(Isolated { first, owner, group })
}

impl Isolated {
    /// Waits for the program's end; one that a signal ended has 128 plus the signal as its exit code. Everything
    /// inside has ended by then.
    ///
    /// # Errors
    /// When the program cannot be waited for.
    pub fn wait(self) -> io::Result<ExitStatus> {
        let ended =
            self.owner.join().unwrap_or_else(|_| Err(io::Error::other("the thread that waits panicked")));
        groups::remove(&self.group);
        ended
    }

    /// A handle that ends everything inside at once, from any thread.
    #[must_use]
    pub fn first_process(&self) -> &Process {
        &self.first
    }
}
