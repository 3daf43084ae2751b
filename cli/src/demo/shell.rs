//! `sealane demo shell`: a process on a host of the demo that runs.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use sealane_sys::fdpass;
use sealane_sys::spawn::SpawnExt;

use super::outer::{no_such_host, socket_address};
use crate::failure::{Exit, Failure};

/// Runs the command and ends this process with its status; returns when it could not be started.
pub(super) fn run(host: &str, command: Vec<OsString>) -> Failure {
    match start(host, command) {
        Ok(status) => std::process::exit(status),
        Err(failure) => failure,
    }
}

fn start(host: &str, command: Vec<OsString>) -> Result<i32, Failure> {
    let fail = || Failure::of(format!("cannot enter {host}"));
    let demo = socket_address().and_then(|address| UnixStream::connect_addr(&address)).map_err(|_| {
        Failure::new("no demo runs on this machine")
            .exit(Exit::Unreachable)
            .hint("start one with `sealane demo`")
    })?;
    (&demo).write_all(host.as_bytes()).map_err(fail())?;
    let mut namespaces = Vec::new();
    fdpass::recv(&demo, &mut [0; 8], &mut namespaces).map_err(fail())?;
    let pids = namespaces.pop().ok_or_else(|| no_such_host(host))?;
    // Children alone change their pid namespace; this process stays to wait for the one.
    setns(&pids, CloneFlags::CLONE_NEWPID).map_err(|errno| fail()(io::Error::from(errno)))?;
    // Ctrl-C is the command's; the child starts with no signal blocked.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGQUIT);
    signals.thread_block().map_err(|errno| fail()(io::Error::from(errno)))?;
    let status = program(host, command).enter(namespaces).status().map_err(|error| {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::NotExecutable };
        fail()(error).exit(exit)
    })?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// The command, or a shell that says where it is; `sealane` is this program there.
fn program(host: &str, command: Vec<OsString>) -> Command {
    let mut words = command.into_iter();
    let mut program = match words.next() {
        Some(first) => Command::new(first),
        None if Path::new("/bin/bash").exists() => {
            let mut bash = Command::new("/bin/bash");
            bash.args(["--norc", "--noprofile"]);
            bash
        }
        None => Command::new("/bin/sh"),
    };
    program.args(words);
    let prompt = if io::stdin().is_terminal() { format!("{host}# ") } else { String::new() };
    program.env("PS1", prompt);
    let own = env::current_exe().ok().and_then(|file| Some(file.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    if let Ok(path) = env::join_paths(own.into_iter().chain(env::split_paths(&path))) {
        program.env("PATH", path);
    }
    program
}
