//! Asking a workload's nameserver, from its namespace.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use sealane_sys::NetNs;

use crate::Running;

/// Types of records (RFC 1035, section 3.2.2, and RFC 3596).
pub const A: u16 = 1;
/// An IPv6 address.
pub const AAAA: u16 = 28;

/// Answer of a nameserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0: no error; 2: failed; 3: no such name.
    pub code: u8,
    /// The addresses, sorted.
    pub addresses: Vec<Ipv4Addr>,
}

impl Running {
    /// Runs `work` in the network namespace of the program, on a thread of its own.
    ///
    /// # Panics
    /// When the program has ended, or `work` panics.
    #[track_caller]
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.pid());
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                NetNs::open(&path).unwrap().enter().unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The nameserver that the program's /etc/resolv.conf names first.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn nameserver(&self) -> SocketAddr {
        let text = fs::read_to_string(format!("/proc/{}/root/etc/resolv.conf", self.pid())).unwrap();
        let first = text.lines().find_map(|line| line.strip_prefix("nameserver ")).unwrap();
        SocketAddr::new(first.trim().parse().unwrap(), 53)
    }

    /// Asks the program's nameserver.
    ///
    /// # Panics
    /// Without an answer.
    #[must_use]
    #[track_caller]
    pub fn ask(&self, name: &str, kind: u16) -> Answer {
        let server = self.nameserver();
        self.within(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
            socket.connect(server).unwrap();
            socket.send(&query(name, kind)).unwrap();
            let mut answer = [0; 1500];
            let length = socket.recv(&mut answer).unwrap();
            read(&answer[..length])
        })
    }

    /// The address that the program's nameserver gives for a name.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[must_use]
    #[track_caller]
    pub fn resolve(&self, name: &str) -> Ipv4Addr {
        let answer = self.ask(name, A);
        assert_eq!(answer.addresses.len(), 1, "{name}: {answer:?}");
        answer.addresses[0]
    }
}

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![0x5e, 0xa1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    query
}

fn read(answer: &[u8]) -> Answer {
    let short = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    let name_end = |mut at: usize| loop {
        match answer[at] {
            0 => return at + 1,
            length if length >= 0xc0 => return at + 2,
            length => at += 1 + usize::from(length),
        }
    };
    let mut at = name_end(12) + 4;
    let mut addresses = Vec::new();
    for _ in 0..short(6) {
        at = name_end(at);
        let (kind, length) = (short(at), usize::from(short(at + 8)));
        let data = &answer[at + 10..at + 10 + length];
        if let (A, [a, b, c, d]) = (kind, data) {
            addresses.push(Ipv4Addr::new(*a, *b, *c, *d));
        }
        at += 10 + length;
    }
    addresses.sort_unstable();
    Answer { code: answer[3] & 0x0f, addresses }
}
