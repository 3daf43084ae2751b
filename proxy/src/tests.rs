//! Whole sidecars on loopback: two or more cores joined by real tunnels, with original destinations by a twin of
//! the kernel's connection tracking. The sockets are marked, so these tests need CAP_NET_ADMIN.

mod agent;
mod answers;
mod asking;
mod bulk;
mod burst;
mod callers;
mod door;
mod early;
mod failure;
mod http;
mod http2;
mod memory;
mod mesh;
mod opaque;
mod routes;
mod routes_http2;
mod shared;
mod strict;
