//! Repair of a sidecar's sockets that somebody in the workload's namespace has closed: they are made again, and another sidecar,
//! which listens on them, follows the one that cannot.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::plumbing;
use super::Life;
use crate::sidecar::Command;
use crate::trouble::WorkloadTrouble;

/// Pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Watch over the sockets, and the work on them.
pub(super) struct Ears {
    deaf: Option<watch::Receiver<bool>>,
    /// Work on the next sidecar; its error says in a sentence why there is none.
    work: Option<BoxFuture<'static, Result<(), String>>>,
}

/// Event about the sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Some sockets are closed.
    Deaf,
    /// Another sidecar listens on new sockets, or there is none, for this reason.
    Followed(Result<(), String>),
}

impl Ears {
    /// Waits for the next event. Cancel safe.
    pub(super) async fn told(&mut self) -> Heard {
        if let Some(work) = &mut self.work {
            let outcome = work.await;
            self.work = None;
            return Heard::Followed(outcome);
        }
        let closed = match &mut self.deaf {
            Some(deaf) => deaf.wait_for(|deaf| *deaf).await.is_ok(),
            None => false,
        };
        // Without a sidecar there is nothing to hear.
        if closed { Heard::Deaf } else { std::future::pending().await }
    }
}

impl Life {
    pub(super) fn ears(&self) -> Ears {
        Ears { deaf: self.supervisor.as_ref().map(|supervisor| supervisor.deaf.clone()), work: None }
    }

    /// Handles an event: makes closed sockets again, and lets a sidecar follow that listens on them.
    pub(super) fn handle_heard(&self, ears: &mut Ears, heard: Heard) {
        let (sidecars, id) = (self.context.sidecars.registry.clone(), self.id.clone());
        let follow = async move || sidecars.restart(&id).await;
        match heard {
            Heard::Deaf => match self.listen_again() {
                Ok(listen) => {
                    self.context.kernel.overlay.count_listener_drift(&self.id);
                    ears.work = Some(Box::pin(async move {
                        listen.await;
                        follow().await
                    }));
                }
                Err(why) => {
                    self.context.troubles.set(&self.id, WorkloadTrouble::Deaf, Some(why));
                    ears.work = Some(Box::pin(async {
                        sleep(RETRY).await;
                        Ok(())
                    }));
                }
            },
            Heard::Followed(Ok(())) => {
                // Where sockets could not be made, that is told until they can.
                if ears.deaf.as_ref().is_none_or(|deaf| !*deaf.borrow()) {
                    self.context.troubles.set(&self.id, WorkloadTrouble::Deaf, None);
                }
            }
            Heard::Followed(Err(why)) => {
                self.context.troubles.set(&self.id, WorkloadTrouble::Deaf, Some(why));
                ears.work = Some(Box::pin(async move {
                    sleep(RETRY).await;
                    follow().await
                }));
            }
        }
    }

    /// Makes the closed sockets anew; returns the work that gives them to the next sidecar.
    fn listen_again(&self) -> Result<impl Future<Output = ()> + use<>, String> {
        let (Some(fixtures), Some(supervisor)) = (&self.fixtures, &self.supervisor) else {
            return Err("it has no namespace".to_owned());
        };
        let network = self.host_network.borrow().snapshot.network.clone();
        let made = plumbing::listen_again(
            &self.context.kernel,
            &network,
            (&self.attachment, self.context.sidecars.ports),
            &fixtures.netns,
        );
        let made = made.map_err(|error| sealane_base::text::plain(&error))?;
        let commands = supervisor.commands.clone();
        Ok(async move {
            // A supervisor that is gone needs none.
            let _ = commands.send(Command::Listen(made)).await;
        })
    }
}
