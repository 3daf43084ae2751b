//! Names and numbers that are parsed once, at the edge, and trusted from there on.

mod address;
mod alias;
mod check;
mod external;
mod finding;
mod generation;
mod hosts;
mod misread;
mod mtls;
mod mtu;
mod name;
mod port;
mod prefix;
mod reference;
mod subnet6;
mod underlay_addrs;
mod vni;
mod weight;

pub use address::{MacAddr, OverlayIp, ParseMacError, Subnet, SubnetError, UnderlayAddr};
pub use alias::{Alias, AliasError, Aliases};
pub use check::{
    Check, CheckError, GrpcService, HttpPath, Interval, Probe, ShellCommand, StatusRange, Threshold,
};
pub use external::{ExternalAddr, ExternalAddrError};
pub use finding::Finding;
pub use generation::Generation;
pub use hosts::Hosts;
pub use misread::Misread;
pub use mtls::{Mtls, MtlsError};
pub use mtu::{Mtu, MtuError};
pub use name::{NameError, NetworkName, NodeName, ObjectName, ServiceName, TrustDomain, WorkloadName};
pub use port::{ParseServicePortError, Port, PortName, Protocol, ServicePort, Transport};
pub use prefix::{addresses, overlap};
pub use reference::{Ref, ServiceRef, TwoNetworks, WorkloadRef};
pub use subnet6::{AnySubnet, AnySubnetError, Subnet6, Subnet6Error};
pub use underlay_addrs::{IpFamily, UnderlayAddrs, UnderlayAddrsError, UnderlayWay};
pub use vni::{Vni, VniError};
pub use weight::{Weight, WeightError};
