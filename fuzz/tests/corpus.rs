//! Each target runs over its corpus and over mutations of it, the same ones each time.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking, and say on what")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The number of mutations that are tried, and the longest time for that.
const MUTATIONS: u32 = 20_000;
const AT_MOST: Duration = Duration::from_secs(1);
/// Bytes that mean something in many grammars.
const WORDS: [&[u8]; 12] =
    [b"\0", b"\xff", b"\r\n", b"\n", b"{}", b"null", b"\"", b":", b"65536", b"0", b"\x7f\xff\xff\xff", b" "];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has an input at least", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn mutated(inputs: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = inputs[random.random_range(0..inputs.len())].clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        let end = random.random_range(at..=bytes.len().min(at + 16));
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..end, WORDS[random.random_range(0..WORDS.len())].iter().copied())),
            4 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            _ => {
                let other = &inputs[random.random_range(0..inputs.len())];
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

/// Prints the input when the target panics on it.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input is b\"{}\"", self.0.escape_ascii());
        }
    }
}

fn run(name: &str) {
    let target = sealane_fuzz::target(name).unwrap();
    let inputs = corpus(name);
    let once = |input: &[u8]| {
        let _shown = Shown(input);
        target(input);
    };
    once(b"");
    inputs.iter().for_each(|input| once(input));
    let (mut random, began) = (StdRng::seed_from_u64(7), Instant::now());
    for _ in 0..MUTATIONS {
        if began.elapsed() > AT_MOST {
            break;
        }
        once(&mutated(&inputs, &mut random));
    }
}

macro_rules! targets {
    ($($target:ident)*) => {
        /// The targets that are tested here.
        const TESTED: &[&str] = &[$(stringify!($target)),*];

        $(#[test]
        fn $target() {
            run(stringify!($target));
        })*
    };
}

targets! {
    cni detection dhcp dns_answer dns_query docker_engine docker_plugin documents documents_json firewall http1_body http1_head
    http2_screen iptables keep_protocol labels netavark nf_tables peer_channel rules sidecar_channel tunnel_frames tunnel_opening
    wire_messages words
}

#[test]
fn every_target_is_tested_and_has_a_corpus() {
    assert_eq!(sealane_fuzz::TARGETS.map(|(name, _)| name), TESTED);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut corpora: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    corpora.sort();
    assert_eq!(corpora, TESTED);
}
