//! One thread per process that hops between network namespaces.
//!
//! setns(2) is per thread and a socket stays in the namespace it was made in, so one thread that enters a
//! namespace, makes a socket (or starts a process) and comes back serves every namespace of the process.

use std::io;
use std::sync::mpsc;
use std::thread;

use crate::netns::{NetNs, NetNsError};

/// What is done in a namespace, or with the news that it cannot be entered.
type Job = Box<dyn FnOnce(Result<(), NetNsError>) + Send>;

/// The hopping thread. Jobs run one after another; each must be short and must not block on the network.
#[derive(Debug)]
pub struct Hopper {
    jobs: mpsc::Sender<(NetNs, Job)>,
}

impl Hopper {
    /// Starts the thread; it ends when the `Hopper` is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started or its own namespace not be opened.
    pub fn start() -> io::Result<Self> {
        let home = NetNs::current().map_err(io::Error::other)?;
        let (jobs, queue) = mpsc::channel::<(NetNs, Job)>();
        thread::Builder::new().name("netns-hop".into()).spawn(move || {
            for (ns, job) in queue {
                if let Err(error) = ns.enter() {
                    job(Err(error));
                    continue;
                }
                job(Ok(()));
                if home.enter().is_err() {
                    return; // Never run a job in a namespace that it did not ask for.
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Runs `job` in `ns` and returns what it returned. Child processes that it starts live in `ns`.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the job panicked.
    pub fn run<T: Send + 'static>(
        &self,
        ns: &NetNs,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (answer, wait) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |entered| {
            let result = entered.map(|()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).ok());
            // The caller waits below; it is gone only if its thread died.
            let _ = answer.send(result);
        });
        self.jobs.send((ns.try_clone()?, job)).map_err(|_| io::Error::other("the namespace thread ended"))?;
        match wait.recv() {
            Ok(Ok(Some(value))) => Ok(value),
            Ok(Ok(None)) => Err(io::Error::other("a job in a network namespace panicked")),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::other("the namespace thread ended")),
        }
    }
}
