//! Questions to the resolver.

use std::sync::{Arc, LazyLock};

use sealane_agent::dns::{NameView, Outcome, Transport, Zone, answer};
use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::wire::v1;

/// A workload's view of network `shop`: a service of forty instances, one of none, and one outside.
static VIEW: LazyLock<NameView> = LazyLock::new(|| {
    let snapshot = NetworkSnapshot::try_from(state());
    let zones = snapshot.iter().map(|snapshot| Arc::new(Zone::build(snapshot))).collect();
    NameView { zones, own: Vec::new(), balanced: false }
});

/// The largest answer in a datagram, and to those who do not say what they take.
const UDP: usize = 1232;
const PLAIN_UDP: usize = 512;

/// Answers a question by datagram and by stream: the answer is to it, and fits.
pub(crate) fn query(data: &[u8]) {
    let Some((&seed, message)) = data.split_first() else { return };
    let mut out = Vec::new();
    let mut rcodes = Vec::new();
    for (transport, limit) in [(Transport::Udp, UDP), (Transport::Tcp, usize::from(u16::MAX))] {
        let outcome = answer(&VIEW, message, transport, seed.into(), &mut out);
        if let Outcome::Answered { rcode } = outcome {
            let plain = transport == Transport::Udp && message.get(10..12) == Some(&[0, 0][..]);
            assert!((12..=if plain { PLAIN_UDP } else { limit }).contains(&out.len()), "{} bytes", out.len());
            assert_eq!(out[..2], message[..2], "the id is the asker's");
            assert!(out[2] & 0x80 != 0, "an answer says that it is one");
            if out[4..6] == [0, 1] {
                let question = message[12..].iter().zip(&out[12..]);
                assert!(question.take(5).all(|(asked, echoed)| asked == echoed), "the question is echoed");
            }
            rcodes.push(rcode);
        }
    }
    assert!(rcodes.len() != 1, "both ways are answered or neither is");
    assert!(rcodes.windows(2).all(|pair| pair[0] == pair[1]));
}

fn state() -> v1::NetworkState {
    let service = |name: &str, last: u8, external: &[&str]| v1::Service {
        name: name.to_owned(),
        vip: format!("10.42.255.{last}"),
        ports: vec![v1::ServicePort { name: "web".to_owned(), port: 8080, ..Default::default() }],
        declared: true,
        external: external.iter().map(|&place| place.to_owned()).collect(),
        ..Default::default()
    };
    let workload = |number: u8| v1::Workload {
        name: format!("api-{number}"),
        network: "shop".to_owned(),
        node: "host-1".to_owned(),
        address: format!("10.42.0.{number}"),
        mac: format!("02:00:0a:2a:00:{number:02x}"),
        service: "api".to_owned(),
        ready: true,
        ..Default::default()
    };
    v1::NetworkState {
        generation: Some(v1::Generation { epoch: 1, revision: 1 }),
        network: Some(v1::Network {
            name: "shop".to_owned(),
            subnet: "10.42.0.0/16".to_owned(),
            subnet6: "fd42::/64".to_owned(),
            vni: 4096,
            ..Default::default()
        }),
        services: vec![service("api", 1, &[]), service("db", 2, &[]), service("vault", 3, &["192.0.2.50"])],
        workloads: (2..42).map(workload).collect(),
        ..Default::default()
    }
}

#[test]
fn the_network_that_is_asked_about_is_one() {
    assert_eq!(VIEW.zones.len(), 1, "{:?}", NetworkSnapshot::try_from(state()).err());
}
