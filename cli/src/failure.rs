//! Failures of verbs: their words, and the statuses that they exit with.

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

/// Exit statuses, part of the command line's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The verb was tried and failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The socket does not answer.
    Unreachable = 3,
    /// `run` and `exec`: Sealane could not start the command.
    NotStarted = 125,
    /// `run` and `exec`: the command is there but cannot be executed.
    NotExecutable = 126,
    /// `run` and `exec`: there is no such command.
    NotFound = 127,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Failure as the user is told. The message says what, where and why; the hint says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// Makes the failure of something that was tried. A hint that the message ends with becomes the failure's.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        let message: String = message.into();
        let hinted = message.split_once("; hint: ").map(|(message, hint)| (message, hint.to_owned()));
        let pointed =
            || message.rsplit_once("; see `").map(|(message, verb)| (message, format!("see `{verb}")));
        match hinted.or_else(pointed) {
            Some((message, hint)) => {
                Self { exit: Exit::Failed, message: message.to_owned(), hint: Some(hint) }
            }
            None => Self { exit: Exit::Failed, message, hint: None },
        }
    }

    /// The command line is wrong, for [`Result::map_err`].
    #[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
    pub(crate) fn usage(error: impl Display) -> Self {
        Self::new(error.to_string()).exit(Exit::Usage)
    }

    /// There is no such thing; `list` is the command line that says which there are.
    pub(crate) fn missing(what: impl Display, list: &str) -> Self {
        Self::new(format!("there is no {what}")).hint(format!("see `{list}`"))
    }

    /// Words for [`Result::map_err`]: `what: error`.
    pub(crate) fn of<E: Display>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| Self::new(format!("{what}: {error}"))
    }

    /// A status that is an answer: there is nothing to say.
    pub(crate) fn unsaid() -> Self {
        Self { exit: Exit::Failed, message: String::new(), hint: None }
    }

    /// All of it in one sentence.
    pub(crate) fn sentence(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(crate) fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }
}

/// Refuses everybody but root, in the name of `verb`.
pub(crate) fn require_root(verb: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(format!("sealane {verb} needs root: it changes namespaces, links and mounts"))
        .hint(as_root(std::env::args_os())))
}

/// The command line again, as root, without the token: what is printed ends up in logs.
pub(crate) fn as_root(line: impl IntoIterator<Item = OsString>) -> String {
    let mut words = vec!["sudo".to_owned()];
    let mut secret = false;
    for word in line {
        let word = word.to_string_lossy();
        words.push(match word.strip_prefix("--token=") {
            _ if secret => "...".to_owned(),
            Some(_) => "--token=...".to_owned(),
            None => word.clone().into_owned(),
        });
        secret = !secret && word == "--token";
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_one_form_whoever_says_it() {
        let own = Failure::missing("network shop", "sealane network ls");
        assert_eq!(Failure::new("there is no network shop; see `sealane network ls`"), own);
        assert_eq!(Failure::new("there is no network shop; hint: see `sealane network ls`"), own);
    }

    #[test]
    fn the_command_line_for_root_does_not_tell_the_token() {
        let table = [
            ("sealane agent --control c:1 --token slt1.x", "sudo sealane agent --control c:1 --token ..."),
            ("sealane agent --token=slt1.x --name a", "sudo sealane agent --token=... --name a"),
            ("sealane network ls", "sudo sealane network ls"),
        ];
        for (line, expected) in table {
            assert_eq!(as_root(line.split(' ').map(OsString::from)), expected);
        }
    }
}
