//! The stored form of records: protobuf, so that fields can be added.

use sealane_proto::wire::v1;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NodeMessage {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) underlay: String,
    #[prost(string, tag = "3")]
    pub(super) trust_domain: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub(super) chain: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(super) roots: Vec<Vec<u8>>,
    /// Choice of the underlay address; empty before there was one.
    #[prost(string, tag = "7")]
    pub(super) choice: String,
    /// Underlay address of the other family; empty: none.
    #[prost(string, tag = "8")]
    pub(super) underlay_other: String,
    /// Choice of that; empty: none of its own.
    #[prost(string, tag = "9")]
    pub(super) choice_other: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct IdentityMessage {
    #[prost(string, tag = "1")]
    pub(super) spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(super) chain: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub(super) roots: Vec<Vec<u8>>,
}

/// The part of a network's record that is beside its state, whose fields have lower numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OffersMessage {
    #[prost(string, repeated, tag = "1000")]
    pub(super) offered: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WorkloadMessage {
    #[prost(message, optional, tag = "1")]
    pub(super) workload: Option<v1::Workload>,
    #[prost(uint32, tag = "2")]
    pub(super) pid: u32,
    #[prost(uint64, tag = "3")]
    pub(super) started: u64,
    #[prost(string, tag = "4")]
    pub(super) boot: String,
    /// Attachments to further networks.
    #[prost(message, repeated, tag = "5")]
    pub(super) further: Vec<v1::Workload>,
    /// The numbers of their seats, the first one's too; none before there were several.
    #[prost(uint32, repeated, tag = "6")]
    pub(super) seats: Vec<u32>,
    /// True if the namespace is somebody else's.
    #[prost(bool, tag = "7")]
    pub(super) given: bool,
    /// Path that it ends with instead of a process.
    #[prost(string, tag = "8")]
    pub(super) path: String,
    #[prost(uint64, tag = "9")]
    pub(super) inode: u64,
    /// Holder; it ends with nothing but its dismissal then.
    #[prost(string, tag = "10")]
    pub(super) holder: String,
    /// The names of its interfaces, empty where they are the usual ones; none before there were others.
    #[prost(string, repeated, tag = "11")]
    pub(super) interfaces: Vec<String>,
    /// Check of its own.
    #[prost(message, optional, tag = "12")]
    pub(super) health: Option<v1::Check>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ContainerMessage {
    #[prost(message, optional, tag = "1")]
    pub(super) request: Option<v1::AttachRequest>,
    /// The folder of its control group.
    #[prost(string, tag = "2")]
    pub(super) group: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ReservationMessage {
    #[prost(string, tag = "1")]
    pub(super) holder: String,
    #[prost(string, tag = "2")]
    pub(super) network: String,
    #[prost(string, tag = "3")]
    pub(super) address: String,
    #[prost(string, tag = "4")]
    pub(super) mac: String,
    #[prost(uint64, tag = "5")]
    pub(super) since: u64,
}
