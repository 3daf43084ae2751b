//! Changes as a host hears them that takes deltas, beside one that takes states.

use prost::Message as _;
use sealane_proto::resource::{NetworkDelta, NetworkSnapshot};
use sealane_proto::wire::{PROTOCOL, v1};
use v1::agent_message::Message as Up;
use v1::control_message::Message as Down;

use super::host::{Stream, join};
use super::{Mesh, shop, workload};

/// The next delta.
async fn delta(stream: &mut Stream) -> NetworkDelta {
    loop {
        if let Down::Delta(delta) = stream.next().await {
            return v1::NetworkDelta::decode(delta).unwrap().try_into().unwrap();
        }
    }
}

fn snapshot(state: v1::NetworkState) -> NetworkSnapshot {
    state.try_into().unwrap()
}

#[tokio::test]
async fn a_host_that_takes_deltas_comes_to_what_others_are_sent_whole_and_to_the_whole_when_it_asks() {
    let Mesh { directory: _directory, control, token } = shop().await;
    let one = join(&control, &token, "host-1", "192.0.2.1").await.unwrap();
    let two = join(&control, &token, "host-2", "192.0.2.2").await.unwrap();
    one.carry("shop", 0).await.unwrap();
    two.carry("shop", 0).await.unwrap();
    let mut first = one.sync(vec![]).await;
    let version = "0.0.0-test".to_owned();
    let hello = v1::Hello { protocol: PROTOCOL, version, takes_deltas: true, ..v1::Hello::default() };
    let mut second = two.open(Up::Hello(hello)).await;
    let (mine, theirs) = (first.state().await, second.state().await);
    assert_eq!(mine, theirs, "the beginning is a state");
    first.ack(&mine).await;
    second.ack(&theirs).await;
    let mut known = snapshot(theirs);

    let mut api = workload("host-1", "api-1", "10.42.0.2", "api");
    first.report(1, vec![api.clone()]).await;
    let news = delta(&mut second).await;
    assert_eq!(news.from, known.generation.revision);
    known = news.applied(&known).unwrap();
    let whole = first.state().await;
    assert_eq!(known, snapshot(whole.clone()));
    first.ack(&whole).await;

    // Nothing is acknowledged: the next one comes all the same, and leads on from what was sent.
    api.ready = false;
    first.report(2, vec![api]).await;
    let news = delta(&mut second).await;
    let changed: Vec<_> = news.workloads.news().map(|workload| workload.name.to_string()).collect();
    assert_eq!((changed, news.services.len(), news.nodes.len()), (vec!["api-1".to_owned()], 0, 0));
    known = news.applied(&known).unwrap();
    let whole = first.state().await;
    assert_eq!(known, snapshot(whole.clone()));

    second.send(Up::Missing(v1::Missing { network: "shop".to_owned() })).await;
    assert_eq!(second.state().await, whole);
    second.send(Up::Missing(v1::Missing { network: "no name".to_owned() })).await;
    let ended = second.end().await;
    assert!(ended.message().starts_with("Missing.network: "), "{ended:?}");
    control.shutdown().await;
}
