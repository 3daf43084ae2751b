//! Servers that the host asks: its resolv.conf(5), read again when it changes.
//!
//! A server may be named as systemd-resolved names it, `ADDRESS[:PORT][#NAME]`: with a name, it is asked over TLS (RFC 7858).
//! The C library passes such lines over.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use sealane_base::mutex::lock;

/// Port of DNS over TLS.
const TLS_PORT: u16 = 853;
/// Limit for one server where resolv.conf does not say.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// More servers than this are not asked.
const MAX_SERVERS: usize = 8;
/// Interval at which the file is looked at.
const RECHECK: Duration = Duration::from_secs(1);

/// Content of a resolv.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolv {
    /// Servers in the order in which they are asked. Where any is to be asked over TLS, all are: nothing is said in the clear.
    pub servers: Vec<Server>,
    /// Limit for one server to answer.
    pub timeout: Duration,
    /// Number of times that each server is asked.
    pub attempts: u32,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Address and port.
    pub address: SocketAddr,
    /// Name in its certificate, if it is to be asked over TLS.
    pub tls: Option<Arc<str>>,
}

impl Resolv {
    /// Reads the format of resolv.conf(5), but for servers at the addresses `own`; lines that are not understood are passed
    /// over, as the C library does. Servers that name no port are asked at `port`.
    #[must_use]
    pub fn parse(text: &str, port: u16, own: &[IpAddr]) -> Self {
        let mut resolv = Self { servers: Vec::new(), timeout: TIMEOUT, attempts: 2 };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|text| Server::parse(text, port));
                    resolv.servers.extend(server.filter(|server| !own.contains(&server.address.ip())));
                }
                Some("options") => words.for_each(|option| resolv.option(option)),
                _ => {}
            }
        }
        if resolv.servers.iter().any(|server| server.tls.is_some()) {
            resolv.servers.retain(|server| server.tls.is_some());
        }
        resolv.servers.truncate(MAX_SERVERS);
        resolv
    }

    fn option(&mut self, option: &str) {
        let Some((name, number)) = option.split_once(':') else { return };
        match (name, number.parse::<u32>()) {
            ("timeout", Ok(seconds)) => self.timeout = Duration::from_secs(seconds.clamp(1, 3).into()),
            ("attempts", Ok(attempts)) => self.attempts = attempts.clamp(1, 5),
            _ => {}
        }
    }
}

impl Server {
    /// Reads `ADDRESS[:PORT][#NAME]`, an address of IPv6 with its port in brackets.
    fn parse(text: &str, port: u16) -> Option<Self> {
        let Some((place, name)) = text.split_once('#') else {
            return Some(Self { address: address(text, port)?, tls: None });
        };
        ServerName::try_from(name).ok()?;
        Some(Self { address: address(place, TLS_PORT)?, tls: Some(name.into()) })
    }
}

fn address(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Some((address, zone)) = text.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        let scope = zone.parse().ok().or_else(|| nix::net::if_::if_nametoindex(zone).ok())?;
        return Some(SocketAddrV6::new(address, port, 0, scope).into());
    }
    Some(SocketAddr::new(text.parse().ok()?, port))
}

/// The host's resolv.conf as it is now.
#[derive(Debug)]
pub(crate) struct ResolvFile {
    path: PathBuf,
    port: u16,
    own: Vec<IpAddr>,
    cached: Mutex<Option<Cached>>,
}

#[derive(Debug)]
struct Cached {
    checked: Instant,
    version: Option<Version>,
    resolv: Arc<Resolv>,
}

/// Differs when the file was written or replaced.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    len: u64,
    changed: (i64, i64),
}

impl ResolvFile {
    pub(crate) fn new(path: PathBuf, port: u16, own: Vec<IpAddr>) -> Self {
        Self { path, port, own, cached: Mutex::new(None) }
    }

    /// Looks at the file at most once a second, and reads it if it changed: a few microseconds of a small local
    /// file, so the runtime is not troubled with it. A missing file names no server.
    pub(crate) fn current(&self, now: Instant) -> Arc<Resolv> {
        let mut cached = lock(&self.cached);
        if let Some(cached) = cached.as_ref().filter(|cached| now < cached.checked + RECHECK) {
            return cached.resolv.clone();
        }
        let version = Version::of(&self.path);
        let unchanged = cached.take().filter(|cached| cached.version == version);
        let resolv = unchanged.map_or_else(|| Arc::new(self.read()), |cached| cached.resolv);
        *cached = Some(Cached { checked: now, version, resolv: resolv.clone() });
        resolv
    }

    fn read(&self) -> Resolv {
        let text = fs::read_to_string(&self.path).unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "cannot read the host's resolvers");
            String::new()
        });
        let resolv = Resolv::parse(&text, self.port, &self.own);
        tracing::debug!(servers = ?resolv.servers, "foreign names are forwarded");
        resolv
    }
}

impl Version {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self { inode: file.ino(), len: file.len(), changed: (file.ctime(), file.ctime_nsec()) })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::str::FromStr;

    use super::*;

    impl FromStr for Server {
        type Err = Infallible;

        fn from_str(text: &str) -> Result<Self, Infallible> {
            Ok(Self::parse(text, 53).unwrap())
        }
    }

    #[test]
    fn where_a_server_is_named_for_tls_nothing_is_asked_in_the_clear() {
        let text = "nameserver 192.0.2.1\nnameserver 192.0.2.2#dns.example.com\nnameserver 192.0.2.3:8853#dns.example.com\n\
                    nameserver [2001:db8::3]:8853#dns.example.com\nnameserver 192.0.2.4#no/name\n";
        let servers = Resolv::parse(text, 53, &[]).servers;
        let places: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
        assert_eq!(places, ["192.0.2.2:853", "192.0.2.3:8853", "[2001:db8::3]:8853"]);
        assert!(servers.iter().all(|server| server.tls.as_deref() == Some("dns.example.com")), "{servers:?}");
    }

    #[test]
    fn servers_and_options_are_read_and_the_rest_passed_over() {
        let text = "# a comment\nsearch example.com\nnameserver 192.0.2.1\nnameserver 127.0.0.11\n\
                    nameserver fe80::1%7\nnameserver nonsense\nnameserver\noptions ndots:2 timeout:2 attempts:3 edns0\n";
        let resolv = Resolv::parse(text, 53, &["127.0.0.11".parse().unwrap()]);
        let servers = ["192.0.2.1:53", "[fe80::1%7]:53"].map(|text| text.parse().unwrap());
        assert_eq!(resolv, Resolv { servers: servers.into(), timeout: Duration::from_secs(2), attempts: 3 });
    }

    #[test]
    fn a_replaced_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let file = ResolvFile::new(path.clone(), 53, vec![]);
        let start = Instant::now();
        assert_eq!(file.current(start).servers, []);
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(file.current(start).servers, [], "looked at a moment ago");
        assert_eq!(file.current(start + RECHECK).servers, ["192.0.2.1:53".parse().unwrap()]);
        let next = dir.path().join("next");
        fs::write(&next, "nameserver 192.0.2.2\n").unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(file.current(start + 2 * RECHECK).servers, ["192.0.2.2:53".parse().unwrap()]);
    }
}
