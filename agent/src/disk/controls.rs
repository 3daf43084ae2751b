//! The stored form of the control planes' addresses.

use prost::Message;
use sealane_proto::resource::ControlAddr;
use sealane_proto::wire::v1;

use super::records::{RecordError, unreadable};

/// Name of the record in the folder of the host's identity, with which it goes.
pub(crate) const CONTROLS: &str = "controls";

/// For [`super::Folder::write`].
#[must_use]
pub(crate) fn controls_to_bytes(addresses: &[ControlAddr]) -> Vec<u8> {
    let addresses = addresses.iter().map(ToString::to_string).collect();
    v1::Controls { addresses, ..v1::Controls::default() }.encode_to_vec()
}

/// From [`super::Folder::read`].
///
/// # Errors
/// When another version wrote it.
pub(crate) fn controls_from_bytes(bytes: &[u8]) -> Result<Vec<ControlAddr>, RecordError> {
    let fail = unreadable("addresses of control planes");
    let message = v1::Controls::decode(bytes).map_err(|error| fail(&error))?;
    message.addresses.iter().map(|address| address.parse().map_err(|error| fail(&error))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_back_as_they_were_written() {
        let addresses = ["192.0.2.1:7443", "control-2:7443"].map(|address| address.parse().unwrap());
        assert_eq!(controls_from_bytes(&controls_to_bytes(&addresses)).unwrap(), addresses);
        assert!(controls_from_bytes(b"other").is_err());
    }
}
