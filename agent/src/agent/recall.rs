//! Recall of an earlier agent's remains: records on disk, descriptors with keep, traces in the kernel.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use sealane_base::disk::Disk;
use sealane_fabric::overlay::Overlay;
use sealane_proto::identity::Principal;
use sealane_proto::types::NetworkName;
use sealane_sys::RunDir;
use sealane_sys::hop::Hopper;

use super::Config;
use crate::attachment::{AttachmentId, Reservation};
use crate::certs::Certs;
use crate::disk::{
    DiskError, Folder, Incarnations, NodeIdentity, PLACES, StoredWorkload, led_on, network_from_bytes,
    places_from_bytes, words_from_bytes,
};
use crate::door::docker;
use crate::error::StartError;
use crate::host::Mesh;
use crate::keeper::Keeper;
use crate::{gateway, layout, sidecar, stale_state, tap, workload};

/// Removes what is left of virtual machines that are not on disk any more.
pub(super) fn sweep_machines(hopper: &Hopper, run_dir: &RunDir, stored: &[StoredWorkload]) -> io::Result<()> {
    let held = stored.iter().filter_map(|known| known.anchor.hold());
    let machines: Vec<_> = held.filter_map(tap::device_of).collect();
    tap::sweep(hopper, run_dir, |device| machines.contains(device)).map(drop).map_err(io::Error::other)
}

/// Folders that state is recalled from.
pub(super) struct Folders {
    pub(super) networks: Folder,
    pub(super) workloads: Folder,
    pub(super) reservations: Folder,
    pub(super) identities: Folder,
    pub(super) containers: Folder,
    pub(super) incarnations: Incarnations,
    pub(super) words: Folder,
    pub(super) places: Folder,
}

impl Folders {
    pub(super) fn open(config: &Config, disk: &Arc<Disk>) -> Result<Self, DiskError> {
        Ok(Self {
            networks: folder_of(config, disk, layout::NETWORKS)?,
            workloads: folder_of(config, disk, layout::WORKLOADS)?,
            reservations: folder_of(config, disk, layout::RESERVATIONS)?,
            identities: folder_of(config, disk, layout::IDENTITIES)?,
            containers: folder_of(config, disk, layout::CONTAINERS)?,
            words: folder_of(config, disk, layout::OWNERS)?,
            incarnations: Incarnations::new(
                folder_of(config, disk, layout::NODE)?,
                Folder::at(config.run_dir.node()),
            ),
            places: folder_of(config, disk, layout::NODE)?,
        })
    }
}

/// A folder of the data directory, which only this process writes to. On a disk that cannot be written, what is there counts.
pub(super) fn folder_of(config: &Config, disk: &Arc<Disk>, name: &str) -> Result<Folder, DiskError> {
    let folder = Folder::at(config.data_dir.join(name)).on(disk);
    folder.sweep()?;
    Ok(folder)
}

/// The stored identities. Those of nobody go later: this host's clock may be wrong as yet.
pub(super) fn certs_of(identities: Folder, identity: &NodeIdentity, stored: &[StoredWorkload]) -> Certs {
    let certs = Certs::new(identities, identity.trust_domain.clone());
    if let Err(error) = certs.recall(|principal| is_of(principal, stored)) {
        tracing::error!(%error, "cannot look through the stored identities");
    }
    certs
}

/// The attachments of these workloads.
fn attachments(stored: &[StoredWorkload]) -> impl Iterator<Item = AttachmentId> + '_ {
    stored.iter().flat_map(|known| &known.attachments).map(|attachment| attachment.id())
}

/// Returns true if a workload's own identity is of one that is known.
fn is_of(principal: &Principal, stored: &[StoredWorkload]) -> bool {
    let mut attachments = attachments(stored);
    attachments.any(|id| *principal == Principal::Workload(id.network, id.workload))
}

/// Takes over everything that keep holds, but closes whatever is nobody's; the overlay hears of its namespaces.
pub(super) fn keeper(
    config: &Config,
    mesh: &Mesh,
    stored: &[StoredWorkload],
    overlay: &Overlay,
) -> Result<Arc<Keeper>, StartError> {
    let keeper = Keeper::start(config.run_dir.clone(), config.binary.clone())?;
    let plugin = config.docker_plugin.as_deref().map(docker::socket_key);
    keeper.retain(|key| belongs(key, mesh, stored) || plugin.as_deref() == Some(key))?;
    docker::retire(&config.run_dir, config.docker_plugin.as_deref())?;
    gateway::recognise(&mesh.networks(), &keeper, overlay);
    Ok(keeper)
}

/// Returns true if held descriptors (`<kind>/<network>` or `<kind>/<network>/<workload>`) are of something that is
/// known.
fn belongs(key: &str, mesh: &Mesh, stored: &[StoredWorkload]) -> bool {
    let mut parts = key.split('/').skip(1);
    let network = parts.next().unwrap_or_default();
    match parts.next() {
        None => mesh.networks().iter().any(|known| known.as_str() == network),
        Some(name) => attachments(stored)
            .any(|known| known.network.as_str() == network && known.workload.as_str() == name),
    }
}

/// Recalls what other hosts have said: without it, this one goes by control's words until they say it again.
fn recall_words(mesh: &mut Mesh, records: &Folder) -> Result<(), DiskError> {
    for name in records.names()? {
        let words = records.read(&name).map(|bytes| bytes.as_deref().map(words_from_bytes));
        match words {
            Ok(Some(Ok(words))) if name.parse().is_ok_and(|network| mesh.snapshot(&network).is_some()) => {
                words.into_iter().for_each(|(owner, facts)| mesh.recall_word(owner, facts));
            }
            Ok(Some(Ok(_)) | None) => {
                if let Err(error) = records.remove(&name) {
                    tracing::warn!(%error, network = name, "cannot forget what other hosts have said of a network");
                }
            }
            Ok(Some(Err(error))) => {
                tracing::error!(%error, network = name, "what other hosts have said of a network is lost");
            }
            Err(error) => {
                tracing::error!(%error, network = name, "what other hosts have said of a network is lost");
            }
        }
    }
    Ok(())
}

/// Recalls where hosts are by their own words: without it, this host goes by control's until they say it again.
fn recall_places(mesh: &mut Mesh, folder: &Folder) {
    match folder.read(PLACES).map(|bytes| bytes.as_deref().map(places_from_bytes)) {
        Ok(Some(Ok(places))) => mesh.recall_places(places),
        Ok(None) => {}
        Ok(Some(Err(error))) => tracing::error!(%error, "what hosts have said of where they are is lost"),
        Err(error) => tracing::error!(%error, "what hosts have said of where they are is lost"),
    }
}

/// Recalls the state on disk, and ends everything in the kernel that is not on disk.
pub(super) async fn recall(
    folders: &mut Folders,
    identity: &NodeIdentity,
    overlay: &Overlay,
    (run_dir, boot): (&RunDir, &str),
) -> Result<(Mesh, Vec<StoredWorkload>), StartError> {
    let Folders { networks, workloads, reservations, incarnations, .. } = folders;
    let mut mesh = Mesh::new(identity.node.clone(), incarnations.next(SystemTime::now())?);
    for name in networks.names()? {
        match networks.read(&name) {
            Ok(Some(bytes)) => {
                let (snapshot, offered) = network_from_bytes(&bytes)?;
                // A log is never longer than the state that it leads on from.
                let records = networks.records(&name, bytes.len());
                mesh.recall_network((led_on(snapshot, &records), offered));
            }
            Ok(None) => {}
            // Control sends it again; until then its workloads wait.
            Err(error) => tracing::error!(%error, network = name, "a network's stored state is lost"),
        }
    }
    recall_words(&mut mesh, &folders.words)?;
    recall_places(&mut mesh, &folders.places);
    for name in reservations.names()? {
        if let Some(bytes) = reservations.read(&name)? {
            mesh.keep(Reservation::from_bytes(&bytes)?);
        }
    }
    let mut stored = Vec::new();
    for name in workloads.names()? {
        let Some(bytes) = workloads.read(&name)? else {
            continue;
        };
        let mut record = StoredWorkload::from_bytes(&bytes)?;
        let gone = !workload::is_there(&record.anchor, boot);
        record.attachments.iter_mut().for_each(|attachment| mesh.recall(attachment, gone));
        stored.push(record);
    }
    let known: Vec<String> = attachments(&stored).map(|id| id.record_name()).collect();
    sidecar::stop_unknown(run_dir, |name| known.iter().any(|known| known == name))?;
    sidecar::stop_unrecorded(run_dir, |name| known.iter().any(|known| known == name))?;
    let carried: Vec<NetworkName> = mesh.networks();
    stale_state::remove(overlay, run_dir, &carried, &known).await?;
    Ok((mesh, stored))
}
