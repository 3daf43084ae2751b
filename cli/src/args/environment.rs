//! Flags that the environment says.

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

/// Variables that say flags begin so.
const PREFIX: &str = "SEALANE_";

/// Passes over variables that say nothing, as in a file of them whose lines are there to be filled in.
pub(super) fn without_empty(command: Command) -> Command {
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    let command = command.mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg });
    command.mut_subcommands(without_empty)
}

/// The variable that a wrong value comes from, where the command line does not say it.
pub(super) fn source_of(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else { return None };
    let said = arguments.iter().any(|word| word.to_string_lossy().contains(value.as_str()));
    let holds = |found: &str| !value.is_empty() && found.split(',').any(|part| part == value);
    let mut all = std::env::vars_os().filter_map(|(name, found)| {
        let (name, found) = (name.into_string().ok()?, found.into_string().ok()?);
        (name.starts_with(PREFIX) && holds(&found)).then_some(name)
    });
    if said { None } else { all.next() }
}
