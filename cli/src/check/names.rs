//! The host's resolvers, to which workloads' questions for other names are passed on.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::Finding;

/// Port of DNS over TLS.
const TLS_PORT: u16 = 853;
/// Limit for a resolver.
const PATIENCE: Duration = Duration::from_secs(2);
/// The root's name servers (RFC 1035, section 4): every resolver can answer this, if only by refusing.
const QUESTION: [u8; 17] = [0x5e, 0xa1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

pub(super) fn check() -> Vec<Finding> {
    let file = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let (servers, named) = (servers(&file), named(&file));
    if !named.is_empty() {
        // The others are not asked then.
        return named.into_iter().map(|(server, name)| judged_by_name(server, name)).collect();
    }
    if servers.is_empty() {
        return vec![Finding::warning(
            "dns",
            "/etc/resolv.conf names no resolver: workloads know the mesh's names alone",
            "add a `nameserver` line",
        )];
    }
    servers.into_iter().map(|server| judged(server, ask(server))).collect()
}

fn servers(file: &str) -> Vec<IpAddr> {
    let lines = file.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    // A zone behind an IPv6 address means a link of this host alone.
    lines.filter_map(|rest| rest.trim().split('%').next()?.parse().ok()).collect()
}

/// Servers that are asked over TLS: `ADDRESS[:PORT]#NAME`.
fn named(file: &str) -> Vec<(SocketAddr, &str)> {
    let lines = file.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let servers = lines.filter_map(|rest| {
        let (place, name) = rest.trim().split_once('#')?;
        let alone = || place.parse().ok().map(|address| SocketAddr::new(address, TLS_PORT));
        Some((place.parse().ok().or_else(alone)?, name))
    });
    servers.collect()
}

fn judged_by_name(server: SocketAddr, name: &str) -> Finding {
    match TcpStream::connect_timeout(&server, PATIENCE) {
        Ok(_) => Finding::ok("dns", format!("resolver {server} takes connections for {name}")),
        Err(error) => Finding::warning(
            "dns",
            format!(
                "resolver {server} ({name}) takes no connection ({error}): workloads cannot resolve names outside the mesh"
            ),
            "mend /etc/resolv.conf, or let TCP through to it",
        ),
    }
}

fn judged(server: IpAddr, answered: io::Result<()>) -> Finding {
    match answered {
        Ok(()) => Finding::ok("dns", format!("resolver {server} answers")),
        Err(error) => Finding::warning(
            "dns",
            format!(
                "resolver {server} does not answer ({error}): workloads cannot resolve names outside the mesh"
            ),
            "mend /etc/resolv.conf, or let 53/udp through to it",
        ),
    }
}

fn ask(server: IpAddr) -> io::Result<()> {
    let any: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(SocketAddr::new(server, 53))?;
    socket.send(&QUESTION)?;
    let mut answer = [0; 512];
    loop {
        let length = socket.recv(&mut answer).map_err(|error| {
            let late = error.kind() == io::ErrorKind::WouldBlock;
            if late { io::Error::new(io::ErrorKind::TimedOut, "nothing within 2 s") } else { error }
        })?;
        if length >= 12 && answer[..2] == QUESTION[..2] {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_that_are_asked_over_tls_are_told_by_their_names() {
        let file =
            "nameserver 192.0.2.53\nnameserver 192.0.2.54#dns.example.net\nnameserver [2001:db8::1]:8853#x\n";
        let found = named(file).into_iter().map(|(server, name)| format!("{server} {name}"));
        assert_eq!(found.collect::<Vec<_>>(), ["192.0.2.54:853 dns.example.net", "[2001:db8::1]:8853 x"]);
        assert_eq!(servers(file), ["192.0.2.53".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn resolvers_are_read_as_the_c_library_reads_them() {
        let file =
            "# none\nsearch example.org\nnameserver 192.0.2.53\n nameserver  fe80::1%eth0\nnameserver x\n";
        assert_eq!(servers(file), ["192.0.2.53", "fe80::1"].map(|text| text.parse::<IpAddr>().unwrap()));
    }
}
