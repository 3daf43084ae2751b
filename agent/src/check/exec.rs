//! A command in a workload's namespace, as `sealane exec` runs it, whose exit status counts.

use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sealane_proto::types::ShellCommand;
use sealane_sys::run_dir::RunDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Bytes of a command's output that are read; more are read and dropped.
const KEPT: usize = 1 << 10;

/// Place where the commands of a workload run.
#[derive(Clone, Debug)]
pub(crate) struct Shell {
    /// This program.
    pub(crate) binary: PathBuf,
    /// The agent's run directory.
    pub(crate) run_dir: RunDir,
    /// Name of the workload, with its network.
    pub(crate) workload: String,
}

/// Ends a command with all that it has started.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // One that has ended by itself has left nobody behind, or those that are to go with it.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

impl Shell {
    /// Runs `command`.
    ///
    /// # Errors
    /// In words, why it did not exit with 0: its status and the last line that it printed.
    ///
    /// # Cancel safety
    /// It ends with all processes of its group.
    pub(super) async fn run(&self, command: &ShellCommand) -> Result<(), String> {
        let mut child = Command::new(&self.binary)
            .arg("--run-dir")
            .arg(self.run_dir.path())
            .args(["exec", &self.workload, "--", "/bin/sh", "-c", command.as_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot run it: {error}"))?;
        let leader = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        let _group = leader.map(Group);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (status, out, err) = tokio::join!(child.wait(), output(stdout), output(stderr));
        let status = status.map_err(|error| format!("cannot run it: {error}"))?;
        if status.success() {
            return Ok(());
        }
        let said = last_line(&err).or_else(|| last_line(&out));
        Err(said.map_or_else(|| status.to_string(), |said| format!("{status}: {said}")))
    }
}

/// Reads everything and keeps the last of it.
async fn output(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut from) = from else { return Vec::new() };
    let (mut kept, mut buffer) = (Vec::new(), [0; KEPT]);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        let over = kept.len().saturating_sub(KEPT);
        kept.drain(..over);
    }
    kept
}

fn last_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_with_something_in_it_counts() {
        for (output, expected) in
            [("", None), ("\n \n", None), ("one\ntwo\n\n", Some("two")), ("lone", Some("lone"))]
        {
            assert_eq!(last_line(output.as_bytes()).as_deref(), expected, "{output:?}");
        }
    }
}
