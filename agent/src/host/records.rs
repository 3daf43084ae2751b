//! Changes that are taken in and written down together, or neither.

use std::time::{Instant, SystemTime};

use sealane_proto::resource::Workload;
use sealane_proto::types::Weight;

use super::RequestError;
use super::mesh::Mesh;
use crate::attachment::{Attachment, AttachmentId, AttachmentSpec, Claim, Reservation, WeightChange};
use crate::disk::{Folder, StoredAnchor, StoredWorkload};

/// Takes a workload in and writes it down, or neither.
pub(super) fn admit(
    mesh: &mut Mesh,
    folder: &Folder,
    specs: &[AttachmentSpec],
    anchor: StoredAnchor,
) -> Result<Vec<Attachment>, RequestError> {
    let attachments = mesh.admit_all(specs, Instant::now())?;
    let health = specs.first().and_then(|spec| spec.health.clone());
    let stored = StoredWorkload { attachments, anchor, health };
    let name = stored.name().unwrap_or_default();
    if let Err(error) = folder.write(&name, &stored.to_bytes()) {
        for attachment in &stored.attachments {
            mesh.remove(&attachment.id(), Instant::now());
        }
        return Err(error.into());
    }
    Ok(stored.attachments)
}

/// Writes down which further names a workload has. One whose record is gone has ended.
pub(super) fn rename(folder: &Folder, workload: &Workload) -> Result<(), RequestError> {
    let id = AttachmentId::of(workload);
    let Some(bytes) = folder.read(&id.record_name())? else { return Ok(()) };
    let mut stored =
        StoredWorkload::from_bytes(&bytes).map_err(|error| RequestError::Record(id.clone(), error))?;
    for attachment in stored.attachments.iter_mut().filter(|attachment| attachment.id() == id) {
        attachment.workload.aliases = workload.aliases.clone();
    }
    Ok(folder.write(&id.record_name(), &stored.to_bytes())?)
}

/// Writes down and then takes the weights that `change` gives the attachments `ids` of a workload, whose record has the name of
/// `first`; or neither. Returns nothing for one that is ending.
pub(super) fn weigh(
    mesh: &mut Mesh,
    folder: &Folder,
    (first, ids): (&AttachmentId, &[AttachmentId]),
    change: WeightChange,
) -> Result<Vec<(AttachmentId, Weight)>, RequestError> {
    let weighed = mesh.weighed(ids, change);
    let Some(bytes) = folder.read(&first.record_name())? else { return Ok(Vec::new()) };
    let mut stored =
        StoredWorkload::from_bytes(&bytes).map_err(|error| RequestError::Record(first.clone(), error))?;
    for attachment in &mut stored.attachments {
        let own = attachment.id();
        if let Some((_, weight)) = weighed.iter().find(|(id, _)| *id == own) {
            attachment.workload.weight = *weight;
        }
    }
    folder.write(&first.record_name(), &stored.to_bytes())?;
    Ok(weighed)
}

/// Keeps an address and writes that down, or neither.
pub(super) fn reserve(mesh: &mut Mesh, folder: &Folder, claim: &Claim) -> Result<Reservation, RequestError> {
    let now = Instant::now();
    let before = claim.from.as_ref().and_then(|from| mesh.reserved.get(from).cloned());
    let reservation = mesh.reserve(claim, (now, SystemTime::now()))?;
    if let Err(error) = folder.write(&Reservation::record_name(&claim.hold), &reservation.to_bytes()) {
        mesh.release(&claim.hold, now);
        before.into_iter().for_each(|before| mesh.keep(before));
        return Err(error.into());
    }
    if let Some(before) = before.filter(|before| before.address == reservation.address) {
        // One that stays behind is of nobody, and is given back when it is old.
        if let Err(error) = folder.remove(&Reservation::record_name(&before.hold)) {
            tracing::warn!(%error, holder = %before.hold, "cannot forget a reservation that another one follows");
        }
    }
    Ok(reservation)
}
