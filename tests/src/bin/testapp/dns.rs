//! Questions to a nameserver, and a nameserver.

use std::fs;
use std::io::{Read, stdin};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::tally::Tally;

/// A question is asked once: an answer that is late comes, one to a question that was lost does not.
const TIMEOUT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) fn load(name: &str) -> Result<(), Failure> {
    let server = nameserver()?;
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    thread::spawn(move || {
        let _ = stdin().read_to_end(&mut Vec::new());
        end.store(true, Ordering::Relaxed);
    });
    let mut tally = Tally::default();
    let mut id = 0_u16;
    while !ended.load(Ordering::Relaxed) {
        id = id.wrapping_add(1);
        let started = Instant::now();
        tally.count(ask(server, name, id), started.elapsed());
        if id == 1 && tally.answered() == 1 {
            println!("running");
        }
        println!("answered {}", tally.answered());
        thread::sleep(PAUSE);
    }
    println!("{}", tally.report());
    Ok(())
}

fn ask(server: SocketAddr, name: &str, id: u16) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(text)?;
    socket.connect(server).map_err(text)?;
    socket.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
    socket.send(&query(name, id)).map_err(text)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).map_err(text)?;
    let answer = answer.get(..length).filter(|answer| answer.len() >= 12).ok_or("a short answer")?;
    match (answer[..2] == id.to_be_bytes(), answer[3] & 0x0f, u16::from_be_bytes([answer[6], answer[7]])) {
        (true, 0, 1..) => Ok("an address".into()),
        (true, 0, 0) => Err("no address".into()),
        (true, code, _) => Err(format!("response code {code}")),
        (false, ..) => Err("an answer to another question".into()),
    }
}

fn query(name: &str, id: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn nameserver() -> Result<SocketAddr, Failure> {
    let text = fs::read_to_string("/etc/resolv.conf")?;
    let first = text.lines().find_map(|line| line.strip_prefix("nameserver "));
    let address: IpAddr = first.ok_or("no nameserver in /etc/resolv.conf")?.trim().parse()?;
    Ok((address, 53).into())
}

/// Answers every question for an address with 198.51.100.7 and has none for any other.
pub(crate) fn serve(address: &str) -> Result<(), Failure> {
    let socket = UdpSocket::bind((address.parse::<IpAddr>()?, 53))?;
    println!("listening");
    let mut question = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut question)?;
        if let Some(answer) = question.get(..length).and_then(answer) {
            socket.send_to(&answer, from)?;
        }
    }
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let name_end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)?;
    let question = query.get(12..name_end + 5)?;
    let asks_for_address = question.ends_with(&[0, 1, 0, 1]);
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(asks_for_address), 0, 0, 0, 0]);
    answer.extend(question);
    if asks_for_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 7]);
    }
    Some(answer)
}
