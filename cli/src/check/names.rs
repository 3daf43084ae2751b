//! The host's resolvers, to which workloads' questions for other names are passed on.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use sealane_agent::dns::{PORT, Resolv, Server};

use super::Finding;

/// Limit for a resolver.
const PATIENCE: Duration = Duration::from_secs(2);
/// The root's name servers (RFC 1035, section 4): every resolver can answer this, if only by refusing.
const QUESTION: [u8; 17] = [0x5e, 0xa1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

pub(super) fn check() -> Vec<Finding> {
    let file = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = servers(&file);
    if servers.is_empty() {
        return vec![Finding::warning(
            "dns",
            "/etc/resolv.conf names no resolver: workloads know the mesh's names alone",
            "add a `nameserver` line",
        )];
    }
    let judge = |Server { address, tls }| match tls {
        Some(name) => judged_by_name(address, &name),
        None => judged(address.ip(), ask(address)),
    };
    servers.into_iter().map(judge).collect()
}

/// Servers that the agent asks where this is the host's resolv.conf.
fn servers(file: &str) -> Vec<Server> {
    Resolv::parse(file, PORT, &[]).servers
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

fn ask(server: SocketAddr) -> io::Result<()> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
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
        let found =
            servers(file).into_iter().map(|server| format!("{} {}", server.address, server.tls.unwrap()));
        assert_eq!(found.collect::<Vec<_>>(), ["192.0.2.54:853 dns.example.net", "[2001:db8::1]:8853 x"]);
    }

    #[test]
    fn resolvers_are_read_as_the_c_library_reads_them() {
        let file = "# none\nsearch example.org\nnameserver 192.0.2.53\n nameserver  fe80::1%7\nnameserver x\n\
                    nameserver 192.0.2.54 # the router\nnameserver 192.0.2.55:5353\n";
        let found = servers(file).into_iter().map(|server| server.address.to_string());
        let expected = ["192.0.2.53:53", "[fe80::1%7]:53", "192.0.2.54:53", "192.0.2.55:5353"];
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}
