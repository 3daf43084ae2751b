//! Bounds on what one host says of itself, as the others hear it.

use sealane_proto::wire::{PROTOCOL, v1};
use tonic::Code;
use v1::agent_message::Message as Up;

use super::host::{join, read};
use super::{Mesh, shop, workload};

fn hello(underlay: &str, mtu: u32) -> Up {
    let version = "0.0.0-test".into();
    Up::Hello(v1::Hello {
        protocol: PROTOCOL,
        version,
        underlay: underlay.into(),
        mtu,
        ..v1::Hello::default()
    })
}

#[tokio::test]
async fn whatever_a_host_says_of_its_place_the_others_keep_a_way_to_each_other() {
    let Mesh { directory, control, token } = shop().await;
    for (underlay, words) in [("10.42.3.4", "subnet 10.42.0.0/16 of network shop"), ("fe80::1", "link-local")]
    {
        let status = join(&control, &token, "host-9", underlay).await.unwrap_err();
        assert!(status.code() == Code::FailedPrecondition && status.message().contains(words), "{status:?}");
    }
    let one = join(&control, &token, "host-1", "192.0.2.1").await.unwrap();
    let two = join(&control, &token, "host-2", "192.0.2.2").await.unwrap();
    one.carry("shop", 0).await.unwrap();
    two.carry("shop", 0).await.unwrap();
    for (underlay, words) in [
        ("fe80::1", "link-local"),
        ("224.0.0.1", "for multicast"),
        ("255.255.255.255", "for broadcast"),
        ("::", "no address of any host"),
        ("169.254.169.254", "link-local"),
        ("10.42.0.77", "subnet 10.42.0.0/16 of network shop"),
        ("2001:db8::2", "and node host-1 is at 192.0.2.1"),
        ("::ffff:192.0.2.1", "in use by node host-1"),
    ] {
        let status = two.open(hello(underlay, 1_450)).await.end().await;
        assert!(status.message().contains(words), "{underlay}: {status:?}");
    }
    let mut first = one.sync(vec![]).await;
    let addresses = |state: &v1::NetworkState| -> Vec<(String, u32)> {
        state.nodes.iter().map(|node| (node.underlay.clone(), node.mtu)).collect()
    };
    let before = first.state().await;
    assert_eq!(addresses(&before), [("192.0.2.1".into(), 0), ("192.0.2.2".into(), 0)]);
    let _moved = two.open(hello("::ffff:192.0.2.52", 576)).await;
    let mut after = first.state().await;
    while addresses(&after)[1].1 == 0 {
        after = first.state().await;
    }
    assert_eq!(addresses(&after)[1], ("192.0.2.52".into(), 576));
    let nodes = read(directory.path()).await.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    assert_eq!(nodes.into_inner().nodes.len(), 2);
    control.shutdown().await;
}

#[tokio::test]
async fn what_is_too_much_is_refused_by_workload_field_and_bound_and_the_rest_is_taken() {
    let Mesh { directory: _directory, control, token } = shop().await;
    let one = join(&control, &token, "host-1", "192.0.2.1").await.unwrap();
    one.carry("shop", 0).await.unwrap();
    let mut stream = one.sync(vec![]).await;
    let mut greedy = workload("host-1", "greedy", "10.42.0.2", "api");
    greedy.ports =
        (1..=65).map(|port| v1::ServicePort { port, protocol: "udp".into(), ..Default::default() }).collect();
    let mut named = workload("host-1", "named", "10.42.0.3", "api");
    named.aliases = (0..17).map(|index| format!("alias-{index}")).collect();
    stream.report(1, vec![greedy, named, workload("host-1", "good", "10.42.0.4", "api")]).await;
    let refused = stream.reported().await.refused;
    let said: Vec<(&str, &str)> =
        refused.iter().map(|refusal| (refusal.workload.as_str(), refusal.reason.as_str())).collect();
    let of =
        |name: &str| said.iter().find(|(workload, _)| *workload == name).map_or("", |(_, reason)| reason);
    assert!(said.len() == 2 && of("named").contains("17 aliases are too many"), "{said:?}");
    assert!(of("greedy").contains("ports: 65 are too many, a workload offers 64 at most"), "{said:?}");
    control.shutdown().await;
}
