//! Cores of the agent's DNS.

use std::hint::black_box;
use std::sync::Arc;

use sealane_agent::dns::{NameView, Transport, Zone, answer};
use sealane_proto::resource::NetworkSnapshot;
use sealane_proto::types::Generation;

use crate::Work;
use crate::mesh::{self, ChangingNetwork};

/// Question for a service that has instances.
pub(crate) fn service() -> Work {
    answering(b"service-7")
}

/// Question for a name that nobody has.
pub(crate) fn nobody() -> Work {
    answering(b"nobody")
}

fn answering(name: &[u8]) -> Work {
    let content = mesh::network();
    let snapshot = NetworkSnapshot::new(Generation { epoch: 1, revision: 1 }, content);
    let view = NameView { zones: vec![Arc::new(Zone::build(&snapshot))], own: vec![], balanced: true };
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    // A question of type A and class IN (RFC 1035, section 4.1).
    let header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let query = [&header[..], &[length], name, &[4], b"shop", &[0, 0, 1, 0, 1]].concat();
    let mut out = Vec::new();
    Box::new(move || {
        black_box(answer(&view, black_box(&query), Transport::Udp, 7, &mut out));
    })
}

/// Names after one of so many endpoints has changed.
pub(crate) fn changed(endpoints: u32) -> Work {
    let mut network = ChangingNetwork::of(endpoints);
    let mut zone = Zone::build(network.state());
    Box::new(move || zone = zone.follow(black_box(network.change())))
}
