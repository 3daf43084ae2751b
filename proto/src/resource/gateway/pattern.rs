//! Regular expressions in matches.

use regex::{Regex, RegexBuilder};

/// The memory that one compiled expression may take, bytes.
const COMPILED: usize = 64 * 1024;

/// A regular expression that a whole value must match: the syntax of crate `regex` (RE2's, without look-around and
/// back-references), so that matching takes time in proportion to the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern<'a>(pub &'a str);

/// Reasons for which a text is no regular expression here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The compiled expression would take too much memory.
    #[error("the regular expression is too large: it takes more than {} KiB; make it shorter, or repeat less in it", COMPILED / 1024)]
    Large,
    /// Not of the syntax.
    #[error("it is no regular expression (RE2's syntax, without look-around and back-references): {0}")]
    Syntax(String),
}

impl Pattern<'_> {
    /// Compiles the expression so that it matches whole values alone.
    ///
    /// # Errors
    /// When it is none, or takes too much memory.
    pub fn compile(self) -> Result<Regex, PatternError> {
        // Alone first: brackets around it would mend what is wrong in it.
        let build =
            |text: &str| RegexBuilder::new(text).size_limit(COMPILED).dfa_size_limit(COMPILED).build();
        let built = build(self.0).and_then(|_| build(&format!("^(?:{})$", self.0)));
        built.map_err(|error| {
            if matches!(error, regex::Error::CompiledTooBig(_)) {
                return PatternError::Large;
            }
            PatternError::Syntax(brief(&error.to_string()))
        })
    }
}

/// The last line of the parser's words, which says what is wrong.
fn brief(words: &str) -> String {
    let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    last.trim_start_matches("error:").trim().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_values_match() {
        for (pattern, value, expected) in [
            ("/v[0-9]+", "/v12", true),
            ("/v[0-9]+", "/v12/x", false),
            ("/v[0-9]+", "x/v12", false),
            ("a|b", "b", true),
            ("a|b", "ab", false),
            ("(?i)one", "ONE", true),
        ] {
            assert_eq!(Pattern(pattern).compile().unwrap().is_match(value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn texts_that_are_none_are_refused_in_words() {
        for (pattern, expected) in [
            ("(", "unclosed group"),
            (")(", "unopened group"),
            ("(?=a)", "look-around"),
            (r"(a)\1", "backreferences are not supported"),
            (r"\w{1000}{1000}", "too large"),
        ] {
            let error = Pattern(pattern).compile().unwrap_err().to_string();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
    }
}
