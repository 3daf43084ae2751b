//! Large transfers.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::mesh::{Mesh, within};

const SIZE: usize = 100_000_000;

/// A pattern without a short period, so that lost, repeated or swapped pieces show.
fn byte(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 24) as u8
}

async fn send(mut write: OwnedWriteHalf) {
    let mut at = 0;
    while at < SIZE {
        let end = SIZE.min(at + 200_000);
        let piece: Vec<u8> = (at..end).map(byte).collect();
        write.write_all(&piece).await.unwrap();
        at = end;
    }
    write.shutdown().await.unwrap();
}

async fn check(mut read: OwnedReadHalf) {
    let (mut at, mut buffer) = (0, vec![0; 256 * 1024]);
    loop {
        let got = read.read(&mut buffer).await.unwrap();
        if got == 0 {
            break;
        }
        assert!(buffer[..got].iter().enumerate().all(|(n, &seen)| seen == byte(at + n)), "near {at}");
        at += got;
    }
    assert_eq!(at, SIZE);
}

async fn both_ways(stream: TcpStream) {
    let (read, write) = stream.into_split();
    tokio::join!(send(write), check(read));
}

#[tokio::test]
async fn a_large_transfer_arrives_whole_in_both_directions_at_once() {
    let mesh = Mesh::new("8080/tcp", 1);
    let (client, _server) = (mesh.client().await, mesh.instance(0).await);
    let _application = mesh.application(0, both_ways).await;
    let stream = client.call().await;
    within(both_ways(stream)).await;
}

#[tokio::test]
async fn a_large_transfer_arrives_whole_without_a_tunnel() {
    let mesh = Mesh::new("8080/tcp", 1).bare(0);
    let client = mesh.client().await;
    let _application = mesh.application(0, both_ways).await;
    let stream = client.call().await;
    within(both_ways(stream)).await;
}
