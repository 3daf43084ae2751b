//! A container's inside: set up when its namespace has its interface, taken back when the container leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_base::task;
use sealane_fabric::seat::{DeviceName, number};
use sealane_proto::types::NetworkName;
use sealane_sys::NetNs;

use super::book::{Endpoint, Owner, Past};
use super::{Docker, news, plan};
use crate::attachment::{FailureKind, Hold, Netns, NetnsTarget, RequestFailure};
use crate::engine::Container;
use crate::workload::EarlyQuestions;

/// Interval at which it is looked at whether Docker has moved the interface, at first.
const LOOK: Duration = Duration::from_millis(5);
/// And when it takes long.
const SELDOM: Duration = Duration::from_millis(500);
/// Age from which that is so.
const LONG: Duration = Duration::from_secs(2);
/// Interval at which dockerd is asked about a container that starts, beside its own events.
const ASK: Duration = Duration::from_millis(500);
/// Time for which it may be silent about one until that is worth a word.
const STARTING: Duration = Duration::from_secs(5);
/// Time for which the namespace of a container that joined may be away until it counts as gone.
const LEFT: Duration = Duration::from_secs(10);
/// Pause before a failed attempt is repeated.
const RETRY: Duration = Duration::from_secs(2);

impl Docker {
    /// Attaches a container's end as soon as its namespace is there, in a task of its own.
    pub(super) fn attach(self: &Arc<Self>, id: &str, endpoint: Endpoint) {
        let (this, own) = (Arc::downgrade(self), id.to_owned());
        self.work(id, async move {
            let mut questions = None;
            loop {
                let Some(docker) = this.upgrade() else { return };
                let Err(failure) = docker.attached(&own, &endpoint, &mut questions).await else { break };
                docker.workloads.complain(&endpoint.hold, Some(format!(
                    "the container at address {} of network {} is not attached, tried again all the time: {failure}",
                    endpoint.address, endpoint.network
                )));
                drop(docker);
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    async fn attached(
        &self,
        id: &str,
        endpoint: &Endpoint,
        questions: &mut Option<EarlyQuestions>,
    ) -> Result<(), RequestFailure> {
        let (Some(hold), Some(sandbox)) = (endpoint.hold(), &endpoint.sandbox) else { return Ok(()) };
        if self.workloads.holds(&hold) {
            self.workloads.complain(&endpoint.hold, None);
            return Ok(());
        }
        let interface = self.moved(id, (sandbox, &endpoint.network), questions).await?;
        let container = self.container_of(id, endpoint).await;
        let planned = plan::plan(endpoint, &container, interface, self.workloads.ports());
        let (spec, any_port) = planned.map_err(|error| RequestFailure::new(FailureKind::Wrong, error))?;
        let owner = Owner { container: container.id.clone(), name: container.name.clone(), any_port };
        self.book.lock().await.own(id, owner).map_err(super::full)?;
        let conditions = self.workloads.conditions();
        conditions.set(hold.as_str(), container.condition);
        conditions.set_any_port(hold.as_str(), any_port);
        let target = NetnsTarget {
            netns: Netns::Path(sandbox.into()),
            inode: None,
            container: None,
            hold: Some(hold),
            pid: Some(container.pid).filter(|pid| *pid != 0),
        };
        self.workloads.attach_whole(spec, target).await?;
        self.workloads.complain(&endpoint.hold, None);
        // Its labels may be wrong, and it may have been renamed meanwhile.
        if let Some(newest) = self.known(id) {
            self.name_anew(id, &newest).await;
        }
        Ok(())
    }

    /// Waits until Docker has moved the interface into the container's namespace and set it up; answers its name there. What the
    /// container asks meanwhile waits for our answers.
    async fn moved(
        &self,
        id: &str,
        (sandbox, network): (&str, &NetworkName),
        questions: &mut Option<EarlyQuestions>,
    ) -> Result<DeviceName, RequestFailure> {
        let began = Instant::now();
        loop {
            if let Ok(netns) = NetNs::open(sandbox) {
                if questions.is_none() {
                    // Not before its loopback device is up.
                    let collected = self.workloads.collect_questions(&netns);
                    *questions = collected.unwrap_or_else(|error| {
                        tracing::debug!(%error, sandbox, "a container's questions are not collected yet");
                        None
                    });
                }
                let taken = self.overlay.taken(number(id), &netns, network).await;
                let taken = taken.map_err(|error| RequestFailure::new(FailureKind::Broken, error))?;
                if let Some(name) = taken {
                    return Ok(name);
                }
            }
            tokio::time::sleep(if began.elapsed() < LONG { LOOK } else { SELDOM }).await;
        }
    }

    /// Waits for Docker's description of the container whose end this is, once that runs: before, nobody knows what it
    /// is to be.
    async fn container_of(&self, id: &str, endpoint: &Endpoint) -> Arc<Container> {
        let mut known = self.containers.subscribe();
        let (began, mut asked) = (Instant::now(), tokio::time::interval(ASK));
        loop {
            let running = known.borrow_and_update().get(id).filter(|container| container.pid != 0).cloned();
            if let Some(running) = running {
                return running;
            }
            tokio::select! {
                // It is never closed: it is this door's own.
                _ = known.changed() => {}
                // What happened before this agent heard of it.
                _ = asked.tick() => match self.engine.container_at(&endpoint.network_id, id).await {
                    Ok(Some(container)) => self.learn(&Arc::new(container)),
                    Ok(None) => {}
                    Err(error) if began.elapsed() >= STARTING => self.workloads.complain(&endpoint.hold, Some(format!(
                        "the container at address {} of network {} waits, without the network, for Docker to say what it is: \
                         {} does not answer ({error}); --docker-api names another socket",
                        endpoint.address, endpoint.network, self.engine.socket().display()
                    ))),
                    Err(error) => tracing::debug!(%error, "Docker does not say whose an endpoint is"),
                },
            }
        }
    }

    /// Takes a container's end back, in a task of its own: other hosts are waited for, which dockerd need not.
    pub(super) fn end(self: &Arc<Self>, id: &str, endpoint: Endpoint) {
        let (this, own) = (self.clone(), id.to_owned());
        let Some(hold) = endpoint.hold() else { return };
        self.work(id, async move {
            this.forget(&endpoint);
            this.dismantle(&own, &hold).await;
        });
    }

    /// Ends the workload at a container's end, and removes the end's interface.
    pub(super) async fn dismantle(&self, id: &str, hold: &Hold) {
        // It is gone from names and balancing at once, and altogether when every host has heard of it.
        while !self.workloads.dismiss(hold).await {}
        if let Err(error) = self.overlay.withdraw(number(id)).await {
            tracing::warn!(%error, holder = %hold, "cannot remove a container's interface");
        }
    }

    /// Waits until nothing is under way any more that takes this end back.
    pub(super) async fn ended(&self, id: &str) {
        let task = self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(id);
        drop(task);
        let hold = self.book.lock().await.endpoint(id).and_then(Endpoint::hold);
        if let Some(hold) = hold {
            let _ = tokio::time::timeout(STARTING, self.workloads.dismiss(&hold)).await;
        }
    }

    /// Attaches an end that was there before this agent, or takes it back when its container has left while no agent was there.
    async fn resume(self: &Arc<Self>, id: &str, endpoint: Endpoint) {
        let began = Instant::now();
        while began.elapsed() < LEFT {
            // Docker may have gone on meanwhile.
            let current = self.book.lock().await.endpoint(id).cloned();
            if current.as_ref() != Some(&endpoint) {
                return;
            }
            if !endpoint.boot.is_empty() && endpoint.boot != self.workloads.boot() {
                break;
            }
            if endpoint.sandbox.as_ref().is_some_and(|sandbox| NetNs::open(sandbox).is_ok()) {
                return self.attach(id, endpoint);
            }
            tokio::time::sleep(SELDOM).await;
        }
        tracing::info!(address = %endpoint.address, "a container has left its network while the agent was away");
        self.take_back(id, &endpoint).await;
    }

    /// Nothing is said of an end any more.
    pub(super) fn forget(&self, endpoint: &Endpoint) {
        self.workloads.complain(&endpoint.hold, None);
        self.workloads.complain(&news::wrong_labels(endpoint), None);
        self.workloads.conditions().forget(&endpoint.hold);
    }

    /// Goes on with what an earlier agent has left: ends that joined are attached, what belongs to nobody is removed.
    pub(super) async fn take_up(self: &Arc<Self>) {
        let endpoints: Vec<(String, Endpoint)> =
            self.book.lock().await.endpoints().map(|(id, known)| (id.clone(), known.clone())).collect();
        let known: Vec<u64> = endpoints.iter().map(|(id, _)| number(id) & 0xffff_ffff_ffff).collect();
        let past: Vec<Past> =
            self.book.lock().await.past().filter(|past| past.hold.is_some()).cloned().collect();
        past.into_iter().for_each(|past| self.expire(past));
        let holds: Vec<Hold> = endpoints.iter().filter_map(|(_, known)| known.hold()).collect();
        for (id, endpoint) in endpoints {
            match &endpoint.owner {
                Some(owner) => self.workloads.conditions().set_any_port(&endpoint.hold, owner.any_port),
                // Its container may be about to join.
                None => self.young.begin(&id),
            }
            let (this, own) = (self.clone(), id.clone());
            self.work(&id, async move { this.resume(&own, endpoint).await });
        }
        // Deleted, and the agent ended before that was done.
        for held in self.workloads.held() {
            if held.hold.is_of_docker() && !holds.contains(&held.hold) {
                let (workloads, hold) = (self.workloads.clone(), held.hold);
                // It ends by itself.
                task::spawn("docker-left", async move { while !workloads.dismiss(&hold).await {} }).detach();
            }
        }
        for number in self.overlay.offers().await.unwrap_or_default() {
            if !known.contains(&number)
                && let Err(error) = self.overlay.withdraw(number).await
            {
                tracing::warn!(%error, "cannot remove an interface that no container has");
            }
        }
    }
}
