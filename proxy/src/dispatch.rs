//! Dispatch of requests and connections: what follows when an attempt at one fails. Pure.
//!
//! One decision serves HTTP/1, HTTP/2 and opaque connections. They differ in how they find out what has failed
//! ([`Failure`]), and in how they say the answer.

mod failure;

use std::time::Instant;

use h2::Reason;

use crate::budget::RetryBudget;
use crate::http::answer::Status;
pub(crate) use failure::{Failure, OpenFailure, Repetition};

/// Number of times that a request is sent again that may have been worked on, or that took its time to fail.
const MAX_RETRIES: usize = 3;
/// Number of times when it was turned away at once: it cost nobody anything, and the endpoint is not asked again.
const MAX_REFUSALS: usize = 16;

/// A request or connection, as far as another attempt at it depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeatability {
    /// True if doing it twice is doing it once (RFC 9110, section 9.2.2).
    pub(crate) is_idempotent: bool,
    /// True if all that was sent of it is kept, and could be sent again.
    pub(crate) is_kept: bool,
    /// Number of further attempts at most, where a rule says so.
    pub(crate) limit: Option<usize>,
}

/// Consequence of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another endpoint is asked.
    Again,
    /// The client is told.
    Answer(Answer),
}

/// Answer in place of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A response with this status.
    Status(Status),
    /// The endpoint's own code, which means something to clients, such as those of gRPC.
    Reset(Reason),
}

/// Decides what follows the failure of the last of so many attempts. A further one that costs anybody anything is taken from
/// `budget`.
pub(crate) fn next(
    failure: &Failure,
    attempts: usize,
    request: Repeatability,
    budget: &mut RetryBudget,
    now: Instant,
) -> Next {
    let repetition = failure.repetition();
    let limit = match request.limit {
        Some(0) if repetition != Repetition::Free => 0,
        Some(limit) if !failure.is_cheap() => limit.min(MAX_REFUSALS),
        Some(_) | None if failure.is_cheap() => MAX_REFUSALS,
        Some(_) | None => MAX_RETRIES,
    };
    let may_repeat = match repetition {
        Repetition::Granted => return Next::Again,
        Repetition::Free | Repetition::Harmless => true,
        Repetition::IfIdempotent => request.is_idempotent,
        Repetition::Useless => false,
    };
    let is_free = repetition == Repetition::Free;
    if attempts <= limit && may_repeat && request.is_kept && (is_free || budget.withdraw(now)) {
        return Next::Again;
    }
    Next::Answer(match failure {
        Failure::Reset(reason) => Answer::Reset(*reason),
        Failure::NotOpened(_)
        | Failure::Gone
        | Failure::Refused
        | Failure::Unprocessed { .. }
        | Failure::Denied
        | Failure::Lost { .. }
        | Failure::Malformed { .. }
        | Failure::TooLarge
        | Failure::Late { .. }
        | Failure::Unwanted(_)
        | Failure::Http1 => Answer::Status(failure.status()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::balance::Outcome;

    const GET: Repeatability = Repeatability { is_idempotent: true, is_kept: true, limit: None };
    const POST: Repeatability = Repeatability { is_idempotent: false, ..GET };
    const LONG: Repeatability = Repeatability { is_kept: false, ..GET };

    fn not_opened(timed_out: bool) -> Failure {
        Failure::NotOpened(OpenFailure { text: "no way".to_owned(), reason: "connect", timed_out })
    }

    fn unprocessed() -> Failure {
        Failure::Unprocessed { reason: "refused", text: "it was turned away".into() }
    }

    fn lost() -> Failure {
        Failure::Lost { reason: "reset", text: "it broke off".into() }
    }

    fn malformed() -> Failure {
        Failure::Malformed { reason: "protocol", text: "it cannot be understood".into() }
    }

    /// Each failure with the number of retries of a GET and of a POST, the answer behind them, and the verdict on the endpoint.
    fn table() -> [(Failure, [usize; 2], Answer, Option<Outcome>); 13] {
        let say = Answer::Status;
        let overloaded = Some(Outcome::Overloaded(Duration::ZERO));
        let (refused, broken) = (Some(Outcome::Refused), Some(Outcome::Broken));
        [
            (not_opened(false), [16, 16], say(Status::Unavailable), None),
            (not_opened(true), [3, 3], say(Status::Timeout), None),
            (Failure::Gone, [16, 16], say(Status::Unavailable), Some(Outcome::Abandoned)),
            (Failure::Refused, [16, 16], say(Status::Unavailable), overloaded),
            (unprocessed(), [16, 16], say(Status::Unavailable), refused),
            (Failure::Denied, [0, 0], say(Status::Forbidden), Some(Outcome::Abandoned)),
            (lost(), [3, 0], say(Status::BadGateway), broken),
            (malformed(), [0, 0], say(Status::BadGateway), broken),
            (Failure::Late { again: true }, [3, 0], say(Status::Late), broken),
            (Failure::Late { again: false }, [0, 0], say(Status::Late), broken),
            (Failure::TooLarge, [0, 0], say(Status::AnswerTooLarge), broken),
            (Failure::Http1, [0, 0], say(Status::BadGateway), broken),
            (Failure::Reset(Reason::CANCEL), [0, 0], Answer::Reset(Reason::CANCEL), broken),
        ]
    }

    /// Returns the number of retries until there is an answer, and that.
    fn outcome(failure: &Failure, request: Repeatability) -> (usize, Answer) {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        (0..1000).for_each(|_| budget.deposit());
        for attempts in 1.. {
            match next(failure, attempts, request, &mut budget, now) {
                Next::Again => {}
                Next::Answer(answer) => return (attempts - 1, answer),
            }
        }
        unreachable!("attempts are bounded")
    }

    #[test]
    fn what_follows_a_failure_depends_on_what_it_cost_and_what_may_be_repeated() {
        for (failure, [idempotent, other], answer, verdict) in table() {
            assert_eq!(outcome(&failure, GET), (idempotent, answer), "{failure:?}");
            assert_eq!(outcome(&failure, POST), (other, answer), "{failure:?}");
            assert_eq!(outcome(&failure, LONG), (0, answer), "{failure:?} of what is kept no longer");
            assert_eq!(failure.verdict(), verdict, "{failure:?}");
        }
    }

    #[test]
    fn a_rule_bounds_further_attempts_and_its_word_on_an_answer_counts() {
        for (limit, failure, expected) in [
            (0, lost(), 0),
            (0, unprocessed(), 0),
            (0, Failure::Gone, 16),
            (1, lost(), 1),
            (5, lost(), 5),
            (100, lost(), 16),
            (1, unprocessed(), 16),
        ] {
            let request = Repeatability { limit: Some(limit), ..GET };
            assert_eq!(outcome(&failure, request).0, expected, "{limit} {failure:?}");
        }
        let (now, spent) = (Instant::now(), &mut RetryBudget::new(Instant::now()));
        while spent.withdraw(now) {}
        assert_eq!(next(&Failure::Unwanted(503), 9, LONG, spent, now), Next::Again);
    }

    #[test]
    fn a_spent_budget_ends_the_retries_but_those_that_only_want_another_connection() {
        let now = Instant::now();
        for (failure, expected) in [(unprocessed(), 10), (Failure::Gone, 20)] {
            let mut budget = RetryBudget::new(now);
            let retried = (0..20).filter(|_| next(&failure, 1, GET, &mut budget, now) == Next::Again).count();
            assert_eq!(retried, expected, "{failure:?}");
        }
    }
}
