//! Parts of questions: a path and a status of HTTP, a service of gRPC, a command.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{CheckError, as_text, shown};

/// The path of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpPath(Box<str>);

/// Statuses of HTTP from one to another, both included; 200 to 399 unless something else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

/// Name of a service of gRPC as its health service knows it; empty for the server as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrpcService(Box<str>);

/// Command for `sh -c`: up to 1,024 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShellCommand(Box<str>);

impl HttpPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HttpPath {
    type Err = CheckError;
    fn from_str(text: &str) -> Result<Self, CheckError> {
        let fits =
            text.starts_with('/') && text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.into())) } else { Err(CheckError::Path(shown(text))) }
    }
}

impl fmt::Display for HttpPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Default for StatusRange {
    fn default() -> Self {
        Self { first: 200, last: 399 }
    }
}

impl StatusRange {
    /// Returns true for one of these statuses.
    #[must_use]
    pub fn has(self, status: u16) -> bool {
        RangeInclusive::new(self.first, self.last).contains(&status)
    }
}

impl FromStr for StatusRange {
    type Err = CheckError;
    fn from_str(text: &str) -> Result<Self, CheckError> {
        let status = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|status| digits && (100..600).contains(status))
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(CheckError::Status(shown(text))),
        }
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => f.pad(&self.first.to_string()),
            false => f.pad(&format!("{}-{}", self.first, self.last)),
        }
    }
}

impl GrpcService {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GrpcService {
    type Err = CheckError;
    fn from_str(text: &str) -> Result<Self, CheckError> {
        let fits = text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.into())) } else { Err(CheckError::Grpc(shown(text))) }
    }
}

impl fmt::Display for GrpcService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl ShellCommand {
    /// The command as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ShellCommand {
    type Err = CheckError;
    fn from_str(text: &str) -> Result<Self, CheckError> {
        let fits =
            !text.trim().is_empty() && text.chars().count() <= 1024 && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.into())) } else { Err(CheckError::Exec(shown(text))) }
    }
}

impl fmt::Display for ShellCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

as_text! { HttpPath StatusRange GrpcService }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_bounds() {
        for good in ["200", "100-599", "200-204"] {
            assert_eq!(good.parse::<StatusRange>().unwrap().to_string(), good);
        }
        let range: StatusRange = "200-204".parse().unwrap();
        assert_eq!([199, 200, 204, 205].map(|status| range.has(status)), [false, true, true, false]);
        for wrong in ["", "99", "600", "300-200", "2xx", "200-", "+200", "0200"] {
            assert!(wrong.parse::<StatusRange>().is_err(), "{wrong}");
        }
    }
}
