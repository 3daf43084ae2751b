//! Silence of a sidecar, counted in beats instead of time: an agent that was held up itself has missed beats of its own, and
//! blames nobody. Pure.

use std::time::Duration;

/// The time from one question to the next.
pub(crate) const BEAT: Duration = Duration::from_secs(1);
/// After how many beats in a row without a word it is silent.
pub(crate) const SILENT: u32 = 5;
/// And after how many it does not come back.
pub(crate) const LOST: u32 = 15;

/// The state of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alive {
    /// Heard of lately.
    Yes,
    /// No calls should come to it.
    Silent,
    /// Another one has to take its place.
    Lost,
}

/// The beats since a sidecar was heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SidecarPulse(u32);

impl SidecarPulse {
    /// Takes note that the sidecar said something.
    pub(super) fn handle_word(&mut self) {
        self.0 = 0;
    }

    /// Another beat, and nothing was heard since the last one.
    pub(super) fn handle_beat(&mut self) -> Alive {
        self.0 = self.0.saturating_add(1);
        match self.0 {
            LOST.. => Alive::Lost,
            SILENT.. => Alive::Silent,
            _ => Alive::Yes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_is_silent_after_five_beats_and_lost_after_fifteen_unless_it_says_something() {
        let mut pulse = SidecarPulse::default();
        let mut beats = |count: u32| (0..count).fold(Alive::Yes, |_, _| pulse.handle_beat());
        assert_eq!(beats(SILENT - 1), Alive::Yes);
        assert_eq!(beats(1), Alive::Silent);
        assert_eq!(beats(LOST - SILENT - 1), Alive::Silent);
        assert_eq!(beats(1), Alive::Lost);
        pulse.handle_word();
        assert_eq!(pulse.handle_beat(), Alive::Yes);
    }
}
