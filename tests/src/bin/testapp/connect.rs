//! Connection of the test application, and its fate.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Failure;

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn connect(address: &str) -> Result<(), Failure> {
    let address: SocketAddr = address.parse()?;
    let said = match TcpStream::connect_timeout(&address, PATIENCE) {
        Err(error) => kind(&error),
        Ok(connection) => talk(connection),
    };
    println!("{said}");
    Ok(())
}

fn talk(mut connection: TcpStream) -> String {
    let _ = connection.set_read_timeout(Some(PATIENCE));
    let request = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    let talked = connection.write_all(request).and_then(|()| connection.read_to_end(&mut answer));
    match talked {
        Ok(0) => "closed".to_owned(),
        // A TLS record of type alert (RFC 8446, section 5.1).
        Ok(_) if answer.starts_with(&[21, 3]) => "alert".to_owned(),
        Ok(_) => format!("answered {}", String::from_utf8_lossy(&answer)),
        Err(error) => kind(&error),
    }
}

fn kind(error: &std::io::Error) -> String {
    let known = [
        (ErrorKind::ConnectionRefused, "refused"),
        (ErrorKind::ConnectionReset, "reset"),
        (ErrorKind::TimedOut, "silence"),
        (ErrorKind::WouldBlock, "silence"),
    ];
    let word = known.iter().find(|(kind, _)| *kind == error.kind());
    word.map_or_else(|| error.to_string(), |(_, word)| (*word).to_owned())
}
