//! Addresses that are kept for somebody: waited for where the host has none, and named when nobody uses them.

use std::time::{Duration, SystemTime};

use super::admission::{carry, own_blocks, refused};
use super::{AttachError, WorkloadContext};
use crate::attachment::{Claim, Progress, Reservation};
use crate::host::{AdmitError, RequestError};
use crate::ipam::IpamError;

/// Time for which an address may be kept without a workload until somebody should know: a container may be stopped.
const IDLE: Duration = Duration::from_secs(600);

/// Keeps an address for somebody, in a network that the host carries by then.
///
/// # Errors
/// When the address is taken, or control refuses.
pub(super) async fn reserve(
    context: &WorkloadContext,
    claim: Claim,
    progress: &Progress,
) -> Result<Reservation, AttachError> {
    loop {
        let reserved = context.host.reserve(claim.clone()).await.ok_or(AttachError::Ending)?;
        let held = match reserved {
            Err(RequestError::Admit(AdmitError::UnknownNetwork(_))) => Default::default(),
            Err(RequestError::Admit(AdmitError::Address { source: IpamError::Exhausted { .. }, .. })) => {
                let networks = context.host.views.networks.borrow();
                let known = networks.get(&claim.network);
                known.map(|known| own_blocks(context, &known.borrow())).unwrap_or_default()
            }
            settled => return Ok(settled?),
        };
        tokio::select! {
            carried = carry(context, &claim.network, &held, progress) => carried?,
            refusal = refused(context) => return Err(refusal),
        }
    }
}

/// Describes reservations that nobody has used for long, a sentence each.
pub(super) fn complaints(reservations: &[Reservation], now: SystemTime) -> Vec<String> {
    let idle = reservations.iter().filter_map(|kept| {
        let age = now.duration_since(kept.since).ok().filter(|age| *age >= IDLE)?;
        let Reservation { hold, network, address, .. } = kept;
        Some(format!(
            "address {address} of network {network} is reserved for {hold} since {} min, and no workload has it; \
             `sealane detach --holder {hold}` gives it back",
            age.as_secs() / 60
        ))
    });
    idle.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_nobody_uses_is_named_with_its_age() {
        let since = SystemTime::UNIX_EPOCH;
        let kept = Reservation {
            hold: "docker/4f1c".parse().unwrap(),
            network: "shop".parse().unwrap(),
            address: "10.42.0.9".parse().unwrap(),
            mac: "02:00:0a:2a:00:09".parse().unwrap(),
            since,
        };
        let told =
            |minutes: u64| complaints(std::slice::from_ref(&kept), since + Duration::from_secs(minutes * 60));
        assert!(told(9).is_empty());
        let told = told(12);
        assert!(
            told[0].starts_with("address 10.42.0.9 of network shop is reserved for docker/4f1c since 12 min")
        );
    }
}
