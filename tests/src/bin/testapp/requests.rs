//! Client with a persistent connection, opened anew when it fails.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// No answer for this long counts as none at all.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Destination and kind of requests.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) head: String,
    pub(crate) fresh: bool,
}

pub(crate) struct Client {
    target: Target,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, connection: None }
    }

    /// Makes a request and returns the body of its answer.
    pub(crate) fn request(&mut self) -> Result<Vec<u8>, String> {
        let reused = self.connection.is_some();
        let result = self.exchange().map_err(|error| {
            let on = if reused { "a connection in use" } else { "a new connection" };
            format!("{error} on {on}")
        });
        if result.is_err() || self.target.fresh {
            self.connection = None;
        }
        result
    }

    fn exchange(&mut self) -> io::Result<Vec<u8>> {
        let reader = match &mut self.connection {
            Some(reader) => reader,
            connection @ None => connection.insert(open(&self.target)?),
        };
        reader.get_mut().write_all(self.target.head.as_bytes())?;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).ok_or_else(|| other(format!("no answer ({line:?})")))?.to_owned();
        let (mut length, mut last) = (0, false);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 {
                return Err(other("the head of the answer ends early".into()));
            }
            let header = header.trim_end().to_ascii_lowercase();
            match header.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse().map_err(io::Error::other)?,
                Some(("connection", value)) => last = value.trim() == "close",
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if last {
            self.connection = None;
        }
        if status == "200" { Ok(body) } else { Err(other(format!("status {status}"))) }
    }
}

fn open(target: &Target) -> io::Result<BufReader<TcpStream>> {
    let mut last = None;
    let addresses = (target.host.as_str(), target.port).to_socket_addrs();
    for address in addresses.map_err(|error| other(format!("cannot resolve {}: {error}", target.host)))? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(connection) => {
                connection.set_nodelay(true)?;
                connection.set_read_timeout(Some(TIMEOUT))?;
                return Ok(BufReader::new(connection));
            }
            Err(error) => last = Some(other(format!("cannot connect to {address}: {error}"))),
        }
    }
    Err(last.unwrap_or_else(|| other(format!("{} has no address", target.host))))
}

fn other(text: String) -> io::Error {
    io::Error::other(text)
}
