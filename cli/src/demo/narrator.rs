//! The tour's voice: chapters, what is claimed in each, and how long it took to see it.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::flaw::Flaw;

/// The column where times stand.
const TIME_COLUMN: usize = 88;

/// Tells the tour on standard output.
#[derive(Debug)]
pub(super) struct Narrator {
    chapter: u32,
    claims: u32,
    started: Instant,
    colours: bool,
}

impl Narrator {
    pub(super) fn new() -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { chapter: 0, claims: 0, started: Instant::now(), colours }
    }

    /// Plain text.
    pub(super) fn say(&self, text: &str) {
        // A reader that went away does not stop the tour.
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// A new chapter: its title and what it is about.
    pub(super) fn chapter(&mut self, title: &str, about: &str) {
        self.chapter += 1;
        let title = self.paint("1", title);
        self.say(&format!("\n{:>2}  {title}", self.chapter));
        for line in about.lines() {
            self.say(&format!("    {line}"));
        }
    }

    /// Checks a claim and says how it went; what `check` returns is told behind the claim.
    pub(super) fn claim(
        &mut self,
        claim: &str,
        check: impl FnOnce() -> Result<String, Flaw>,
    ) -> Result<(), Flaw> {
        let started = Instant::now();
        match check() {
            Ok(seen) => {
                self.claims += 1;
                let text = if seen.is_empty() { claim.to_owned() } else { format!("{claim}: {seen}") };
                self.say(&line(&self.paint("32", "✓"), &text, started.elapsed()));
                Ok(())
            }
            Err(flaw) => {
                self.say(&line(&self.paint("31", "✗"), claim, started.elapsed()));
                Err(Flaw::new(format!("{claim}: {flaw}")))
            }
        }
    }

    /// The tour in one sentence.
    pub(super) fn end(&self) {
        let took = self.started.elapsed().as_secs_f64();
        let text = format!("Every one of {} claims held, in {took:.1} s.", self.claims);
        self.say(&format!("\n{}", self.paint("1", &text)));
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn line(mark: &str, text: &str, took: Duration) -> String {
    let width = TIME_COLUMN - 6;
    let seconds = took.as_secs_f64();
    let time = if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.1} s") };
    format!("    {mark} {text:<width$} {time:>8}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_in_one_column() {
        let short = line("✓", "short", Duration::from_millis(7));
        let other = line("✓", "a longer claim", Duration::from_millis(1_250));
        assert!(short.ends_with("    7 ms") && other.ends_with("   1.3 s") || other.ends_with("   1.2 s"));
        assert_eq!(short.chars().count(), other.chars().count());
    }
}
