//! The stored form of where hosts are.

use prost::Message;
use sealane_proto::resource::HostPlaces;
use sealane_proto::wire::v1;

use super::records::{RecordError, unreadable};

/// Name of the record in the folder of the host's identity, with which it goes.
pub(crate) const PLACES: &str = "places";

/// For [`super::Folder::write`].
#[must_use]
pub(crate) fn places_to_bytes(places: &HostPlaces) -> Vec<u8> {
    v1::PeerPlaces { places: places.iter().map(Into::into).collect() }.encode_to_vec()
}

/// From [`super::Folder::read`].
///
/// # Errors
/// When another version wrote it.
pub(crate) fn places_from_bytes(bytes: &[u8]) -> Result<HostPlaces, RecordError> {
    let fail = unreadable("places of hosts");
    let message = v1::PeerPlaces::decode(bytes).map_err(|error| fail(&error))?;
    let places = message.places.into_iter().map(TryInto::try_into);
    places.collect::<Result<_, _>>().map_err(|error: sealane_proto::wire::WireError| fail(&error))
}

#[cfg(test)]
mod tests {
    use sealane_proto::resource::{Edition, Whereabouts};

    use super::*;

    #[test]
    fn places_are_read_back_as_they_were_written() {
        let edition = Edition { incarnation: 7, revision: 2 };
        let place = Whereabouts { underlay: "192.0.2.1,2001:db8::1".parse().unwrap(), edition };
        let places = HostPlaces::from([("host-1".parse().unwrap(), place)]);
        assert_eq!(places_from_bytes(&places_to_bytes(&places)).unwrap(), places);
        assert!(places_from_bytes(b"other").is_err());
    }
}
