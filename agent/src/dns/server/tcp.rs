//! DNS over TCP (RFC 7766): messages with their length before them, several to a connection, each answered when its
//! answer is there.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sealane_base::mutex::lock;
use sealane_base::places::{Places, Taken, Ticket};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::WriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::time;

use super::{Askers, BACKLOG, Desk, Outcome, Place, Seeds, Transport};

/// Largest number of connections of an address. A newcomer gets the place of the longest silent one (RFC 7766, section 6.2.2,
/// lets servers close those), or waits while there is none.
const MAX_CONNECTIONS: usize = 64;
/// Largest number of them that one of many askers may have.
const MAX_OF_ASKER: usize = 16;
/// Largest number of questions of one connection that wait for the host's resolvers; more are not read before.
const MAX_FORWARDS: usize = 32;
/// Bytes of answers that are collected before they are written.
const OUTPUT: usize = 64 * 1024;
/// Bytes of answers that the kernel keeps of a connection until they are taken (it takes as many again for its own purposes).
const UNSENT: usize = 32 * 1024;
/// Bytes of them that a connection keeps room for.
const USUAL: usize = 4 * 1024;
/// Time for which a connection may say nothing, or not take its answers.
const IDLE: Duration = Duration::from_secs(10);
/// Rest of accepting after it failed (at the limit of open files).
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Holders of the places.
struct Slots {
    places: Mutex<Places>,
    /// Somebody became silent.
    quiet: Notify,
}

/// A connection's place.
struct Slot<'a> {
    room: &'a Slots,
    ticket: Ticket,
    asker: SocketAddr,
}

impl Slots {
    fn places<T>(&self, of: impl FnOnce(&mut Places) -> T) -> T {
        of(&mut lock(&self.places))
    }
}

impl Slot<'_> {
    /// The asker said or took something, and waits for others' answers or for nothing.
    fn touch(&self, busy: bool) {
        self.room.places(|places| places.touch(self.ticket, busy, Instant::now()));
        if !busy {
            self.room.quiet.notify_one();
        }
    }
}

/// Listens again after somebody in the namespace has closed the socket (`ss -K`), which is bound still. Where that fails, the next
/// attempt to accept does, too.
fn listen_again(listener: TcpListener) -> io::Result<TcpListener> {
    let address = listener.local_addr().ok();
    let socket = listener.into_std()?;
    match SockRef::from(&socket).listen(BACKLOG) {
        Ok(()) => tracing::warn!(?address, "somebody closed a socket that answers names; it listens again"),
        Err(error) => tracing::debug!(%error, ?address, "a socket that answers names cannot listen again"),
    }
    // Registered anew: what the old registration has seen of its end stays with that.
    TcpListener::from_std(socket)
}

pub(super) async fn serve(mut listener: TcpListener, desk: Desk, askers: Askers) {
    let of_asker = match askers {
        Askers::One => MAX_CONNECTIONS,
        Askers::Many => MAX_OF_ASKER,
    };
    let room = Slots { places: Mutex::new(Places::new(MAX_CONNECTIONS, of_asker)), quiet: Notify::new() };
    let mut connections = FuturesUnordered::new();
    let mut ends: HashMap<Ticket, oneshot::Sender<()>> = HashMap::new();
    let mut waiting: Option<(TcpStream, SocketAddr)> = None;
    loop {
        tokio::select! {
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok(newcomer) => waiting = Some(newcomer),
                // It does not listen any more (accept(2)).
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    time::sleep(ACCEPT_REST).await;
                    listener = match listen_again(listener) {
                        Ok(listener) => listener,
                        Err(error) => {
                            tracing::error!(%error, "names are not answered over TCP any more");
                            return;
                        }
                    };
                }
                Err(error) => {
                    tracing::debug!(%error, "a DNS connection could not be accepted");
                    time::sleep(ACCEPT_REST).await;
                }
            },
            Some(ticket) = connections.next() => {
                ends.remove(&ticket);
                room.places(|places| places.leave(ticket));
            }
            () = room.quiet.notified(), if waiting.is_some() => {}
        }
        let Some((stream, asker)) = waiting.take() else { continue };
        let ticket = match room.places(|places| places.take(asker.ip(), Instant::now())) {
            Taken::Free(ticket) => ticket,
            Taken::InPlaceOf(ticket, silent) => {
                ends.remove(&silent);
                desk.metrics.replaced.inc();
                ticket
            }
            Taken::Full => {
                // One of many does not make the others wait behind it.
                waiting = (askers == Askers::One).then_some((stream, asker));
                continue;
            }
        };
        let (end, ended) = oneshot::channel();
        ends.insert(ticket, end);
        connections.push(converse(stream, &desk, Slot { room: &room, ticket, asker }, ended));
    }
}

/// Serves one connection to its end, or until its place is another's.
async fn converse(stream: TcpStream, desk: &Desk, seat: Slot<'_>, ended: oneshot::Receiver<()>) -> Ticket {
    tokio::select! {
        outcome = exchange(stream, desk, &seat) => if let Err(error) = outcome {
            tracing::debug!(%error, "a DNS connection ended");
        },
        _ = ended => tracing::debug!(asker = %seat.asker, "a silent DNS connection made room for another"),
    }
    seat.ticket
}

async fn exchange(mut stream: TcpStream, desk: &Desk, seat: &Slot<'_>) -> io::Result<()> {
    SockRef::from(&stream).set_send_buffer_size(UNSENT)?;
    let (mut reader, mut writer) = stream.split();
    let mut exchange = Exchange::default();
    let mut forwards = FuturesUnordered::new();
    let mut open = true;
    loop {
        let more = exchange.answer_own(desk, seat.asker, MAX_FORWARDS - forwards.len())?;
        forwards.extend(exchange.foreign.drain(..).map(|(query, place)| forward(query, place, desk)));
        seat.touch(more || !forwards.is_empty());
        if !exchange.output.is_empty() {
            write(&mut writer, &exchange.output, desk).await?;
            // What was large once is not kept.
            exchange.output.clear();
            exchange.output.shrink_to(USUAL);
        }
        if more {
            continue;
        }
        // Who closed its side still takes the answers to what it asked.
        if !open && forwards.is_empty() {
            return Ok(());
        }
        let room = forwards.len() < MAX_FORWARDS;
        tokio::select! {
            read = reader.read_buf(&mut exchange.input), if open && room => open = read? > 0,
            Some(answer) = forwards.next() => exchange.push(&answer)?,
            () = time::sleep(IDLE), if forwards.is_empty() => return Ok(()),
        }
    }
}

/// Writes answers; those that are not taken at once need room on this host, or the connection ends.
async fn write(writer: &mut WriteHalf<'_>, answers: &[u8], desk: &Desk) -> io::Result<()> {
    let taken = match writer.try_write(answers) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        written => written?,
    };
    let rest = answers.get(taken..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    // The kernel's part is full as well.
    let _room = desk.room(answers.len() + 2 * UNSENT).ok_or(io::ErrorKind::OutOfMemory)?;
    time::timeout(IDLE, writer.write_all(rest)).await?
}

async fn forward(query: Vec<u8>, place: Place, desk: &Desk) -> Vec<u8> {
    desk.forward(&query, Transport::Tcp, place).await
}

/// Input and output between two waits.
#[derive(Default)]
struct Exchange {
    input: BytesMut,
    output: Vec<u8>,
    /// Queries for others.
    foreign: Vec<(Vec<u8>, Place)>,
    answer: Vec<u8>,
    seeds: Seeds,
}

impl Exchange {
    /// Answers the queries that are here, until `room` of them are for others or the output is full; returns whether
    /// it stopped for the latter.
    fn answer_own(&mut self, desk: &Desk, asker: SocketAddr, room: usize) -> io::Result<bool> {
        let view = desk.view.load();
        while self.foreign.len() < room {
            if self.output.len() >= OUTPUT {
                return Ok(true);
            }
            let Some(query) = take(&mut self.input) else { break };
            match desk.answer(&view, &query, Transport::Tcp, self.seeds.next(), &mut self.answer) {
                Outcome::Answered { rcode } => {
                    desk.metrics.answered(rcode);
                    let answer = std::mem::take(&mut self.answer);
                    self.push(&answer)?;
                    self.answer = answer;
                }
                Outcome::Forward => match desk.take(asker) {
                    Some(place) => self.foreign.push((query.to_vec(), place)),
                    None => self.push(&desk.overloaded(&query))?,
                },
                Outcome::Drop => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(false)
    }

    fn push(&mut self, answer: &[u8]) -> io::Result<()> {
        let len = u16::try_from(answer.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        self.output.extend_from_slice(&len.to_be_bytes());
        self.output.extend_from_slice(answer);
        Ok(())
    }
}

/// The first message, if it is here whole.
fn take(input: &mut BytesMut) -> Option<BytesMut> {
    let len = usize::from(u16::from_be_bytes([*input.first()?, *input.get(1)?]));
    if input.len() < len + 2 {
        return None;
    }
    input.advance(2);
    Some(input.split_to(len))
}
