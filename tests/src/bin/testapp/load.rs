//! Requests by several clients at once.

use std::io::{Read, stdin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::requests::{Client, Target};
use crate::tally::Tally;
use crate::{Failure, value};

/// Interval at which progress is told.
const TELL: Duration = Duration::from_millis(20);

pub(crate) fn load(url: &str, flags: &[&str]) -> Result<(), Failure> {
    let target = target(url, flags)?;
    let limit = value(flags, "--requests").map(str::parse).transpose()?;
    let clients: u64 = value(flags, "--concurrency").unwrap_or("4").parse()?;
    let pause = Duration::from_millis(value(flags, "--pause-ms").unwrap_or("0").parse()?);
    let shared = Arc::new(Shared {
        tally: Mutex::default(),
        left: AtomicU64::new(limit.unwrap_or(u64::MAX)),
        ended: AtomicBool::new(false),
    });
    if limit.is_none() {
        let shared = shared.clone();
        thread::spawn(move || {
            let _ = stdin().read_to_end(&mut Vec::new());
            shared.left.store(0, Ordering::Relaxed);
        });
    }
    let workers: Vec<_> = (0..clients)
        .map(|_| {
            let (shared, target) = (shared.clone(), target.clone());
            thread::spawn(move || shared.work(Client::new(target), pause))
        })
        .collect();
    let teller = {
        let shared = shared.clone();
        thread::spawn(move || shared.tell())
    };
    for worker in workers {
        worker.join().map_err(|_| "a client panicked")?;
    }
    shared.ended.store(true, Ordering::Relaxed);
    teller.join().map_err(|_| "the teller panicked")?;
    let tally = std::mem::take(&mut *shared.tally.lock().map_err(|error| error.to_string())?);
    println!("{}", tally.report());
    Ok(())
}

struct Shared {
    tally: Mutex<Tally>,
    left: AtomicU64,
    ended: AtomicBool,
}

impl Shared {
    fn work(&self, mut client: Client, pause: Duration) {
        while self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        {
            let started = Instant::now();
            let result = client.request().map(short);
            let took = started.elapsed();
            if let Ok(mut tally) = self.tally.lock() {
                tally.count(result, took);
            }
            thread::sleep(pause);
        }
    }

    /// Says once that the first answer came, each new answer, and from time to time how many there were.
    fn tell(&self) {
        let (mut told, mut seen) = (0, Vec::new());
        loop {
            // What came before the end is told as well.
            let ended = self.ended.load(Ordering::Relaxed);
            let answered = self.tally.lock().map_or(0, |tally| {
                tally.unseen(&mut seen).for_each(|answer| println!("seen {answer}"));
                tally.answered()
            });
            if told == 0 && answered > 0 {
                println!("running");
            }
            if answered > told {
                println!("answered {answered}");
                told = answered;
            }
            if ended {
                return;
            }
            thread::sleep(TELL);
        }
    }
}

/// A body as the tally tells it apart.
fn short(body: Vec<u8>) -> String {
    if body.len() > 64 {
        format!("{} bytes", body.len())
    } else {
        String::from_utf8_lossy(&body).into_owned()
    }
}

fn target(url: &str, flags: &[&str]) -> Result<Target, Failure> {
    let rest = url.strip_prefix("http://").ok_or("the URL must begin with http://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let fresh = flags.contains(&"--fresh");
    let header = value(flags, "--header").map(|header| format!("{header}\r\n")).unwrap_or_default();
    let close = if fresh { "Connection: close\r\n" } else { "" };
    let (method, body) = if flags.contains(&"--post") { ("POST", "posted") } else { ("GET", "") };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} /{path} HTTP/1.1\r\nHost: {authority}\r\n{close}{header}{length}\r\n{body}");
    Ok(Target { host: host.to_owned(), port: port.parse()?, head, fresh })
}
