//! Hosts that call each other over real TLS, each at a loopback address of its own.

mod mesh;

use std::time::{Duration, SystemTime};

use sealane_proto::identity::SerialPrefix;
use sealane_proto::peer::{LARGEST_FRAME, PeerCell, PeerFrame, PeerHello, Reach};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::states::ObstacleKind;
use super::*;
use mesh::{PATIENCE, TestMesh, address, facts, place};

#[tokio::test]
async fn hosts_tell_each_other_what_they_own_and_when_they_end() {
    let mesh = TestMesh::new();
    let (mut a, mut b) = mesh.pair();
    a.says(facts("host-a", (4, 1), &["api-1"]));
    assert_eq!(
        b.hears().await,
        ("host-a".parse().unwrap(), PeerWord::Facts(facts("host-a", (4, 1), &["api-1"])))
    );
    a.says(facts("host-a", (4, 2), &["api-1", "api-2"]));
    let changed = facts("host-a", (4, 2), &["api-1", "api-2"]);
    assert_eq!(b.hears().await.1, PeerWord::Facts(changed));
    b.says(facts("host-b", (9, 1), &["web-1"]));
    assert_eq!(a.hears().await.1, PeerWord::Facts(facts("host-b", (9, 1), &["web-1"])));
    assert!(a.is_up("host-b") && b.is_up("host-a"));
    drop(a);
    assert_eq!(b.hears().await.1, PeerWord::Silent);
    b.await_down("host-a", ObstacleKind::Refused).await;
}

#[tokio::test]
async fn a_host_is_believed_to_be_where_it_is_spoken_to_or_answers_and_nowhere_else() {
    let mesh = TestMesh::new();
    let (mut a, mut b) = mesh.pair();
    let stranger = mesh.host("host-c", 5);
    stranger.shares(&[("host-z", 9, &["shop"])]);
    stranger.await_listening().await;
    let b_says = |place| ("host-b".parse().unwrap(), PeerWord::Placed(place));
    b.says_places(&[("host-b", 2, 1), ("host-c", 5, 7)]);
    // What is said of others proves nothing, and comes first.
    let found = BTreeMap::from([("host-c".parse().unwrap(), place(5, 7))]);
    assert_eq!(a.hears().await.1, PeerWord::Found(found));
    assert_eq!(a.hears().await, b_says(place(2, 1)), "a has called it there");
    b.says_places(&[("host-b", 5, 2)]);
    stranger.await_refused("failed").await;
    b.says_places(&[("host-b", 4, 3)]);
    b.moves(4);
    // It answers there, and another host at the place before.
    a.awaits("host-b", PeerWord::Placed(place(4, 3))).await;
    a.says_places(&[("host-a", 1, 1)]);
    b.awaits("host-a", PeerWord::Placed(place(1, 1))).await;
    a.await_up("host-b").await;
    assert!(a.is_up("host-b") && b.is_up("host-a"), "a look leaves the channel as it is");
}

#[tokio::test]
async fn a_host_is_called_at_all_addresses_at_which_it_may_be() {
    let mesh = TestMesh::new();
    let (a, b) = (mesh.host("host-a", 1), mesh.host("host-b", 2));
    b.shares(&[("host-a", 1, &["shop"])]);
    b.await_listening().await;
    a.shares_with("host-b", 7, &[8, 2]);
    a.await_up("host-b").await;
    a.shares_with("host-b", 1, &[]);
    drop(b);
    let said = a.await_down("host-b", ObstacleKind::Lost).await;
    assert!(said.contains("this host is at") || said.contains("closed"), "{said}");
}

#[tokio::test]
async fn a_hint_reaches_the_host_that_it_is_for_and_nobody_else() {
    let mesh = TestMesh::new();
    let (a, mut b) = mesh.pair();
    a.await_up("host-b").await;
    a.hints("host-c", &["host-d"]);
    a.hints("host-b", &["host-e", "host-f"]);
    assert_eq!(b.hears_hint().await, ("host-a".to_owned(), vec!["host-e".to_owned(), "host-f".to_owned()]));
}

#[tokio::test]
async fn a_host_that_is_asked_how_it_sees_its_peers_answers_all_who_wait() {
    let mesh = TestMesh::new();
    let (a, mut b) = mesh.pair();
    a.await_up("host-b").await;
    let (first, second) = (a.asks("host-b").await, a.asks("host-b").await);
    let row = vec![cell("host-a"), cell("host-c")];
    let answering = async {
        // The second question may come while this host still looks for the first.
        while let Some(question) = b.looked.recv().await {
            let _ = question.send(row.clone());
        }
    };
    tokio::select! {
        rows = async { (first.await, second.await) } => assert_eq!(rows, (Ok(row.clone()), Ok(row.clone()))),
        () = answering => panic!("nobody asks any more"),
    }
    // One that shares no network is not asked.
    assert!(a.asks("host-d").await.await.is_err());
}

fn cell(node: &str) -> PeerCell {
    PeerCell {
        node: node.parse().unwrap(),
        reach: Reach::Unreachable,
        round_trip: Some(Duration::from_micros(70)),
        loss_permille: Some(1_000),
        path_mtu: Some(1_500),
        loses_long: true,
        loses_checksums: true,
        channel_problem: Some(sealane_proto::types::Finding::new("nobody answers")),
        heard: Some(0),
    }
}

#[tokio::test]
async fn a_host_hears_what_others_have_of_its_words() {
    let mesh = TestMesh::new();
    let (mut a, mut b) = mesh.pair();
    a.says(facts("host-a", (4, 1), &["api-1"]));
    a.await_acknowledged("host-b", &[("shop", 1)]).await;
    b.await_acknowledged("host-a", &[]).await;
    a.says(facts("host-a", (4, 2), &[]));
    a.await_acknowledged("host-b", &[("shop", 2)]).await;
}

#[tokio::test]
async fn the_host_with_the_greater_name_calls_when_nobody_calls_it() {
    let mesh = TestMesh::new();
    let (a, mut b) = (mesh.host("host-a", 1), mesh.host("host-b", 2));
    // Nobody is where it calls.
    a.shares(&[("host-b", 3, &["shop"])]);
    b.shares(&[("host-a", 1, &["shop"])]);
    a.says(facts("host-a", (1, 1), &["api-1"]));
    assert_eq!(b.hears().await.1, PeerWord::Facts(facts("host-a", (1, 1), &["api-1"])));
}

#[tokio::test]
async fn a_host_that_shares_no_network_any_more_is_parted_from() {
    let mesh = TestMesh::new();
    let (a, mut b) = mesh.pair();
    a.says(facts("host-a", (1, 1), &["api-1"]));
    b.hears().await;
    a.shares(&[]);
    assert_eq!(b.hears().await.1, PeerWord::Silent);
    b.await_down("host-a", ObstacleKind::Refused).await;
    // Who has peers listens, and takes those alone.
    a.shares(&[("host-c", 4, &["shop"])]);
    a.await_refused("no_network").await;
    assert!(!a.is_up("host-b"));
}

#[tokio::test]
async fn a_removed_host_is_parted_from_and_does_not_come_back() {
    let mesh = TestMesh::new();
    let (a, mut b) = mesh.pair();
    a.says(facts("host-a", (1, 1), &["api-1"]));
    b.hears().await;
    let serial = SerialPrefix::of(&a.identity.borrow().chain[0]).unwrap();
    b.revoked.send_replace(Arc::new(BTreeSet::from([serial])));
    assert_eq!(b.hears().await.1, PeerWord::Silent);
    b.await_refused("failed").await;
    assert_eq!(b.ended("revoked"), 1);
    // With another key, it is another host.
    a.identity.send_replace(mesh.identity("host-a", Duration::from_secs(3_600)));
    let renewed = b.hears().await;
    assert_eq!(renewed.1, PeerWord::Facts(facts("host-a", (1, 1), &["api-1"])));
}

#[tokio::test]
async fn a_renewed_certificate_ends_nothing_and_one_that_ends_makes_room_for_it() {
    let mesh = TestMesh::new();
    let (a, mut b) = (mesh.host_for("host-a", 1, Duration::from_secs(5)), mesh.host("host-b", 2));
    a.shares(&[("host-b", 2, &["shop"])]);
    b.shares(&[("host-a", 1, &["shop"])]);
    a.says(facts("host-a", (1, 1), &["api-1"]));
    b.hears().await;
    a.identity.send_replace(mesh.identity("host-a", Duration::from_secs(3_600)));
    a.says(facts("host-a", (1, 2), &["api-1"]));
    assert_eq!(b.hears().await.1, PeerWord::Facts(facts("host-a", (1, 2), &["api-1"])));
    assert_eq!(b.hears().await.1, PeerWord::Silent);
    assert_eq!((b.ended("expired"), b.ended("closed")), (1, 0));
    assert_eq!(b.hears().await.1, PeerWord::Facts(facts("host-a", (1, 2), &["api-1"])));
}

#[tokio::test]
async fn strangers_get_no_further_than_the_handshake() {
    let (mesh, foreign) = (TestMesh::new(), TestMesh::new());
    let (a, _b) = (mesh.host("host-a", 1), mesh.host("host-b", 2));
    a.shares(&[("host-b", 2, &["shop"])]);
    a.await_listening().await;
    // Silent, then somebody who speaks something else, then a host of another mesh.
    let mut silent = TcpStream::connect(address(1)).await.unwrap();
    a.await_refused("silent").await;
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0);
    let mut other = TcpStream::connect(address(1)).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    a.await_refused("failed").await;
    let before = a.refused("failed");
    let stream = TcpStream::connect(address(1)).await.unwrap();
    let refused =
        foreign.credentials("host-b").connect(&"host-a".parse().unwrap(), stream).await.unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    // It believes anything, and is believed by nobody.
    let gullible =
        mesh::call_as_anybody(&foreign.identity("host-b", Duration::from_secs(60)), address(1)).await;
    assert!(gullible.is_err());
    a.await_refusals("failed", before + 2).await;
    assert!(!a.is_up("host-b"));
}

#[tokio::test]
async fn who_answers_by_another_name_is_not_the_host_that_was_called() {
    let mesh = TestMesh::new();
    let (a, c) = (mesh.host("host-a", 1), mesh.host("host-c", 2));
    c.shares(&[("host-a", 1, &["shop"])]);
    // Its address is that of another host.
    a.shares(&[("host-b", 2, &["shop"])]);
    let words = a.await_down("host-b", ObstacleKind::Distrust).await;
    assert!(words.contains("host-c") && words.contains("expected node/host-b"), "{words}");
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection() {
    let mesh = TestMesh::new();
    let a = mesh.host("host-a", 1);
    a.shares(&[("host-b", 2, &["shop"])]);
    a.await_listening().await;
    let mut b = mesh.call("host-b", &a).await;
    let mut hello = bytes::BytesMut::new();
    PeerFrame::Hello(PeerHello::own("9")).encode(&mut hello);
    b.stream.write_all(&hello).await.unwrap();
    a.await_up("host-b").await;
    let length = u32::try_from(LARGEST_FRAME + 1).unwrap().to_be_bytes();
    b.stream.write_all(&length).await.unwrap();
    let mut rest = Vec::new();
    let _ = b.stream.read_to_end(&mut rest).await;
    let words = a.await_down("host-b", ObstacleKind::Distrust).await;
    assert!(words.contains("a frame of 65537 octets is larger than 65536"), "{words}");
    assert_eq!(a.ended("malformed"), 1);
}

#[tokio::test]
async fn a_host_that_moves_is_found_where_it_is() {
    let mesh = TestMesh::new();
    let (a, mut b) = mesh.pair();
    a.says(facts("host-a", (1, 1), &["api-1"]));
    b.hears().await;
    b.underlay.send_replace(address(5).ip().into());
    a.shares(&[("host-b", 5, &["shop"])]);
    a.says(facts("host-a", (1, 2), &["api-1"]));
    b.awaits("host-a", PeerWord::Facts(facts("host-a", (1, 2), &["api-1"]))).await;
    assert_eq!(b.ended("moved"), 1, "what is sent from the lost address comes back from nowhere");
    let listening = async {
        while TcpStream::connect(address(5)).await.is_err() || TcpStream::connect(address(2)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.unwrap();
}

#[tokio::test]
async fn of_two_connections_the_one_that_the_smaller_name_has_dialled_stays() {
    let mesh = TestMesh::new();
    let host = mesh.host("host-m", 1);
    // Nobody is where it calls them.
    host.shares(&[("host-a", 2, &["shop"]), ("host-z", 3, &["shop"])]);
    host.await_listening().await;
    let _first = mesh.greet("host-a", &host).await;
    host.await_up("host-a").await;
    let _newer = mesh.greet("host-a", &host).await;
    host.await_ended("replaced", 1).await;
    let _theirs = mesh.greet("host-z", &host).await;
    host.await_up("host-z").await;
    let _newer = mesh.greet("host-z", &host).await;
    host.await_ended("replaced", 2).await;
    assert_eq!(host.refused("second"), 0);

    let callee = mesh.host("host-z", 3);
    let caller = mesh.host("host-b", 4);
    caller.shares(&[("host-z", 3, &["shop"])]);
    callee.shares(&[("host-b", 4, &["shop"])]);
    caller.await_up("host-z").await;
    let _second = mesh.greet("host-z", &caller).await;
    caller.await_refused("second").await;
    assert!(caller.is_up("host-z"), "it has dialled itself");
}
