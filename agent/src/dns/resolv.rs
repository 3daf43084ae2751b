//! Servers that the host asks: its resolv.conf(5), read again when it changes.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Limit for one server where resolv.conf does not say.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// More servers than this are not asked.
const MAX_SERVERS: usize = 8;
/// Interval at which the file is looked at.
const RECHECK: Duration = Duration::from_secs(1);

/// Content of a resolv.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolv {
    pub(crate) servers: Vec<SocketAddr>,
    /// For one server to answer.
    pub(crate) timeout: Duration,
    /// Number of times that each server is asked.
    pub(crate) attempts: u32,
}

impl Resolv {
    /// Reads the format of resolv.conf(5); lines that are not understood are passed over, as the C library does.
    pub(crate) fn parse(text: &str, port: u16, own: &[IpAddr]) -> Self {
        let mut resolv = Self { servers: Vec::new(), timeout: TIMEOUT, attempts: 2 };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|text| server(text, port));
                    resolv.servers.extend(server.filter(|server| !own.contains(&server.ip())));
                }
                Some("options") => words.for_each(|option| resolv.option(option)),
                _ => {}
            }
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

fn server(text: &str, port: u16) -> Option<SocketAddr> {
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
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
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
    use super::*;

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
