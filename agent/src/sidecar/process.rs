//! Sidecar processes: started in their workload's namespace, recorded so that the next agent finds them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sealane_base::disk;
use sealane_fabric::async_fd;
use sealane_sys::hop::Hopper;
use sealane_sys::{NetNs, Process, RunDir};
use socket2::{SockRef, Type};
use tokio::io::unix::AsyncFd;

use crate::attachment::AttachmentId;

/// Between the name of a record and the pid of a sidecar that another one follows.
const LEAVING: &str = ".leaving-";

/// A running sidecar.
#[derive(Debug)]
pub(super) struct SidecarProcess {
    process: AsyncFd<Process>,
    /// To be waited for, when this agent started it.
    child: Option<Child>,
    record: PathBuf,
}

impl SidecarProcess {
    /// The sidecar that an earlier agent started for `id`, if it still runs.
    pub(super) fn adopt(run_dir: &RunDir, id: &AttachmentId) -> Option<Self> {
        let record = record_path(run_dir, id);
        let process = recorded(&record)?;
        let process = async_fd::process(process).ok()?;
        Some(Self { process, child: None, record })
    }

    /// Starts `binary` as the sidecar of `id` in `netns`.
    pub(super) fn start(
        run_dir: &RunDir,
        binary: &Path,
        id: &AttachmentId,
        hopper: &Hopper,
        netns: &NetNs,
    ) -> io::Result<Self> {
        let mut command = Command::new(binary);
        command.arg("proxy").arg("--agent-socket").arg(run_dir.sidecar_socket());
        command.args(["--network", id.network.as_str(), "--workload", id.workload.as_str()]);
        // A token that the agent was given is nobody else's.
        command.env_remove("SEALANE_TOKEN");
        // No hook of ours: it leaves this session by itself, and begins without a copy of this process.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = hopper.run(netns, move || command.spawn())??;
        let process = Process::open(child.id()).map_err(io::Error::other)?;
        let record = record(run_dir, &id.record_name(), &process)?;
        let process = async_fd::process(process)?;
        Ok(Self { process, child: Some(child), record })
    }

    /// Returns when the process has ended. Cancel safe.
    pub(super) async fn ended(&mut self) {
        // An error of the descriptor cannot be told from the end, and is treated as it.
        let _ = self.process.readable().await;
        if let Some(child) = &mut self.child {
            // It has ended: this does not block.
            let _ = child.wait();
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.get_ref().pid()
    }

    /// Asks it to drain and end.
    pub(super) fn terminate(&self) {
        if let Err(error) = self.process.get_ref().terminate() {
            tracing::warn!(%error, pid = self.pid(), "cannot signal the sidecar");
        }
    }

    /// Asks it to drain and end, and ends it at once when it takes longer than that; answers whether it ended by itself.
    pub(super) async fn finish(&mut self, within: Duration) -> bool {
        self.terminate();
        let in_time = tokio::time::timeout(within, self.ended()).await.is_ok();
        if !in_time {
            self.cut_off().await;
        }
        in_time
    }

    /// Ends it at once.
    pub(super) async fn cut_off(&mut self) {
        // It has ended meanwhile, or the next line waits for what cannot fail to come.
        let _ = self.process.get_ref().kill();
        self.ended().await;
    }

    /// Makes room for the record of the one that follows it. Left alone by the next agent, it ends with its last
    /// connection, or when its time is over.
    pub(super) fn set_aside(&mut self) -> io::Result<()> {
        let name = self.record.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.move_record(&format!("{name}{LEAVING}{}.pid", self.pid()))
    }

    /// Takes back the mark that another one follows it.
    pub(super) fn come_back(&mut self, id: &AttachmentId) -> io::Result<()> {
        self.move_record(&format!("{}.pid", id.record_name()))
    }

    fn move_record(&mut self, name: &str) -> io::Result<()> {
        self.ensure_record();
        let moved = self.record.with_file_name(name);
        fs::rename(&self.record, &moved)?;
        self.record = moved;
        Ok(())
    }

    /// Returns true if it runs the program that this agent does: another file is another build.
    pub(super) fn is_of_this_program(&self) -> io::Result<bool> {
        let [own, other] = ["self".to_owned(), self.pid().to_string()]
            .map(|process| fs::metadata(Path::new("/proc").join(process).join("exe")));
        let (own, other) = (own?, other?);
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// Tells whether what is in the folder `room` is in its reach: it sees the whole file system still, or that folder alone. One
    /// whose folder was removed sees what nobody else does, whatever has the name by now.
    pub(super) fn sees(&self, room: &Path) -> bool {
        let of = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
        let own = Path::new("/proc").join(self.pid().to_string()).join("root");
        match (of(&own), of(room), of(Path::new("/"))) {
            (Ok(own), Ok(room), Ok(whole)) => own == room || own == whole,
            // It has ended, or the folder is just made again.
            _ => true,
        }
    }

    /// Writes its record again if somebody has removed it: `sealane clean` and the next agent look for it.
    pub(super) fn ensure_record(&self) {
        if self.record.exists() {
            return;
        }
        match write_record(&self.record, self.process.get_ref()) {
            Ok(()) => {
                tracing::warn!(path = %self.record.display(), "a sidecar's pid file was removed; written again")
            }
            Err(error) => {
                tracing::debug!(%error, path = %self.record.display(), "cannot write a sidecar's pid file")
            }
        }
    }

    /// Forgets it.
    pub(super) fn forget(self) {
        // A record that stays names a process that has ended, which everybody finds out.
        let _ = fs::remove_file(&self.record);
    }
}

fn record_path(run_dir: &RunDir, id: &AttachmentId) -> PathBuf {
    run_dir.sidecar_record(&id.record_name())
}

/// Writes down that `process` is the sidecar of this name (`<network>.<workload>`).
pub(super) fn record(run_dir: &RunDir, name: &str, process: &Process) -> io::Result<PathBuf> {
    let record = run_dir.sidecar_record(name);
    write_record(&record, process)?;
    Ok(record)
}

fn write_record(record: &Path, process: &Process) -> io::Result<()> {
    if let Some(parent) = record.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(record, format!("{} {}\n", process.pid(), process.started()))
}

/// Returns true if the recorded sidecar of this name runs.
pub(super) fn runs(run_dir: &RunDir, name: &str) -> bool {
    recorded(&run_dir.sidecar_record(name)).is_some()
}

fn recorded(record: &Path) -> Option<Process> {
    let text = fs::read_to_string(record).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    Process::reopen(pid.parse().ok()?, started.parse().ok()?).ok()
}

/// The sockets at which the recorded sidecar of `id` listens, in the order of `places`: what is left of them when
/// everybody else who held them was killed. `None` when it does not run, lacks one, or may not be asked.
pub(crate) fn listeners_of(
    run_dir: &RunDir,
    id: &AttachmentId,
    places: &[SocketAddr],
) -> Option<Vec<OwnedFd>> {
    let process = recorded(&record_path(run_dir, id))?;
    let mut sockets = process.sockets().ok()?;
    let mut take = |place: &SocketAddr| {
        let at = sockets.iter().position(|socket| listens_at(socket, *place))?;
        Some(sockets.swap_remove(at))
    };
    places.iter().map(&mut take).collect()
}

fn listens_at(socket: &OwnedFd, place: SocketAddr) -> bool {
    let socket = SockRef::from(socket);
    let at = socket.local_addr().ok().and_then(|address| address.as_socket());
    at == Some(place)
        && socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && socket.is_listener().unwrap_or(false)
}

/// Kills the recorded sidecar of `id`, if it runs, and returns when it has ended.
///
/// # Errors
/// When it cannot be killed.
pub(crate) async fn end(run_dir: &RunDir, id: &AttachmentId) -> io::Result<()> {
    let Some(process) = recorded(&record_path(run_dir, id)) else { return Ok(()) };
    tracing::warn!(pid = process.pid(), workload = %id, "ending a sidecar whose sockets cannot be taken back");
    process.kill()?;
    async_fd::process(process)?.readable().await.map(drop)
}

/// The pids of recorded sidecars that still run.
pub(super) fn recorded_pids(run_dir: &RunDir) -> io::Result<BTreeSet<u32>> {
    let records = disk::listed(&run_dir.sidecars())?;
    Ok(records.iter().filter_map(|record| Some(recorded(record)?.pid())).collect())
}

/// Returns the workload of a record's sidecar (`<network>.<workload>`), followed by another one or not.
fn served(name: &str) -> &str {
    name.split_once(LEAVING).map_or(name, |(served, _)| served)
}

/// Ends the recorded sidecars of workloads that are not `known` (`<network>.<workload>`). Of the known ones', those that
/// others follow carry on; records of which nothing runs any more are removed.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn stop_unknown(run_dir: &RunDir, known: impl Fn(&str) -> bool) -> io::Result<usize> {
    let is_over = |name: &str| name != served(name) && !runs(run_dir, name);
    stop_all(run_dir, |name| !known(served(name)) || is_over(name))
}

/// Ends the recorded sidecars of one workload (`<network>.<workload>`), those that another follows too.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn stop_of(run_dir: &RunDir, workload: &str) -> io::Result<usize> {
    stop_all(run_dir, |name| served(name) == workload)
}

/// Ends the recorded sidecars whose file name (`<network>.<workload>`) `unwanted` says yes to.
///
/// # Errors
/// When the folder cannot be read.
fn stop_all(run_dir: &RunDir, unwanted: impl Fn(&str) -> bool) -> io::Result<usize> {
    let mut stopped = 0;
    for path in disk::listed(&run_dir.sidecars())? {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if !unwanted(name) {
            continue;
        }
        if let Some(process) = recorded(&path) {
            process.terminate()?;
            stopped += 1;
        }
        fs::remove_file(&path)?;
    }
    Ok(stopped)
}
