//! Names that are not ours: asked of the host's resolvers, byte for byte.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time;

use super::answer::{self, Transport};
use super::message::{HEADER_LEN, OPCODE, QR, Query, Rcode, TC};
use super::metrics::{DnsMetrics, ForwardFailure};
use super::resolv::{Resolv, ResolvFile};
use super::shares::{Place, QuestionsInFlight, Share};
use super::sockets::PORT;

/// Limit for a question in all: less than the 5 s after which resolvers ask again.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(4);

/// Servers to ask.
#[derive(Clone, Debug)]
pub struct ForwardConfig {
    /// The host's resolv.conf; read again when it changes.
    pub resolv_conf: PathBuf,
    /// Addresses in it that are our own, and not asked.
    pub own: Vec<IpAddr>,
    /// The servers' port.
    pub port: u16,
}

impl ForwardConfig {
    /// The servers of `resolv_conf`, but for 127.0.0.11.
    #[must_use]
    pub fn new(resolv_conf: PathBuf) -> Self {
        Self { resolv_conf, own: vec![Ipv4Addr::new(127, 0, 0, 11).into()], port: PORT }
    }
}

/// Asks the host's resolvers, from the host's network namespace (that of the runtime's threads).
///
/// A query is sent on as it is, from a fresh random port with a fresh random id (RFC 5452); only an answer from the
/// asked server with this id and this question is taken. Servers are asked in order; one that cannot answer
/// (SERVFAIL, REFUSED) is passed over if another can.
#[derive(Debug)]
pub struct Forwarder {
    resolv: ResolvFile,
    waiting: QuestionsInFlight,
    metrics: DnsMetrics,
}

impl Forwarder {
    /// A forwarder with nothing in flight.
    #[must_use]
    pub fn new(config: ForwardConfig, metrics: DnsMetrics) -> Self {
        let resolv = ResolvFile::new(config.resolv_conf, config.port, config.own);
        Self { resolv, waiting: QuestionsInFlight::default(), metrics }
    }

    /// A place for one more question of this asker, if there is any for it.
    pub(super) fn take(&self, share: &Share) -> Option<Place> {
        self.waiting.take(share)
    }

    /// The answer to `query`, a well-formed query message: the servers', or SERVFAIL with an Extended DNS Error that
    /// says why, within 4 s. Cancel safe.
    pub(super) async fn forward(
        &self,
        query: &[u8],
        transport: Transport,
        _place: Place,
    ) -> (Vec<u8>, Rcode) {
        let started = Instant::now();
        let resolv = self.resolv.current(started);
        let deadline = time::Instant::now() + TOTAL_TIMEOUT;
        match ask_all(&resolv, query, transport, deadline).await {
            Ok(answer) => {
                self.metrics.forward_duration.observe(started.elapsed().as_secs_f64());
                let rcode = Rcode::of(&answer);
                (answer, rcode)
            }
            Err(failure) => (self.fail(query, failure), Rcode::ServFail),
        }
    }

    /// SERVFAIL for a question that there is no room for.
    pub(super) fn overloaded(&self, query: &[u8]) -> (Vec<u8>, Rcode) {
        (self.fail(query, ForwardFailure::Overload), Rcode::ServFail)
    }

    fn fail(&self, query: &[u8], failure: ForwardFailure) -> Vec<u8> {
        self.metrics.forward_failed(failure);
        tracing::debug!(reason = failure.as_str(), "a foreign name could not be asked for");
        let mut out = Vec::with_capacity(query.len() + 64);
        answer::fail(query, failure.extended_error(), &mut out);
        out
    }
}

async fn ask_all(
    resolv: &Resolv,
    query: &[u8],
    transport: Transport,
    deadline: time::Instant,
) -> Result<Vec<u8>, ForwardFailure> {
    let mut failure = ForwardFailure::NoServer;
    let mut unwilling = None;
    for _ in 0..resolv.attempts {
        let mut silent = false;
        for &server in &resolv.servers {
            let until = deadline.min(time::Instant::now() + resolv.timeout);
            match time::timeout_at(until, ask(server, query, transport)).await {
                Ok(Ok(answer)) => match Rcode::of(&answer) {
                    Rcode::ServFail | Rcode::Refused | Rcode::NotImp => {
                        unwilling.get_or_insert(answer);
                    }
                    Rcode::NoError | Rcode::NxDomain | Rcode::FormErr | Rcode::BadVers | Rcode::Other => {
                        return Ok(answer);
                    }
                },
                Ok(Err(error)) => {
                    tracing::debug!(%server, %error, "a resolver cannot be asked");
                    failure = ForwardFailure::Network;
                }
                Err(_) => silent = true,
            }
        }
        // Asking again helps only against loss.
        if unwilling.is_some() || !silent || time::Instant::now() >= deadline {
            failure = if silent { ForwardFailure::Timeout } else { failure };
            break;
        }
        failure = ForwardFailure::Timeout;
    }
    unwilling.ok_or(failure)
}

/// Asks one server; the answer carries the asker's id.
async fn ask(server: SocketAddr, query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
    let id: [u8; 2] = rand::random();
    let mut sent = query.to_vec();
    if let Some(place) = sent.get_mut(..2) {
        place.copy_from_slice(&id);
    }
    let mut answer = match transport {
        Transport::Udp => ask_udp(server, &sent).await?,
        Transport::Tcp => match ask_tcp(server, &sent).await {
            Ok(answer) => answer,
            // Some servers know datagrams only; what fits into one is the same answer.
            Err(error) => {
                ask_udp(server, &sent).await.ok().filter(|answer| !is_truncated(answer)).ok_or(error)?
            }
        },
    };
    if let (Some(place), Some(own)) = (answer.get_mut(..2), query.get(..2)) {
        place.copy_from_slice(own);
    }
    Ok(answer)
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected: the kernel drops what comes from elsewhere, and says if nobody listens there.
    socket.connect(server).await?;
    socket.send(query).await?;
    let room = Query::parse(query).map_or(0, |query| query.udp_limit());
    let mut answer = vec![0; usize::from(room)];
    loop {
        let len = socket.recv(&mut answer).await?;
        if answers(query, answer.get(..len).unwrap_or_default()) {
            answer.truncate(len);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&len.to_be_bytes(), query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if answers(query, &answer) {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer to another question"))
    }
}

fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_none_or(|flags| flags & TC.to_be_bytes()[0] != 0)
}

/// Returns true if `answer` is one to `query`: id, opcode and question are the same (letters in any case: not every
/// server keeps them). An error may come without the question.
fn answers(query: &[u8], answer: &[u8]) -> bool {
    let (Some(header), Ok(parsed)) = (answer.get(..HEADER_LEN), Query::parse(query)) else { return false };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (id, flags, questions) = (word(0), word(2), word(4));
    if id != parsed.id || flags & QR == 0 || (flags ^ parsed.flags) & OPCODE != 0 {
        return false;
    }
    if questions == 0 {
        return Rcode::of(answer) != Rcode::NoError;
    }
    let question = answer.get(HEADER_LEN..HEADER_LEN + parsed.question.len());
    let split = |question: &'_ [u8]| question.len() - 4;
    questions == 1
        && question.is_some_and(|question| {
            let (name, rest) = question.split_at(split(question));
            let (asked, asked_rest) = parsed.question.split_at(split(parsed.question));
            name.eq_ignore_ascii_case(asked) && rest == asked_rest
        })
}
