use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::client;
use http::{Request, Response};
use sealane_base::task;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use super::frames::{Cause, Frames, Peer};
use super::{Screen, Turn};
use crate::http2::MAX_FRAME;
use crate::http2::Pipe;
use crate::leg;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Returns the results of a client of crate h2 that gets these blocks as answers to its requests.
pub(super) fn answers(blocks: Vec<Vec<u8>>) -> Vec<Result<Response<()>, h2::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (near, mut far) = tokio::io::duplex(1 << 24);
        let mut builder = client::Builder::new();
        let handshake = builder.max_frame_size(MAX_FRAME).handshake::<_, Bytes>(near);
        let (send, connection) = handshake.await.unwrap();
        let _connection = task::spawn("client", async move { drop(connection.await) });
        let mut asked = Vec::new();
        for _ in &blocks {
            let mut send = send.clone().ready().await.unwrap();
            let request = Request::get("http://api/").body(()).unwrap();
            asked.push(send.send_request(request, true).unwrap().0);
        }
        // Everything was sent before anything is answered.
        let mut said = frame(4, 0, 0, &[]);
        for (n, block) in (0_u32..).zip(&blocks) {
            said.extend(frame(1, 5, 2 * n + 1, block));
        }
        tokio::task::yield_now().await;
        assert!(far.read(&mut vec![0; 1 << 20]).await.unwrap() > 0);
        far.write_all(&said).await.unwrap();
        let mut answers = Vec::new();
        for response in asked {
            answers.push(response.await.map(|response| response.map(drop)));
        }
        answers
    })
}

fn passed(frames: &mut Frames) -> (Vec<u8>, usize) {
    let (mut all, mut count) = (Vec::new(), 0);
    while let Some((bytes, frames)) = frames.pass() {
        all.extend_from_slice(&bytes);
        count += frames;
    }
    (all, count)
}

#[test]
fn what_is_well_formed_passes_as_it_came_however_it_is_cut() {
    let mut said = frame(4, 0, 0, &[]);
    said.extend(frame(1, 4, 1, b"\x88\x40\x01a\x01b"));
    said.extend(frame(0, 0, 1, &[7; 300]));
    said.extend(frame(1, 4 | 8 | 0x20, 3, b"\x02\0\0\0\0\x10\x88\0\0"));
    said.extend(frame(6, 0, 0, b"12345678"));
    said.extend(frame(0, 1, 1, &[]));
    for cut in 1..said.len() {
        let mut frames = Frames::new(Peer::Application, 1 << 16);
        for piece in said.chunks(cut) {
            frames.handle(Bytes::copy_from_slice(piece), |stream, cause| panic!("{stream} {cause:?}"));
        }
        assert_eq!(passed(&mut frames).0, said, "{cut}");
    }
}

#[test]
fn a_message_that_does_not_pass_is_named_and_the_rest_passes() {
    let large: Vec<u8> = [&b"\x88"[..], b"\0\x01a\x7f\x81\x01", &[b'v'; 256]].concat();
    let table: [(&[u8], usize, Option<Cause>); 4] = [
        (b"\x88\0\x01a\x01b", 1 << 16, None),
        (b"\x88\0\x01A\x01b", 1 << 16, Some(Cause::Malformed)),
        (b"\x88\0\x01a\x01\n", 1 << 16, Some(Cause::Malformed)),
        (&large, 256, Some(Cause::TooLarge)),
    ];
    for (block, limit, expected) in table {
        let data = frame(0, 1, 3, b"rest");
        let said = [frame(1, 4, 1, block), data.clone()].concat();
        for cut in [1, 5, said.len()] {
            let (mut frames, mut found) = (Frames::new(Peer::Application, limit), None);
            for piece in said.chunks(cut) {
                frames.handle(Bytes::copy_from_slice(piece), |stream, cause| found = Some((stream, cause)));
            }
            assert_eq!(found, expected.map(|cause| (1, cause)), "{block:?}");
            let (passed, _) = passed(&mut frames);
            assert!(passed.ends_with(&data));
            assert_eq!(passed == said, expected.is_none());
        }
    }
}

#[test]
fn a_block_in_many_frames_passes_in_few_and_an_empty_piece_of_a_body_not_at_all() {
    let mut frames = Frames::new(Peer::Application, 1 << 20);
    let field = [&b"\0\x01a\x7f\x81\x01"[..], &[b'v'; 256]].concat();
    let block = [b"\x88".to_vec(), field.repeat(400)].concat();
    let mut said = frame(1, 0, 1, &block[..10]);
    for piece in block[10..].chunks(100) {
        said.extend(frame(9, 0, 1, piece));
    }
    said.extend(frame(9, 4, 1, &[]));
    said.extend(frame(0, 0, 1, &[]).repeat(200));
    frames.handle(said.into(), |stream, cause| panic!("{stream} {cause:?}"));
    let (passed, _) = passed(&mut frames);
    assert_eq!(passed.len(), block.len() + 2 * 9);
}

#[test]
fn what_another_sidecar_says_is_only_counted() {
    let mut frames = Frames::new(Peer::Sidecar { calls: false }, 1 << 16);
    let said = [frame(1, 4, 1, b"\x88\0\x01A\x01b"), frame(6, 0, 0, b"12345678").repeat(1000)].concat();
    frames.handle(said.clone().into(), |stream, cause| panic!("{stream} {cause:?}"));
    let mut pieces = Vec::new();
    while let Some((bytes, count)) = frames.pass() {
        assert!(count <= 64);
        pieces.push(bytes);
    }
    assert_eq!(pieces.concat(), said);
    assert!(pieces.len() >= 1001 / 64);
}

#[test]
fn frames_that_are_left_out_take_their_part_of_a_turn() {
    let mut frames = Frames::new(Peer::Application, 1 << 16);
    let said = [frame(0, 0, 1, &[]).repeat(1000), frame(0, 0, 1, b"x"), frame(0, 1, 1, &[])].concat();
    frames.handle(Bytes::from(said), |_, _| {});
    assert_eq!((frames.take_dropped(), frames.take_dropped()), (1000, 0));
    assert_eq!(passed(&mut frames).0, [frame(0, 0, 1, b"x"), frame(0, 1, 1, &[])].concat());
}

#[tokio::test]
async fn a_connection_that_always_has_something_to_say_lets_others_have_their_turn() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let near = Rc::new(listener.accept().await.unwrap().0);
    let pings = frame(6, 0, 0, b"12345678").repeat(50_000);
    let length = pings.len();
    let _peer = task::spawn("peer", async move {
        far.write_all(&pings).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut screen = Screen::new(Pipe::new(leg::tcp(near), None), Peer::Application);
    let (mut all, mut most, mut turns) = (0, 0, 0);
    Turn::of(
        screen.turn(),
        poll_fn(|cx| {
            let before = all;
            while all < length {
                let mut bytes = [0; 1000];
                let mut buffer = ReadBuf::new(&mut bytes);
                match Pin::new(&mut screen).poll_read(cx, &mut buffer) {
                    Poll::Ready(read) => read.unwrap(),
                    Poll::Pending => break,
                }
                all += buffer.filled().len();
            }
            turns += 1;
            most = most.max(all - before);
            if all < length { Poll::Pending } else { Poll::Ready(()) }
        }),
    )
    .await;
    let frame = 9 + 8;
    assert!(most <= (256 + 64) * frame && turns >= 50_000 / 320, "{most} {turns}");
}
