//! What whoever asked for a workload hears until it is there.

use sealane_proto::wire::v1;
use tokio::sync::mpsc;

use super::AttachError;

/// Tells whoever asked for the workload how it goes.
#[derive(Clone, Debug)]
pub(crate) struct Progress(pub mpsc::Sender<Result<v1::RunEvent, AttachError>>);

impl Progress {
    /// Something is waited for. An asker that left needs no word: its process tells.
    pub(super) async fn waiting(&self, what: String) {
        let event = v1::run_event::Event::Waiting(what);
        let _ = self.0.send(Ok(v1::RunEvent { event: Some(event) })).await;
    }

    /// It is there.
    pub(super) async fn attached(&self, location: v1::Location) {
        let event = v1::run_event::Event::Attached(location);
        let _ = self.0.send(Ok(v1::RunEvent { event: Some(event) })).await;
    }
}
