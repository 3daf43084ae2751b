//! A request of HTTP/1.1, of whose answer the status counts.

use std::net::SocketAddr;

use sealane_base::text::plain;
use sealane_proto::types::{HttpPath, StatusRange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Length of an answer within which its status must have been said.
const STATUS_LINE: usize = 256;

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
    let (mut head, mut filled) = ([0; STATUS_LINE], 0);
    loop {
        let read = stream.read(&mut head[filled..]).await.map_err(|error| plain(&error))?;
        filled += read;
        match verdict(&head[..filled], read == 0 || filled == STATUS_LINE, expected) {
            Some(verdict) => return verdict,
            None => continue,
        }
    }
}

/// Judges the beginning of an answer, once it says something; `over`: there is no more of it.
fn verdict(head: &[u8], over: bool, expected: StatusRange) -> Option<Result<(), String>> {
    let status = head.get(..12).filter(|line| line.starts_with(b"HTTP/1."));
    let status = status.and_then(|line| std::str::from_utf8(&line[9..]).ok()?.parse::<u16>().ok());
    match status {
        Some(status) if expected.has(status) => Some(Ok(())),
        Some(status) => Some(Err(format!("status {status}, where {expected} is expected"))),
        None if over || head.len() >= 12 => Some(Err("it is not answered in HTTP/1".to_owned())),
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
