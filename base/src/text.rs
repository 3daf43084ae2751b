//! Texts that others have written, made fit to be shown: one line each, of bounded length.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

/// The text in one line of at most so many bytes: what would end a line or direct a terminal is shown as an escape,
/// and what is too long ends in `...`.
#[must_use]
pub fn one_line(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && !text.chars().any(is_unfit) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        let before = line.len();
        push(&mut line, c);
        if line.len() + 3 > most {
            line.truncate(before);
            line.push_str("...");
            break;
        }
    }
    Cow::Owned(line)
}

/// Returns the words of the kernel, without their number.
#[must_use]
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" (os error ").map_or(text.as_str(), |(words, _)| words).to_owned()
}

/// Appends a character as it is fit to be shown.
pub(crate) fn push(line: &mut String, c: char) {
    if is_unfit(c) {
        // Writing to a string cannot fail.
        let _ = write!(line, "{}", c.escape_default());
    } else {
        line.push(c);
    }
}

/// Returns true for a character that cannot be shown: controls (Unicode Cc), line and paragraph separators, and those
/// that turn the direction of what follows.
pub(crate) fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_lines_or_directs_terminals_is_escaped() {
        let table = [
            ("plain text, größer", "plain text, größer"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[2J\u{7f}\u{9b}", "\\u{1b}[2J\\u{7f}\\u{9b}"),
            ("a\u{2028}b\u{202e}c", "a\\u{2028}b\\u{202e}c"),
        ];
        for (text, expected) in table {
            assert_eq!(one_line(text, 100), expected);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(one_line("12345678", 8), "12345678");
        assert_eq!(one_line("123456789", 8), "12345...");
        assert_eq!(one_line(&"ö".repeat(100), 8), "öö...");
        for most in 3..20 {
            assert!(one_line(&"\n".repeat(100), most).len() <= most, "{most}");
        }
    }
}
