//! Other weights of workloads while they run, and the wait until every host works by them.

use std::time::Duration;

use sealane_proto::types::{Weight, WorkloadRef};

use super::{AttachError, Workloads};
use crate::attachment::{Attachment, AttachmentId, FailureKind, RequestFailure, WeightChange};
use crate::host::RequestError;

/// Outcome of a change of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Weighed {
    /// Attachments of the workload, each with its weight from now on.
    pub(crate) weights: Vec<(AttachmentId, Weight)>,
    /// Reason for which not every host works by it yet; `None` when all do, or nobody asked.
    pub(crate) waits: Option<String>,
}

impl Workloads {
    /// Changes the weight of the workload `wanted`, in all of its networks or in one; it is on disk before this answers. Waits up to
    /// `patience`, if given, until every connected host works by it.
    ///
    /// # Errors
    /// When there is no such workload on this host, it is an instance of no service and gets a number, or the disk is full.
    pub(crate) async fn weigh(
        &self,
        wanted: &WorkloadRef,
        change: WeightChange,
        patience: Option<Duration>,
    ) -> Result<Weighed, RequestFailure> {
        let missing = |error| RequestFailure::new(FailureKind::NotFound, error);
        let (first, own) =
            self.context.roster.attachments(wanted, self.context.node.as_str()).map_err(missing)?;
        if change.weight.is_some() && own.iter().any(|attachment| attachment.workload.service.is_none()) {
            return Err(RequestFailure::new(
                FailureKind::Wrong,
                format!("workload {wanted} is an instance of no service, so it has no weight among others"),
            )
            .hint(format!("`sealane workload drain {}` takes it out of names", wanted.name)));
        }
        let ids = own.iter().map(Attachment::id).collect();
        let weighed = self.context.host.weigh(first, ids, change).await.ok_or(AttachError::Ending)?;
        let (version, weights) = weighed.map_err(|error: RequestError| AttachError::from(error))?;
        if weights.is_empty() {
            return Err(missing(format!("workload {wanted} is just ending")));
        }
        for (id, weight) in &weights {
            tracing::info!(workload = %id, %weight, drained = weight.kept().is_some(), "a workload has another weight");
        }
        let waits = match patience {
            Some(patience) => self.unsettled(version, patience).await,
            None => None,
        };
        Ok(Weighed { weights, waits })
    }

    /// Waits until every connected host works by the report `version`; returns the reason when that takes longer than `patience`.
    async fn unsettled(&self, version: u64, patience: Duration) -> Option<String> {
        let mut reported = self.context.host.views.reported.clone();
        let settled = reported.wait_for(|reported| reported.settled >= version);
        if let Ok(Ok(_)) = tokio::time::timeout(patience, settled).await {
            return None;
        }
        let link = self.context.host.views.link.borrow();
        Some(match link.channel {
            Some(_) => "not every connected host has confirmed it; `sealane node ls` shows which are behind"
                .to_owned(),
            None => {
                format!("control is not there ({}): other hosts hear of it when it is", link.why_silent())
            }
        })
    }
}
