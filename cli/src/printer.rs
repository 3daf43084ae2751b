//! Everything that is printed: data to standard output, talk to standard error.

mod humane;

use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use clap::ValueEnum;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use sealane_base::text::without_numbers;
use serde::Serialize;

use crate::failure::Failure;
pub(crate) use humane::{age, ago, instant, remaining};

/// Between columns, in characters.
const PADDING: u16 = 2;

/// Format of printed data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

impl Format {
    /// As it is asked for.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
            Self::Yaml => "yaml",
        }
    }
}

/// Kind of thing that is listed.
pub(crate) trait Row: Serialize {
    /// Names of the columns.
    const HEADERS: &'static [&'static str];
    /// Sentence for an empty list.
    const NONE: &'static str;
    /// The cells, one per column.
    fn cells(&self, now: SystemTime) -> Vec<String>;
    /// The column whose words terminals show in colours, if there is one.
    const TONED: Option<&'static str> = None;
    /// Returns the tone of the news that this word of the column tells.
    fn tone(_word: &str) -> Tone {
        Tone::Plain
    }
}

/// Tone of a piece of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Neither.
    Plain,
    /// As it should be.
    Good,
    /// Not as it should be.
    Doubtful,
    /// Wrong.
    Bad,
}

impl Tone {
    /// The word in this tone's colour (ECMA-48, SGR).
    fn paint(self, word: &str) -> String {
        let colour = match self {
            Self::Plain => return word.to_owned(),
            Self::Good => 32,
            Self::Doubtful => 33,
            Self::Bad => 31,
        };
        format!("\u{1b}[{colour}m{word}\u{1b}[0m")
    }
}

/// Thing that is shown with all that is known about it.
pub(crate) trait Sheet: Serialize {
    /// Returns its lines: a name and a value each.
    fn lines(&self, now: SystemTime) -> Vec<(&'static str, String)>;
}

/// Prints in the format that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    format: Format,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints a list.
    pub(crate) fn list<R: Row>(&self, rows: &[R]) -> Result<(), Failure> {
        self.list_or(rows, R::NONE)
    }

    /// Prints a list, or says `none` to people where it is empty.
    pub(crate) fn list_or<R: Row>(&self, rows: &[R], none: &str) -> Result<(), Failure> {
        if rows.is_empty() && self.format == Format::Table {
            self.talk(none);
            return Ok(());
        }
        self.print(&rows, || {
            let now = SystemTime::now();
            let rows = rows.iter().map(|row| row.cells(now));
            let text = table(Some(R::HEADERS), rows, width());
            match R::TONED {
                Some(column) if colours() => painted(&text, column, R::tone),
                _ => text,
            }
        })
    }

    /// Prints one thing.
    pub(crate) fn sheet<S: Sheet>(&self, sheet: &S) -> Result<(), Failure> {
        self.print(sheet, || {
            let lines = sheet.lines(SystemTime::now());
            table(None, lines.into_iter().map(|(name, text)| vec![name.to_owned(), text]), width())
        })
    }

    /// Prints a value that people read as a table under `headers`, with lines behind it.
    pub(crate) fn grid<T: Serialize>(
        &self,
        value: &T,
        headers: &[&str],
        rows: Vec<Vec<String>>,
        behind: &[String],
    ) -> Result<(), Failure> {
        self.print(value, || {
            let table = table(Some(headers), rows.into_iter(), width());
            std::iter::once(&table).chain(behind).map(String::as_str).collect::<Vec<_>>().join("\n")
        })
    }

    /// Prints a result that people read as `text`.
    pub(crate) fn result<T: Serialize>(&self, value: &T, text: &str) -> Result<(), Failure> {
        self.print(value, || text.to_owned())
    }

    /// Says what was done: to people as talk, to programs as data.
    pub(crate) fn done<T: Serialize>(&self, value: &T, text: &str) -> Result<(), Failure> {
        if self.format == Format::Table {
            self.talk(text);
            return Ok(());
        }
        self.print(value, String::new)
    }

    /// Prints what has one form only.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        written(text)
    }

    /// Says something that is not data.
    pub(crate) fn talk(&self, text: &str) {
        // Nobody to talk to is no reason to fail.
        let _ = writeln!(io::stderr(), "{}", without_numbers(text));
    }

    /// Says what went wrong.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        self.talk(&format!("error: {}", failure.message));
        if let Some(hint) = &failure.hint {
            self.talk(&format!("hint: {hint}"));
        }
    }

    fn print<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = match self.format {
            Format::Table => text(),
            Format::Json => serde_json::to_string_pretty(value).map_err(Failure::of("cannot write JSON"))?,
            Format::Yaml => serde_saphyr::to_string(value).map_err(Failure::of("cannot write YAML"))?,
        };
        written(&text)
    }
}

fn written(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{}", without_numbers(text.trim_end())) {
        // `sealane ... | head` has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(Failure::of("cannot write to standard output")),
    }
}

/// The terminal's width; `None` for files and pipes, where lines are as long as they are.
fn width() -> Option<u16> {
    if !io::stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size_of(io::stdout()).map(|(terminal_size::Width(columns), _)| columns)
}

/// Returns true if standard output is a terminal whose user has not asked for no colours (<https://no-color.org>).
fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The table with the words of one column in colours.
fn painted(table: &str, column: &str, tone: fn(&str) -> Tone) -> String {
    let start = table.lines().next().and_then(|head| head.find(column)).unwrap_or(0);
    let paint = |line: &str| match line.split_at_checked(start) {
        Some((before, after)) => {
            let word = after.split(' ').next().unwrap_or_default();
            format!("{before}{}{}", tone(word).paint(word), &after[word.len()..])
        }
        None => line.to_owned(),
    };
    table.lines().map(paint).collect::<Vec<_>>().join("\n")
}

fn table(headers: Option<&[&str]>, rows: impl Iterator<Item = Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    if let Some(headers) = headers {
        table.set_header(headers);
    }
    table.add_rows(rows);
    let words = longest_words(&table);
    for (column, word) in table.column_iter_mut().zip(words) {
        column.set_padding((0, PADDING));
        // Prose is broken between words. Names and addresses stay whole, to be copied.
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(word + PADDING)));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Returns the length of the longest word of every column, in characters.
fn longest_words(table: &Table) -> Vec<u16> {
    let header = table.header().into_iter();
    let rows = header.chain(table.row_iter());
    let mut longest: Vec<u16> = vec![];
    for (column, cell) in rows.flat_map(|row| row.cell_iter().enumerate()) {
        let content = cell.content();
        let word = content.split_whitespace().map(|word| word.chars().count()).max().unwrap_or_default();
        longest.resize(longest.len().max(column + 1), 0);
        longest[column] = u16::try_from(word).unwrap_or(u16::MAX / 2).max(longest[column]);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_without_borders_and_fit_the_terminal() {
        let rows = || {
            [["shop", "10.42.0.0/16"], ["storage", "10.43.0.0/16"]].map(|row| row.map(str::to_owned).to_vec())
        };
        let text = table(Some(&["NAME", "SUBNET"]), rows().into_iter(), None);
        assert_eq!(text, "NAME     SUBNET\nshop     10.42.0.0/16\nstorage  10.43.0.0/16");
        let tone = |word: &str| if word.starts_with("10.42") { Tone::Good } else { Tone::Plain };
        let text = painted(&text, "SUBNET", tone);
        assert_eq!(text, "NAME     SUBNET\nshop     \u{1b}[32m10.42.0.0/16\u{1b}[0m\nstorage  10.43.0.0/16");
        let told = [vec!["10.42.0.30".to_owned(), "its host cannot be reached".to_owned()]];
        let narrow = table(Some(&["ADDRESS", "PROBLEM"]), told.into_iter(), Some(26));
        assert_eq!(
            narrow,
            "ADDRESS     PROBLEM\n10.42.0.30  its host\n            cannot be\n            reached"
        );
        let narrow = table(Some(&["NAME", "SUBNET"]), rows().into_iter(), Some(12));
        assert_eq!(
            narrow, "NAME     SUBNET\nshop     10.42.0.0/16\nstorage  10.43.0.0/16",
            "names stay whole"
        );
        let sheet = table(None, [vec!["name".into(), "shop".into()]].into_iter(), None);
        assert_eq!(sheet, "name  shop");
    }
}
