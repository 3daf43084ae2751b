//! Metrics of whatever this control plane is at the moment: one that leads, or a standby.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealane_base::metrics::{Family, Reading, Series, gather};
use tokio::sync::watch;

use crate::Control;
use crate::kv::Failure;
use crate::metrics::Metrics;
use crate::roster::{Life, Roster};

/// The metrics of the moment.
#[derive(Debug)]
pub(super) struct Shown {
    stage: Mutex<Stage>,
    roster: watch::Receiver<Roster>,
}

/// Things that there are to show.
#[derive(Default)]
struct Stage {
    families: Option<Arc<dyn Fn() -> Vec<Family> + Send + Sync>>,
    targets: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    leads: bool,
    /// The store's failure since which nobody could be asked who leads.
    lost: Option<Failure>,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("leads", &self.leads).field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Shown {
    /// Shows nothing but the control planes of this roster yet.
    pub(super) fn new(roster: watch::Receiver<Roster>) -> Self {
        Self { stage: Mutex::default(), roster }
    }

    /// Shows a control plane that leads from now on.
    pub(super) fn leads(&self, control: &Control) {
        let (families, targets) = (Arc::new(control.gather()), Arc::new(control.scrape_targets()));
        *self.stage() = Stage { families: Some(families), targets: Some(targets), leads: true, lost: None };
    }

    /// Shows a standby from now on.
    pub(super) fn stands_by(&self, metrics: Metrics) {
        let lost = self.stage().lost.take();
        let families = Arc::new(move || gather(&metrics.registry));
        *self.stage() = Stage { families: Some(families), targets: None, leads: false, lost };
    }

    /// The store answers.
    pub(super) fn reaches_store(&self) {
        if self.stage().lost.take().is_some() {
            tracing::info!("the store is reached again");
        }
    }

    /// The store does not answer; true if that is new.
    pub(super) fn lost_store(&self, failure: &Failure) -> bool {
        self.stage().lost.replace(failure.clone()).is_none()
    }

    /// Gathers the families of the moment.
    pub(super) fn gather(&self) -> Vec<Family> {
        let (families, leads, lost) = {
            let stage = self.stage();
            (stage.families.clone(), stage.leads, stage.lost.is_some())
        };
        let leading = Family::flag(
            "sealane_control_leading",
            "Whether this control plane leads, of those that share a store: 1 or 0.",
            leads,
        );
        let reached = Family::flag(
            "sealane_control_store_reached",
            "Whether the store that control planes share answers this one: 1 or 0.",
            !lost,
        );
        let number =
            |life: Life| self.roster.borrow().members.values().filter(|known| known.life == life).count();
        let series = [("running", Life::Running), ("stopped", Life::Stopped), ("lost", Life::Lost)];
        let series = series.map(|(state, life)| Series {
            labels: vec![("state".to_owned(), state.to_owned())],
            reading: Reading::Value(f64::from(u32::try_from(number(life)).unwrap_or(u32::MAX))),
        });
        let members = Family::gauge(
            "sealane_control_members",
            "Control planes that share a store, by their signs of life there.",
            series.into(),
        );
        families
            .map(|families| families())
            .unwrap_or_default()
            .into_iter()
            .chain([leading, reached, members])
            .collect()
    }

    /// Returns the targets for Prometheus, as JSON.
    ///
    /// # Errors
    /// When this one does not lead: an empty list would have Prometheus forget all hosts.
    pub(super) fn targets(&self) -> Result<String, String> {
        let targets = self.stage().targets.clone();
        let targets = targets.ok_or_else(|| {
            "this control plane is a standby, to which no hosts are connected: ask the one that leads"
                .to_owned()
        })?;
        Ok(targets())
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
