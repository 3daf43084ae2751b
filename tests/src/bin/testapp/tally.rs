//! Tally of many attempts.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Errors that are told in words; the rest is counted alone.
const MAX_ERRORS: usize = 20;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    failures: u64,
    errors: Vec<String>,
    /// Time of the last failure since 1970.
    failed: Option<Duration>,
    answers: BTreeMap<String, u64>,
    latencies: Vec<Duration>,
}

impl Tally {
    pub(crate) fn count(&mut self, result: Result<String, String>, took: Duration) {
        self.latencies.push(took);
        match result {
            Ok(answer) => *self.answers.entry(answer).or_default() += 1,
            Err(error) => {
                self.failures += 1;
                self.failed = SystemTime::now().duration_since(UNIX_EPOCH).ok();
                if self.errors.len() < MAX_ERRORS {
                    self.errors.push(format!("{error} after {took:?}, attempt {}", self.latencies.len()));
                }
            }
        }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.latencies.len() as u64 - self.failures
    }

    /// Answers that are not in `seen` yet; they are from then on.
    pub(crate) fn unseen<'a>(&'a self, seen: &mut Vec<String>) -> impl Iterator<Item = &'a String> + use<'a> {
        let new: Vec<&String> = self.answers.keys().filter(|answer| !seen.contains(answer)).collect();
        seen.extend(new.iter().map(|answer| (*answer).clone()));
        new.into_iter()
    }

    pub(crate) fn report(mut self) -> Value {
        self.latencies.sort_unstable();
        let at = |part: usize| {
            let index = (self.latencies.len() * part / 100).min(self.latencies.len().saturating_sub(1));
            self.latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
        };
        json!({
            "requests": self.latencies.len(), "failures": self.failures, "errors": self.errors,
            "failed_unix_ms": self.failed.map(|failed| failed.as_secs_f64() * 1000.0),
            "answers": self.answers, "p50_ms": at(50), "p99_ms": at(99), "max_ms": at(100),
        })
    }
}
