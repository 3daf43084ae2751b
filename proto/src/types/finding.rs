//! Reasons for which workloads are not ready, as their hosts say them.

use std::fmt;

use sealane_base::text::is_unfit;

/// A line of a host about what keeps a workload of its own from being ready, of at most [`Finding::MOST`] octets; empty: nothing is
/// said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Finding(Box<str>);

impl Finding {
    /// The longest one, in octets.
    pub const MOST: usize = 256;

    /// Takes as much of the text as is kept; what controls a terminal, turns the line around or is not
    /// seen becomes a blank.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let end = text.floor_char_boundary(Self::MOST);
        let plain = text[..end].chars().map(|one| if is_unfit(one) { ' ' } else { one });
        Self(plain.collect::<String>().trim().into())
    }

    /// The words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_one_line_without_control_characters_and_of_a_bounded_length() {
        for (text, expected) in [
            ("", ""),
            ("status 500", "status 500"),
            ("\u{1b}[31mred\nline\u{9b}2", "[31mred line 2"),
            (" \t ", ""),
            ("not \u{202e}ydaer\u{2028}h1: all\u{200b}well", "not  ydaer h1: all well"),
            ("\u{feff}gr\u{f6}\u{df}er", "gr\u{f6}\u{df}er"),
        ] {
            assert_eq!(Finding::new(text).as_str(), expected);
        }
        // A character of two octets does not fit into the last one.
        let long = Finding::new(&format!("{}\u{e9}", "x".repeat(Finding::MOST - 1)));
        assert_eq!(long.as_str(), "x".repeat(Finding::MOST - 1));
        assert_eq!(Finding::new(long.as_str()), long);
    }
}
