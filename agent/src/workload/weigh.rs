//! Other weights of workloads while they run, and the wait until every host works by them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sealane_base::timer::sleep_until;
use sealane_proto::resource::Workload;
use sealane_proto::types::{NetworkName, NodeName, Weight, WorkloadRef};

use super::{AttachError, Workloads};
use crate::attachment::{Attachment, AttachmentId, FailureKind, RequestFailure, WeightChange};
use crate::host::{HeardWords, RequestError};

/// Time after which control has told which hosts have no stream: it waits for 5 s, and tells with its heartbeats, every 3 s.
const LOST: Duration = Duration::from_secs(9);
/// Time in which a host that control has found again, and that has no channel to this one, works by what it hears there.
const TAKEN_UP: Duration = Duration::from_secs(2);
/// Number of hosts that are named in a sentence.
const NAMED: usize = 8;

/// Outcome of a change of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Weighed {
    /// Attachments of the workload, each with its weight from now on.
    pub(crate) weights: Vec<(AttachmentId, Weight)>,
    /// Reason for which not every host works by it yet; `None` when all do, or nobody asked.
    pub(crate) waits: Option<String>,
}

impl Workloads {
    /// Changes the weight of the workload `wanted`, in all of its networks or in one; it is on disk before this answers. Waits up to
    /// `patience`, if given, until every connected host works by it.
    ///
    /// # Errors
    /// When there is no such workload on this host, it is an instance of no service and gets a number, or the disk is full.
    pub(crate) async fn weigh(
        &self,
        wanted: &WorkloadRef,
        change: WeightChange,
        patience: Option<Duration>,
    ) -> Result<Weighed, RequestFailure> {
        let missing = |error| RequestFailure::new(FailureKind::NotFound, error);
        let (first, own) =
            self.context.roster.attachments(wanted, self.context.node.as_str()).map_err(missing)?;
        if change.weight.is_some() && own.iter().any(|attachment| attachment.workload.service.is_none()) {
            return Err(RequestFailure::new(
                FailureKind::Wrong,
                format!("workload {wanted} is an instance of no service, so it has no weight among others"),
            )
            .hint(format!("`sealane workload drain {}` takes it out of names", wanted.name)));
        }
        let ids = own.iter().map(Attachment::id).collect();
        let weighed = self.context.host.weigh(first, ids, change).await.ok_or(AttachError::Ending)?;
        let (version, weights) = weighed.map_err(|error: RequestError| AttachError::from(error))?;
        if weights.is_empty() {
            return Err(missing(format!("workload {wanted} is just ending")));
        }
        for (id, weight) in &weights {
            tracing::info!(workload = %id, %weight, drained = weight.kept().is_some(), "a workload has another weight");
        }
        let networks = weights.iter().map(|(id, _)| id.network.clone()).collect();
        let waits = match patience {
            Some(patience) => self.unsettled(version, networks, patience).await,
            None => None,
        };
        Ok(Weighed { weights, waits })
    }

    /// Waits until every other host of this one's networks has a channel to it and works by its newest words, `patience` at most.
    pub(crate) async fn have_told(&self, patience: Duration) {
        let mut told = self.context.host.views.told.clone();
        let is_told = |told: &BTreeMap<NetworkName, HeardWords>| {
            let has_arrived =
                |told: &HeardWords| told.late.is_empty() && told.behind.is_empty() && told.deaf.is_empty();
            !told.is_empty() && told.values().all(has_arrived)
        };
        // An error means that the agent ends.
        let _ = tokio::time::timeout(patience, told.wait_for(is_told)).await;
    }

    /// Waits until every host works by the report `version`, while control is away by this one's word; returns the reason when that takes
    /// longer than `patience`.
    async fn unsettled(
        &self,
        version: u64,
        networks: BTreeSet<NetworkName>,
        patience: Duration,
    ) -> Option<String> {
        let done = async {
            tokio::select! {
                () = self.confirmed(version, &networks) => {}
                () = self.told(version, &networks) => {}
            }
        };
        if tokio::time::timeout(patience, done).await.is_ok() {
            return None;
        }
        let views = &self.context.host.views;
        let link = views.link.borrow();
        if link.channel.is_some() {
            let told = views.told.borrow();
            let mut silent = hosts_of(&told, &networks, |told| &told.silent);
            silent.extend(hosts_of(&told, &networks, |told| &told.late));
            if !silent.is_empty() {
                let silent = names(&silent);
                return Some(format!(
                    "nothing is heard of the agent of {silent}: its workloads call as before until it is back"
                ));
            }
            let behind = names(&hosts_of(&told, &networks, |told| &told.behind));
            let why = self.hindrance(&networks).unwrap_or_default();
            return Some(match behind.as_str() {
                "" => format!(
                    "not every connected host has confirmed it; `sealane node ls` shows which are behind{why}"
                ),
                hosts => format!("{hosts} has heard of it, and does not work by it yet{why}"),
            });
        }
        let told = views.told.borrow();
        let [deaf, behind] =
            [hosts_of(&told, &networks, |told| &told.deaf), hosts_of(&told, &networks, |told| &told.behind)];
        let (deaf, behind, why) = (names(&deaf), names(&behind), link.why_silent());
        Some(match (deaf.as_str(), behind.as_str()) {
            ("", "") => format!(
                "control is not there ({why}), and not every other host has heard of it from this one"
            ),
            ("", hosts) => {
                let hindrance = self.hindrance(&networks).unwrap_or_default();
                format!(
                    "{hosts} has heard of it from this host, and does not work by it yet{hindrance}; control is not there ({why})"
                )
            }
            (hosts, _) => format!(
                "control is not there ({why}), and there is no channel to {hosts}: it hears of it when either is"
            ),
        })
    }

    /// Describes a workload on another host whose sidecar that host may be waiting for.
    fn hindrance(&self, networks: &BTreeSet<NetworkName>) -> Option<String> {
        let known = self.context.host.views.networks.borrow();
        networks.iter().filter_map(|network| known.get(network)).find_map(|network| {
            let network = network.borrow();
            let hinders = |workload: &&Workload| {
                workload.node != self.context.node && workload.sidecar && !workload.finding.is_empty()
            };
            let Workload { node, name, finding, .. } = network.snapshot.workloads.iter().find(hinders)?;
            Some(format!("; of workload {name}, host {node} says: {finding}"))
        })
    }

    /// Waits until control has told that every connected host works by the report `version`, and each other host with a channel has said so
    /// itself: control waits for nobody whose agent it has lost, and the workloads there go on by what they know. A host without a channel
    /// to this one counts as lost until control can tell.
    async fn confirmed(&self, version: u64, networks: &BTreeSet<NetworkName>) {
        let views = &self.context.host.views;
        let (mut reported, mut link, mut told) =
            (views.reported.clone(), views.link.clone(), views.told.clone());
        let (mut silent_since, mut were_lost) = (None, BTreeSet::new());
        loop {
            let settled = reported.borrow_and_update().settled >= version;
            let (works, silent) = {
                let told = told.borrow_and_update();
                (work_by(&told, networks, version), hosts_of(&told, networks, |told| &told.silent))
            };
            silent_since = silent_since.or_else(|| Some(Instant::now())).filter(|_| !silent.is_empty());
            let lost: BTreeSet<NodeName> = {
                let link = link.borrow_and_update();
                let is_lost =
                    |name: &&NodeName| link.lost.as_ref().is_some_and(|lost| lost.contains_key(*name));
                silent.iter().filter(is_lost).cloned().collect()
            };
            let due = silent_since.map(|since| since + LOST).filter(|due| *due > Instant::now());
            if settled && works && due.is_none() && lost.is_empty() {
                if !were_lost.is_disjoint(&silent) {
                    tokio::time::sleep(TAKEN_UP).await;
                }
                return;
            }
            were_lost.extend(lost);
            tokio::select! {
                Ok(()) = reported.changed() => {}
                Ok(()) = link.changed() => {}
                Ok(()) = told.changed() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    /// Waits until control is away and every other host of these networks works by what this one has said of everything up to `version`.
    async fn told(&self, version: u64, networks: &BTreeSet<NetworkName>) {
        let views = &self.context.host.views;
        let (mut link, mut told) = (views.link.clone(), views.told.clone());
        loop {
            let alone = link.borrow_and_update().channel.is_none();
            let (works, is_any_deaf) = {
                let told = told.borrow_and_update();
                let deaf = hosts_of(&told, networks, |told| &told.deaf);
                (work_by(&told, networks, version), !deaf.is_empty())
            };
            if alone && works && !is_any_deaf {
                return;
            }
            tokio::select! {
                Ok(()) = link.changed() => {}
                Ok(()) = told.changed() => {}
                // The agent ends.
                else => std::future::pending().await,
            }
        }
    }
}

/// Returns true if all hosts with a channel work by these networks' workloads as of `version`.
fn work_by(told: &BTreeMap<NetworkName, HeardWords>, networks: &BTreeSet<NetworkName>, version: u64) -> bool {
    networks.iter().all(|network| told.get(network).is_none_or(|told| told.version >= version))
}

/// Hosts of which `of` tells in the progress with these networks.
fn hosts_of(
    told: &BTreeMap<NetworkName, HeardWords>,
    networks: &BTreeSet<NetworkName>,
    of: impl Fn(&HeardWords) -> &BTreeSet<NodeName>,
) -> BTreeSet<NodeName> {
    networks.iter().filter_map(|network| told.get(network)).flat_map(of).cloned().collect()
}

/// Names hosts in a sentence.
fn names(hosts: &BTreeSet<NodeName>) -> String {
    let names: Vec<&str> = hosts.iter().take(NAMED).map(|name| name.as_str()).collect();
    let more = hosts.len().saturating_sub(NAMED);
    if more > 0 { format!("{} and {more} more hosts", names.join(", ")) } else { names.join(", ") }
}
