//! A sidecar that is told of what its workload calls.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use sealane_proto::resource::{NetworkChange, Service, Workload};
use sealane_proto::sidecar::{Change, Config, Portion};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::mesh::{Mesh, Sidecar, VIP, answer_with, read_until, within};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n";

/// The configuration of a sidecar that knows nothing of the network so far, and what it can be told.
fn portion(mesh: &Mesh, own: &Workload) -> (Config, Vec<Service>, Vec<Workload>) {
    let mut config = mesh.config(own, &[0]);
    let services = std::mem::take(&mut config.network.services);
    let workloads = std::mem::take(&mut config.network.workloads);
    let service = services.iter().find(|service| own.service.as_ref() == Some(&service.name)).cloned();
    config.portion = Some(Portion { addresses: BTreeSet::new(), service });
    (config, services.iter().cloned().collect(), workloads.iter().cloned().collect())
}

fn change(change: NetworkChange) -> Change {
    let (told, untold) = Default::default();
    Change { sequence: 1, since: 1, change: change.into(), told, untold }
}

async fn tell(client: &mut Sidecar, services: &[Service], workloads: &[Workload]) {
    let (services, workloads) = (services.to_vec(), workloads.to_vec());
    let told = change(NetworkChange { services, workloads, ..NetworkChange::default() });
    assert!(client.core.follow(&Change { told: [vip()].into(), ..told }).await);
}

fn vip() -> Ipv4Addr {
    VIP.parse().unwrap()
}

async fn request(stream: &mut TcpStream) -> String {
    stream.write_all(REQUEST).await.unwrap();
    read_until(stream, "ok").await
}

async fn until_asked(client: &Sidecar) {
    let asked = async {
        while client.core.questions().asked() != [vip()].into() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(asked).await;
}

#[tokio::test]
async fn a_first_call_waits_for_the_agent_s_word_and_the_next_one_does_not() {
    let mesh = Mesh::new("8080/http", 1).strict();
    let mut server = mesh.instance(0).await;
    // A called sidecar needs no more than the rules of its own service.
    let own = mesh.config(mesh.client_workload(), &[]).network.workloads[0].clone();
    server.core.apply(&portion(&mesh, &own).0).await;
    let _application = mesh.application(0, |stream| answer_with(stream, "ok")).await;
    let mut client = mesh.client().await;
    let (config, services, workloads) = portion(&mesh, mesh.client_workload());
    client.core.apply(&config).await;
    let mut stream = client.call().await;
    stream.write_all(REQUEST).await.unwrap();
    until_asked(&client).await;
    assert_eq!(client.core.calls(), [vip()].into());
    tell(&mut client, &services, &workloads).await;
    assert!(read_until(&mut stream, "ok").await.starts_with("HTTP/1.1 200"));
    assert!(request(&mut client.call().await).await.starts_with("HTTP/1.1 200"));
    assert_eq!(client.metric("sealane_first_call_wait_seconds", &[]), 1.0);
    assert_eq!(client.metric("sealane_told_addresses", &[]), 1.0);
    assert!(client.core.questions().asked().is_empty());
}

#[tokio::test]
async fn addresses_that_nobody_calls_any_more_are_named_and_calls_under_way_go_on() {
    let mesh = Mesh::new("8080/http", 1);
    let _server = mesh.instance(0).await;
    let _application = mesh.application(0, |stream| answer_with(stream, "ok")).await;
    let mut client = mesh.client().await;
    let (config, services, workloads) = portion(&mesh, mesh.client_workload());
    client.core.apply(&config).await;
    tell(&mut client, &services, &workloads).await;
    let mut kept = client.call().await;
    request(&mut kept).await;
    for _ in 0..4 {
        assert!(client.core.unused().await.is_empty(), "a connection is open");
    }
    drop(kept);
    let idle = async {
        while client.core.unused().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(idle).await;
    // Called again just before the agent's word comes.
    let mut late = client.call().await;
    request(&mut late).await;
    let names = workloads.iter().map(|workload| workload.name.clone()).collect();
    let services_gone = services.iter().map(|service| service.name.clone()).collect();
    let gone = NetworkChange { services_gone, workloads_gone: names, ..NetworkChange::default() };
    assert!(client.core.follow(&Change { untold: [vip()].into(), ..change(gone) }).await);
    late.write_all(REQUEST).await.unwrap();
    until_asked(&client).await;
    tell(&mut client, &services, &workloads).await;
    assert!(read_until(&mut late, "ok").await.starts_with("HTTP/1.1 200"));
}
