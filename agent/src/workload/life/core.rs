//! Decisions in the life of an attachment: whether calls may be sent to it, and when its rules follow the network. Pure.

use std::time::{Duration, Instant};

use sealane_fabric::health::Families;

use super::super::admission::RETRY;
use super::super::readiness::ReadinessFacts;
use super::signs::SILENCE;
use crate::attachment::ContainerCondition;

/// Time after which a workload of before that does not listen counts as not ready.
const FIRST_READING: Duration = Duration::from_secs(1);

/// The longest pause before rules that the kernel refused are tried again.
const SELDOM: Duration = Duration::from_secs(60);

/// Readiness of one attachment, from event to event.
#[derive(Debug)]
pub(super) struct ReadinessCore {
    facts: ReadinessFacts,
    /// Facts that were declared last.
    declared: Option<ReadinessFacts>,
    /// Time at which ports that nobody has read until then count as they are seen.
    first_reading: Instant,
    /// Time from which the sidecar counts as lost, unless it connects before.
    lost: Option<Instant>,
}

impl ReadinessCore {
    /// An attachment that works from `now` on as far as its sidecar goes; one of an earlier agent (`adopted`) is as it was until its
    /// ports are read. `portless` says that it has none.
    pub(super) fn new(portless: bool, adopted: bool, condition: ContainerCondition, now: Instant) -> Self {
        let listens = (portless || !adopted).then_some(Families::both(portless));
        Self {
            facts: ReadinessFacts { listens, sidecar: true, condition, healthy: Some(true) },
            declared: None,
            first_reading: now + FIRST_READING,
            lost: None,
        }
    }

    /// The ports were read.
    pub(super) fn handle_listens(&mut self, listens: Families) {
        self.facts.listens = Some(listens);
    }

    /// The workload's processes are in another condition, maybe.
    pub(super) fn handle_condition(&mut self, condition: ContainerCondition) {
        self.facts.condition = condition;
    }

    /// The ports were read, if `listens` says where, or its check has found something.
    pub(super) fn handle_seen(&mut self, listens: Option<Families>, healthy: Option<bool>) {
        listens.into_iter().for_each(|listens| self.handle_listens(listens));
        self.handle_health(healthy);
    }

    /// The workload's check has found something, or nothing yet of one of before.
    pub(super) fn handle_health(&mut self, healthy: Option<bool>) {
        self.facts.healthy = healthy;
    }

    /// The workload's sidecar works by some state, or is not connected.
    pub(super) fn handle_sidecar(&mut self, connected: bool, now: Instant) {
        self.facts.sidecar |= connected;
        self.lost = (!connected).then_some(now + SILENCE);
    }

    /// The workload's sidecar is connected and does not answer.
    pub(super) fn handle_silence(&mut self) {
        self.facts.sidecar = false;
    }

    /// Time has passed. `seen` says where it listens, as far as that is watched.
    pub(super) fn handle_time(&mut self, seen: Option<Families>, now: Instant) {
        if self.facts.listens.is_none() && self.first_reading <= now {
            self.facts.listens = seen;
        }
        if self.lost.is_some_and(|lost| lost <= now) {
            self.facts.sidecar = false;
            self.lost = None;
        }
    }

    /// The next time at which something may be different; `watched` says that the ports are.
    pub(super) fn due(&self, watched: bool) -> Option<Instant> {
        let reading = (watched && self.facts.listens.is_none()).then_some(self.first_reading);
        [reading, self.lost].into_iter().flatten().min()
    }

    /// The facts as they are.
    pub(super) fn facts(&self) -> ReadinessFacts {
        self.facts
    }

    /// The facts that are to be declared, if they are news.
    pub(super) fn poll_declaration(&mut self) -> Option<ReadinessFacts> {
        (self.declared.replace(self.facts) != Some(self.facts)).then_some(self.facts)
    }
}

/// The rules of service addresses in one workload's namespace, as they follow the network's states.
#[derive(Debug, Default)]
pub(super) struct RulesCore {
    /// State that they are of.
    ruled: u64,
    /// Time before which the kernel, which refused them, is not asked again.
    refused: Option<Instant>,
    /// Pause after the last refusal.
    pause: Option<Duration>,
    /// True if they are to be compared with the kernel's.
    audit_due: bool,
}

impl RulesCore {
    /// The state that they are of.
    pub(super) fn ruled(&self) -> u64 {
        self.ruled
    }

    /// The network has a newer state; `carried` says that the rules are right for it as they are.
    pub(super) fn handle_newest(&mut self, sequence: u64, carried: bool) {
        self.refused = None;
        if carried {
            self.ruled = sequence;
        }
    }

    /// The kernel has them as this state says, or has refused.
    pub(super) fn handle_followed(&mut self, sequence: u64, taken: bool, now: Instant) {
        if taken {
            (self.ruled, self.refused, self.pause) = (sequence, None, None);
        } else {
            self.refuse(now);
        }
    }

    /// Whoever holds rules in their place may hold them long: each pause is twice as long.
    fn refuse(&mut self, now: Instant) {
        let pause = self.pause.map_or(RETRY, |pause| (pause * 2).min(SELDOM));
        (self.pause, self.refused) = (Some(pause), Some(now + pause));
    }

    /// Somebody may have changed them in the kernel.
    pub(super) fn handle_doubt(&mut self) {
        self.audit_due = true;
    }

    /// Takes the comparison that is due.
    pub(super) fn poll_audit(&mut self) -> bool {
        std::mem::take(&mut self.audit_due)
    }

    /// The rules could not be compared: they count as of no state, and are made anew after a pause.
    pub(super) fn handle_unknown(&mut self, now: Instant) {
        self.ruled = 0;
        self.refuse(now);
    }

    /// Time has passed.
    pub(super) fn handle_time(&mut self, now: Instant) {
        if self.refused.is_some_and(|refused| refused <= now) {
            self.refused = None;
        }
    }

    /// The next time at which something may be different.
    pub(super) fn due(&self) -> Option<Instant> {
        self.refused
    }

    /// Returns true if there is work for the kernel, which has `newest` to follow.
    pub(super) fn wants_turn(&self, newest: u64) -> bool {
        self.refused.is_none() && (self.ruled < newest || self.audit_due)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(began: Instant, millis: u64) -> Instant {
        began + Duration::from_millis(millis)
    }

    /// Returns the families at which it is declared ready, if that is news.
    fn declared(core: &mut ReadinessCore) -> Option<Option<Families>> {
        core.poll_declaration().map(ReadinessFacts::ready)
    }

    #[test]
    fn a_new_workload_is_not_ready_before_it_listens_and_one_of_before_is_as_it_was_for_a_second() {
        let (began, none) = (Instant::now(), Families::default());
        let mut new = ReadinessCore::new(false, false, ContainerCondition::Serves, began);
        assert_eq!((declared(&mut new), new.due(true)), (Some(Some(none)), None));
        new.handle_listens(Families::both(true));
        assert_eq!(declared(&mut new), Some(Some(Families::both(true))));
        new.handle_listens(Families::both(true));
        assert_eq!(declared(&mut new), None, "no news");

        let mut before = ReadinessCore::new(false, true, ContainerCondition::Serves, began);
        assert_eq!((declared(&mut before), before.due(true)), (Some(None), Some(at(began, 1000))));
        assert_eq!(before.due(false), None, "its ports are not watched yet");
        before.handle_time(Some(none), at(began, 999));
        assert_eq!(declared(&mut before), None);
        before.handle_time(Some(none), at(began, 1000));
        assert_eq!((declared(&mut before), before.due(true)), (Some(Some(none)), None));

        let mut portless = ReadinessCore::new(true, true, ContainerCondition::Serves, began);
        assert_eq!(declared(&mut portless), Some(Some(Families::both(true))));
    }

    #[test]
    fn a_sidecar_may_be_away_for_a_while_and_one_that_does_not_answer_takes_the_calls_at_once() {
        let began = Instant::now();
        let mut core = ReadinessCore::new(true, false, ContainerCondition::Serves, began);
        core.handle_sidecar(true, began);
        assert_eq!((declared(&mut core), core.due(true)), (Some(Some(Families::both(true))), None));
        core.handle_sidecar(false, began);
        assert_eq!(core.due(true), Some(began + SILENCE));
        core.handle_sidecar(true, began);
        core.handle_time(None, began + SILENCE * 2);
        assert_eq!(declared(&mut core), None, "it was back in time");

        core.handle_sidecar(false, began);
        core.handle_time(None, began + SILENCE);
        assert_eq!((declared(&mut core), core.due(true)), (Some(Some(Families::default())), None));
        core.handle_sidecar(true, began);
        assert_eq!(declared(&mut core), Some(Some(Families::both(true))));
        core.handle_silence();
        assert_eq!(declared(&mut core), Some(Some(Families::default())));
    }

    #[test]
    fn a_workload_is_ready_while_its_processes_serve_and_its_check_is_content() {
        let (began, both) = (Instant::now(), Families::both(true));
        let mut core = ReadinessCore::new(false, false, ContainerCondition::Serves, began);
        core.handle_seen(Some(both), None);
        assert_eq!(declared(&mut core), Some(None), "nobody knows yet what its check says");
        for (healthy, expected) in [(false, Families::default()), (true, both), (false, Families::default())]
        {
            core.handle_health(Some(healthy));
            assert_eq!(declared(&mut core), Some(Some(expected)), "{healthy}");
        }
        core.handle_seen(None, Some(true));
        assert_eq!(declared(&mut core), Some(Some(both)), "it listens as before");
        core.handle_condition(ContainerCondition::Paused);
        assert_eq!(declared(&mut core), Some(Some(Families::default())));
        core.handle_condition(ContainerCondition::Serves);
        assert_eq!(declared(&mut core), Some(Some(both)));
        core.handle_seen(Some(Families::default()), Some(true));
        assert_eq!(declared(&mut core), Some(Some(Families::default())));
    }

    #[test]
    fn what_is_due_first_is_due() {
        let began = Instant::now();
        for (away, expected) in [(Duration::ZERO, FIRST_READING.min(SILENCE)), (SILENCE * 2, FIRST_READING)] {
            let mut core = ReadinessCore::new(false, true, ContainerCondition::Serves, began);
            core.handle_sidecar(false, began + away);
            assert_eq!(core.due(true), Some(began + expected));
        }
    }

    #[test]
    fn rules_that_the_kernel_refused_are_tried_again_after_a_pause_or_with_the_next_state() {
        let (began, mut rules) = (Instant::now(), RulesCore::default());
        assert!(rules.wants_turn(4));
        rules.handle_followed(4, false, began);
        assert!(!rules.wants_turn(4));
        assert_eq!(rules.due(), Some(began + RETRY));
        rules.handle_time(began + RETRY - Duration::from_nanos(1));
        assert!(!rules.wants_turn(4), "it is not time yet");
        rules.handle_time(began + RETRY);
        assert!(rules.wants_turn(4));
        rules.handle_followed(4, false, began);
        rules.handle_newest(5, false);
        assert!(rules.wants_turn(5), "the next state may be another matter");
        rules.handle_followed(5, true, began);
        assert_eq!((rules.wants_turn(5), rules.ruled()), (false, 5));
        rules.handle_newest(6, true);
        assert_eq!((rules.wants_turn(6), rules.ruled()), (false, 6), "nothing of it concerns them");
        rules.handle_doubt();
        assert!(rules.wants_turn(6) && rules.poll_audit() && !rules.poll_audit() && !rules.wants_turn(6));
        rules.handle_unknown(began);
        assert_eq!((rules.wants_turn(6), rules.due()), (false, Some(began + RETRY)));
        rules.handle_time(began + RETRY);
        assert!(rules.wants_turn(6));
        let pauses = (0..9).map(|_| {
            rules.handle_followed(6, false, began);
            (rules.due().unwrap() - began).as_secs()
        });
        assert_eq!(
            pauses.collect::<Vec<u64>>(),
            [1, 2, 4, 8, 16, 32, 60, 60, 60],
            "whoever holds them may keep them"
        );
    }

    #[derive(Clone, Debug)]
    enum Happening {
        Listens(bool),
        Connected(bool),
        Silent,
        Condition(ContainerCondition),
        Passes(u64),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        let conditions = prop_oneof![
            Just(ContainerCondition::Serves),
            Just(ContainerCondition::Unknown),
            Just(ContainerCondition::Unhealthy),
            Just(ContainerCondition::Paused),
        ];
        prop_oneof![
            any::<bool>().prop_map(Happening::Listens),
            any::<bool>().prop_map(Happening::Connected),
            Just(Happening::Silent),
            conditions.prop_map(Happening::Condition),
            (1_u64..4000).prop_map(Happening::Passes),
        ]
    }

    proptest! {
        /// A workload that listens, whose sidecar answers and whose processes serve is ready; one without any of these is not.
        #[test]
        fn calls_are_sent_where_everything_works_and_nowhere_else(
            happenings in prop::collection::vec(happening(), 0..40),
            adopted: bool,
        ) {
            let mut now = Instant::now();
            let mut core = ReadinessCore::new(false, adopted, ContainerCondition::Serves, now);
            let mut declared = core.poll_declaration().unwrap();
            for happening in happenings {
                match happening {
                    Happening::Listens(listens) => core.handle_listens(Families::both(listens)),
                    Happening::Connected(connected) => core.handle_sidecar(connected, now),
                    Happening::Silent => core.handle_silence(),
                    Happening::Condition(condition) => core.handle_condition(condition),
                    Happening::Passes(millis) => {
                        // The shell wakes at each due time.
                        let until = now + Duration::from_millis(millis);
                        while let Some(due) = core.due(true).filter(|due| *due <= until) {
                            now = due.max(now);
                            core.handle_time(Some(Families::default()), now);
                            prop_assert!(core.due(true).is_none_or(|next| next > now), "it would wake for ever");
                        }
                        now = until;
                    }
                }
                if let Some(news) = core.poll_declaration() {
                    prop_assert_ne!(news, declared);
                    declared = news;
                }
                prop_assert_eq!(core.poll_declaration(), None);
                prop_assert_eq!(declared, core.facts, "what was declared last is true");
            }
            core.handle_listens(Families::both(true));
            core.handle_sidecar(true, now);
            core.handle_condition(ContainerCondition::Serves);
            core.poll_declaration();
            prop_assert_eq!(core.facts.ready(), Some(Families::both(true)));
            prop_assert_eq!(core.due(true), None);
        }
    }
}
