//! Costs that somebody without a host's certificate may cause a control plane and its hosts.

#![allow(clippy::unwrap_used, reason = "a test helper fails by panicking")]

#[path = "mesh/host.rs"]
#[allow(dead_code, reason = "the other tests' hosts do more")]
mod host;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use host::{Host, connected, join_with, pinned, request};
use sealane_base::task;
use sealane_control::{Config, Control, start};
use sealane_proto::token::JoinToken;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Code;

/// Longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

struct Mesh {
    _directory: TempDir,
    control: Control,
    token: JoinToken,
}

async fn mesh() -> Mesh {
    let directory = TempDir::new().unwrap();
    let control = start(config(directory.path())).await.unwrap();
    control.readiness().ready().await;
    let token = control.create_token(Duration::from_secs(3_600), None).await.unwrap();
    Mesh { _directory: directory, control, token }
}

fn config(directory: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: directory.join("data"),
        run_dir: directory.join("run").into(),
        trust_domain: None,
        certificate_lifetime: None,
    }
}

fn metric(control: &Control, series: &str) -> f64 {
    let text = sealane_base::metrics::encode(&control.gather()());
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

/// Keeps this many connections open that say nothing, however fast control ends them.
fn silent(address: SocketAddr, many: usize) -> Vec<task::Task> {
    let hold = move || async move {
        loop {
            let Ok(mut stream) = TcpStream::connect(address).await else { continue };
            // The end, or the answer to nothing.
            let _ = stream.read(&mut [0; 16]).await;
        }
    };
    (0..many).map(|_| task::spawn("silent", hold())).collect()
}

/// Joins, as agents do: again and again. Each try may meet a moment in which all places are fought for.
async fn get_in(control: &Control, token: &JoinToken, index: u8) {
    let (begun, key) = (Instant::now(), host::key());
    let (name, underlay) = (format!("host-{index}"), format!("192.0.2.{index}"));
    loop {
        if let Ok(host) = Host::anonymous(control.local_addr(), token.pin).await
            && host.client().join(request(token, &name, &underlay, &key)).await.is_ok()
        {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{name} does not get in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_get_in_beside_a_thousand_connections_that_say_nothing() {
    let Mesh { control, token, .. } = mesh().await;
    let flood = silent(control.local_addr(), 400);
    let begun = Instant::now();
    while metric(&control, "sealane_control_handshakes_total{result=\"displaced\"}") < 1_000.0 {
        assert!(begun.elapsed() < PATIENCE, "silent connections are not displaced");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for index in 1..=8 {
        get_in(&control, &token, index).await;
    }
    drop(flood);
    control.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_come_at_once_from_one_address_all_shake_hands_in_turn() {
    let Mesh { control, token, .. } = mesh().await;
    let (address, pin, many) = (control.local_addr(), token.pin, 200);
    let comers = (0..many).map(|_| async move { drop(connected(address, pinned(pin)).await.unwrap()) });
    for comer in comers.map(|comer| task::spawn("comer", comer)).collect::<Vec<_>>() {
        comer.await.unwrap();
    }
    let result =
        |result| metric(&control, &format!("sealane_control_handshakes_total{{result=\"{result}\"}}"));
    let begun = Instant::now();
    while result("ok") + result("failed") < f64::from(many) {
        assert!(begun.elapsed() < PATIENCE, "{} of {many} have shaken hands", result("ok"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!([result("displaced"), result("timeout"), result("silent")], [0.0; 3]);
    control.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_join_beside_strangers_who_shook_hands_and_say_no_more_and_those_are_ended() {
    let Mesh { control, token, .. } = mesh().await;
    let mut idle = vec![];
    for _ in 0..100 {
        idle.push(connected(control.local_addr(), pinned(token.pin)).await.unwrap());
    }
    for index in 1..=4 {
        get_in(&control, &token, index).await;
    }
    let ends = idle.into_iter().map(|mut stream| async move {
        let mut all = vec![];
        // Control speaks first, and then resets or closes: all that matters is that it ends.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.unwrap();
    });
    for end in ends.map(|end| task::spawn("end", end)).collect::<Vec<_>>() {
        end.await.unwrap();
    }
    let ended =
        |reason| metric(&control, &format!("sealane_control_connections_ended_total{{reason=\"{reason}\"}}"));
    assert!(ended("displaced") >= 60.0 && ended("stranger_too_long") >= 1.0);
    control.shutdown().await;
}

#[tokio::test]
async fn a_stranger_may_send_a_request_to_join_and_nothing_larger() {
    let Mesh { control, token, .. } = mesh().await;
    let mut large = request(&token, "host-1", "192.0.2.1", &host::key());
    large.csr = vec![0; 65 << 10];
    let status = join_with(&control, &token, large).await.unwrap_err();
    assert!(status.code() == Code::ResourceExhausted && status.message().contains("too large"), "{status:?}");
    let anonymous = Host::anonymous(control.local_addr(), token.pin).await.unwrap();
    let status = anonymous.carry("shop", 0).await.unwrap_err();
    assert!(status.message().contains("join with a token first"), "{status:?}");
    assert!(metric(&control, "sealane_control_calls_refused_total{reason=\"no_certificate\"}") >= 1.0);
    assert!(metric(&control, "sealane_control_calls_refused_total{reason=\"too_large\"}") >= 1.0);
    control.shutdown().await;
}

#[tokio::test]
async fn what_a_stranger_says_of_itself_is_checked_and_not_repeated_at_length() {
    let Mesh { control, token, .. } = mesh().await;
    let evil = "nope\n2026-11-28T22:00:00.000000Z  INFO token created";
    let cases: [fn(&mut sealane_proto::wire::v1::JoinRequest, String); 5] = [
        |request, evil| request.token_id = evil,
        |request, evil| request.token_secret = evil,
        |request, evil| request.node = evil,
        |request, evil| request.underlay = evil,
        |request, evil| request.version = evil,
    ];
    for (case, edit) in cases.into_iter().enumerate() {
        for evil in [evil.to_owned(), "x\u{1b}".repeat(10_000)] {
            let mut request = request(&token, "host-1", "192.0.2.1", &host::key());
            edit(&mut request, evil);
            let status = join_with(&control, &token, request).await.unwrap_err();
            let words = status.message();
            assert!(words.len() <= 2_048 && !words.contains(['\n', '\u{1b}']), "{case}: {words}");
            assert!(
                matches!(status.code(), Code::InvalidArgument | Code::Unauthenticated),
                "{case}: {status:?}"
            );
        }
    }
    control.shutdown().await;
}
