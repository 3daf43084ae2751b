//! Check of an instance: a connection, and an answer to a request where that is wanted.

use std::io;
use std::net::SocketAddrV4;

use sealane_proto::types::{Check, HttpPath};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Length of an answer within which its status must have been said.
const STATUS_LINE: usize = 256;

/// Checks that the instance works.
///
/// # Errors
/// In words, why it does not.
pub(super) async fn probe(place: SocketAddrV4, check: &Check) -> Result<(), String> {
    let patience = check.interval.patience();
    let asked = async {
        let mut stream = TcpStream::connect(place).await.map_err(|error| words(&error))?;
        match &check.http {
            None => Ok(()),
            Some(path) => ask(&mut stream, place, path).await,
        }
    };
    match tokio::time::timeout(patience, asked).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer from {place} within {patience:?}")),
    }
}

fn words(error: &io::Error) -> String {
    format!("its check failed: {error}")
}

async fn ask(stream: &mut TcpStream, place: SocketAddrV4, path: &HttpPath) -> Result<(), String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: sealane-check\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| words(&error))?;
    let (mut head, mut filled) = ([0; STATUS_LINE], 0);
    loop {
        let read = stream.read(&mut head[filled..]).await.map_err(|error| words(&error))?;
        filled += read;
        match verdict(&head[..filled], read == 0 || filled == STATUS_LINE) {
            Some(verdict) => return verdict,
            None => continue,
        }
    }
}

/// Judges the beginning of an answer, once it says something; `over`: there is no more of it.
fn verdict(head: &[u8], over: bool) -> Option<Result<(), String>> {
    let status = head.get(..12).filter(|line| line.starts_with(b"HTTP/1."));
    let status = status.and_then(|line| std::str::from_utf8(&line[9..]).ok()?.parse::<u16>().ok());
    match status {
        Some(200..=399) => Some(Ok(())),
        Some(status) => Some(Err(format!("its check was answered with status {status}"))),
        None if over || head.len() >= 12 => Some(Err("its check was not answered in HTTP/1".to_owned())),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Expected = Option<Result<(), &'static str>>;

    #[test]
    fn an_answer_counts_by_its_status() {
        let table: [(&str, bool, Expected); 8] = [
            ("HTTP/1.1 200 OK\r\n", false, Some(Ok(()))),
            ("HTTP/1.0 302 Found\r\n", false, Some(Ok(()))),
            ("HTTP/1.1 503 Busy\r\n", false, Some(Err("status 503"))),
            ("HTTP/1.1 20", false, None),
            ("HTTP/1.1 20", true, Some(Err("not answered in HTTP/1"))),
            ("", true, Some(Err("not answered in HTTP/1"))),
            ("SSH-2.0-OpenSSH_9", false, Some(Err("not answered in HTTP/1"))),
            ("HTTP/1.1 abc d", false, Some(Err("not answered in HTTP/1"))),
        ];
        for (head, over, expected) in table {
            let said = verdict(head.as_bytes(), over);
            let same = match (&said, expected) {
                (Some(Ok(())), Some(Ok(()))) | (None, None) => true,
                (Some(Err(said)), Some(Err(part))) => said.contains(part),
                _ => false,
            };
            assert!(same, "{head:?}: {said:?}");
        }
    }
}
