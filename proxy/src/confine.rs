//! Privileges that a sidecar gives up before it reads the bytes of strangers.

use std::path::Path;

use sealane_sys::confine::{self, ConfineError};
use sealane_sys::resident;
use sealane_sys::run_dir::{CHANNEL, SIDECAR_SOCKET};

use crate::Settings;

/// Gives up all that a sidecar does not need: another user, another root, one capability, a list of system calls. Answers
/// the settings to run with: what was seen at one place is at another now.
///
/// To be called while the process has one thread. An agent of before, whose socket is not in a room of its own, opens it to
/// root alone: then user and root stay.
///
/// # Errors
/// When something cannot be given up; the sidecar is not to run then.
pub fn confine(settings: Settings) -> Result<Settings, ConfineError> {
    resident::keep_sight();
    let room = settings.agent_socket.parent().filter(|folder| folder.ends_with(CHANNEL));
    confine::confine(room)?;
    let agent_socket = room.map(|_| Path::new("/").join(SIDECAR_SOCKET));
    let agent_socket = agent_socket.unwrap_or_else(|| settings.agent_socket.clone());
    Ok(Settings { agent_socket, ..settings })
}
