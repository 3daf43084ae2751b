//! Instances of services outside every network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Port;

/// The place where an instance outside every network listens: an address that means the same on every host, and a port where that
/// is another one than the service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalAddr {
    address: Ipv4Addr,
    port: Option<Port>,
}

/// A reason for which something is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExternalAddrError {
    /// No address, or a port that is none.
    #[error("{0:?} is no external address: it is IP or IP:PORT, such as 192.0.2.50:5432")]
    Malformed(String),
    /// An IPv6 one.
    #[error("{0} is an IPv6 address: ways out of a network lead to IPv4 addresses only")]
    Ipv6(String),
    /// An address that is not the same machine everywhere, or nobody's.
    #[error("{address} is {what}: {why}")]
    Unfit {
        /// The address.
        address: Ipv4Addr,
        /// The kind of the address.
        what: &'static str,
        /// The reason for which no instance has it.
        why: &'static str,
    },
}

/// Names the kind of an address that does not mean one machine wherever it is used, and why nobody is reached there;
/// `None` for all others.
pub(super) fn unfit(address: Ipv4Addr) -> Option<(&'static str, &'static str)> {
    match address.octets() {
        [0, ..] => Some(("no host's address", "name the one that the instance has on its network")),
        [127, ..] => {
            Some(("a loopback address", "it leads every workload to itself; name the host's address"))
        }
        [169, 254, ..] => Some((
            "a link-local address",
            "it means another machine on every link, cloud metadata among them",
        )),
        [224..=239, ..] => Some(("a multicast address", "no single instance answers there")),
        [240..=255, ..] => Some(("a reserved address", "nothing is reached there")),
        _ => None,
    }
}

/// The beginning of a text that is refused.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

impl ExternalAddr {
    /// The address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The instance's own port, if it has one.
    #[must_use]
    pub fn port(&self) -> Option<Port> {
        self.port
    }

    /// The place where it serves a port of its service.
    #[must_use]
    pub fn serving(&self, port: Port) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, self.port.unwrap_or(port).get())
    }

    fn new(address: Ipv4Addr, port: Option<Port>) -> Result<Self, ExternalAddrError> {
        match unfit(address) {
            Some((what, why)) => Err(ExternalAddrError::Unfit { address, what, why }),
            None => Ok(Self { address, port }),
        }
    }
}

impl FromStr for ExternalAddr {
    type Err = ExternalAddrError;
    fn from_str(text: &str) -> Result<Self, ExternalAddrError> {
        let malformed = || ExternalAddrError::Malformed(shown(text));
        if let Ok(address) = text.parse::<IpAddr>() {
            return match address {
                IpAddr::V4(address) => Self::new(address, None),
                IpAddr::V6(_) => Err(ExternalAddrError::Ipv6(text.to_owned())),
            };
        }
        if text.starts_with('[') {
            return Err(ExternalAddrError::Ipv6(shown(text)));
        }
        let (address, port) = text.split_once(':').ok_or_else(malformed)?;
        let address = address.parse().map_err(|_| malformed())?;
        // As people write a number: no sign, nothing before it.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        let number: u16 = port.parse().ok().filter(|_| digits).ok_or_else(malformed)?;
        Self::new(address, Some(Port::try_from(number).map_err(|_| malformed())?))
    }
}

impl fmt::Display for ExternalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => f.pad(&format!("{}:{port}", self.address)),
            None => f.pad(&self.address.to_string()),
        }
    }
}

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

as_text! { ExternalAddr HttpPath Interval }

/// A check of whether an external instance works, made by every host for itself: it accepts a connection, or answers a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// The path that is asked for; `None`: the connection is enough.
    pub http: Option<HttpPath>,
    /// The time from an answer to the next question.
    pub interval: Interval,
}

/// The path of a request, which an answer of 200 to 399 is good for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpPath(Box<str>);

/// The time between two checks: 100 ms to an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(Duration);

/// A reason for which something is no check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No path.
    #[error("{0:?} is no path to ask for: it begins with / and has up to 256 visible ASCII characters")]
    Path(String),
    /// No time, or one that is too long or too short.
    #[error("{0:?} is no time between checks: it is from 100ms to 1h, such as 5s")]
    Interval(String),
    /// Another word than `tcp` or `http:`.
    #[error("{0:?} is no check: it is `tcp`, or `http:` and a path, such as http:/health")]
    Probe(String),
}

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

impl Interval {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(3_600);

    /// The time.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }

    /// The time in whole milliseconds.
    #[must_use]
    pub fn millis(self) -> u32 {
        u32::try_from(self.0.as_millis()).unwrap_or(u32::MAX)
    }

    /// The time that an instance may take to answer: the interval, two seconds at most.
    #[must_use]
    pub fn patience(self) -> Duration {
        self.0.min(Duration::from_secs(2))
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl TryFrom<Duration> for Interval {
    type Error = CheckError;
    fn try_from(time: Duration) -> Result<Self, CheckError> {
        let fits = (Self::SHORTEST..=Self::LONGEST).contains(&time);
        if fits { Ok(Self(time)) } else { Err(CheckError::Interval(format!("{time:?}"))) }
    }
}

impl FromStr for Interval {
    type Err = CheckError;
    fn from_str(text: &str) -> Result<Self, CheckError> {
        let wrong = || CheckError::Interval(shown(text));
        let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(unit);
        let each = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(each));
        Self::try_from(Duration::from_millis(millis.ok_or_else(wrong)?)).map_err(|_| wrong())
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis();
        let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        let whole = units.into_iter().find(|(each, _)| millis.is_multiple_of(*each));
        let (each, unit) = whole.unwrap_or((1, "ms"));
        f.pad(&format!("{}{unit}", millis / each))
    }
}

/// The word for what is asked, as command lines have it: `tcp` or `http:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe(pub Option<HttpPath>);

impl FromStr for Probe {
    type Err = CheckError;
    fn from_str(text: &str) -> Result<Self, CheckError> {
        match (text, text.strip_prefix("http:")) {
            ("tcp", _) => Ok(Self(None)),
            (_, Some(path)) => path.parse().map(|path| Self(Some(path))),
            (_, None) => Err(CheckError::Probe(shown(text))),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(path) => f.pad(&format!("http:{path}")),
            None => f.pad("tcp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_address_is_one_that_means_the_same_on_every_host() {
        for good in ["192.0.2.50", "192.0.2.50:5432", "10.0.0.1:1", "100.64.0.1:65535"] {
            assert_eq!(good.parse::<ExternalAddr>().unwrap().to_string(), good);
        }
        for (wrong, why) in [
            ("", "IP or IP:PORT"),
            ("db:5432", "IP or IP:PORT"),
            ("192.0.2.50:", "IP or IP:PORT"),
            ("192.0.2.50:0", "IP or IP:PORT"),
            ("192.0.2.50:+1", "IP or IP:PORT"),
            ("192.0.2.50:65536", "IP or IP:PORT"),
            ("192.0.2.50/24", "IP or IP:PORT"),
            ("2001:db8::1", "IPv6"),
            ("[2001:db8::1]:80", "IPv6"),
            ("0.0.0.0:80", "no host's address"),
            ("127.0.0.1:80", "leads every workload to itself"),
            ("169.254.169.254:80", "cloud metadata"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
        ] {
            let error = wrong.parse::<ExternalAddr>().unwrap_err().to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_instance_with_a_port_of_its_own_serves_there() {
        let port = Port::try_from(80_u16).unwrap();
        let serving = |text: &str| text.parse::<ExternalAddr>().unwrap().serving(port).to_string();
        assert_eq!(serving("192.0.2.50"), "192.0.2.50:80");
        assert_eq!(serving("192.0.2.50:8080"), "192.0.2.50:8080");
    }

    #[test]
    fn checks_are_read_as_they_are_written() {
        for good in ["100ms", "1500ms", "5s", "2m", "1h"] {
            assert_eq!(good.parse::<Interval>().unwrap().to_string(), good);
        }
        assert_eq!("2000ms".parse::<Interval>().unwrap().to_string(), "2s");
        for wrong in ["", "5", "s", "0s", "99ms", "2h", "-1s", "1.5s", "18446744073709551615h"] {
            assert!(wrong.parse::<Interval>().is_err(), "{wrong}");
        }
        for good in ["tcp", "http:/", "http:/health?full=1"] {
            assert_eq!(good.parse::<Probe>().unwrap().to_string(), good);
        }
        for wrong in ["", "udp", "http:", "http:health", "http:/a b", "http:/a\r\nHost: x"] {
            assert!(wrong.parse::<Probe>().is_err(), "{wrong}");
        }
        assert_eq!(Interval::default().patience(), Duration::from_secs(2));
    }
}
