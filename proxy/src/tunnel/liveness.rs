//! Liveness of a tunnel: it asks if its peer is there, gives it up, and closes for want of use. Pure.

use std::time::Instant;

use super::settings::Settings;

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

    /// To be asked regularly: whether something was `heard` since the last time, and whether there are streams.
    pub(super) fn check(&mut self, now: Instant, heard: bool, in_use: bool, settings: &Settings) -> Verdict {
        if heard {
            (self.heard, self.pinged) = (now, None);
        }
        if in_use {
            self.used = now;
        }
        match self.pinged {
            Some(pinged) if now - pinged >= settings.lost_after => Verdict::Lost,
            Some(_) => Verdict::Fine,
            None if now - self.used >= settings.idle_timeout => Verdict::Idle,
            None if now - self.heard >= settings.ping_after => {
                self.pinged = Some(now);
                Verdict::Ping
            }
            None => Verdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            assert_eq!(liveness.check(at(seconds), heard, in_use, &settings), expected, "at {seconds} s");
        }
    }
}
