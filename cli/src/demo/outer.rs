//! The part of the demo that the user started: it owns the rest and keeps the doors to it.

mod doors;
mod programs;

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Command, ExitStatus, Stdio};

use sealane_base::task;
use sealane_lab::isolate::{self, Isolated};
use sealane_sys::Process;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Tour;
use crate::failure::{Exit, Failure};
use doors::Doors;

/// The hosts' metrics are on this port plus their number, on the user's own loopback.
pub(super) const METRICS_PORT: u16 = 19460;
/// The abstract unix socket that gives out shells; bound once, it also keeps a second demo away.
const SOCKET: &str = "sealane-demo";

/// Returns the address at which shells are given out.
pub(super) fn socket_address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(SOCKET)
}

/// Runs the tour inside, and waits for its end or for the user's.
pub(super) fn run(tour: &Tour) -> Result<(), Failure> {
    let changed = sealane_sys::mounts::is_root_changed();
    if changed.map_err(Failure::of("cannot tell whether this is a chroot (is /proc mounted?)"))? {
        return Err(Failure::new("the demo cannot run in a chroot: its hosts would be outside of it")
            .exit(Exit::Usage)
            .hint(
                "make the folder the root of a mount namespace, for example with `systemd-nspawn -D FOLDER`",
            ));
    }
    programs::require()?;
    let shells = socket_address().and_then(|address| UnixListener::bind_addr(&address)).map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            Failure::new("a demo runs already on this machine")
                .hint("end it with Ctrl-C first, or look into it with `sealane demo shell host-1`")
        } else {
            Failure::of("cannot start the demo")(error)
        }
    })?;
    let fail = || Failure::of("cannot start the demo");
    let (ours, theirs) = UnixStream::pair().map_err(fail())?;
    let mut inside = Command::new("/proc/self/exe");
    inside.args(["demo", "--inside", "--hosts", &tour.hosts.to_string()]);
    if tour.once {
        inside.arg("--once");
    }
    inside.stdin(Stdio::from(OwnedFd::from(theirs)));
    let isolated = isolate::start(inside, "demo").map_err(Failure::of("cannot start the demo"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(fail())?;
    let outcome = runtime.block_on(async {
        let doors = Doors { inside: ours, shells, hosts: tour.hosts };
        let _doors = task::spawn("demo-doors", doors.keep());
        wait(isolated).await
    });
    // It may still wait for what the inside would hand out.
    runtime.shutdown_background();
    let (interrupted, status) = outcome.map_err(fail())?;
    match (interrupted, status.code()) {
        (false, Some(0)) => Ok(()),
        // What went wrong was said inside.
        (false, _) => Err(Failure::new("the demo failed; nothing of it is left")),
        (true, _) if tour.once => {
            Err(Failure::new("interrupted before the tour ended; nothing of it is left"))
        }
        (true, _) => {
            let _ =
                io::Write::write_all(&mut io::stderr(), b"\nThe demo is gone: hosts, networks, processes.\n");
            Ok(())
        }
    }
}

/// Waits until the inside ends, or ends it when the user wants it to; which of both, and how it ended.
async fn wait(isolated: Isolated) -> io::Result<(bool, ExitStatus)> {
    let (mut terminate, mut interrupt, mut hangup) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let first = Process::open(isolated.first_process().pid()).map_err(io::Error::other)?;
    let mut ended = tokio::task::spawn_blocking(move || isolated.wait());
    let interrupted = tokio::select! {
        status = &mut ended => return Ok((false, status.map_err(io::Error::other)??)),
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
        _ = hangup.recv() => true,
    };
    first.kill()?;
    Ok((interrupted, ended.await.map_err(io::Error::other)??))
}

/// Refusals that name a wrong host.
pub(super) fn no_such_host(host: &str) -> Failure {
    Failure::new(format!("the demo has no host {host}"))
        .exit(Exit::Usage)
        .hint("they are host-1, host-2 and so on")
}
