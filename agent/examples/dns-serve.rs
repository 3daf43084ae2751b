//! DNS alone, to be measured: serves a network of made-up services at `ADDRESS:PORT` until it is ended.
//!
//! `cargo run -p sealane-agent --example dns-serve -- 127.0.0.1:5353 1000`, then
//! `dnsperf -s 127.0.0.1 -p 5353 -d names`, with lines like `svc-7.bench A` in `names`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::Registry;
use sealane_agent::dns::{self, DnsMetrics, DnsSockets, ForwardConfig, Forwarder, View, Zone};
use sealane_proto::resource::{Network, NetworkSnapshot, Service, Workload};
use sealane_proto::types::{Generation, MacAddr, Vni};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(address), Some(count)) = (words.next(), words.next()) else {
        return Err("usage: dns-serve ADDRESS:PORT SERVICES".into());
    };
    let (address, count): (SocketAddrV4, u16) = (address.parse()?, count.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let metrics = DnsMetrics::register(&Registry::new())?;
        let zone = Arc::new(Zone::build(&network(count)?));
        let view = Arc::new(ArcSwap::from_pointee(View { zones: vec![zone], sidecar: true }));
        let counters = metrics.network(&"bench".parse()?);
        let forwarder = Arc::new(Forwarder::new(ForwardConfig::new("/etc/resolv.conf".into()), metrics));
        let _server = dns::serve(DnsSockets::bind_at(address)?, view, forwarder, counters)?;
        tokio::signal::ctrl_c().await?;
        Ok(())
    })
}

/// `svc-0`, `svc-1`... with one ready instance each.
fn network(count: u16) -> Result<NetworkSnapshot, Box<dyn std::error::Error>> {
    let mut services = Vec::new();
    let mut workloads = Vec::new();
    for n in 0..count {
        let [high, low] = n.to_be_bytes();
        let name = format!("svc-{n}");
        services.push(Service {
            name: name.parse()?,
            vip: Ipv4Addr::new(10, 43, high, low).into(),
            ports: vec!["80".parse()?],
        });
        workloads.push(Workload {
            name: format!("{name}-1").parse()?,
            network: "bench".parse()?,
            node: "host".parse()?,
            address: Ipv4Addr::new(10, 42, high, low).into(),
            mac: MacAddr::new([2, 0, 0, 0, high, low]),
            service: Some(name.parse()?),
            ports: vec!["80".parse()?],
            sidecar: true,
            ready: true,
        });
    }
    let network =
        Network { name: "bench".parse()?, subnet: "10.42.0.0/15".parse()?, vni: Vni::FIRST, mtu: None };
    let generation = Generation::default();
    Ok(NetworkSnapshot { generation, network, nodes: vec![], blocks: vec![], services, workloads })
}
