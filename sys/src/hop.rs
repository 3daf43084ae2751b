//! Work in another network namespace, by the thread that asks for it.
//!
//! setns(2) is per thread and a socket stays in the namespace it was made in, so a thread that enters a namespace, makes a
//! socket (or starts a process) and comes back serves every namespace of the process. Two system calls each way are far
//! less than waking a thread of its own for each job.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;

use crate::netns::NetNs;

/// The right to work in other namespaces.
#[derive(Debug)]
pub struct Hopper(());

impl Hopper {
    /// Finds out whether the way back can be had.
    ///
    /// # Errors
    /// When the thread's own namespace cannot be opened.
    pub fn start() -> io::Result<Self> {
        NetNs::current().map(|_| Self(())).map_err(io::Error::other)
    }

    /// Runs `job` in `ns` and returns what it returned. Child processes that it starts live in `ns`. Each must be short and
    /// must not block on the network.
    ///
    /// A thread that could not come back would work for others in a namespace that they did not ask for: the process ends
    /// instead. The kernel has no reason to refuse it.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the job panicked.
    pub fn run<T>(&self, ns: &NetNs, job: impl FnOnce() -> T) -> io::Result<T> {
        let home = NetNs::current().map_err(io::Error::other)?;
        ns.enter().map_err(io::Error::other)?;
        let done = catch_unwind(AssertUnwindSafe(job));
        if home.enter().is_err() {
            process::abort();
        }
        done.map_err(|_| io::Error::other("a job in a network namespace panicked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> u64 {
        NetNs::current().unwrap().inode().unwrap()
    }

    #[test]
    fn a_job_is_done_in_its_namespace_and_its_thread_is_at_home_again_also_after_a_panic() {
        let (hopper, other, home) = (Hopper::start().unwrap(), NetNs::anonymous().unwrap(), here());
        assert_eq!(hopper.run(&other, here).unwrap(), other.inode().unwrap());
        assert_eq!(here(), home);
        assert!(hopper.run(&other, || -> u8 { panic!("as it should") }).is_err());
        assert_eq!(here(), home);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(hopper.run(&NetNs::from(std::os::fd::OwnedFd::from(file)), here).is_err());
        assert_eq!(here(), home);
    }
}
