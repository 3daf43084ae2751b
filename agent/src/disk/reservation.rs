//! The stored form of a reservation.

use std::time::{Duration, SystemTime};

use prost::Message;

use super::messages::ReservationMessage;
use super::records::{RecordError, unreadable};
use crate::attachment::{Hold, Reservation};

impl Reservation {
    /// The name of its record: a hash of its holder's (FNV-1a), which may have characters that no file's has.
    #[must_use]
    pub(crate) fn record_name(hold: &Hold) -> String {
        format!("{:016x}", hold.hash())
    }

    /// For [`super::Folder::write`].
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let message = ReservationMessage {
            holder: self.hold.to_string(),
            network: self.network.to_string(),
            address: self.address.to_string(),
            mac: self.mac.to_string(),
            since,
        };
        message.encode_to_vec()
    }

    /// From [`super::Folder::read`].
    ///
    /// # Errors
    /// When another version wrote it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let fail = unreadable("reservation");
        let message = ReservationMessage::decode(bytes).map_err(|error| fail(&error))?;
        Ok(Self {
            hold: message.holder.parse().map_err(|error| fail(&error))?,
            network: message.network.parse().map_err(|error| fail(&error))?,
            address: message.address.parse().map_err(|error| fail(&error))?,
            mac: message.mac.parse().map_err(|error| fail(&error))?,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(message.since),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_read_back() {
        let reservation = Reservation {
            hold: "docker/4f1c".parse().unwrap(),
            network: "shop".parse().unwrap(),
            address: "10.42.0.9".parse().unwrap(),
            mac: "02:00:0a:2a:00:09".parse().unwrap(),
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        };
        assert_eq!(Reservation::from_bytes(&reservation.to_bytes()).unwrap(), reservation);
    }
}
