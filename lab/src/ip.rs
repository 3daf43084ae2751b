//! iproute2, a batch at a time.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::LabError;

/// Runs these lines by `ip -batch -`; the first one that fails ends it.
pub(crate) fn batch(mut ip: Command, lines: &str) -> Result<(), LabError> {
    let fail = |reason: String| LabError::Tool { command: format!("ip -batch: {lines}"), reason };
    let ip = ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = ip.spawn().map_err(|error| fail(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // An `ip` that ended early says why on its standard error.
        let _ = stdin.write_all(lines.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| fail(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
