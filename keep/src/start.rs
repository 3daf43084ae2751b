//! Starting keep when it is not there.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sealane_sys::RunDir;
use sealane_sys::spawn::SpawnExt;

use crate::lock::holder;
use crate::{Keep, KeepError};

/// Limit for a started keep until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(3);
/// Time after which a keep that runs but has no socket, as those had none that could not make theirs again, is ended:
/// whatever it holds is lost to everybody.
const OUT_OF_REACH: Duration = Duration::from_millis(1500);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(5);

/// Connects to the keep of `run_dir`, or starts `binary keep --run-dir <run_dir>` in a session of its own (it
/// outlives the caller; standard error goes to `log`) and waits until it answers, at most 3 s. Blocks. A keep that runs
/// without a socket is given time to make it again, and is ended and replaced when it does not.
///
/// Safe against others that do the same: one keep wins, all connect to it.
///
/// # Errors
/// [`KeepError::Start`] when it cannot be started or does not answer in time.
pub fn ensure_running(run_dir: &RunDir, binary: &Path, log: Option<File>) -> Result<Keep, KeepError> {
    if let Ok(keep) = Keep::connect(run_dir) {
        return Ok(keep);
    }
    let fail = |reason: String| KeepError::Start { binary: binary.to_owned(), reason };
    let mut child = spawn(run_dir, binary, log).map_err(|error| fail(error.to_string()))?;
    let began = Instant::now();
    let (mut ended, mut replaced) = (None, false);
    loop {
        match Keep::connect(run_dir) {
            Ok(mut keep) => {
                keep.adopt(Some(child));
                return Ok(keep);
            }
            Err(error) if began.elapsed() >= START_TIMEOUT => {
                // One that never answered is not left behind.
                let _ = child.kill().and_then(|()| child.wait());
                let reason = ended.unwrap_or_else(|| "it does not answer".to_owned());
                return Err(fail(format!("{reason} ({error})")));
            }
            Err(_) if ended.is_some() && !replaced && began.elapsed() >= OUT_OF_REACH => {
                replaced = true;
                if let Some(holder) = holder(run_dir).filter(|holder| holder.terminate().is_ok()) {
                    while !holder.has_ended() && began.elapsed() < START_TIMEOUT {
                        std::thread::sleep(RETRY);
                    }
                    child = spawn(run_dir, binary, None).map_err(|error| fail(error.to_string()))?;
                    ended = None;
                }
            }
            // One that ended may have lost to another starter's, whose socket is there in a moment, or to one whose
            // socket somebody removed, which makes it again.
            Err(_) => ended = child.try_wait().ok().flatten().map(|status| format!("it ended with {status}")),
        }
        std::thread::sleep(RETRY);
    }
}

fn spawn(run_dir: &RunDir, binary: &Path, log: Option<File>) -> std::io::Result<Child> {
    let mut command = Command::new(std::path::absolute(binary)?);
    command.arg("keep").arg("--run-dir").arg(std::path::absolute(run_dir.path())?);
    // Its working directory must not hold a file system busy.
    // It has no configuration, and no use for secrets that the agent was given.
    command.env_clear();
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(log.map_or_else(Stdio::null, Stdio::from));
    command.detached().spawn()
}
