//! A server that says who it is. HTTP/1.1, persistent connections, a thread for each.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::{Failure, value};

pub(crate) fn serve(port: &str, name: &str, flags: &[&str]) -> Result<(), Failure> {
    let delay = Duration::from_millis(value(flags, "--delay-ms").unwrap_or("0").parse()?);
    let listener = TcpListener::bind(("0.0.0.0", port.parse()?))?;
    println!("listening");
    for connection in listener.incoming() {
        let (connection, name) = (connection?, name.to_owned());
        thread::Builder::new().stack_size(256 << 10).spawn(move || {
            // A client that goes away is no concern of the server's.
            let _ = answer_all(connection, &name, delay);
        })?;
    }
    Ok(())
}

fn answer_all(connection: TcpStream, name: &str, delay: Duration) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    while let Some(request) = Request::read(&mut reader)? {
        thread::sleep(delay);
        let body = request.answer(name);
        let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        response.extend(body);
        writer.write_all(&response)?;
        if request.last {
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
