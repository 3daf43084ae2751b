//! The generated messages and clients of etcd's API.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::pedantic, reason = "generated")]
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

tonic::include_proto!("etcdserverpb");
