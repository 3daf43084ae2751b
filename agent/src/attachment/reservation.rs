//! An address that is kept for somebody before there is anything to attach.

use std::time::SystemTime;

use sealane_proto::types::{MacAddr, NetworkName, OverlayIp};

use super::Hold;

/// Request for a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// For whom.
    pub(crate) hold: Hold,
    /// In which network.
    pub(crate) network: NetworkName,
    /// A certain address; the next free one without it.
    pub(crate) address: Option<OverlayIp>,
    /// A certain Ethernet address; one that follows from the address without it.
    pub(crate) mac: Option<MacAddr>,
    /// Holder whose reservation becomes this one, if that is asked for: nobody else gets the address in between.
    pub(crate) from: Option<Hold>,
}

/// An address that nobody else gets until it is released: on disk before anybody hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    /// Holder of the reservation.
    pub(crate) hold: Hold,
    /// The network.
    pub(crate) network: NetworkName,
    /// The address.
    pub(crate) address: OverlayIp,
    /// The Ethernet address.
    pub(crate) mac: MacAddr,
    /// Since when.
    pub(crate) since: SystemTime,
}
