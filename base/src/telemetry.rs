//! Logs: to standard error, as text or JSON lines, by `SEALANE_LOG` (tracing's filter syntax).
//!
//! An event is one line of bounded length, whatever is in it: nobody whose words are logged writes lines of their own.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::text;

/// The variable that holds the log filter; `info` without it.
pub const LOG_VARIABLE: &str = "SEALANE_LOG";
/// The variable that chooses the format: `text` (default) or `json`.
pub const FORMAT_VARIABLE: &str = "SEALANE_LOG_FORMAT";
/// The longest line of text, in bytes.
const LONGEST_TEXT: usize = 8 << 10;
/// The longest of JSON, which is none any more when it is cut.
const LONGEST_JSON: usize = 64 << 10;

/// Starts logging for the process. Later calls change nothing.
pub fn init() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal();
    let lines = Lines { out: io::stderr, colours, longest: LONGEST_TEXT };
    let json = std::env::var(FORMAT_VARIABLE).is_ok_and(|format| format == "json");
    // A second start in one process (control and agent under `up`) finds the logger there already.
    let _ = if json {
        let lines = Lines { colours: false, longest: LONGEST_JSON, ..lines };
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).json().try_init()
    } else {
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
        builder.with_target(false).with_ansi(colours).try_init()
    };
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
        let read = read.strip_suffix('\n').unwrap_or(&read);
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
