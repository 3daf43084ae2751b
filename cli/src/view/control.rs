//! Control planes that share a store.

use std::time::{Duration, SystemTime};

use sealane_proto::wire::v1;
use serde::Serialize;

use super::{dash, generation, text};
use crate::printer::{self, Row};

/// A control plane as `control ls` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ControlView {
    address: String,
    /// `leader`, `standby`, `stopped`, `lost`, or `alone` where none shares its store.
    role: String,
    version: String,
    /// The newest that it knows of the mesh's state; null: it was not asked.
    generation: Option<String>,
    /// Null: it was not asked.
    uptime_seconds: Option<u64>,
    /// Null: it was not asked.
    reaches_store: Option<bool>,
    /// True for the one that has told this.
    asked: bool,
    /// Null: nothing is wrong.
    problem: Option<String>,
}

impl ControlView {
    /// Returns true if something is wrong with it.
    pub(crate) fn has_problem(&self) -> bool {
        self.problem.is_some()
    }
}

impl From<v1::ControlView> for ControlView {
    fn from(view: v1::ControlView) -> Self {
        let answers = view.generation.is_some();
        Self {
            address: view.address,
            role: view.role,
            version: view.version,
            generation: generation(view.generation),
            uptime_seconds: answers.then_some(view.uptime_seconds),
            reaches_store: answers.then_some(view.store_problem.is_empty()),
            asked: view.asked,
            problem: text(view.problem),
        }
    }
}

impl Row for ControlView {
    const HEADERS: &'static [&'static str] =
        &["ADDRESS", "ROLE", "VERSION", "UP", "GENERATION", "STORE", "PROBLEM"];
    const NONE: &'static str = "no control planes";

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        let up = self.uptime_seconds.map(|seconds| printer::age(Duration::from_secs(seconds)));
        let store = self.reaches_store.map(|reaches| if reaches { "reached" } else { "lost" }.to_owned());
        vec![
            self.address.clone(),
            self.role.clone(),
            self.version.clone(),
            dash(up.as_ref()),
            dash(self.generation.as_ref()),
            dash(store.as_ref()),
            dash(self.problem.as_ref()),
        ]
    }
}
