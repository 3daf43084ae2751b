//! A control plane that was restored from a backup, and hosts that it does not know.

use std::path::Path;
use std::time::SystemTime;

use sealane_control::{Backup, Control, restore};
use sealane_proto::wire::{PROTOCOL, v1};
use tonic::Code;
use v1::agent_message::Message as Up;
use v1::control_message::Message as Down;

use super::host::{Stream, admin, join, read, read_state};
use super::{Mesh, control, create_network, shop, workload};

async fn backup(directory: &Path) -> Backup {
    let mut pieces = admin(directory).await.backup(v1::BackupRequest {}).await.unwrap().into_inner();
    let mut bytes = vec![];
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes.extend_from_slice(&piece.data);
    }
    Backup::from_bytes(&bytes).unwrap()
}

fn hello(underlay: &str, applied: Vec<v1::Ack>) -> Up {
    Up::Hello(v1::Hello {
        protocol: PROTOCOL,
        version: "0.0.0-test".into(),
        applied,
        oldest_protocol: PROTOCOL,
        underlay: underlay.into(),
        recalls: true,
        ..v1::Hello::default()
    })
}

async fn welcomed(stream: &mut Stream) -> u64 {
    let Down::Welcome(welcome) = stream.next().await else { panic!("no welcome") };
    welcome.epoch
}

#[tokio::test]
async fn a_host_that_joined_after_the_backup_comes_back_with_all_that_it_has() {
    let Mesh { directory, control: first, token } = shop().await;
    let one = join(&first, &token, "host-1", "192.0.2.1").await.unwrap();
    let backup = backup(directory.path()).await;
    let two = join(&first, &token, "host-2", "192.0.2.2").await.unwrap();
    create_network(directory.path(), "new", "10.43.0.0/16").await.unwrap();
    assert_eq!(two.carry("shop", 0).await.unwrap(), ["10.42.0.0/28"]);
    assert_eq!(two.carry("new", 0).await.unwrap(), ["10.43.0.0/28"]);
    let mut stream = two.open(hello("192.0.2.2", vec![])).await;
    let lost = welcomed(&mut stream).await;
    stream.send(Up::Recall(v1::Recall { networks: vec![], last: true })).await;
    let known = [stream.state().await, stream.state().await];
    drop(stream);
    first.shutdown().await;

    let data = directory.path().join("data");
    let now = SystemTime::now().into();
    assert!(restore(&backup, &data, false, now).unwrap_err().to_string().contains("--force"));
    let restored = restore(&backup, &data, true, now).unwrap();
    assert!(restored.epoch != lost && restored.aside.unwrap().exists());
    let second = control(directory.path()).await;

    // Whoever comes first gets nothing that another one may have.
    let one = one.elsewhere(second.local_addr()).await;
    assert_eq!(one.carry("shop", 0).await.unwrap(), ["10.42.128.0/28"]);
    // A call alone is no proof of what the host is; its stream says where it is.
    let two = two.elsewhere(second.local_addr()).await;
    let status = two.carry("shop", 1).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let status = two.open(hello("", vec![])).await.end().await;
    assert!(status.message().contains("node host-2 is not known to this control plane"), "{status:?}");

    let applied = known.iter().map(|state| v1::Ack {
        network: state.network.as_ref().unwrap().name.clone(),
        generation: state.generation,
        voucher: None,
    });
    let mut stream = two.open(hello("192.0.2.2", applied.collect())).await;
    assert_eq!(welcomed(&mut stream).await, restored.epoch);
    for state in known {
        stream.send(Up::Recall(v1::Recall { networks: vec![state], last: false })).await;
    }
    stream.send(Up::Recall(v1::Recall { networks: vec![], last: true })).await;
    stream.report(1, vec![workload("host-2", "db", "10.42.0.2", "db")]).await;
    let mut states = vec![];
    let reported = loop {
        match stream.next().await {
            Down::State(state) => states.push(read_state(state)),
            Down::Reported(reported) => break reported,
            Down::Heartbeat(_) => {}
            other @ (Down::Gone(_) | Down::Welcome(_) | Down::Settled(_) | Down::Delta(_)) => {
                panic!("{other:?}")
            }
        }
    };
    assert_eq!(reported.refused, []);
    assert!(states.iter().all(|state| state.generation.unwrap().epoch == restored.epoch));
    assert_eq!(two.carry("shop", 0).await.unwrap(), ["10.42.0.0/28"]);
    assert_eq!(two.carry("new", 0).await.unwrap(), ["10.43.0.0/28"]);
    second.shutdown().await;
}

#[tokio::test]
async fn a_host_that_is_removed_before_it_comes_back_is_refused_and_revoked_when_it_comes() {
    let Mesh { directory, control: first, token } = shop().await;
    let one = join(&first, &token, "host-1", "192.0.2.1").await.unwrap();
    let backup = backup(directory.path()).await;
    let two = join(&first, &token, "host-2", "192.0.2.2").await.unwrap();
    one.carry("shop", 0).await.unwrap();
    two.carry("shop", 0).await.unwrap();
    let known = one.sync(vec![]).await.state().await;
    first.shutdown().await;
    restore(&backup, &directory.path().join("data"), true, SystemTime::now().into()).unwrap();
    let second = control(directory.path()).await;

    let one = one.elsewhere(second.local_addr()).await;
    let applied = v1::Ack { network: "shop".into(), generation: known.generation, voucher: None };
    let mut stream = one.open(hello("192.0.2.1", vec![applied])).await;
    welcomed(&mut stream).await;
    stream.send(Up::Recall(v1::Recall { networks: vec![known], last: true })).await;
    let told = stream.state().await;
    assert_eq!((told.nodes.len(), told.revoked_serials.len()), (2, 0), "{told:?}");
    let remove = v1::RemoveNodeRequest { name: "host-2".into(), force: false };
    let removed = admin(directory.path()).await.remove_node(remove).await.unwrap().into_inner();
    assert!(removed.key_unknown);
    let told = stream.state().await;
    assert_eq!((told.nodes.len(), told.revoked_serials.len()), (1, 0), "{told:?}");

    let two = two.elsewhere(second.local_addr()).await;
    let refused = two.open(hello("192.0.2.2", vec![])).await.end().await;
    let known_by_its_key = two.carry("shop", 1).await.unwrap_err();
    for status in [refused, known_by_its_key] {
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("node host-2 was removed from the mesh"), "{status:?}");
    }
    assert_eq!(stream.state().await.revoked_serials.len(), 1);
    second.shutdown().await;
}

/// A copy of the store's file beside a control plane, which was stopped for it and started again.
async fn copied(directory: &Path, control: Control) -> Control {
    control.shutdown().await;
    std::fs::copy(directory.join("data/control.redb"), directory.join("copy")).unwrap();
    self::control(directory).await
}

/// The control plane that starts after the copy was put back in the place of its store.
async fn put_back(directory: &Path, control: Control) -> Control {
    control.shutdown().await;
    std::fs::copy(directory.join("copy"), directory.join("data/control.redb")).unwrap();
    self::control(directory).await
}

/// A hello of a host that was told these states.
fn holding<'a>(held: impl IntoIterator<Item = &'a v1::NetworkState>) -> Up {
    let Up::Hello(hello) = hello("", vec![]) else { panic!("no hello") };
    let held = held.into_iter().map(|state| v1::Ack {
        network: state.network.as_ref().unwrap().name.clone(),
        generation: state.generation,
        voucher: state.voucher.clone(),
    });
    Up::Hello(v1::Hello { held: held.collect(), ..hello })
}

/// Notes and problems of status about a store that was put back.
async fn notes(directory: &Path) -> Vec<String> {
    let status = read(directory).await.status(v1::StatusRequest {}).await.unwrap().into_inner();
    status.notes.into_iter().chain(status.problems).filter(|line| line.contains("earlier copy")).collect()
}

#[tokio::test]
async fn a_host_that_was_told_more_than_the_store_knows_begins_a_new_lifetime_once() {
    let Mesh { directory, control: first, token } = shop().await;
    let path = directory.path();
    let one = join(&first, &token, "host-1", "192.0.2.1").await.unwrap();
    let two = join(&first, &token, "host-2", "192.0.2.2").await.unwrap();
    one.carry("shop", 0).await.unwrap();
    let second = copied(path, first).await;
    let one = one.elsewhere(second.local_addr()).await;
    let mut stream = one.open(holding([])).await;
    let epoch = welcomed(&mut stream).await;
    stream.send(Up::Recall(v1::Recall { networks: vec![], last: true })).await;
    let before = stream.state().await;
    // A change that the copy does not know.
    create_network(path, "new", "10.43.0.0/16").await.unwrap();
    one.carry("new", 0).await.unwrap();
    let after = stream.state().await;
    drop(stream);

    let third = put_back(path, second).await;
    let [one, two] = [one.elsewhere(third.local_addr()).await, two.elsewhere(third.local_addr()).await];
    // What the copy knows, and words that nobody has said, are no signs.
    let mut forged = after.clone();
    forged.generation.as_mut().unwrap().revision += 1;
    let mut bare = after.clone();
    bare.voucher = None;
    for held in [vec![&before], vec![&before, &forged], vec![&bare]] {
        assert_eq!(welcomed(&mut two.open(holding(held)).await).await, epoch);
    }
    assert_eq!(notes(path).await, Vec::<String>::new());
    let mut garbled = after.clone();
    garbled.voucher.as_mut().unwrap().code.pop();
    let status = two.open(holding([&garbled])).await.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("Hello.held: Voucher.code: 15 octets, not 16"), "{status:?}");

    let mut stream = one.open(holding([&before, &after])).await;
    let next = welcomed(&mut stream).await;
    assert_ne!(next, epoch);
    let [note] = &*notes(path).await else { panic!("{:?}", notes(path).await) };
    assert!(
        note.contains("node host-1 came with state") && note.contains("a new lifetime has begun"),
        "{note}"
    );
    // What the host has is taken over as after a restoration, and nothing begins anew for what it knew before.
    for state in [&before, &after] {
        stream.send(Up::Recall(v1::Recall { networks: vec![state.clone()], last: false })).await;
    }
    stream.send(Up::Recall(v1::Recall { networks: vec![], last: true })).await;
    let mut names = vec![];
    for _ in 0..2 {
        let state = stream.state().await;
        assert_eq!(state.generation.unwrap().epoch, next);
        names.push(state.network.unwrap().name);
    }
    names.sort();
    assert_eq!(names, ["new", "shop"]);
    drop(stream);
    assert_eq!(welcomed(&mut one.open(holding([&before, &after])).await).await, next);
    third.shutdown().await;
}
