//! Addresses that are kept for somebody before, while and after there is a workload with them. Pure.

use std::time::{Instant, SystemTime};

use super::mesh::{Addresses, AdmitError, Mesh};
use crate::attachment::{Claim, Hold, Reservation};

impl Mesh {
    /// Keeps an address for somebody. Who has one already has that one, if it is in the same network and what is asked for.
    ///
    /// # Errors
    /// When the address is taken, or none is left; nothing is changed then.
    pub(crate) fn reserve(
        &mut self,
        claim: &Claim,
        (now, since): (Instant, SystemTime),
    ) -> Result<Reservation, AdmitError> {
        let Claim { hold, network, address, mac, from } = claim;
        let same = |kept: &&Reservation| {
            kept.network == *network
                && address.is_none_or(|address| address == kept.address)
                && mac.is_none_or(|mac| mac == kept.mac)
        };
        if let Some(kept) = self.reserved.get(hold).filter(same) {
            return Ok(kept.clone());
        }
        let inherited = from.as_ref().and_then(|from| self.reserved.get(from)).filter(same).cloned();
        let Addresses { address, mac } = match inherited {
            Some(Reservation { hold, address, mac, .. }) => {
                self.reserved.remove(&hold);
                Addresses { address, mac }
            }
            None => self.find_addresses(network, (*address, *mac), Some(hold), None, now)?,
        };
        self.release(hold, now);
        let reservation = Reservation { hold: hold.clone(), network: network.clone(), address, mac, since };
        self.keep(reservation.clone());
        Ok(reservation)
    }

    /// Takes over what was reserved before.
    pub(crate) fn keep(&mut self, reservation: Reservation) {
        self.reserved.insert(reservation.hold.clone(), reservation);
    }

    /// The address is kept for nobody any more; it rests, unless a workload has it.
    pub(crate) fn release(&mut self, hold: &Hold, now: Instant) -> Option<Reservation> {
        let kept = self.reserved.remove(hold)?;
        self.rest_address(&kept.network, kept.address, None, now);
        Some(kept)
    }

    /// All that is kept.
    pub(crate) fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.reserved.values()
    }

    /// Returns the reservations whose addresses no workload of this host has.
    #[must_use]
    pub(crate) fn idle_reservations(&self) -> Vec<Reservation> {
        let idle = |kept: &&Reservation| !self.has_address(kept);
        self.reserved.values().filter(idle).cloned().collect()
    }

    fn has_address(&self, kept: &Reservation) -> bool {
        let snapshot = self.attached(&kept.network);
        snapshot.iter().any(|attachment| attachment.workload.address == kept.address)
    }
}
