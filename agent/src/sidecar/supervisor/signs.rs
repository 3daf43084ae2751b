//! The signs of life of a sidecar, and another one in the place of one that gives none or would not find the next agent.

use std::os::fd::OwnedFd;

use sealane_proto::sidecar::{Channel, ChannelError, Down, Hello, Up};

use super::Run;
use super::talk::{TalkEnd, Turn, tell};
use crate::sidecar::ears::listens;
use crate::sidecar::process::SidecarProcess;
use crate::sidecar::pulse::Alive;

impl Run {
    /// Asks a connected sidecar for a sign of life.
    pub(super) async fn ask(
        &mut self,
        process: &SidecarProcess,
        channel: &mut Channel<Down, Up>,
        hello: &Hello,
    ) -> Result<Turn, ChannelError> {
        process.ensure_record();
        self.hark();
        if !self.is_in_reach(process) && self.may_follow() {
            tracing::warn!(pid = process.pid(), workload = %self.parts.id,
                "somebody removed the folder of the sidecar, another one takes its place");
            return Ok(Turn::Follow(None));
        }
        if !hello.answers {
            return Ok(Turn::On);
        }
        let alive = self.pulse.handle_beat();
        if alive >= Alive::Silent && self.silence.borrow().is_none() {
            tracing::warn!(pid = process.pid(), workload = %self.parts.id, "the sidecar does not answer");
            self.silence.send_replace(Some(process.pid()));
        }
        if alive == Alive::Lost {
            // It may go on any time, and work by what it had; but nobody waits for it for longer.
            self.applied.send_if_modified(|applied| applied.take().is_some());
        }
        if alive == Alive::Lost && self.may_follow() {
            tracing::warn!(pid = process.pid(), workload = %self.parts.id,
                "the sidecar does not answer, another one takes its place");
            return Ok(Turn::Follow(None));
        }
        tell(channel, Down::Ping).await?;
        Ok(Turn::On)
    }

    /// Notes that a sidecar is still not connected; answers how this stretch of its life ends, when it does.
    pub(super) fn miss(&mut self, process: &SidecarProcess) -> Option<TalkEnd> {
        process.ensure_record();
        self.hark();
        let alive = self.pulse.handle_beat();
        let out_of_reach = !self.is_in_reach(process);
        if (alive >= Alive::Silent || out_of_reach) && self.asked.is_some() {
            return Some(TalkEnd::Follow(None, self.asked.take()));
        }
        if !((alive == Alive::Lost || out_of_reach) && self.may_follow()) {
            return None;
        }
        tracing::warn!(pid = process.pid(), workload = %self.parts.id,
            "the sidecar does not come back to its agent, another one takes its place");
        Some(TalkEnd::Follow(None, None))
    }

    /// Looks whether the sidecar's sockets still listen, and tells of a change.
    fn hark(&self) {
        let deaf = !self.listeners.iter().all(listens);
        self.deafness.send_if_modified(|known| std::mem::replace(known, deaf) != deaf);
    }

    /// Keeps these listeners for the next sidecar.
    pub(super) fn listen(&mut self, listeners: Vec<OwnedFd>) {
        self.listeners = listeners;
        self.hark();
    }

    /// Takes note that the sidecar said something.
    pub(super) fn hear(&mut self) {
        self.pulse.handle_word();
        if self.silence.send_replace(None).is_some() {
            tracing::info!(workload = %self.parts.id, "the sidecar answers again");
            self.applied.send_replace(self.works);
        }
    }

    /// There is no connection to a sidecar any more.
    pub(super) fn part(&mut self) {
        self.works = None;
        self.applied.send_replace(None);
        self.silence.send_replace(None);
        self.collecting.clear();
    }

    /// Tells whether the process finds its way to this agent.
    fn is_in_reach(&self, process: &SidecarProcess) -> bool {
        process.sees(&self.parts.run_dir.channel())
    }
}
