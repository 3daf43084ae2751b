//! DNS over TCP (RFC 7766): messages with their length before them, several to a connection, each answered when its
//! answer is there.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time;

use super::{Desk, Outcome, Seeds, Transport, answer};

/// How many connections one workload may have; more wait in the backlog.
const MAX_CONNECTIONS: usize = 64;
/// How many questions of one connection may wait for the host's resolvers; more are not read before.
const MAX_FORWARDS: usize = 32;
/// How many bytes of answers are collected before they are written.
const OUTPUT: usize = 64 * 1024;
/// How long a connection may say nothing, or not take its answers.
const IDLE: Duration = Duration::from_secs(10);
/// How long accepting rests after it failed (at the limit of open files).
const ACCEPT_REST: Duration = Duration::from_millis(50);

pub(super) async fn serve(listener: TcpListener, desk: Desk) {
    let mut connections = FuturesUnordered::new();
    loop {
        let room = connections.len() < MAX_CONNECTIONS;
        tokio::select! {
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, _)) => connections.push(converse(stream, &desk)),
                Err(error) => {
                    tracing::debug!(%error, "a DNS connection could not be accepted");
                    time::sleep(ACCEPT_REST).await;
                }
            },
            Some(()) = connections.next() => {}
        }
    }
}

/// Serves one connection to its end.
async fn converse(stream: TcpStream, desk: &Desk) {
    if let Err(error) = exchange(stream, desk).await {
        tracing::debug!(%error, "a DNS connection ended");
    }
}

async fn exchange(mut stream: TcpStream, desk: &Desk) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut exchange = Exchange::default();
    let mut forwards = FuturesUnordered::new();
    let mut open = true;
    loop {
        let more = exchange.answer_own(desk, MAX_FORWARDS - forwards.len())?;
        forwards.extend(exchange.foreign.drain(..).map(|query| forward(query, desk)));
        if !exchange.output.is_empty() {
            time::timeout(IDLE, writer.write_all(&exchange.output)).await??;
            exchange.output.clear();
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

async fn forward(query: Vec<u8>, desk: &Desk) -> Vec<u8> {
    desk.forward(&query, Transport::Tcp).await
}

/// What came and what goes, between two waits.
#[derive(Default)]
struct Exchange {
    input: BytesMut,
    output: Vec<u8>,
    /// Queries for others.
    foreign: Vec<Vec<u8>>,
    answer: Vec<u8>,
    seeds: Seeds,
}

impl Exchange {
    /// Answers the queries that are here, until `room` of them are for others or the output is full; returns whether
    /// it stopped for the latter.
    fn answer_own(&mut self, desk: &Desk, room: usize) -> io::Result<bool> {
        let view = desk.view.load();
        while self.foreign.len() < room {
            if self.output.len() >= OUTPUT {
                return Ok(true);
            }
            let Some(query) = take(&mut self.input) else { break };
            match answer(&view, &query, Transport::Tcp, self.seeds.next(), &mut self.answer) {
                Outcome::Answered { rcode } => {
                    desk.metrics.answered(rcode);
                    let answer = std::mem::take(&mut self.answer);
                    self.push(&answer)?;
                    self.answer = answer;
                }
                Outcome::Forward => self.foreign.push(query.to_vec()),
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
