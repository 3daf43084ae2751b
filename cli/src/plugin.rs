//! Plugins that container runtimes start this program as: of CNI, or of netavark.
//!
//! A runtime starts the file that a network's type or driver names, so a link called `sealane` in its folder of plugins is all
//! it needs: what the runtime wants is told by the environment (CNI) or the only words of the command line (netavark).

pub(crate) mod cni;
mod dns;
mod docker;
mod holding;
mod json;
pub(crate) mod netavark;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sealane_base::text::without_numbers;
use sealane_proto::types::Alias;
use serde_json::Value;

use crate::failure::Failure;
pub(crate) use docker::call as docker;

/// The name of the program as a CNI plugin alone.
const CNI: &str = "sealane-cni";
/// The most that a runtime may write: configurations have some hundred bytes, results of many plugins some thousand.
const LONGEST: u64 = 4 << 20;

/// Serves a runtime, if it is one that started this program.
pub(crate) fn called(arguments: &[OsString]) -> Option<ExitCode> {
    let commanded = std::env::var_os("CNI_COMMAND").is_some();
    if is_cni(arguments, commanded) {
        return Some(cni::serve(None));
    }
    netavark::Call::of(arguments).and_then(|call| netavark::serve(&call))
}

/// `sealane cni`, which has said everything itself.
pub(crate) fn cni(socket: Option<PathBuf>) -> Result<(), Failure> {
    if cni::serve(socket) == ExitCode::SUCCESS { Ok(()) } else { Err(Failure::unsaid()) }
}

/// Reads what a runtime has written on standard input.
fn hear() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST).read_to_end(&mut text);
    read.map_err(Failure::of("standard input"))?;
    Ok(text)
}

/// Answers on standard output: an answer, or how it failed. A runtime that does not listen any more asks again, or ends what
/// was begun.
fn tell(answer: Result<Option<Value>, Value>) -> ExitCode {
    let (answer, exit) = match answer {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(failure) => (Some(failure), ExitCode::FAILURE),
    };
    let Some(answer) = answer else { return exit };
    if writeln!(std::io::stdout().lock(), "{}", without_numbers(&answer.to_string())).is_err() {
        ExitCode::FAILURE
    } else {
        exit
    }
}

/// The name that people call a container by, where it has signs that a workload's name has not: an alias then.
fn as_called(name: &str) -> Option<String> {
    let alias: Alias = name.to_ascii_lowercase().parse().ok()?;
    alias.as_str().contains('_').then(|| alias.to_string())
}

/// Returns true if a CNI runtime started this: it gives no words, but a command in the environment.
fn is_cni(arguments: &[OsString], commanded: bool) -> bool {
    let name = arguments.first().and_then(|program| Path::new(program).file_name());
    arguments.len() <= 1 && (commanded || name.is_some_and(|name| name == CNI))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cni_plugin_is_told_by_its_name_or_by_a_command_and_no_words() {
        let check = |line: &str, commanded| {
            is_cni(&line.split(' ').map(OsString::from).collect::<Vec<_>>(), commanded)
        };
        assert!(check("/opt/cni/bin/sealane-cni", false) && check("/opt/cni/bin/sealane", true));
        assert!(!check("sealane", false) && !check("sealane status", true));
    }
}
