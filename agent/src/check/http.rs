//! A request of HTTP/1.1, of whose answer the status counts.

use std::net::SocketAddr;

use sealane_base::text::plain;
use sealane_proto::types::{HttpPath, StatusRange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Length of an answer within which its status must have been said, interim ones before it included.
const LONGEST: u64 = 8 << 10;
/// Length of what begins an answer, with its status: "HTTP/1.1 200".
const STATUS: usize = 12;

/// Asks for `path`.
///
/// # Errors
/// In words, why the answer is none that is `expected`.
pub(super) async fn ask(
    stream: &mut TcpStream,
    place: SocketAddr,
    path: &HttpPath,
    expected: StatusRange,
) -> Result<(), String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: sealane-check\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| plain(&error))?;
    let (mut stream, mut head) = (stream.take(LONGEST), Vec::with_capacity(256));
    loop {
        let read = stream.read_buf(&mut head).await.map_err(|error| plain(&error))?;
        match verdict(&head, read == 0, expected) {
            Some(verdict) => return verdict,
            None => continue,
        }
    }
}

/// Judges the beginning of an answer, once it says something; `over`: there is no more of it. Interim responses (RFC 9110, section
/// 15.2) are none, but for 101, after which nothing of HTTP follows.
fn verdict(head: &[u8], over: bool, expected: StatusRange) -> Option<Result<(), String>> {
    let line = head.get(..STATUS).filter(|line| line.starts_with(b"HTTP/1."));
    let status = line.and_then(|line| std::str::from_utf8(&line[9..]).ok()?.parse::<u16>().ok());
    match status {
        Some(interim @ (100 | 102..=199)) => {
            let end = head.windows(4).position(|end| end == b"\r\n\r\n");
            match end.and_then(|end| head.get(end + 4..)) {
                Some(rest) => verdict(rest, over, expected),
                None => over.then(|| Err(format!("after status {interim} comes no answer"))),
            }
        }
        Some(status) if expected.has(status) => Some(Ok(())),
        Some(status) => Some(Err(format!("status {status}, where {expected} is expected"))),
        None if over || head.len() >= STATUS => Some(Err("it is not answered in HTTP/1".to_owned())),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Expected = Option<Result<(), &'static str>>;

    #[test]
    fn an_answer_counts_by_its_status() {
        let table: [(&str, bool, Expected); 14] = [
            ("HTTP/1.1 200 OK\r\n", false, Some(Ok(()))),
            ("HTTP/1.0 302 Found\r\n", false, Some(Ok(()))),
            ("HTTP/1.1 503 Busy\r\n", false, Some(Err("status 503"))),
            ("HTTP/1.1 20", false, None),
            ("HTTP/1.1 20", true, Some(Err("not answered in HTTP/1"))),
            ("", true, Some(Err("not answered in HTTP/1"))),
            ("SSH-2.0-OpenSSH_9", false, Some(Err("not answered in HTTP/1"))),
            ("HTTP/1.1 abc d", false, Some(Err("not answered in HTTP/1"))),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", false, Some(Ok(()))),
            (
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Go on\r\n\r\nHTTP/1.1 500 No",
                false,
                Some(Err("status 500")),
            ),
            ("HTTP/1.1 103 Early Hints\r\nLink: </a>", false, None),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2", false, None),
            ("HTTP/1.1 100 Continue\r\n", true, Some(Err("after status 100 comes no answer"))),
            ("HTTP/1.1 101 Switching Protocols\r\n", false, Some(Err("status 101"))),
        ];
        for (head, over, expected) in table {
            let said = verdict(head.as_bytes(), over, StatusRange::default());
            let same = match (&said, expected) {
                (Some(Ok(())), Some(Ok(()))) | (None, None) => true,
                (Some(Err(said)), Some(Err(part))) => said.contains(part),
                _ => false,
            };
            assert!(same, "{head:?}: {said:?}");
        }
        let only: StatusRange = "204".parse().unwrap();
        assert_eq!(verdict(b"HTTP/1.1 204 No Content", false, only), Some(Ok(())));
        let said = verdict(b"HTTP/1.1 200 OK\r\n", false, only).unwrap().unwrap_err();
        assert_eq!(said, "status 200, where 204 is expected");
    }
}
