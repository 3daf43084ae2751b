//! Conditions on a request, compiled.

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder};

use super::{Matching, ValueMatch};
use crate::request::RequestView;

/// The most bytes that a compiled expression may have.
const MAX_EXPRESSION: usize = 256 * 1024;
/// Name of the field that in HTTP/2 is no field.
const HOST: &str = "host";

/// Conditions of a match beside its path.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    method: Option<Box<str>>,
    fields: Box<[(Box<str>, Value)]>,
    params: Box<[(Box<str>, Value)]>,
}

/// Condition on a value.
#[derive(Debug)]
enum Value {
    Exact(Box<[u8]>),
    Expression(Regex),
    /// The expression is none.
    Never,
}

/// Compiles an expression that matches a whole text.
pub(super) fn expression(text: &str) -> Option<Regex> {
    let whole = format!(r"\A(?:{text})\z");
    // Alone it must be one as well: a parenthesis that closes ours is a mistake.
    let compile = |text: &str| RegexBuilder::new(text).size_limit(MAX_EXPRESSION).build();
    compile(text).and_then(|_| compile(&whole)).ok()
}

impl Value {
    fn new(value: &ValueMatch) -> Self {
        match value {
            ValueMatch::Exact(value) => Self::Exact(value.as_bytes().into()),
            ValueMatch::Expression(text) => expression(text).map_or(Self::Never, Self::Expression),
        }
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => **expected == *value,
            Self::Expression(expression) => expression.is_match(value),
            Self::Never => false,
        }
    }
}

impl Conditions {
    pub(super) fn new(matching: &Matching) -> Self {
        let method = matching.method.as_deref().map(Box::from);
        let fields = first_of_each(&matching.fields, str::eq_ignore_ascii_case);
        let params = first_of_each(&matching.params, |one, other| one == other);
        Self { method, fields, params }
    }

    /// Rank among conditions on the same path: the larger, the sooner.
    pub(super) fn rank(&self) -> (bool, usize, usize) {
        (self.method.is_some(), self.fields.len(), self.params.len())
    }

    /// Returns true if the request meets them, as if it had this method.
    pub(super) fn admit(&self, request: RequestView<'_>, method: &str) -> bool {
        let field = |name: &str| {
            let authority = || request.authority().map(|authority| Cow::Borrowed(authority.as_bytes()));
            if name.eq_ignore_ascii_case(HOST) { authority() } else { request.value(name) }
        };
        let has = |(name, value): &(Box<str>, Value)| field(name).is_some_and(|found| value.matches(&found));
        self.method.as_deref().is_none_or(|expected| expected == method)
            && self.fields.iter().all(has)
            && (self.params.is_empty() || self.admit_query(request.query()))
    }

    fn admit_query(&self, query: &str) -> bool {
        self.params.iter().all(|(name, value)| {
            let mut params = query.split('&').map(|param| param.split_once('=').unwrap_or((param, "")));
            let found = params.find(|(known, _)| *decoded(known) == *name.as_bytes());
            found.is_some_and(|(_, text)| value.matches(&decoded(text)))
        })
    }
}

/// Compiles conditions by name, without those whose name has come before.
fn first_of_each(
    conditions: &[(String, ValueMatch)],
    is_same: impl Fn(&str, &str) -> bool,
) -> Box<[(Box<str>, Value)]> {
    let known = |at: usize, name: &str| conditions[..at].iter().any(|(before, _)| is_same(before, name));
    let fresh = conditions.iter().enumerate().filter(|(at, (name, _))| !known(*at, name));
    fresh.map(|(_, (name, value))| (name.as_str().into(), Value::new(value))).collect()
}

/// Decodes a part of a query as forms have it: percent-encoded, with `+` for a blank.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |at: usize| bytes.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        let encoded =
            digit(at + 1).zip(digit(at + 2)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match (byte, encoded) {
            (b'%', Some(encoded)) => {
                out.push(encoded);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_query_are_read_as_applications_read_them() {
        for (text, expected) in
            [("a", "a"), ("a+b", "a b"), ("%61%2B", "a+"), ("%4", "%4"), ("%zz", "%zz"), ("", "")]
        {
            assert_eq!(*decoded(text), *expected.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn an_expression_matches_the_whole_and_is_bounded() {
        let is_match =
            |text: &str, value: &str| expression(text).map(|known| known.is_match(value.as_bytes()));
        assert_eq!(is_match("a|ab", "ab"), Some(true));
        assert_eq!(is_match("a.c", "xabcx"), Some(false));
        assert_eq!(is_match("a", "a\n"), Some(false));
        for refused in ["(", "a)|(b", "(a{1000}){1000}"] {
            assert_eq!(is_match(refused, "a"), None, "{refused:?}");
        }
    }
}
