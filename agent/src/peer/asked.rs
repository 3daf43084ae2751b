//! Questions that wait at one peer: those of this host for its answer, and its own until this host has looked.

use sealane_proto::peer::PeerCell;
use tokio::sync::{mpsc, oneshot};

use super::session::Session;

/// Number of questions that wait for one answer.
const WAITING: usize = 16;

/// Place of an answer: how a host sees its peers.
pub(crate) type RowAnswer = oneshot::Sender<Vec<PeerCell>>;

/// The questions of one connection.
#[derive(Debug, Default)]
pub(super) struct Asked {
    waiting: Vec<RowAnswer>,
    look: Option<(u64, oneshot::Receiver<Vec<PeerCell>>)>,
}

impl Asked {
    /// Asks the peer for `answer`; more than so many at once get none.
    pub(super) fn ask(&mut self, session: &mut Session, answer: RowAnswer) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        if self.waiting.len() < WAITING {
            self.waiting.push(answer);
            session.ask(rand::random());
        }
    }

    /// Passes on an answer that has come, and a question of the peer's when the last one is answered.
    pub(super) fn follow(&mut self, session: &mut Session, looks: &mpsc::Sender<RowAnswer>) {
        if let Some(cells) = session.take_answer() {
            // Those that wait no more have gone.
            self.waiting.drain(..).for_each(|waiting| drop(waiting.send(cells.clone())));
        }
        if self.look.is_none()
            && let Some(token) = session.take_question()
        {
            let (answer, look) = oneshot::channel();
            // A question that finds no room is not answered: its asker says so.
            self.look = looks.try_send(answer).is_ok().then_some((token, look));
        }
    }

    /// Returns the answer to the peer's question once this host has looked; never without one. Cancel safe.
    pub(super) async fn looked(&mut self) -> (u64, Vec<PeerCell>) {
        loop {
            let Some((token, look)) = &mut self.look else { return std::future::pending().await };
            let (token, cells) = (*token, look.await);
            self.look = None;
            if let Ok(cells) = cells {
                return (token, cells);
            }
        }
    }
}
