//! Load that goes on until it is stopped, and what came of it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::{Finished, Running};

/// Requests that are being made.
#[derive(Debug)]
pub struct Load(Running);

/// Result of a load.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// Number of requests that were made.
    pub requests: u64,
    /// Number of requests that failed.
    pub failures: u64,
    /// Time of the last failure.
    pub failed: Option<SystemTime>,
    /// Errors, some of them.
    pub errors: Vec<String>,
    /// Number of answers by body.
    pub answers: BTreeMap<String, u64>,
    /// The slowest answer in milliseconds.
    pub max_ms: f64,
    /// The slowest of the fastest 99 of 100, in milliseconds.
    pub p99_ms: f64,
}

impl Load {
    /// Waits for its first answer.
    #[track_caller]
    pub(crate) fn of(mut running: Running) -> Self {
        running.wait_for("running");
        Self(running)
    }

    /// Returns the number of answers so far, as told from time to time.
    #[must_use]
    pub fn answered(&self) -> u64 {
        let said = self.0.stdout();
        let told = said.lines().rev().find_map(|line| line.strip_prefix("answered "));
        told.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Waits until an answer had this body.
    #[track_caller]
    pub fn await_answer(&mut self, body: &str) {
        self.0.wait_for(&format!("seen {body}\n"));
    }

    /// The running program.
    #[must_use]
    pub fn program(&self) -> &Running {
        &self.0
    }

    /// Waits until this many further requests were answered.
    #[track_caller]
    pub fn await_further(&self, requests: u64) {
        let before = self.answered();
        let what = format!("{requests} further answers after {before}");
        crate::eventually(crate::PATIENCE, &what, || (self.answered() >= before + requests).then_some(()));
    }

    /// Stops it.
    ///
    /// # Panics
    /// When it does not report.
    #[must_use]
    #[track_caller]
    pub fn stop(self) -> LoadReport {
        LoadReport::of(&self.0.wait())
    }
}

impl LoadReport {
    /// Reads the application's last words.
    ///
    /// # Panics
    /// When it did not report.
    #[must_use]
    #[track_caller]
    pub fn of(finished: &Finished) -> Self {
        let last = finished.stdout.lines().last().unwrap_or_default();
        let report: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {finished}"));
        let count = |field: &str| report[field].as_u64().unwrap();
        let words = |value: &Value| value.as_str().unwrap().to_owned();
        let answers = report["answers"].as_object().unwrap().iter();
        Self {
            requests: count("requests"),
            failures: count("failures"),
            failed: report["failed_unix_ms"]
                .as_f64()
                .map(|millis| UNIX_EPOCH + Duration::from_secs_f64(millis / 1000.0)),
            errors: report["errors"].as_array().unwrap().iter().map(words).collect(),
            answers: answers.map(|(body, count)| (body.clone(), count.as_u64().unwrap())).collect(),
            max_ms: report["max_ms"].as_f64().unwrap(),
            p99_ms: report["p99_ms"].as_f64().unwrap(),
        }
    }

    /// This, when none failed.
    ///
    /// # Panics
    /// When some did.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.failures == 0 && self.requests > 0, "{self:#?}");
        self
    }
}
