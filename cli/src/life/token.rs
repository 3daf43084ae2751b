//! The token that a host joins with: from a file, standard input or the environment, so that `ps` does not show it.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use sealane_proto::token::JoinToken;

use crate::args::{Agent, TokenArg};
use crate::failure::{Exit, Failure};

/// Hint where none is to be had.
const PRINTED: &str = "`sealane token create` on the control host prints one";
/// A token and a few lines around it; what is longer is no token.
const LARGEST: u64 = 64 << 10;

/// The token, if one is given. A host that has joined needs none, and reads none.
pub(super) fn read(args: &Agent) -> Result<Option<JoinToken>, Failure> {
    let data_dir = &args.data.data_dir;
    if sealane_agent::has_joined(data_dir).map_err(|error| Failure::new(error.to_string()))? {
        return Ok(None);
    }
    match (&args.token, &args.token_file) {
        (Some(TokenArg::Here(text)), _) => {
            let token = read_token("what --token or SEALANE_TOKEN says", text)?;
            if std::env::args_os().any(|word| is_token(&word.to_string_lossy())) {
                tracing::warn!(
                    "every user of this host can see the token in the list of processes: give it by --token-file FILE, by --token - \
                     on standard input, or as SEALANE_TOKEN"
                );
            }
            Ok(Some(token))
        }
        (Some(TokenArg::Stdin), _) => from_stdin().map(Some),
        (None, Some(file)) => from_file(file).map(Some),
        (None, None) => Ok(None),
    }
}

fn is_token(word: &str) -> bool {
    word.trim_start_matches("--token=").parse::<JoinToken>().is_ok()
}

fn from_stdin() -> Result<JoinToken, Failure> {
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        tracing::info!("reading the token from standard input; end it with Ctrl-D");
    }
    last_line("standard input", stdin)
}

fn from_file(path: &Path) -> Result<JoinToken, Failure> {
    let name = path.display().to_string();
    let file = fs::File::open(path).map_err(|error| {
        Failure::new(format!("cannot read the token in {name}: {error}"))
            .exit(Exit::Usage)
            .hint("`sealane token create` on the control host prints one: keep it there, for root alone")
    })?;
    last_line(&name, file)
}

/// `sealane token create` prints the token alone in its last line.
fn last_line(name: &str, from: impl Read) -> Result<JoinToken, Failure> {
    let mut text = String::new();
    let read = from.take(LARGEST).read_to_string(&mut text);
    read.map_err(Failure::of(format!("cannot read the token from {name}")))?;
    let Some(line) = text.lines().map(str::trim).rfind(|line| !line.is_empty()) else {
        return Err(Failure::new(format!("there is no token in {name}")).exit(Exit::Usage).hint(PRINTED));
    };
    read_token(&format!("the last line of {name}"), line)
}

/// Reads a token. One that is malformed may be a good one with a letter too many: it is not repeated.
fn read_token(whose: &str, text: &str) -> Result<JoinToken, Failure> {
    let parsed = text.parse();
    parsed.map_err(|error| {
        Failure::new(format!("{whose} is no token: {error}")).exit(Exit::Usage).hint(PRINTED)
    })
}

#[cfg(test)]
mod tests {
    use sealane_proto::token::{Pin, TokenSecret};

    use super::*;

    #[test]
    fn the_token_is_the_last_line_that_says_something() {
        let token = JoinToken {
            id: "abcd2345".into(),
            secret: TokenSecret::new([7; 20]),
            pin: Pin::of(b"certificate"),
        };
        let text = format!("a host joins with ...\n{token}\n\n");
        assert_eq!(last_line("x", text.as_bytes()), Ok(token));
        for (text, expected) in
            [("", "there is no token in x"), ("nonsense\n", "the last line of x is no token")]
        {
            let failure = last_line("x", text.as_bytes()).unwrap_err();
            assert!(failure.message.starts_with(expected) && failure.hint.is_some(), "{failure:?}");
        }
    }

    #[test]
    fn a_malformed_token_is_not_repeated() {
        let arguments =
            ["sealane", "agent", "--control", "192.0.2.1:7443", "--token", "slt1.abcd2345.secretx"];
        let cli = <crate::args::Cli as clap::Parser>::try_parse_from(arguments).unwrap();
        assert!(!format!("{cli:?}").contains("secretx"));
        let failure = read_token("what --token says", "slt1.abcd2345.secretx").unwrap_err();
        assert!(!format!("{failure:?}").contains("secretx") && failure.hint.is_some(), "{failure:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let failure = from_file(Path::new("/nonexistent/token")).unwrap_err();
        assert!(failure.message.contains("/nonexistent/token"), "{failure:?}");
    }
}
