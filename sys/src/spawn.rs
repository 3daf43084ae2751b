//! Starting processes in other namespaces.
#![allow(
    unsafe_code,
    reason = "Command::pre_exec is unsafe, each hook makes only system calls; close_range(2) of what nobody owns"
)]

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use rustix::process::{Signal, set_parent_process_death_signal, setsid};

/// Steps that a child takes between fork and exec.
pub trait SpawnExt {
    /// Enters the namespaces behind these descriptors, in this order (their kind is the descriptor's own).
    fn enter<N: AsFd + Send + Sync + 'static>(&mut self, namespaces: Vec<N>) -> &mut Self;

    /// Is killed when the thread that started it ends.
    fn die_with_parent(&mut self) -> &mut Self;

    /// Leads a session of its own: no terminal, no signals of its starter's process group.
    fn detached(&mut self) -> &mut Self;
}

/// Leaves the session of whoever started this process and closes all descriptors that it was given but standard input,
/// output and error. A process that does so itself can be started without a copy of its starter (posix_spawn(3)), which
/// takes the longer the more memory that has.
///
/// To be called first of all: nothing of the process's own may be open.
pub fn stand_alone() {
    // Who leads a group of processes was started alone.
    let _ = setsid();
    // Kernels before 5.9 do not have it; whatever is ours was closed by exec.
    // SAFETY: nothing of this process owns a descriptor from 3 on yet, as the caller has promised.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

impl SpawnExt for Command {
    fn enter<N: AsFd + Send + Sync + 'static>(&mut self, namespaces: Vec<N>) -> &mut Self {
        let hook = move || {
            for ns in &namespaces {
                setns(ns, CloneFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: setns(2) only; no allocation, no locks.
        unsafe { self.pre_exec(hook) }
    }

    fn die_with_parent(&mut self) -> &mut Self {
        let hook = || set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
        // SAFETY: prctl(2) only.
        unsafe { self.pre_exec(hook) }
    }

    fn detached(&mut self) -> &mut Self {
        let hook = || setsid().map(drop).map_err(io::Error::from);
        // SAFETY: setsid(2) only.
        unsafe { self.pre_exec(hook) }
    }
}
