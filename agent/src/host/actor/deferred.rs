//! Answers that wait for passes under way, which know nothing of what is answered.

use std::collections::BTreeSet;

use sealane_proto::types::NetworkName;
use tokio::sync::oneshot;

use crate::attachment::Attachment;
use crate::host::RequestError;

/// An answer, and who waits for it.
#[derive(Debug)]
pub(super) enum Answer {
    Admitted(oneshot::Sender<Result<Vec<Attachment>, RequestError>>, Result<Vec<Attachment>, RequestError>),
    Detached(oneshot::Sender<()>),
}

/// Answers, each with the networks whose passes must end before.
#[derive(Debug, Default)]
pub(super) struct Deferred(Vec<(BTreeSet<NetworkName>, Answer)>);

impl Deferred {
    /// Answers once these networks' passes have ended, at once when there are none.
    pub(super) fn answer(&mut self, passes: BTreeSet<NetworkName>, answer: Answer) {
        if passes.is_empty() {
            answer.give();
        } else {
            self.0.push((passes, answer));
        }
    }

    /// The pass of this network has ended.
    pub(super) fn release(&mut self, network: &NetworkName) {
        for (passes, _) in &mut self.0 {
            passes.remove(network);
        }
        self.0.extract_if(.., |(passes, _)| passes.is_empty()).for_each(|(_, answer)| answer.give());
    }
}

impl Answer {
    fn give(self) {
        // An asker that left gets none.
        match self {
            Self::Admitted(asker, admitted) => drop(asker.send(admitted)),
            Self::Detached(asker) => drop(asker.send(())),
        }
    }
}
