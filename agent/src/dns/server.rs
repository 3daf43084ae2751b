//! Serving: one task per socket, which answers our own names in place and waits for the others' beside that.

mod tcp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sealane_base::task::{self, Task};
use tokio::net::{TcpListener, UdpSocket};

use super::answer::{Outcome, Transport, answer};
use super::forward::Forwarder;
use super::message::Rcode;
use super::metrics::NetworkMetrics;
use super::neighbour::{self, Neighbour};
use super::shares::{Askers, Place, Room, Share, Shares};
use super::sockets::{BACKLOG, DnsSockets};
use super::view::NameView;

/// Number of datagrams that are taken before others have their turn.
const BATCH: usize = 64;
/// Queries are short: names of 255 bytes and options.
const QUERY_ROOM: usize = 4096;

/// The tasks that serve one address. Dropping it closes their copies of the sockets and forgets what is in flight.
#[derive(Debug)]
pub struct DnsServer {
    _udp: Task,
    _tcp: Task,
}

/// Serves `sockets`: each query by what `view` holds at that moment, foreign names by `forwarder`, and bare names that nobody
/// has by the namespace's `neighbour`, if it can have one. None of the `askers` keeps another from being answered.
///
/// # Errors
/// When the sockets cannot be watched.
///
/// # Panics
/// Outside a tokio runtime.
pub fn serve(
    sockets: DnsSockets,
    view: Arc<ArcSwap<NameView>>,
    forwarder: Arc<Forwarder>,
    metrics: NetworkMetrics,
    askers: Askers,
    neighbour: Option<Neighbour>,
) -> io::Result<DnsServer> {
    sockets.udp.set_nonblocking(true)?;
    sockets.tcp.set_nonblocking(true)?;
    let (udp, tcp) = (UdpSocket::from_std(sockets.udp)?, TcpListener::from_std(sockets.tcp)?);
    let neighbour = neighbour.map(Arc::new);
    let (shares, unread) = (Shares::new(askers), Share::default());
    let desk = Desk { view, forwarder, metrics, neighbour, shares, unread };
    Ok(DnsServer {
        _tcp: task::spawn("dns-tcp", tcp::serve(tcp, desk.clone(), askers)),
        _udp: task::spawn("dns-udp", serve_udp(udp, desk)),
    })
}

/// State that every query needs.
#[derive(Clone, Debug)]
struct Desk {
    view: Arc<ArcSwap<NameView>>,
    forwarder: Arc<Forwarder>,
    metrics: NetworkMetrics,
    neighbour: Option<Arc<Neighbour>>,
    shares: Shares,
    /// Answers over TCP that its askers have not taken.
    unread: Share,
}

impl Desk {
    /// A place for one more question of this asker to others, if there is any for it.
    fn take(&self, asker: SocketAddr) -> Option<Place> {
        self.forwarder.take(&self.shares.of(asker.ip()))
    }

    /// Room for so many bytes of answers until they are taken, if there is any on this host.
    fn room(&self, bytes: usize) -> Option<Room> {
        let room = self.forwarder.unread.take(&self.unread, bytes);
        if room.is_none() {
            self.metrics.unread.inc();
        }
        room
    }

    /// Answers the query at once, into `out`; [`Outcome::Forward`] also where a neighbour may know more.
    fn answer(
        &self,
        view: &NameView,
        query: &[u8],
        transport: Transport,
        seed: u64,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match answer(view, query, transport, seed, out) {
            Outcome::Answered { rcode: Rcode::NxDomain }
                if self.neighbour.is_some() && neighbour::concerns(query) =>
            {
                Outcome::Forward
            }
            outcome @ (Outcome::Answered { .. } | Outcome::Forward | Outcome::Drop) => outcome,
        }
    }

    async fn forward(&self, query: &[u8], transport: Transport, place: Place) -> Vec<u8> {
        if let Some(neighbour) = self.neighbour.as_ref().filter(|_| neighbour::concerns(query)) {
            if let Some(known) = neighbour.ask(query).await {
                self.metrics.forwarded(Rcode::NoError);
                return known;
            }
            let mut own = Vec::new();
            let outcome = answer(&self.view.load(), query, transport, 0, &mut own);
            if let Outcome::Answered { rcode } = outcome {
                self.metrics.answered(rcode);
                return own;
            }
        }
        let (answer, rcode) = self.forwarder.forward(query, transport, place).await;
        self.metrics.forwarded(rcode);
        answer
    }

    fn overloaded(&self, query: &[u8]) -> Vec<u8> {
        let (answer, rcode) = self.forwarder.overloaded(query);
        self.metrics.forwarded(rcode);
        answer
    }
}

async fn serve_udp(socket: UdpSocket, desk: Desk) {
    let mut forwards = FuturesUnordered::new();
    let mut buffers = Buffers::default();
    loop {
        tokio::select! {
            ready = socket.readable() => {
                if let Err(error) = ready {
                    tracing::error!(%error, "a DNS socket cannot be watched");
                    return;
                }
                let foreign = answer_batch(&socket, &desk, &mut buffers);
                forwards.extend(foreign.into_iter().map(|foreign| forward(&socket, &desk, foreign)));
            }
            Some(()) = forwards.next() => {}
        }
    }
}

/// A query for others, who asked, and its place.
type Foreign = (Vec<u8>, SocketAddr, Place);

async fn forward(socket: &UdpSocket, desk: &Desk, (query, asker, place): Foreign) {
    let answer = desk.forward(&query, Transport::Udp, place).await;
    if let Err(error) = socket.send_to(&answer, asker).await {
        tracing::debug!(%asker, %error, "an answer could not be sent");
    }
}

/// Answers what waits, at most [`BATCH`] queries; returns those for others, as far as there are places for them. Allocates
/// nothing for our own names.
fn answer_batch(socket: &UdpSocket, desk: &Desk, buffers: &mut Buffers) -> Vec<Foreign> {
    let view = desk.view.load();
    let mut foreign = Vec::new();
    for _ in 0..BATCH {
        let (len, asker) = match socket.try_recv_from(&mut buffers.query) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                tracing::debug!(%error, "a query could not be received");
                break;
            }
        };
        let query = buffers.query.get(..len).unwrap_or_default();
        let seed = buffers.seeds.next();
        let answer = match desk.answer(&view, query, Transport::Udp, seed, &mut buffers.answer) {
            Outcome::Answered { rcode } => {
                desk.metrics.answered(rcode);
                &buffers.answer
            }
            Outcome::Forward => match desk.take(asker) {
                Some(place) => {
                    foreign.push((query.to_vec(), asker, place));
                    continue;
                }
                None => {
                    buffers.answer = desk.overloaded(query);
                    &buffers.answer
                }
            },
            Outcome::Drop => continue,
        };
        // An asker whose answer is lost asks again.
        if let Err(error) = socket.try_send_to(answer, asker) {
            tracing::debug!(%asker, %error, "an answer could not be sent");
        }
    }
    foreign
}

#[derive(Debug)]
struct Buffers {
    query: Box<[u8]>,
    answer: Vec<u8>,
    seeds: Seeds,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            query: vec![0; QUERY_ROOM].into(),
            answer: Vec::with_capacity(QUERY_ROOM),
            seeds: Seeds::default(),
        }
    }
}

/// Well-mixed numbers (splitmix64): a mere count would give A queries, which come in pairs with AAAA, only every
/// second instance.
#[derive(Debug)]
struct Seeds(u64);

impl Default for Seeds {
    fn default() -> Self {
        Self(rand::random())
    }
}

impl Seeds {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests;
