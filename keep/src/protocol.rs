//! Requests and answers as text, and back. Pure.

use std::fmt;

/// The longest key in bytes.
pub const MAX_KEY_LEN: usize = 200;
/// The most descriptors that one key holds.
pub const MAX_DESCRIPTORS: usize = 8;
/// The longest request in bytes.
pub(crate) const MAX_REQUEST_LEN: usize = 256;
/// The longest answer in bytes: a page of keys.
pub(crate) const MAX_ANSWER_LEN: usize = 16 * 1024;

/// Request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    Put { count: usize, key: &'a str },
    Get { key: &'a str },
    Delete { key: &'a str },
    DeletePrefix { prefix: &'a str },
    List { after: &'a str },
}

/// Answer of keep; descriptors travel beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done { count: usize },
    Nothing,
    Keys(Vec<(String, usize)>),
    Error(String),
}

/// Reasons for which a request is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("a request is one of PUT, GET, DELETE, DELETE-PREFIX and LIST, in ASCII, at most 256 bytes")]
    Malformed,
    #[error("a key has 1 to 200 printable ASCII characters without spaces")]
    Key,
    #[error("PUT takes 1 to 8 descriptors")]
    Count,
}

/// Returns true if `key` is one.
pub(crate) fn is_key(key: &str) -> bool {
    (1..=MAX_KEY_LEN).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

impl<'a> Request<'a> {
    pub(crate) fn parse(datagram: &'a [u8]) -> Result<Self, RequestError> {
        let text = std::str::from_utf8(datagram).map_err(|_| RequestError::Malformed)?;
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let key = |text: &'a str| if is_key(text) { Ok(text) } else { Err(RequestError::Key) };
        match verb {
            "PUT" => {
                let (count, name) = rest.split_once(' ').ok_or(RequestError::Malformed)?;
                let count = count.parse().map_err(|_| RequestError::Count)?;
                if !(1..=MAX_DESCRIPTORS).contains(&count) {
                    return Err(RequestError::Count);
                }
                Ok(Self::Put { count, key: key(name)? })
            }
            "GET" => Ok(Self::Get { key: key(rest)? }),
            "DELETE" => Ok(Self::Delete { key: key(rest)? }),
            "DELETE-PREFIX" => Ok(Self::DeletePrefix { prefix: key(rest)? }),
            "LIST" if rest.is_empty() => Ok(Self::List { after: "" }),
            "LIST" => Ok(Self::List { after: key(rest)? }),
            _ => Err(RequestError::Malformed),
        }
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { count, key } => write!(f, "PUT {count} {key}"),
            Self::Get { key } => write!(f, "GET {key}"),
            Self::Delete { key } => write!(f, "DELETE {key}"),
            Self::DeletePrefix { prefix } => write!(f, "DELETE-PREFIX {prefix}"),
            Self::List { after: "" } => f.write_str("LIST"),
            Self::List { after } => write!(f, "LIST {after}"),
        }
    }
}

impl Answer {
    /// `None` for a text that keep does not say.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram).ok()?;
        if text == "NONE" {
            return Some(Self::Nothing);
        }
        if let Some(count) = text.strip_prefix("OK ") {
            return Some(Self::Done { count: count.parse().ok()? });
        }
        if let Some(message) = text.strip_prefix("ERROR ") {
            return Some(Self::Error(message.to_owned()));
        }
        let lines = text.strip_prefix("KEYS")?.lines().skip(1);
        let line = |line: &str| {
            let (key, count) = line.split_once(' ')?;
            Some((key.to_owned(), count.parse().ok()?))
        };
        Some(Self::Keys(lines.map(line).collect::<Option<_>>()?))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { count } => write!(f, "OK {count}"),
            Self::Nothing => f.write_str("NONE"),
            Self::Error(text) => write!(f, "ERROR {text}"),
            Self::Keys(keys) => {
                f.write_str("KEYS")?;
                keys.iter().try_for_each(|(key, count)| write!(f, "\n{key} {count}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip() {
        let requests = [
            Request::Put { count: 2, key: "dns/shop/web-1" },
            Request::Get { key: "a" },
            Request::Delete { key: "a" },
            Request::DeletePrefix { prefix: "dns/" },
            Request::List { after: "" },
            Request::List { after: "a" },
        ];
        for request in requests {
            assert_eq!(Request::parse(request.to_string().as_bytes()), Ok(request));
        }
    }

    #[test]
    fn malformed_requests_say_why() {
        let long = format!("GET {}", "k".repeat(MAX_KEY_LEN + 1));
        let table: [(&[u8], RequestError); 9] = [
            (b"", RequestError::Malformed),
            (b"HELLO", RequestError::Malformed),
            (b"PUT key", RequestError::Malformed),
            (b"\xff", RequestError::Malformed),
            (b"PUT 0 key", RequestError::Count),
            (b"PUT 9 key", RequestError::Count),
            (b"GET", RequestError::Key),
            (b"GET a b", RequestError::Key),
            (long.as_bytes(), RequestError::Key),
        ];
        for (text, expected) in table {
            assert_eq!(Request::parse(text), Err(expected), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn answers_round_trip() {
        let answers = [
            Answer::Done { count: 3 },
            Answer::Nothing,
            Answer::Error("no room".into()),
            Answer::Keys(vec![]),
            Answer::Keys(vec![("a".into(), 1), ("b/c".into(), 8)]),
        ];
        for answer in answers {
            assert_eq!(Answer::parse(answer.to_string().as_bytes()), Some(answer));
        }
    }
}
