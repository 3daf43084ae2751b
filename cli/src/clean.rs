//! `sealane clean`: a host without a trace of Sealane.
//!
//! Pid files name the processes, and the run directory names everything else; both may be half there or gone, and each
//! step may be repeated.

mod stake;

use std::fs;
use std::io::{self, BufRead, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sealane_agent::layout;
use sealane_base::disk;
use sealane_sys::run_dir::{Daemon, RunDir};
use sealane_sys::{NetNs, Process};

use crate::args::{Clean, Common};
use crate::failure::{Exit, Failure, require_root};
use crate::life::{recorded, running};
use crate::printer::Printer;
use crate::verb::docker::installed;
use stake::Stake;

/// Time that a process may take to end when asked, before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// `sealane clean`.
pub(crate) fn clean(clean: &Clean, common: &Common, printer: &Printer) -> Result<(), Failure> {
    require_root("clean")?;
    let run_dir = &common.run_dir;
    let data_dir = Some(clean.data.data_dir.as_path()).filter(|_| !clean.keep_data);
    for folder in [Some(run_dir.path()), data_dir].into_iter().flatten() {
        refuse_shared(folder)?;
    }
    let stake = Stake::of(run_dir, data_dir)?;
    if !clean.yes {
        confirm(&stake, run_dir, data_dir, printer)?;
    }
    // The agent first, or it would start again what ends; then control, sidecars, and keep, which serves them.
    for daemon in [Daemon::Agent, Daemon::Control] {
        end(daemon.name(), running(&run_dir.pid_file(daemon))?, printer)?;
    }
    for record in listed(&run_dir.sidecars())? {
        let name = record.file_stem().unwrap_or_default().to_string_lossy();
        end(&format!("sidecar {name}"), recorded(&record), printer)?;
    }
    // Somebody may have removed their records.
    for (name, process) in sealane_agent::sidecars_of(run_dir).map_err(Failure::of("clean"))? {
        end(&format!("sidecar {name}"), Some(process), printer)?;
    }
    end(Daemon::Keep.name(), running(&run_dir.pid_file(Daemon::Keep))?, printer)?;
    let plugin = sealane_agent::retire_docker_plugin(run_dir, None).map_err(Failure::of("clean"))?;
    if let Some(socket) = &plugin {
        printer.talk(&format!("removed  {}, at which Docker called its plugin", socket.display()));
    }
    for what in sealane_fabric::egress::clean(run_dir).map_err(Failure::of("clean"))? {
        printer.talk(&what);
    }
    for what in sealane_agent::tap::clean(run_dir).map_err(Failure::of("clean"))? {
        printer.talk(&format!("removed  {what}"));
    }
    for namespace in listed(&run_dir.namespaces())? {
        forget_rules(&namespace, printer);
        NetNs::remove_at(&namespace).map_err(Failure::of("clean"))?;
    }
    // Not before the last tunnel is gone.
    if sealane_fabric::overlay::remove_gate(run_dir).map_err(Failure::of("clean"))? {
        printer.talk("removed  the gate of tunnels");
    }
    if sealane_fabric::overlay::remove_narrow_ways(run_dir).map_err(Failure::of("clean"))? {
        printer.talk("removed  routes to hosts whose ways take shorter packets");
    }
    for folder in [Some(run_dir.path()), data_dir].into_iter().flatten() {
        remove(folder, printer)?;
    }
    for file in installed(plugin.as_deref()) {
        printer.talk(&format!("left     {}; `sealane docker uninstall` removes it", file.display()));
    }
    if let Some(word) = stake.parting() {
        printer.talk(&word);
    }
    Ok(())
}

/// A wrong --run-dir must not cost somebody their /run, nor --data-dir their home: a folder goes when it is called
/// `sealane`, or holds nothing but what agent, control and keep write.
fn refuse_shared(folder: &Path) -> Result<(), Failure> {
    let refuse = |why: &str| {
        Failure::new(format!("{} does not look like a folder of Sealane's alone{why}", folder.display()))
            .exit(Exit::Usage)
            .hint("name the --run-dir and --data-dir that the agent was started with, as absolute paths")
    };
    if !folder.is_absolute() || folder.components().count() <= 2 {
        return Err(refuse(""));
    }
    if folder.ends_with("sealane") {
        return Ok(());
    }
    let entries = listed(folder)?;
    let names = entries.iter().map(|entry| entry.file_name().unwrap_or_default().to_string_lossy());
    match names.into_iter().find(|name| !is_ours(name)) {
        Some(name) => Err(refuse(&format!(": there is {name} in it"))),
        None => Ok(()),
    }
}

/// Returns true if an entry of a run or data directory is one that Sealane makes.
fn is_ours(name: &str) -> bool {
    // Stores of before, and what was being written when its writer was killed, have a name that goes on behind a dot.
    let is_store = |rest: &str| rest.is_empty() || rest.starts_with('.');
    RunDir::has(name)
        || layout::DATA.contains(&name)
        || name == "control.lock"
        || ["control.mesh", "control.etcd"].iter().any(|own| name.strip_prefix(own).is_some_and(is_store))
        || name.strip_prefix("control.redb").is_some_and(is_store)
}

fn confirm(
    stake: &Stake,
    run_dir: &RunDir,
    data_dir: Option<&Path>,
    printer: &Printer,
) -> Result<(), Failure> {
    let warnings = stake.warnings();
    if !io::stdin().is_terminal() {
        let stakes: String = warnings.iter().map(|warning| format!("; {warning}")).collect();
        return Err(Failure::new(format!(
            "nobody is there to ask whether everything should be removed{stakes}"
        ))
        .exit(Exit::Usage)
        .hint("sealane clean --yes"));
    }
    let data = data_dir.map(|folder| format!(" and {}", folder.display())).unwrap_or_default();
    printer.talk(&format!(
        "Every process of Sealane on this host ends, its networks, {run_dir}{data} are removed."
    ));
    warnings.iter().for_each(|warning| printer.talk(&format!("Note: {warning}.")));
    let loud = stake.ends_the_mesh();
    printer.talk(if loud { "Type `yes` to go on:" } else { "Go on? [y/N]" });
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(Failure::of("cannot read the answer"))?;
    match line.trim() {
        "yes" => Ok(()),
        "y" | "Y" if !loud => Ok(()),
        _ => Err(Failure::new("nothing was removed")),
    }
}

/// Ends a process of Sealane's, if it runs.
fn end(what: &str, process: Option<Process>, printer: &Printer) -> Result<(), Failure> {
    let Some(process) = process else { return Ok(()) };
    let fail = || Failure::of(format!("cannot end {what} (process {})", process.pid()));
    process.terminate().map_err(fail())?;
    if !ended(&process, PATIENCE) {
        process.kill().map_err(fail())?;
        ended(&process, PATIENCE);
    }
    printer.talk(&format!("ended    {what} (process {})", process.pid()));
    Ok(())
}

/// Takes our rules out of a namespace that may be somebody else's and stay.
fn forget_rules(namespace: &Path, printer: &Printer) {
    // What is no namespace has no rules.
    let Ok(netns) = NetNs::open(namespace) else { return };
    if let Err(error) = sealane_fabric::nft::clear(&netns) {
        printer.talk(&format!("cannot remove the rules in {}: {error}", namespace.display()));
    }
}

/// Waits for the end of a process, at most this long.
fn ended(process: &Process, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(_) | Err(_) => return process.has_ended(),
        }
    }
}

/// Lists the content of a folder, if it is there.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    disk::listed(folder).map_err(Failure::of(format!("cannot read {}", folder.display())))
}

fn remove(folder: &Path, printer: &Printer) -> Result<(), Failure> {
    let fail = || Failure::of(format!("cannot remove {}", folder.display()));
    for mounted in mounts_below(folder) {
        umount2(&mounted, MntFlags::MNT_DETACH).map_err(|errno| fail()(io::Error::from(errno)))?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A file system of its own is the administrator's; nothing is in it any more.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            printer.talk(&format!("emptied  {}, a mount", folder.display()));
            Ok(())
        }
        removed => {
            removed.map_err(fail())?;
            printer.talk(&format!("removed  {}", folder.display()));
            Ok(())
        }
    }
}

/// Mounts in a folder, the last one first.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> =
        points.filter(|point| point.starts_with(folder) && point != folder).collect();
    below.reverse();
    below
}
