//! Connecting to a process that may just be starting: its pid file is there before its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealane_proto::client::{ConnectError, unix_channel};
use sealane_sys::RunDir;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::life::running;

/// Time that a process that lives may take until it listens.
const STARTING: Duration = Duration::from_secs(5);
/// Time that the agent of a host whose workloads it left running may take until it is back.
pub(super) const RESTARTING: Duration = Duration::from_secs(15);
/// Time that may pass until there is a process, for those who start one in the background just before.
const COMING: Duration = Duration::from_secs(1);
/// Interval at which it is looked for meanwhile.
const AGAIN: Duration = Duration::from_millis(20);

/// Connects to the first of these sockets that answers, which also means that a stale one hides no other.
pub(super) async fn reach(sockets: &[PathBuf]) -> Result<Channel, ConnectError> {
    await_first(sockets, lives, STARTING).await
}

/// Connects to the agent at `socket`, which may be restarting.
pub(super) async fn reach_agent(socket: &Path) -> Result<Channel, ConnectError> {
    await_first(&[socket.to_owned()], comes, RESTARTING).await
}

async fn await_first(
    sockets: &[PathBuf],
    comes: impl Fn(&Path) -> bool,
    patience: Duration,
) -> Result<Channel, ConnectError> {
    let began = Instant::now();
    loop {
        let error = match first(sockets).await {
            Err(error) if may_come(&error) => error,
            reached => return reached,
        };
        let coming = sockets.iter().any(|socket| comes(socket));
        if began.elapsed() >= if coming { patience } else { COMING } {
            return Err(error);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Connects to the first of these sockets that answers now. The error is that of the last one, but for one that time does not
/// mend.
pub(super) async fn first(sockets: &[PathBuf]) -> Result<Channel, ConnectError> {
    let mut told = None;
    for socket in sockets {
        match unix_channel(socket).await {
            Ok(channel) => return Ok(channel),
            Err(error) if told.as_ref().is_none_or(may_come) => told = Some(error),
            Err(_) => {}
        }
    }
    Err(told.unwrap_or_else(|| ConnectError::Unix {
        path: PathBuf::new(),
        source: io::ErrorKind::NotFound.into(),
    }))
}

/// Returns true if the socket is one that may be there in a moment.
fn may_come(error: &ConnectError) -> bool {
    match error {
        ConnectError::Unix { source, .. } => has_ended(source),
        ConnectError::Tcp { .. }
        | ConnectError::Tls { .. }
        | ConnectError::Http { .. }
        | ConnectError::Identity(_) => false,
    }
}

/// Returns true if nobody is at the socket, or nobody any more: a process that ends takes connections until its last moment.
pub(super) fn has_ended(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
    kinds.contains(&error.kind())
}

/// Returns true if the process of a socket lives: the pid file stands beside it.
pub(super) fn lives(socket: &Path) -> bool {
    running(&socket.with_extension("pid")).is_ok_and(|process| process.is_some())
}

/// Returns true if somebody is going to listen at the agent's socket.
pub(super) fn comes(socket: &Path) -> bool {
    lives(socket) || is_of_host(socket)
}

/// Tells whether the run directory is that of a host, whose agent comes back.
fn is_of_host(socket: &Path) -> bool {
    socket.parent().is_some_and(|folder| RunDir::from(folder).traces().iter().any(|trace| trace.exists()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use nix::fcntl::{Flock, FlockArg};

    use super::*;

    fn reached(sockets: &[PathBuf]) -> (Result<Channel, ConnectError>, Duration) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let began = Instant::now();
        (runtime.block_on(reach(sockets)), began.elapsed())
    }

    #[test]
    fn nobody_is_waited_for_briefly_and_a_process_that_lives_longer() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let (missing, took) = reached(std::slice::from_ref(&socket));
        assert!(missing.is_err() && took >= COMING, "{took:?}");

        let pid = folder.path().join("control.pid");
        std::fs::write(&pid, format!("{}\n", std::process::id())).unwrap();
        let file = std::fs::File::open(&pid).unwrap();
        let _lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
        let (missing, took) = reached(&[socket]);
        assert!(missing.is_err() && took >= STARTING, "{took:?}");
    }

    #[test]
    fn an_agent_is_waited_for_where_one_was_also_when_its_keep_was_killed_with_it() {
        for at in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            // The file of a process that was killed: nobody holds it.
            let trace = &RunDir::from(folder.path()).traces()[at];
            std::fs::write(trace, "1\n").unwrap();
            let socket = folder.path().join("agent.sock");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let late = socket.clone();
            let agent = std::thread::spawn(move || {
                std::thread::sleep(COMING * 2);
                UnixListener::bind(late).unwrap()
            });
            assert!(runtime.block_on(reach_agent(&socket)).is_ok(), "{trace:?}");
            agent.join().unwrap();
        }
    }

    #[test]
    fn an_agent_that_ends_as_it_is_asked_is_waited_for_like_one_that_is_away() {
        for (kind, comes) in [
            (io::ErrorKind::NotFound, true),
            (io::ErrorKind::ConnectionRefused, true),
            (io::ErrorKind::ConnectionReset, true),
            (io::ErrorKind::PermissionDenied, false),
            (io::ErrorKind::Other, false),
        ] {
            let error = ConnectError::Unix { path: PathBuf::from("agent.sock"), source: kind.into() };
            assert_eq!(may_come(&error), comes, "{kind}");
        }
    }

    #[test]
    fn a_socket_that_comes_is_reached_and_a_stale_one_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (stale, other) = (folder.path().join("control.sock"), folder.path().join("agent.sock"));
        drop(UnixListener::bind(&stale).unwrap());
        let _listener = UnixListener::bind(&other).unwrap();
        assert!(reached(&[stale, other]).0.is_ok());
    }
}
