//! DNS over TCP (RFC 7766): messages with their length before them, several to a connection.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time;

use super::{Desk, Outcome, Seeds, Transport, answer};

/// How many connections one workload may have; more wait in the backlog.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may say nothing, or not take its answer.
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
    let stream = BufReader::with_capacity(1024, stream);
    let conversation = Conversation { stream, answer: Vec::new(), seeds: Seeds::default() };
    if let Err(error) = conversation.run(desk).await {
        tracing::debug!(%error, "a DNS connection ended");
    }
}

struct Conversation {
    stream: BufReader<TcpStream>,
    answer: Vec<u8>,
    seeds: Seeds,
}

impl Conversation {
    async fn run(mut self, desk: &Desk) -> io::Result<()> {
        let mut query = Vec::new();
        while time::timeout(IDLE, self.read(&mut query)).await?? {
            let seed = self.seeds.next();
            let out = &mut self.answer;
            // Not held while others are asked.
            let outcome = answer(&desk.view.load(), &query, Transport::Tcp, seed, out);
            match outcome {
                Outcome::Answered { rcode } => desk.metrics.answered(rcode),
                Outcome::Forward => *out = desk.forward(&query, Transport::Tcp).await,
                Outcome::Drop => return Ok(()),
            }
            time::timeout(IDLE, self.write()).await??;
        }
        Ok(())
    }

    /// Reads one message; false at the end of the stream.
    async fn read(&mut self, query: &mut Vec<u8>) -> io::Result<bool> {
        let len = match self.stream.read_u16().await {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        };
        query.resize(len.into(), 0);
        self.stream.read_exact(query).await?;
        Ok(true)
    }

    async fn write(&mut self) -> io::Result<()> {
        let answer = &mut self.answer;
        let len = u16::try_from(answer.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        // Length and message in one segment.
        answer.splice(..0, len.to_be_bytes());
        self.stream.get_mut().write_all(answer).await
    }
}
