//! A server that says who it is. HTTP/1.1, persistent connections, a thread for each.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use crate::{Failure, value};

pub(crate) fn serve(port: &str, name: &str, flags: &[&str]) -> Result<(), Failure> {
    let delay = Duration::from_millis(value(flags, "--delay-ms").unwrap_or("0").parse()?);
    let ending = flags.contains(&"--finish").then(Ending::watch).transpose()?;
    let listener = TcpListener::bind(("0.0.0.0", port.parse()?))?;
    println!("listening");
    for connection in listener.incoming() {
        let (connection, name, ending) = (connection?, name.to_owned(), ending.clone());
        thread::Builder::new().stack_size(256 << 10).spawn(move || {
            // A client that goes away is no concern of the server's.
            let _ = answer_all(connection, &name, (delay, ending.as_deref()));
        })?;
    }
    Ok(())
}

/// The end of a server that finishes what is open.
#[derive(Default)]
struct Ending {
    asked: AtomicBool,
    /// Requests under way, and connections of clients that have not been told.
    open: AtomicUsize,
}

impl Ending {
    /// Time for which the connections of clients that are silent stay open.
    const SILENCE: Duration = Duration::from_secs(1);

    /// Ends the process after SIGTERM, when every client was told or is silent.
    fn watch() -> Result<Arc<Self>, Failure> {
        let mut terminated = SigSet::empty();
        terminated.add(Signal::SIGTERM);
        // Threads that are started from now on leave it to the one that waits.
        terminated.thread_block()?;
        let ending = Arc::new(Self::default());
        let watched = ending.clone();
        thread::Builder::new().spawn(move || {
            let _ = terminated.wait();
            watched.asked.store(true, Ordering::SeqCst);
            let asked = Instant::now();
            while watched.open.load(Ordering::SeqCst) > 0 && asked.elapsed() < Self::SILENCE {
                thread::sleep(Duration::from_millis(5));
            }
            std::process::exit(0);
        })?;
        Ok(ending)
    }
}

fn answer_all(
    connection: TcpStream,
    name: &str,
    (delay, ending): (Duration, Option<&Ending>),
) -> io::Result<()> {
    if let Some(ending) = ending {
        ending.open.fetch_add(1, Ordering::SeqCst);
    }
    let answered = answer_each(connection, name, (delay, ending));
    if let Some(ending) = ending {
        ending.open.fetch_sub(1, Ordering::SeqCst);
    }
    answered
}

fn answer_each(
    connection: TcpStream,
    name: &str,
    (delay, ending): (Duration, Option<&Ending>),
) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    while let Some(request) = Request::read(&mut reader)? {
        thread::sleep(delay);
        let body = request.answer(name);
        let last = request.last || ending.is_some_and(|ending| ending.asked.load(Ordering::SeqCst));
        let close = if last { "Connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: {}\r\n\r\n", body.len());
        let mut response = head.into_bytes();
        response.extend(body);
        writer.write_all(&response)?;
        if last {
            break;
        }
    }
    Ok(())
}

struct Request {
    path: String,
    body: Vec<u8>,
    last: bool,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let (mut length, mut last) = (0, false);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let header = header.trim_end().to_ascii_lowercase();
            match header.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse().unwrap_or(0),
                Some(("connection", value)) => last = value.trim() == "close",
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Some(Self { path, body, last }))
    }

    fn answer(&self, name: &str) -> Vec<u8> {
        match self.path.strip_prefix("/bytes/").and_then(|count| count.parse().ok()) {
            Some(count) => (0_u8..=250).cycle().take(count).collect(),
            None if self.body.is_empty() => name.as_bytes().to_vec(),
            None => self.body.clone(),
        }
    }
}
