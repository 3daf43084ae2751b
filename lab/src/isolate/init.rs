//! The first process of a pid namespace.
#![allow(
    unsafe_code,
    reason = "fork and Command::pre_exec are unsafe; only system calls are made between them and exec"
)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{ForkResult, Pid, fork, setpgid};
use sealane_sys::spawn::SpawnExt;
use sealane_sys::{Process, mounts};

/// Starts `command` as the second process of new namespaces; the [`Child`] is the first one.
pub(super) fn spawn(mut command: Command, owner: Process) -> io::Result<Child> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    command.die_with_parent();
    let hook = move || {
        if owner.has_ended() {
            return Err(Errno::ESRCH.into()); // It ended before its death could kill.
        }
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)?;
        mounts::unshare_mounts()?;
        mounts::procfs()?;
        // /sys of another network namespace misleads, but not having sysfs is no reason to end.
        let _ = mounts::sysfs();
        // SAFETY: after the fork of a process with threads, both sides make only system calls: the child goes on
        // to exec, the parent to `reap`, which does not return.
        match unsafe { fork() }? {
            ForkResult::Child => Ok(()),
            ForkResult::Parent { child } => reap(child),
        }
    };
    // SAFETY: the hook makes only system calls; the paths it mounts are short and copied on the stack.
    unsafe { command.pre_exec(hook) };
    command.spawn()
}

/// Reaps whatever ends until `program` does, and ends with its status.
fn reap(program: Pid) -> ! {
    // Handlers of the process that this one was forked from must not run here.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
    // SAFETY: closes every descriptor of this process, none of which is used from here on; whoever waits for the
    // end of a pipe (Command::spawn for one) must not wait for this process.
    unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    loop {
        let code = match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => 128 + signal as i32,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => 1,
        };
        // SAFETY: ends the process without running what the forked-from process registered for its exit.
        unsafe { libc::_exit(code) };
    }
}
