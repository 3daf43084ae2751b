//! Cores of the sidecar.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use sealane_proxy::benching::{self, Balancing, Framing, Routing, Ruling};

use crate::Work;
use crate::mesh::{self, ChangingNetwork};

/// Head of a request as browsers and libraries send it.
const HEAD: &[u8] = b"GET /v1/orders/17?expand=items HTTP/1.1\r\nHost: api.shop:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
    Accept-Encoding: gzip, deflate, br\r\nX-Request-Id: 7b1d2a3e-0f4c-4d7a-9d0e-8f6f3a1c2b4d\r\n\
    Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nConnection: keep-alive\r\n\r\n";

/// Parsing of a head.
pub(crate) fn request_head() -> Work {
    Box::new(|| {
        black_box(benching::request_head(black_box(HEAD)));
    })
}

/// Method, path, authority and one field of a head.
pub(crate) fn request_view() -> Work {
    Box::new(|| {
        black_box(benching::request_view(black_box(HEAD)));
    })
}

/// Detection of HTTP/1 and of TLS.
pub(crate) fn detection() -> Work {
    Box::new(|| {
        black_box(benching::is_detected(black_box(HEAD)));
        black_box(benching::is_detected(black_box(&[0x16, 3, 1, 2, 0, 1, 0, 1])));
    })
}

/// Meaning of a service's address.
pub(crate) fn route() -> Work {
    let routing = Routing::new(&mesh::network());
    let called = SocketAddr::new(Ipv4Addr::new(10, 42, 255, 7).into(), 8080);
    Box::new(move || {
        black_box(routing.leads_somewhere(black_box(called)));
    })
}

/// Routes after one of so many endpoints has changed.
pub(crate) fn changed_routes(endpoints: u32) -> Work {
    let mut network = ChangingNetwork::of(endpoints);
    let mut routing = Routing::new(network.state());
    Box::new(move || routing = routing.after(black_box(network.change().change)))
}

/// So many other endpoints for a balancer that has them in another order.
pub(crate) fn other_endpoints(endpoints: u16) -> Work {
    let (mut balancing, mut turned) = (Balancing::over(endpoints), false);
    Box::new(move || {
        turned = !turned;
        balancing.update(black_box(endpoints), turned);
    })
}

/// Rule of a request, of so many.
pub(crate) fn rule(count: usize) -> Work {
    let (ruling, head) =
        (Ruling::of(count), format!("GET /v1/part-{}/items/17?x=y HTTP/1.1\r\nHost: api\r\n\r\n", count / 2));
    Box::new(move || {
        black_box(ruling.has_rule(black_box(head.as_bytes())));
    })
}

/// A request that none of so many rules is for.
pub(crate) fn no_rule(count: usize) -> Work {
    let ruling = Ruling::of(count);
    Box::new(move || {
        black_box(ruling.has_rule(black_box(HEAD)));
    })
}

/// Pick of an endpoint, and what is learned of it.
pub(crate) fn balancing() -> Work {
    let (mut balancing, mut now, mut random) = (Balancing::over(8), Instant::now(), 1_u64);
    Box::new(move || {
        now += Duration::from_micros(50);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        balancing.pick(now, black_box(random));
    })
}

/// Frames of a request of 1 KiB, written and read.
pub(crate) fn frames() -> Work {
    let (mut framing, request) = (Framing::to(mesh::parsed("8080")), [b'x'; 1024]);
    Box::new(move || {
        black_box(framing.carry(black_box(&request)));
    })
}
