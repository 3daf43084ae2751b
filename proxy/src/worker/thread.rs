//! The thread that a worker runs on.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;

use sealane_base::task::Task;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use super::{Plan, Worker};
use crate::dial;
use crate::listen::Listener;
use crate::snapshot::Snapshot;
use crate::tunnel::AwayPeers;

/// Command to a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept here from now on.
    Listen(Listener, StdListener),
    /// Work by this, and say so.
    Apply(Arc<Snapshot>, oneshot::Sender<()>),
    /// Know which peers cannot be reached.
    Away(AwayPeers),
    /// Say that it has its turn.
    Turn(oneshot::Sender<()>),
    /// Say which addresses of the network mattered to calls since this was asked last.
    Used(oneshot::Sender<HashSet<Ipv4Addr>>),
}

/// A running worker. Dropping it ends the thread and everything that runs there.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl WorkerThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no thread or no event loop.
    pub(crate) fn start(index: usize, plan: Plan) -> io::Result<Self> {
        let (commands, inbox) = mpsc::channel(16);
        let (made, runtime) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            // Its tasks wake each other without a system call, which those of a `LocalSet` do not.
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let (runtime, outcome) = match runtime {
                Ok(runtime) => (Some(runtime), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // The starting thread waits for it.
            let _ = made.send(outcome);
            if let Some(runtime) = runtime {
                runtime.block_on(run(plan, inbox));
            }
        })?;
        let worker = Self { commands: Some(commands), thread: Some(thread) };
        runtime.recv().map_err(io::Error::other)??;
        Ok(worker)
    }

    /// Tells the worker something; false when it has died.
    pub(crate) async fn tell(&self, command: Command) -> bool {
        match &self.commands {
            Some(commands) => commands.send(command).await.is_ok(),
            None => false,
        }
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

async fn run(plan: Plan, mut inbox: mpsc::Receiver<Command>) {
    let mut draining = plan.draining.clone();
    let worker = Worker::new(plan);
    let mut listeners: Vec<Task> = Vec::new();
    // Calls that come before the first configuration wait in the sockets' queues: nobody knows where they go.
    let mut early = Vec::new();
    loop {
        tokio::select! {
            () = draining.begun() => break,
            command = inbox.recv() => match command {
                None => return,
                Some(Command::Listen(listener, socket)) if worker.current.get().is_none() => {
                    early.push((listener, socket));
                }
                Some(Command::Listen(listener, socket)) => listeners.extend(listen_on(&worker, listener, socket)),
                Some(Command::Apply(snapshot, done)) => {
                    worker.apply(snapshot);
                    let early = early.drain(..);
                    listeners.extend(early.filter_map(|(listener, socket)| listen_on(&worker, listener, socket)));
                    // An error means that nobody waits any more.
                    let _ = done.send(());
                }
                Some(Command::Away(peers)) => worker.outbound.set_away(&peers),
                Some(Command::Turn(done)) => drop(done.send(())),
                Some(Command::Used(answer)) => drop(answer.send(worker.take_used())),
            },
        }
    }
    listeners.clear();
    worker.intake.close();
    drop(draining);
    // Configurations still arrive while work in progress goes on.
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Apply(snapshot, done) => {
                worker.apply(snapshot);
                let _ = done.send(());
            }
            Command::Away(peers) => worker.outbound.set_away(&peers),
            Command::Turn(done) => drop(done.send(())),
            Command::Used(answer) => drop(answer.send(worker.take_used())),
            Command::Listen(..) => {}
        }
    }
}

fn listen_on(worker: &Worker, listener: Listener, socket: StdListener) -> Option<Task> {
    let complain = |error| tracing::error!(%error, ?listener, "cannot listen on what the agent sent");
    // What is accepted has what its listener has.
    let socket = dial::tune(&socket).and_then(|()| TcpListener::from_std(socket)).map_err(complain).ok()?;
    Some(worker.listen(listener, socket))
}
