//! Control planes' addresses as they tell of each other: kept on disk, so that a host comes back to any of them.

use std::time::Duration;

use sealane_proto::client::Controls;
use sealane_proto::resource::ControlAddr;
use tokio::sync::watch;

use crate::disk::{CONTROLS, Folder, controls_from_bytes, controls_to_bytes};

/// Pause after a write that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// Control planes that the host was started with, and those that it was told of before.
pub(crate) fn recall(folder: &Folder, given: Vec<ControlAddr>) -> Controls {
    let told = match folder.read(CONTROLS).map(|bytes| bytes.as_deref().map(controls_from_bytes)) {
        Ok(Some(Ok(told))) => told,
        Ok(None) => vec![],
        Ok(Some(Err(error))) => forgotten(&error),
        Err(error) => forgotten(&error),
    };
    Controls::new(given, told)
}

fn forgotten(error: &dyn std::fmt::Display) -> Vec<ControlAddr> {
    tracing::warn!(%error, "only the control planes of --control are known until one of them tells of others");
    vec![]
}

/// Keeps the addresses on disk as they change, for ever.
pub(crate) async fn keep(folder: Folder, mut controls: watch::Receiver<Controls>) {
    let mut kept = controls.borrow_and_update().told().to_vec();
    while controls.changed().await.is_ok() {
        let told = controls.borrow_and_update().told().to_vec();
        if told == kept {
            continue;
        }
        match folder.write(CONTROLS, &controls_to_bytes(&told)) {
            Ok(()) => kept = told,
            Err(error) => {
                tracing::error!(%error, "the addresses of the control planes are in memory alone");
                tokio::time::sleep(AGAIN).await;
                controls.mark_changed();
            }
        }
    }
}
