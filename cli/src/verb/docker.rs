//! `sealane docker install` and `uninstall`: the socket at which Docker calls its plugin, there before dockerd starts.

mod files;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::args::{Common, Installed, PLUGIN};
use crate::below::below;
use crate::failure::{Failure, require_root};
use crate::life::running;
use crate::printer::Printer;
use files::{AGENT, SOCKET, files};
use sealane_sys::run_dir::Daemon;

/// `sealane docker install`.
pub(crate) fn install(wanted: &Installed, printer: &Printer) -> Result<(), Failure> {
    let root = root(wanted, "docker install")?;
    let systemd = wanted.root.is_some() || has_systemd();
    for file in files(&wanted.plugin).iter().filter(|file| systemd || !file.of_systemd) {
        let path = below(root, &file.path);
        write(&path, &file.text).map_err(Failure::of(format!("cannot write {}", path.display())))?;
        printer.talk(&format!("written  {}", path.display()));
    }
    if wanted.root.is_some() {
        return Ok(());
    }
    if !systemd {
        printer.talk(&format!(
            "There is no systemd here: start the agent with `--docker-plugin {}`, for whose first answer Docker waits 15 s; keep holds \
             the socket while it is away",
            wanted.plugin.display()
        ));
        return Ok(());
    }
    systemctl(&["daemon-reload"])?;
    let runs = is(&["is-active", AGENT]);
    if !runs && !is(&["is-enabled", AGENT]) {
        systemctl(&["enable", SOCKET])?;
        let comes =
            if is(&["cat", AGENT]) { "is not enabled" } else { "is not there: `make install` brings it" };
        printer.talk(&format!(
            "enabled  {SOCKET}; {AGENT} {comes}. `systemctl enable --now {SOCKET} {AGENT}` starts both; an agent that is started by \
             hand takes --docker-plugin instead"
        ));
        return Ok(());
    }
    // A socket is not made for a service that runs. No workload minds that the agent is away.
    if runs {
        systemctl(&["stop", AGENT])?;
    }
    systemctl(&["enable", "--now", SOCKET])?;
    printer.talk(&format!("started  {SOCKET}, before docker.service at each boot"));
    if runs {
        systemctl(&["start", AGENT])?;
        printer.talk(&format!("started  {AGENT} again, as Docker's plugin"));
    }
    Ok(())
}

/// `sealane docker uninstall`.
pub(crate) fn uninstall(wanted: &Installed, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let root = root(wanted, "docker uninstall")?;
    let systemd = wanted.root.is_none() && has_systemd();
    let all = files(&wanted.plugin);
    let mut there = all.iter().map(|file| below(root, &file.path)).filter(|path| path.exists()).peekable();
    if systemd && there.peek().is_some() && is(&["cat", SOCKET]) {
        systemctl(&["disable", "--now", SOCKET])?;
        printer.talk(&format!("stopped  {SOCKET}"));
    }
    for path in there {
        let fail = || Failure::of(format!("cannot remove {}", path.display()));
        fs::remove_file(&path).map_err(fail())?;
        printer.talk(&format!("removed  {}", path.display()));
        // A folder that was made for it; one with something else in it stays.
        if let Some(folder) = path
            .parent()
            .filter(|folder| folder.ends_with("plugins") || folder.ends_with(format!("{AGENT}.d")))
        {
            let _ = fs::remove_dir(folder);
        }
    }
    if systemd {
        systemctl(&["daemon-reload"])?;
        if is(&["cat", AGENT]) {
            systemctl(&["try-restart", AGENT])?;
        }
    }
    if wanted.root.is_some() {
        return Ok(());
    }
    if running(&common.run_dir.pid_file(Daemon::Agent))?.is_none() {
        let removed = sealane_agent::retire_docker_plugin(&common.run_dir, None)
            .map_err(Failure::of("the plugin's socket"))?;
        if let Some(path) = removed {
            printer.talk(&format!("removed  {}", path.display()));
        }
    } else if !systemd {
        printer.talk(
            "The agent serves Docker until it is started without --docker-plugin, which removes the socket",
        );
    }
    Ok(())
}

/// Lists the files of `docker install` that are there, for the plugin at this socket or at the usual one.
pub(crate) fn installed(plugin: Option<&Path>) -> Vec<PathBuf> {
    let all = files(plugin.unwrap_or(Path::new(PLUGIN)));
    all.into_iter().map(|file| file.path).filter(|path| path.exists()).collect()
}

fn root<'a>(wanted: &'a Installed, verb: &str) -> Result<&'a Path, Failure> {
    match &wanted.root {
        Some(root) => Ok(root),
        None => require_root(verb).map(|()| Path::new("/")),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Returns true if systemd says yes.
fn is(words: &[&str]) -> bool {
    let mut asked = Command::new("systemctl");
    asked.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}

fn systemctl(words: &[&str]) -> Result<(), Failure> {
    let line = format!("systemctl {}", words.join(" "));
    let done = Command::new("systemctl").args(words).stdin(Stdio::null()).output();
    let done = done.map_err(Failure::of(format!("cannot run `{line}`")))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(Failure::new(format!("`{line}` failed: {}", said.trim())))
}
