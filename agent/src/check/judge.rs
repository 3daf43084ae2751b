//! Health by the answers to a check: how many in a row count. Pure.

use std::time::{Duration, Instant};

use sealane_proto::types::{Check, Interval, Threshold};

/// Health of an instance by its check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Nothing is decided since it began; with the last bad answer, if there was one.
    Starting(Option<String>),
    /// The workload works.
    Healthy,
    /// The workload does not work, for this reason.
    Unhealthy(String),
}

/// Judge of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    healthy: u8,
    unhealthy: u8,
    /// Time until which bad answers do not count.
    patient: Instant,
    health: Health,
    /// Good answers since the last bad one, and the reverse, up to their thresholds.
    good: u8,
    bad: u8,
}

impl Judge {
    /// Judge of one that began at `begun`, by `check`; `unhealthy` is how many bad answers count if the check does not say.
    #[must_use]
    pub(crate) fn new(check: &Check, unhealthy: Threshold, begun: Instant) -> Self {
        Self {
            healthy: check.healthy.unwrap_or(Threshold::ONE).get(),
            unhealthy: check.unhealthy.unwrap_or(unhealthy).get(),
            patient: begun + check.start_period.map_or(Duration::ZERO, Interval::get),
            health: Health::Starting(None),
            good: 0,
            bad: 0,
        }
    }

    /// Returns the workload's health now.
    #[must_use]
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Takes an answer; the reason of a bad one is an error.
    pub(crate) fn handle_answer(&mut self, answer: Result<(), String>, now: Instant) {
        match answer {
            Ok(()) => {
                (self.good, self.bad) = (self.good.saturating_add(1).min(self.healthy), 0);
                if self.good >= self.healthy {
                    self.health = Health::Healthy;
                }
            }
            Err(why) => {
                let starts = matches!(self.health, Health::Starting(_));
                let counts = !(starts && now < self.patient);
                let bad = if counts { self.bad.saturating_add(1).min(self.unhealthy) } else { 0 };
                (self.good, self.bad) = (0, bad);
                match &mut self.health {
                    health if bad >= self.unhealthy => *health = Health::Unhealthy(why),
                    Health::Starting(said) => *said = Some(why),
                    Health::Unhealthy(said) => *said = why,
                    Health::Healthy => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealane_proto::types::Probe;

    use super::*;

    fn check(healthy: u32, unhealthy: u32, start: &str) -> Check {
        Check {
            healthy: Threshold::try_from(healthy).ok(),
            unhealthy: Threshold::try_from(unhealthy).ok(),
            start_period: start.parse().ok(),
            ..Check::of(Probe::Tcp)
        }
    }

    /// The letters of what one is after each answer: `+` good, `-` bad, one a second.
    fn judged(check: &Check, answers: &str) -> String {
        let begun = Instant::now();
        let mut judge = Judge::new(check, Threshold::THREE, begun);
        let seconds = (0..).map(|second| begun + Duration::from_secs(second));
        let after = |(answer, now)| {
            judge.handle_answer(if answer == '+' { Ok(()) } else { Err("no".to_owned()) }, now);
            match judge.health() {
                Health::Starting(_) => 's',
                Health::Healthy => 'h',
                Health::Unhealthy(_) => 'u',
            }
        };
        answers.chars().zip(seconds).map(after).collect()
    }

    #[test]
    fn answers_count_in_a_row_and_bad_ones_not_in_the_start_period() {
        let table = [
            (check(0, 0, ""), "+--+---+", "hhhhhhuh"),
            (check(0, 0, ""), "---", "ssu"),
            (check(2, 1, ""), "+-++-++", "suuhuuh"),
            (check(1, 2, "4s"), "------+", "sssssuh"),
            (check(1, 2, "4s"), "-+--", "shhu"),
            (check(3, 3, "1h"), "++-+++---", "sssssHHHu"),
        ];
        for (check, answers, expected) in table {
            let said = judged(&check, answers);
            assert_eq!(said, expected.to_lowercase(), "{check:?} {answers}");
        }
    }

    proptest! {
        #[test]
        fn nothing_changes_before_so_many_answers_in_a_row(
            good in 1..5_u32,
            bad in 1..5_u32,
            answers in "[+-]{0,40}",
        ) {
            let said: Vec<char> = judged(&check(good, bad, ""), &answers).chars().collect();
            let answers: Vec<char> = answers.chars().collect();
            let row = |end: usize, of: char| answers[..=end].iter().rev().take_while(|&&one| one == of).count();
            let mut before = 's';
            for (at, &now) in said.iter().enumerate() {
                let (goods, bads) = (row(at, '+'), row(at, '-'));
                let expected = match before {
                    _ if goods >= good as usize => 'h',
                    _ if bads >= bad as usize => 'u',
                    before => before,
                };
                prop_assert_eq!(now, expected, "at {}", at);
                before = now;
            }
        }
    }
}
