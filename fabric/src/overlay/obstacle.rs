//! Workloads whose namespaces do not let this host mend them: named once, while it lasts, and in nobody else's way.

use std::collections::BTreeMap;
use std::sync::Mutex;

use sealane_proto::types::NetworkName;

use super::{OverlayError, lock};
use crate::AttachmentId;

/// The obstacles of this host's workloads, at most one each.
#[derive(Debug, Default)]
pub(super) struct Obstacles(Mutex<BTreeMap<AttachmentId, String>>);

impl Obstacles {
    /// Takes note of the outcome of work on a workload's port. An error that concerns it alone is kept here, and `None` is what
    /// is left of it.
    ///
    /// # Errors
    /// With any other error.
    pub(super) fn note<T>(
        &self,
        id: AttachmentId,
        outcome: Result<T, OverlayError>,
    ) -> Result<Option<T>, OverlayError> {
        match outcome {
            Ok(done) => {
                if lock(&self.0).remove(&id).is_some() {
                    tracing::info!(workload = %id, "a workload's namespace is mended again");
                }
                Ok(Some(done))
            }
            Err(error) if error.is_of_one_workload() => {
                let why = error.to_string();
                let sentence = sentence(&id, &why);
                if lock(&self.0).insert(id, why.clone()) != Some(why) {
                    tracing::error!("{sentence}");
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A workload is gone.
    pub(super) fn forget(&self, id: &AttachmentId) {
        lock(&self.0).remove(id);
    }

    /// A network is gone.
    pub(super) fn forget_network(&self, network: &NetworkName) {
        lock(&self.0).retain(|id, _| id.network != *network);
    }

    /// A sentence each.
    pub(super) fn sentences(&self) -> Vec<String> {
        lock(&self.0).iter().map(|(id, why)| sentence(id, why)).collect()
    }
}

fn sentence(id: &AttachmentId, why: &str) -> String {
    format!(
        "what somebody changed in the namespace of workload {id} cannot be mended, tried again once a minute and when it \
         changes: {why}"
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_obstacle_is_kept_until_the_work_succeeds_and_any_other_error_goes_on() {
        let obstacles = Obstacles::default();
        let id = || AttachmentId { network: "shop".parse().unwrap(), workload: "api".parse().unwrap() };
        let failed = || Err(OverlayError::Thread(io::Error::other("it moves")));
        assert_eq!(obstacles.note::<()>(id(), failed()).unwrap(), None);
        let said = obstacles.sentences();
        assert!(said[0].contains("workload shop/api") && said[0].ends_with("it moves"), "{said:?}");
        let other = obstacles.note::<()>(id(), Err(OverlayError::NoSuchDevice { kind: "veth" }));
        assert!(other.is_err() && obstacles.sentences().len() == 1);
        assert_eq!(obstacles.note(id(), Ok(7)).unwrap(), Some(7));
        assert!(obstacles.sentences().is_empty());
        obstacles.note::<()>(id(), failed()).unwrap();
        obstacles.forget_network(&"office".parse().unwrap());
        assert_eq!(obstacles.sentences().len(), 1);
        obstacles.forget(&id());
        assert!(obstacles.sentences().is_empty());
    }
}
