//! The header fields that decide where a message ends and what happens to its connection.

use std::mem::MaybeUninit;

use super::body::MAX_LENGTH;
use super::{HeadError, MAX_FIELDS};

/// Room for the fields of one head, on the stack and not initialised.
pub(super) type Fields<'a> = [MaybeUninit<httparse::Header<'a>>; MAX_FIELDS];

/// Framing by the fields of one head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    pub(super) length: Option<u64>,
    pub(super) coding: Option<Coding>,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    pub(super) hosts: usize,
}

/// Framing by the transfer codings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// The last one is chunked: the message ends by itself.
    Chunked,
    /// The last one is another: the message ends with its connection.
    Other,
}

impl Framing {
    /// Reads the fields.
    ///
    /// # Errors
    /// When two of them disagree, or one cannot be read.
    pub(super) fn of(fields: &[httparse::Header<'_>]) -> Result<Self, HeadError> {
        let mut framing = Self::default();
        for field in fields {
            match field.name.len() {
                14 if field.name.eq_ignore_ascii_case("content-length") => framing.add_length(field.value)?,
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    framing.add_codings(field.value)?;
                }
                10 if field.name.eq_ignore_ascii_case("connection") => framing.add_options(field.value),
                7 if field.name.eq_ignore_ascii_case("upgrade") => framing.upgrade = true,
                4 if field.name.eq_ignore_ascii_case("host") => framing.hosts += 1,
                _ => {}
            }
        }
        Ok(framing)
    }

    /// RFC 9112, section 6.3: several lengths, even equal ones, may not be passed on as they came.
    fn add_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        match (self.length, decimal(trim(value))) {
            (None, Some(length)) => self.length = Some(length),
            _ => return Err(HeadError::AmbiguousLength),
        }
        Ok(())
    }

    /// RFC 9112, section 6.1: chunked stands last and once.
    fn add_codings(&mut self, value: &[u8]) -> Result<(), HeadError> {
        for item in items(value) {
            if self.coding == Some(Coding::Chunked) || item.is_empty() {
                return Err(HeadError::AmbiguousLength);
            }
            let chunked = item.eq_ignore_ascii_case(b"chunked");
            self.coding = Some(if chunked { Coding::Chunked } else { Coding::Other });
        }
        Ok(())
    }

    fn add_options(&mut self, value: &[u8]) {
        for item in items(value) {
            self.close |= item.eq_ignore_ascii_case(b"close");
            self.keep_alive |= item.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Returns true if the connection stays open after the message (RFC 9112, section 9.3).
    pub(super) fn persists(&self, minor: u8) -> bool {
        !self.close && (minor >= 1 || self.keep_alive)
    }
}

fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim)
}

fn trim(mut item: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = item {
        item = rest;
    }
    item
}

/// Digits alone: no sign, no blank, nothing that overflows a signed number, as many applications count in.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|&length| length <= MAX_LENGTH)
}
