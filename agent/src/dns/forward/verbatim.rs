//! Questions that pass as they came: types that are not known here, the DO and CD bits, options that concern others.
//!
//! A query is sent on as it is, from a fresh random port with a fresh random id (RFC 5452); only an answer from the
//! asked server with this id and this question is taken. Servers are asked in order; one that cannot answer
//! (SERVFAIL, REFUSED) is passed over if another can.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time;
use tokio_rustls::TlsConnector;

use super::super::answer::Transport;
use super::super::message::{HEADER_LEN, OPCODE, QR, Query, Rcode, TC, word};
use super::super::metrics::ForwardFailure;
use super::super::resolv::{Resolv, Server};

/// The answer of the first server that has one, with the asker's id.
pub(super) async fn ask_all(
    resolv: &Resolv,
    tls: &Arc<ClientConfig>,
    query: &[u8],
    transport: Transport,
    deadline: time::Instant,
) -> Result<Vec<u8>, ForwardFailure> {
    let mut failure = ForwardFailure::NoServer;
    let mut unwilling = None;
    for _ in 0..resolv.attempts {
        let mut silent = false;
        for server in &resolv.servers {
            let until = deadline.min(time::Instant::now() + resolv.timeout);
            match time::timeout_at(until, ask(server, tls, query, transport)).await {
                Ok(Ok(answer)) => match Rcode::of(&answer) {
                    Rcode::ServFail | Rcode::Refused | Rcode::NotImp => {
                        unwilling.get_or_insert(answer);
                    }
                    Rcode::NoError | Rcode::NxDomain | Rcode::FormErr | Rcode::BadVers | Rcode::Other => {
                        return Ok(answer);
                    }
                },
                Ok(Err(error)) => {
                    tracing::debug!(server = %server.address, %error, "a resolver cannot be asked");
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
async fn ask(
    server: &Server,
    tls: &Arc<ClientConfig>,
    query: &[u8],
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let address = server.address;
    let id: [u8; 2] = rand::random();
    let mut sent = query.to_vec();
    if let Some(place) = sent.get_mut(..2) {
        place.copy_from_slice(&id);
    }
    let mut answer = match (&server.tls, transport) {
        (Some(name), _) => ask_tls(address, name, tls, &sent).await?,
        (None, Transport::Udp) => ask_udp(address, &sent).await?,
        (None, Transport::Tcp) => match ask_tcp(address, &sent).await {
            Ok(answer) => answer,
            // Some servers know datagrams only; what fits into one is the same answer.
            Err(error) => {
                ask_udp(address, &sent).await.ok().filter(|answer| !is_truncated(answer)).ok_or(error)?
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
    ask_over(TcpStream::connect(server).await?, query).await
}

async fn ask_tls(
    server: SocketAddr,
    name: &str,
    tls: &Arc<ClientConfig>,
    query: &[u8],
) -> io::Result<Vec<u8>> {
    let name = ServerName::try_from(name.to_owned()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let stream = TcpStream::connect(server).await?;
    ask_over(TlsConnector::from(tls.clone()).connect(name, stream).await?, query).await
}

async fn ask_over(mut stream: impl AsyncRead + AsyncWrite + Unpin, query: &[u8]) -> io::Result<Vec<u8>> {
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
    word(answer, 2).is_none_or(|flags| flags & TC != 0)
}

/// Returns true if `answer` is one to `query`: id, opcode and question are the same (letters in any case: not every
/// server keeps them). An error may come without the question.
fn answers(query: &[u8], answer: &[u8]) -> bool {
    let (Some(header), Ok(parsed)) = (answer.get(..HEADER_LEN), Query::parse(query)) else { return false };
    let [Some(id), Some(flags), Some(questions)] = [0, 2, 4].map(|at| word(header, at)) else { return false };
    if id != parsed.id || flags & QR == 0 || (flags ^ parsed.flags) & OPCODE != 0 {
        return false;
    }
    if questions == 0 {
        return Rcode::of(answer) != Rcode::NoError;
    }
    parsed.is_echoed_in(answer)
}
