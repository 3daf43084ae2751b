//! Process life: owned tasks, drain, readiness, backoff, telemetry, metrics, private sockets, connections to other
//! hosts and the admin server; and maps whose copies share.
//!
//! Nothing here knows of meshes: no network, service or identity is named. Each of Sealane's processes
//! is put together from these pieces in one `main`.

pub mod admin;
pub mod admission;
pub mod backoff;
pub mod cell_rate;
pub mod dial;
pub mod disk;
pub mod drain;
pub mod http1;
pub mod metrics;
pub mod mutex;
pub mod places;
pub mod rate_limit;
pub mod ready;
pub mod shared_list;
pub mod shared_map;
pub mod slack;
pub mod socket;
pub mod task;
pub mod telemetry;
pub mod text;
pub mod timer;
