//! Logs: to standard error, as text or JSON lines, by `SEALANE_LOG` (tracing's filter syntax).
//!
//! An event is one line of bounded length, whatever is in it: nobody whose words are logged writes lines of their own.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::text;

/// The variable that holds the log filter; [`DEFAULT_FILTER`] without it.
pub const LOG_VARIABLE: &str = "SEALANE_LOG";
/// Everything from `info` on, but for the library that asks the host's resolvers: it warns of every datagram that it does not
/// take, and others decide how many of those come.
pub const DEFAULT_FILTER: &str = "info,hickory_net=error,hickory_resolver=error";
/// The variable that chooses the format: `text` (default) or `json`.
pub const FORMAT_VARIABLE: &str = "SEALANE_LOG_FORMAT";
/// The longest line of text, in bytes.
const LONGEST_TEXT: usize = 8 << 10;
/// The longest of JSON, which is none any more when it is cut.
const LONGEST_JSON: usize = 64 << 10;

/// The levels that a filter may name.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Beginning of the names of our own parts.
const OWN: &str = "sealane";

/// Starts logging for the process, and answers what of its variables is not followed. Later calls change nothing.
pub fn init() -> Vec<String> {
    let (filter, format) = (std::env::var(LOG_VARIABLE).ok(), std::env::var(FORMAT_VARIABLE).ok());
    let flaws = [filter.as_deref().and_then(flaw_of_filter), format.as_deref().and_then(flaw_of_format)];
    let filter = filter.filter(|text| flaws[0].is_none() && !text.is_empty());
    let filter = EnvFilter::new(filter.as_deref().unwrap_or(DEFAULT_FILTER));
    let colours = io::stderr().is_terminal();
    let lines = Lines { out: io::stderr, colours, longest: LONGEST_TEXT };
    let json = format.is_some_and(|format| format == "json");
    // A second start in one process (control and agent under `up`) finds the logger there already.
    let _ = if json {
        let lines = Lines { colours: false, longest: LONGEST_JSON, ..lines };
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).json().try_init()
    } else {
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
        builder.with_target(false).with_ansi(colours).try_init()
    };
    flaws.into_iter().flatten().collect()
}

/// Tells the flaw of a filter. A word that is no level names a part of the program, of which nothing would be left to log.
fn flaw_of_filter(text: &str) -> Option<String> {
    let why = match EnvFilter::try_new(text) {
        Err(error) => error.to_string(),
        Ok(_) => {
            let mut words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            let is_level = |word: &str| {
                LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level)) || word.parse::<u8>().is_ok()
            };
            let odd =
                words.find(|word| !word.contains(['=', '[']) && !is_level(word) && !word.starts_with(OWN))?;
            format!("{odd} is no level")
        }
    };
    Some(format!(
        "{LOG_VARIABLE}={text} is not followed: {why}; give one of {}, or PART=LEVEL, such as sealane_agent=debug; info is taken",
        LEVELS.join(", ")
    ))
}

fn flaw_of_format(text: &str) -> Option<String> {
    (!["", "text", "json"].contains(&text))
        .then(|| format!("{FORMAT_VARIABLE}={text} is not followed: it is text or json; text is taken"))
}

/// Makes one line of each event.
#[derive(Clone, Copy, Debug)]
struct Lines<F> {
    out: F,
    /// True if the formatter colours its lines; foreign text in them is escaped then.
    colours: bool,
    longest: usize,
}

impl<'a, W: Write, F: Fn() -> W> MakeWriter<'a> for Lines<F> {
    type Writer = Line<W>;

    fn make_writer(&'a self) -> Line<W> {
        Line { out: (self.out)(), colours: self.colours, longest: self.longest }
    }
}

struct Line<W> {
    out: W,
    colours: bool,
    longest: usize,
}

impl<W: Write> Write for Line<W> {
    /// Takes a whole event: the formatter writes it at once.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let read = String::from_utf8_lossy(event);
        let read = text::without_numbers(read.strip_suffix('\n').unwrap_or(&read));
        let mut line = String::with_capacity(read.len().min(self.longest) + 1);
        for c in read.chars() {
            if line.len() >= self.longest {
                line.push_str("...");
                break;
            }
            if c == '\u{1b}' && self.colours {
                line.push(c);
            } else {
                text::push(&mut line, c);
            }
        }
        line.push('\n');
        self.out.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_the_variables_ask_for_and_do_not_get_is_said() {
        for good in ["", "debug", "WARN", "info,sealane_agent=trace", "sealane_proxy", "h2=off,info", "3"] {
            assert_eq!(flaw_of_filter(good), None, "{good}");
        }
        for (bad, why) in [
            ("verbose", "verbose is no level"),
            ("info,loud", "loud is no level"),
            ("a=b=c", "error parsing level"),
        ] {
            let flaw = flaw_of_filter(bad).unwrap();
            assert!(
                flaw.starts_with(&format!("SEALANE_LOG={bad} is not followed: ")) && flaw.contains(why),
                "{flaw}"
            );
        }
        for (format, expected) in
            [("", true), ("text", true), ("json", true), ("xml", false), ("JSON", false)]
        {
            assert_eq!(flaw_of_format(format).is_none(), expected, "{format}");
        }
    }

    #[test]
    fn whatever_is_logged_an_event_is_one_line_of_bounded_length() {
        let kept = Kept::default();
        let out = kept.clone();
        let lines = Lines { out: move || out.clone(), colours: false, longest: 500 };
        let logger =
            tracing_subscriber::fmt().with_writer(lines).with_ansi(false).without_time().with_target(false);
        tracing::subscriber::with_default(logger.finish(), || {
            let evil = "nope\n2026-11-28T22:00:00Z  INFO token created\u{1b}[2J\r";
            tracing::warn!(evil, display = %evil, "{evil}");
            tracing::warn!(long = %"x\n".repeat(1 << 20), "long");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].contains("nope\\n2026-11-28T22:00:00Z") && !text.contains(['\u{1b}', '\r']),
            "{text}"
        );
        assert!(lines[1].len() < 510);
    }
}
