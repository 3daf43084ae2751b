//! Flags of every verb that have no effect on some.

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::{Cli, Control, DockerAction, Verb};
use crate::failure::{Exit, Failure};

/// Things of this host that a verb looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    /// Nothing.
    Nothing,
    /// The run directory.
    Folder,
    /// A socket, in the run directory or elsewhere.
    Socket,
}

impl Needs {
    fn of(verb: &Verb) -> Self {
        match verb {
            Verb::Up(_)
            | Verb::Control(Control { action: None, .. })
            | Verb::Agent(_)
            | Verb::Keep
            | Verb::Proxy(_)
            | Verb::Clean(_)
            | Verb::Check(_) => Self::Folder,
            Verb::Docker(docker) => match docker.action {
                DockerAction::Install(_) | DockerAction::Plugin(_) => Self::Nothing,
                DockerAction::Uninstall(_) => Self::Folder,
            },
            Verb::Restore(_) | Verb::Demo(_) | Verb::Schema(_) | Verb::Completions(_) | Verb::Man(_) => {
                Self::Nothing
            }
            Verb::Control(Control { action: Some(_), .. })
            | Verb::Run(_)
            | Verb::Attach(_)
            | Verb::Detach(_)
            | Verb::Exec(_)
            | Verb::Cni
            | Verb::Apply(_)
            | Verb::Get(_)
            | Verb::Diff(_)
            | Verb::History(_)
            | Verb::Rollback(_)
            | Verb::Delete(_)
            | Verb::Network(_)
            | Verb::Token(_)
            | Verb::Service(_)
            | Verb::Node(_)
            | Verb::Workload(_)
            | Verb::Sidecar(_)
            | Verb::Dns(_)
            | Verb::Identity(_)
            | Verb::Status
            | Verb::Backup(_)
            | Verb::Complete(_) => Self::Socket,
        }
    }
}

/// Refuses a common flag that is typed and has no effect. One that the environment says is for other verbs too.
pub(super) fn check(found: &ArgMatches, cli: &Cli) -> Result<(), Failure> {
    let typed = |flag: &str| found.value_source(flag) == Some(ValueSource::CommandLine);
    let needs = Needs::of(&cli.verb);
    let verb = found.subcommand_name().unwrap_or_default();
    let (flag, hint) = if typed("socket") && needs < Needs::Socket {
        let folder = "leave it out; --run-dir names the folder of the sockets";
        ("--socket", if needs == Needs::Folder { folder } else { "leave it out" })
    } else if typed("run_dir") && needs < Needs::Folder {
        ("--run-dir", "leave it out")
    } else {
        return Ok(());
    };
    let text = format!("{flag} has no effect on `sealane {verb}`, which talks to nobody there");
    Err(Failure::new(text).exit(Exit::Usage).hint(hint))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::{CommandFactory, FromArgMatches};

    use super::*;

    #[test]
    fn a_common_flag_without_effect_is_refused_where_it_is_typed() {
        let refused = |line: &str| {
            let words = line.split(' ').map(OsString::from);
            let found = Cli::command().try_get_matches_from(words).unwrap();
            let cli = Cli::from_arg_matches(&found).unwrap();
            check(&found, &cli).err().map(|failure| failure.message)
        };
        for (line, expected) in [
            ("sealane control --socket /s", Some("--socket has no effect on `sealane control`")),
            ("sealane --socket /s clean --yes", Some("--socket has no effect on `sealane clean`")),
            ("sealane schema --run-dir /r", Some("--run-dir has no effect on `sealane schema`")),
            ("sealane docker install --run-dir /r", Some("--run-dir has no effect on `sealane docker`")),
            ("sealane docker uninstall --run-dir /r", None),
            ("sealane status --socket /s --run-dir /r", None),
            ("sealane up --run-dir /r", None),
            ("sealane man --out -", None),
        ] {
            let said = refused(line);
            let fits = match (&said, expected) {
                (Some(said), Some(expected)) => said.starts_with(expected),
                (None, None) => true,
                _ => false,
            };
            assert!(fits, "{line}: {said:?}");
        }
    }
}
