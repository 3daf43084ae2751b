//! Checks of whether an instance works: what is asked of it, how often, and how many answers count.

mod pace;
mod question;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Port;
pub use pace::{Interval, Threshold};
pub use question::{GrpcService, HttpPath, ShellCommand, StatusRange};

/// Types that serde carries as their text.
macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
use as_text;

/// Check of an instance, made by the host of a workload, or by every host for itself where the instance is outside every network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// The question that is asked.
    pub probe: Probe,
    /// Port that is asked; `None`: the first one over TCP.
    pub port: Option<Port>,
    /// The time from an answer to the next question.
    pub interval: Interval,
    /// Time within which an answer counts; `None`: the interval, two seconds at most.
    pub timeout: Option<Interval>,
    /// Good answers in a row that make an instance healthy; `None`: one.
    pub healthy: Option<Threshold>,
    /// Bad answers in a row that make an instance unhealthy; `None`: three of a workload, one of an instance outside.
    pub unhealthy: Option<Threshold>,
    /// Time after a workload's start in which bad answers do not count; `None`: none.
    pub start_period: Option<Interval>,
}

/// Question that a check asks, in the words of command lines: `tcp`, `http:PATH`, `grpc`, `grpc:SERVICE` or `exec:COMMAND`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// A connection is enough.
    Tcp,
    /// A request for the path, answered with one of these statuses.
    Http(HttpPath, StatusRange),
    /// The health service of gRPC (grpc.health.v1), about this service.
    Grpc(GrpcService),
    /// A command in the workload's namespace, which exits with 0. Only a workload's own host says so.
    Exec(ShellCommand),
}

/// A reason for which something is no check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No path.
    #[error("{0:?} is no path to ask for: it begins with / and has up to 256 visible ASCII characters")]
    Path(String),
    /// No time, or one that is too long or too short.
    #[error("{0:?} is no time of a check: it is from 100ms to 1h, such as 5s")]
    Interval(String),
    /// No status, or none that is expected.
    #[error("{0:?} is no status to expect: it is from 100 to 599, or two of them such as 200-299")]
    Status(String),
    /// No name.
    #[error("{0:?} is no service of gRPC: its name has up to 256 visible ASCII characters")]
    Grpc(String),
    /// No command.
    #[error("{0:?} is no command to run: it is one line with up to 1024 characters")]
    Exec(String),
    /// No number, or one that is too large or too small.
    #[error("{0} is no number of answers in a row: it is from 1 to 100")]
    Threshold(String),
    /// Another word than those of probes.
    #[error(
        "{0:?} is no check: it is `tcp`, `http:` and a path, such as http:/health, `grpc`, `grpc:` and a service, or `exec:` and a \
         command"
    )]
    Probe(String),
}

/// The beginning of a text that is refused.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Check {
    /// A check by this probe with nothing else said.
    #[must_use]
    pub fn of(probe: Probe) -> Self {
        Self {
            probe,
            port: None,
            interval: Interval::default(),
            timeout: None,
            healthy: None,
            unhealthy: None,
            start_period: None,
        }
    }

    /// Time within which an answer counts.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.timeout.map_or(self.interval.patience(), Interval::get)
    }
}

impl fmt::Display for Check {
    /// In words: `http:/health at port 8081, every 5s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.probe)?;
        if let Some(port) = self.port {
            write!(f, " at port {port}")?;
        }
        write!(f, ", every {}", self.interval)
    }
}

impl FromStr for Probe {
    type Err = CheckError;
    fn from_str(text: &str) -> Result<Self, CheckError> {
        match text.split_once(':') {
            None if text == "tcp" => Ok(Self::Tcp),
            None if text == "grpc" => Ok(Self::Grpc(GrpcService::default())),
            Some(("http", path)) => path.parse().map(|path| Self::Http(path, StatusRange::default())),
            Some(("grpc", service)) => service.parse().map(Self::Grpc),
            Some(("exec", command)) => command.parse().map(Self::Exec),
            None | Some(_) => Err(CheckError::Probe(shown(text))),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.pad("tcp"),
            Self::Http(path, _) => f.pad(&format!("http:{path}")),
            Self::Grpc(service) if service.as_str().is_empty() => f.pad("grpc"),
            Self::Grpc(service) => f.pad(&format!("grpc:{service}")),
            Self::Exec(command) => f.pad(&format!("exec:{command}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_as_they_are_written() {
        for good in [
            "tcp",
            "http:/",
            "http:/health?full=1",
            "grpc",
            "grpc:shop.Api",
            "exec:redis-cli ping | grep PONG",
        ] {
            assert_eq!(good.parse::<Probe>().unwrap().to_string(), good);
        }
        assert_eq!("grpc:".parse::<Probe>().unwrap().to_string(), "grpc");
        for wrong in [
            "",
            "udp",
            "tcp:80",
            "http:",
            "http:health",
            "http:/a b",
            "http:/a\r\nHost: x",
            "grpc:a b",
            "exec:",
            "exec:a\nb",
        ] {
            assert!(wrong.parse::<Probe>().is_err(), "{wrong}");
        }
    }
}
