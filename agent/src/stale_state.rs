//! Remains of an earlier agent in the kernel that are not on disk any more: removed at the start.

use std::io;

use sealane_base::disk;
use sealane_fabric::nft;
use sealane_fabric::overlay::Overlay;
use sealane_proto::types::NetworkName;
use sealane_sys::{NetNs, RunDir};

use crate::error::StartError;

/// Removes the namespaces of networks that are not `carried` and of workloads that are not `known`
/// (`<network>.<workload>`).
///
/// # Errors
/// When the kernel refuses.
pub(crate) async fn remove(
    overlay: &Overlay,
    run_dir: &RunDir,
    carried: &[NetworkName],
    known: &[String],
) -> Result<(), StartError> {
    for network in overlay.networks_on_disk()? {
        if !carried.contains(&network) {
            tracing::info!(%network, "removing a network that this host does not carry");
            overlay.remove_network(&network).await?;
        }
    }
    overlay.forget_carriers_but(carried).await?;
    for path in disk::listed(&run_dir.namespaces())? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.contains('.') && !known.iter().any(|known| known == name) {
            tracing::info!(workload = name, "removing the namespace of a workload that is gone");
            // It may be somebody else's and stay: not with our rules.
            if let Ok(netns) = NetNs::open(&path) {
                nft::clear(&netns).map_err(io::Error::other)?;
            }
            NetNs::remove_at(&path).map_err(io::Error::other)?;
        }
    }
    Ok(())
}
