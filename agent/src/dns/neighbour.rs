//! Docker's resolver, in the namespace of a container that is in a network of Docker's with names: it knows the other
//! containers there, and is asked for the bare names that none of ours has.
//!
//! It asks in turn whom the container was started with, which may be us. So that no question goes round, ours are
//! spelled in capitals, which resolvers keep: what comes so is never asked on.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use sealane_base::task;
use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;
use tokio::net::UdpSocket;

use super::message::{HEADER_LEN, Query, Rcode};
use super::sockets::PORT;

/// Address of Docker's resolver, at a port that its rules lead to.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Limit for its answer: it has its names in memory.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Enough for the answers to a bare name.
const ANSWER_ROOM: usize = 4096;

/// Another server of names in a namespace.
#[derive(Debug)]
pub struct Neighbour {
    hopper: Arc<Hopper>,
    netns: NetNs,
}

impl Neighbour {
    /// Whoever is in `netns`, now or later.
    #[must_use]
    pub fn new(hopper: Arc<Hopper>, netns: NetNs) -> Self {
        Self { hopper, netns }
    }

    /// Asks it for the name in question; `None` when it knows nothing, or is not there.
    pub(super) async fn ask(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mut answer = tokio::time::timeout(TIMEOUT, self.exchange(query)).await.ok()?.ok()??;
        Query::parse(query).ok()?.spell_in(&mut answer)?;
        // Also of another type than was asked for: the name is there.
        (Rcode::of(&answer) == Rcode::NoError).then_some(answer)
    }

    async fn exchange(&self, query: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let (hopper, netns) = (self.hopper.clone(), self.netns.try_clone()?);
        let dialled = task::blocking(move || hopper.run(&netns, dial)).await???;
        let Some(socket) = dialled else { return Ok(None) };
        let socket = UdpSocket::from_std(socket)?;
        let sent = capitals(query);
        socket.send(&sent).await?;
        let mut answer = vec![0; ANSWER_ROOM];
        loop {
            let len = socket.recv(&mut answer).await?;
            // Connected: nobody else can answer.
            if answer.get(..2) == sent.get(..2) {
                answer.truncate(len);
                return Ok(Some(answer));
            }
        }
    }
}

/// Returns true if a question is one for a neighbour: a bare name that was not in its hands already.
pub(super) fn concerns(query: &[u8]) -> bool {
    let Ok(parsed) = Query::parse(query) else { return false };
    let has_letters = parsed.question.iter().any(u8::is_ascii_alphabetic);
    parsed.name.label_count() == 1 && has_letters && capitals(query) != query
}

/// The same question in capitals. Lengths of labels are no letters.
fn capitals(query: &[u8]) -> Vec<u8> {
    let mut spelled = query.to_vec();
    let name = Query::parse(query).map_or(0, |parsed| parsed.split().0.len());
    if let Some(name) = spelled.get_mut(HEADER_LEN..HEADER_LEN + name) {
        name.make_ascii_uppercase();
    }
    spelled
}

/// A socket to it, in the calling thread's namespace; `None` when it is not there.
fn dial() -> io::Result<Option<StdUdpSocket>> {
    let Some(port) = port(&fs::read_to_string("/proc/thread-self/net/udp")?) else { return Ok(None) };
    let socket = StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(SocketAddrV4::new(ADDRESS, port))?;
    socket.set_nonblocking(true)?;
    Ok(Some(socket))
}

/// The port of its socket, in what the kernel lists: ours is at 53, or at another address.
fn port(sockets: &str) -> Option<u16> {
    // A number in the host's byte order.
    let address = format!("{:08X}", u32::from_ne_bytes(ADDRESS.octets()));
    let ports = sockets.lines().filter_map(|line| {
        let (at, port) = line.split_whitespace().nth(1)?.split_once(':')?;
        (at == address).then(|| u16::from_str_radix(port, 16).ok()).flatten()
    });
    ports.into_iter().find(|port| *port != PORT)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A recursive query for addresses.
    pub(in crate::dns) fn query(name: &str) -> Vec<u8> {
        let labels = name
            .split('.')
            .flat_map(|label| std::iter::once(u8::try_from(label.len()).unwrap()).chain(label.bytes()));
        let header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        header.into_iter().chain(labels).chain([0, 0, 1, 0, 1]).collect()
    }

    #[test]
    fn bare_names_are_asked_of_a_neighbour_once() {
        assert!(concerns(&query("ub2")) && concerns(&query("Web")));
        assert!(!concerns(&capitals(&query("ub2"))), "it was asked already");
        assert!(!concerns(&query("ub2.example")), "others have those");
        assert!(!concerns(&query("17")), "no letter tells whether it was");
    }

    #[test]
    fn the_socket_of_docker_s_resolver_is_found_beside_ours() {
        let line = |number: u16, port: u16| {
            let address = u32::from_ne_bytes(ADDRESS.octets());
            format!(
                "{number:5}: {address:08X}:{port:04X} 00000000:0000 07 00000000:00000000 00:00000000 00000000 0\n"
            )
        };
        let header = "   sl  local_address rem_address   st tx_queue rx_queue\n".to_owned();
        assert_eq!(port(&(header.clone() + &line(1, 53) + &line(2, 40_053))), Some(40_053));
        assert_eq!(port(&(header + &line(1, 53))), None);
    }
}
