//! Liveness of a tunnel: it asks if its peer is there, gives it up, and closes for want of use. Pure.

use std::time::{Duration, Instant};

use super::settings::Patience;

/// Action on a tunnel now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Ping,
    Lost,
    Idle,
}

/// Memory of a tunnel's silence.
#[derive(Debug)]
pub(super) struct Liveness {
    heard: Instant,
    pinged: Option<Instant>,
    used: Instant,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: now, pinged: None, used: now }
    }

    /// To be asked regularly: whether something was `heard` since the last time, and whether there are streams, without which
    /// a tunnel is kept for so long.
    pub(super) fn check(
        &mut self,
        now: Instant,
        heard: bool,
        (in_use, idle_timeout): (bool, Duration),
        patience: Patience,
    ) -> Verdict {
        if heard {
            (self.heard, self.pinged) = (now, None);
        }
        if in_use {
            self.used = now;
        }
        match self.pinged {
            Some(pinged) if now - pinged >= patience.lost_after => Verdict::Lost,
            Some(_) => Verdict::Fine,
            None if now - self.used >= idle_timeout => Verdict::Idle,
            None if now - self.heard >= patience.ping_after => {
                self.pinged = Some(now);
                Verdict::Ping
            }
            None => Verdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;

    #[test]
    fn silence_is_asked_about_and_then_ends_the_tunnel_and_so_does_disuse() {
        let settings = Settings::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(start);
        let table = [
            (2, false, true, Verdict::Fine),
            (3, false, true, Verdict::Ping),
            (5, true, true, Verdict::Fine),
            (8, false, true, Verdict::Ping),
            (12, false, true, Verdict::Fine),
            (13, false, true, Verdict::Lost),
            (36, true, true, Verdict::Fine),
            (95, true, false, Verdict::Fine),
            (96, true, false, Verdict::Idle),
        ];
        for (seconds, heard, in_use, expected) in table {
            let in_use = (in_use, settings.idle_timeout);
            let verdict = liveness.check(at(seconds), heard, in_use, settings.patience(false));
            assert_eq!(verdict, expected, "at {seconds} s");
        }
    }

    #[test]
    fn a_peer_that_may_be_about_to_go_is_asked_sooner_and_given_up_sooner_but_not_while_it_answers() {
        let settings = Settings::default();
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        let table = [
            (500, false, true, Verdict::Ping),
            (1_000, true, true, Verdict::Fine),
            (1_500, false, true, Verdict::Ping),
            (3_000, false, true, Verdict::Fine),
            // Taken back: it is as patient as with any.
            (4_000, false, false, Verdict::Fine),
            (5_000, false, true, Verdict::Lost),
        ];
        for (millis, heard, doubted, expected) in table {
            let in_use = (true, settings.idle_timeout);
            let now = start + Duration::from_millis(millis);
            let verdict = liveness.check(now, heard, in_use, settings.patience(doubted));
            assert_eq!(verdict, expected, "at {millis} ms");
        }
    }
}
