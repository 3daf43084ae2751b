//! Frames of machines from anywhere.

use std::net::Ipv4Addr;

use sealane_proto::types::MacAddr;

use super::dhcp::{Lease, Outcome};
use super::frame;

const OWN: MacAddr = MacAddr::new([2, 0, 10, 42, 0, 7]);
const GATEWAY: (MacAddr, Ipv4Addr) = (MacAddr::new([2, 0, 10, 42, 0, 1]), Ipv4Addr::new(10, 42, 0, 1));

/// Reads a frame, or the message alone, and answers it: within one packet, and to nobody but its sender.
pub(crate) fn asked(data: &[u8]) {
    let lease = Lease {
        mac: OWN,
        address: Ipv4Addr::new(10, 42, 0, 7),
        mask: Ipv4Addr::new(255, 255, 0, 0),
        gateway: GATEWAY.1,
        mtu: 1450,
        domain: "shop".to_owned(),
        seconds: 3600,
    };
    for message in frame::payload(data).into_iter().chain([data]) {
        let Outcome::Answer(answer) = lease.handle(message) else { continue };
        assert_eq!(message[28..34], OWN.octets());
        assert_eq!(answer.message[4..8], message[4..8], "the transaction is the asker's");
        assert!((300..=576).contains(&answer.message.len()));
        let frame = frame::answer(GATEWAY, (OWN, answer.to), &answer.message);
        assert!(frame.is_some_and(|frame| frame.len() == 42 + answer.message.len()));
    }
}
