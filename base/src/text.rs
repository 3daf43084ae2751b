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
    without_numbers(&error.to_string()).into_owned()
}

/// The text without the numbers that errors of the kernel bring along (` (os error 13)`): the words before them say the same.
#[must_use]
pub fn without_numbers(text: &str) -> Cow<'_, str> {
    const MARK: &str = " (os error ";
    if !text.contains(MARK) {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split(MARK);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.parse::<i32>().is_ok() => plain.push_str(rest),
            Some(_) | None => {
                plain.push_str(MARK);
                plain.push_str(part);
            }
        }
    }
    Cow::Owned(plain)
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

/// Returns true for a character that cannot be shown: controls (Unicode's Cc), line and paragraph separators (Zl, Zp), and formats (Cf),
/// which turn the direction of what follows or are not seen at all.
#[must_use]
pub fn is_unfit(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words_stand_without_their_numbers() {
        let of_kernel = io::Error::from_raw_os_error(13);
        assert_eq!(plain(&of_kernel), "Permission denied");
        let table = [
            ("nothing of it", "nothing of it"),
            ("a: No such file or directory (os error 2); b (os error -5)", "a: No such file or directory; b"),
            ("(os error 2) alone", "(os error 2) alone"),
            ("a (os error x) b (os error 2", "a (os error x) b (os error 2"),
        ];
        for (text, expected) in table {
            assert_eq!(without_numbers(text), expected);
        }
    }

    #[test]
    fn what_ends_lines_or_directs_terminals_is_escaped() {
        let table = [
            ("plain text, größer", "plain text, größer"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[2J\u{7f}\u{9b}", "\\u{1b}[2J\\u{7f}\\u{9b}"),
            ("a\u{2028}b\u{202e}c", "a\\u{2028}b\\u{202e}c"),
            ("a\u{200b}b\u{feff}c\u{e0041}", "a\\u{200b}b\\u{feff}c\\u{e0041}"),
            ("\u{2010}\u{202f}\u{2065}\u{1f600}", "\u{2010}\u{202f}\u{2065}\u{1f600}"),
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
