//! A sidecar that another one has followed: it carries what it had begun to its end, and still hears what changes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sealane_base::metrics::Family;
use sealane_fabric::transition::{service, workload};
use sealane_proto::resource::{NetworkContent, NetworkSnapshot, Route, RouteDocument};
use sealane_proto::sidecar::{Config, Down, Portion, Up};
use sealane_proto::types::{NetworkName, NodeName, TrustDomain};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::process::SidecarProcess;
use super::pulse::{Alive, BEAT, SidecarPulse};
use super::registry::Connected;
use super::scope::Scope;
use super::supervisor::{GRACE, tell};
use super::telling::Telling;
use crate::attachment::AttachmentId;
use crate::certs::WorkloadIdentity;
use crate::host::HostNetwork;

/// Time for which connections may stay with a sidecar that another one has followed.
const LEAVE: Duration = Duration::from_secs(600);
/// Further time that it may take to say that it has left.
const LATE: Duration = Duration::from_secs(5);

/// Time that one which cannot be told anything may take to end what it carries.
const DRAIN: Duration = Duration::from_secs(30);

/// Messages to a sidecar of a workload.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    pub(super) id: AttachmentId,
    pub(super) trust_domain: TrustDomain,
    pub(super) identity: watch::Receiver<Arc<WorkloadIdentity>>,
    pub(super) host_network: watch::Receiver<Arc<HostNetwork>>,
    pub(super) unreachable: watch::Receiver<Arc<BTreeSet<NodeName>>>,
    /// The networks that the workload's namespace is in.
    pub(super) networks: Arc<BTreeSet<NetworkName>>,
}

impl Feed {
    /// Builds the message with its newest identity.
    pub(super) fn identity(&mut self) -> Down {
        Down::Identity(self.identity.borrow_and_update().to_message())
    }

    /// The addresses of workloads whose hosts cannot be reached now, as far as they are in a sidecar's scope.
    pub(super) fn away(&mut self, scope: Option<&Scope>) -> BTreeSet<IpAddr> {
        let unreachable = self.unreachable.borrow_and_update().clone();
        if unreachable.is_empty() {
            return BTreeSet::new();
        }
        let host_network = self.host_network.borrow();
        let network = &host_network.snapshot;
        let away = network.workloads.iter().filter(|other| unreachable.contains(&other.node));
        let away = away.filter(|other| scope.is_none_or(|scope| scope.holds(network, other)));
        away.map(|other| other.address.to_ipv4().into()).collect()
    }

    /// Returns true if the route is for calls of the workload: it is of a network that the workload is in too.
    fn acts_by(&self, route: &Route, network: &NetworkName) -> bool {
        let of = route.document.as_ref().map(RouteDocument::network);
        of.is_none_or(|of| of == network || self.networks.contains(of))
    }

    fn acts_by_all(&self, content: &NetworkContent) -> bool {
        content.routes.iter().all(|route| self.acts_by(route, &content.network.name))
    }

    /// The newest state, as far as it is in a sidecar's scope, as a configuration; `None` once the workload is not in it any more.
    pub(super) fn config(&self, host_network: &HostNetwork, scope: Option<&Scope>) -> Option<Down> {
        let snapshot = &host_network.snapshot;
        let own = workload(snapshot, &self.id.workload)?.clone();
        let (network, portion) = match scope {
            None if self.acts_by_all(&snapshot.content) => (host_network.told.clone(), None),
            None => {
                let mut content = snapshot.content.clone();
                content.routes.retain(|route| self.acts_by(route, &content.network.name));
                (NetworkSnapshot::new(snapshot.generation, content).into(), None)
            }
            Some(scope) => {
                let (generation, mut content) = (snapshot.generation, scope.content(snapshot));
                if !self.acts_by_all(&content) {
                    content.routes.retain(|route| self.acts_by(route, &content.network.name));
                }
                let addresses = scope.addresses().clone();
                let service = own.service.as_ref().and_then(|name| service(snapshot, name)).cloned();
                let portion = Portion { addresses, service };
                (NetworkSnapshot::new(generation, content).into(), Some(portion))
            }
        };
        Some(Down::Config(Box::new(Config {
            sequence: host_network.sequence,
            trust_domain: self.trust_domain.clone(),
            workload: own,
            network,
            portion,
        })))
    }
}

/// A sidecar whose work another one has taken over.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) process: SidecarProcess,
    pub(super) connected: Connected,
    pub(super) telling: Telling,
    pub(super) feed: Feed,
    pub(super) pulse: SidecarPulse,
}

impl Leaving {
    /// Accompanies it to its end, which comes with its last connection, with its deadline, when it gives no sign of life, or
    /// with the word of `end`: how long it may take from then on. Returns what it counted.
    pub(super) async fn accompany(mut self, end: oneshot::Receiver<Duration>) -> Vec<Family> {
        let mut last = Vec::new();
        let farewell = tokio::time::timeout(LEAVE + LATE, self.farewell(end, &mut last)).await;
        let deadline = farewell.ok().flatten().unwrap_or_default();
        self.process.finish(deadline + GRACE).await;
        tracing::info!(pid = self.process.pid(), workload = %self.feed.id, "the sidecar of before has ended");
        self.process.forget();
        last
    }

    /// Returns when it has nothing more to say, or with the time that it has left.
    async fn farewell(
        &mut self,
        mut end: oneshot::Receiver<Duration>,
        last: &mut Vec<Family>,
    ) -> Option<Duration> {
        let Self { process, connected: Connected { hello, channel, .. }, telling, feed, pulse } = self;
        let mut beat = tokio::time::interval_at(Instant::now() + BEAT, BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // One of before closes what rests between two requests.
        let leave =
            if hello.leaves { Down::Leave { deadline: LEAVE } } else { Down::Drain { deadline: LEAVE } };
        let mut messages = vec![leave];
        // Nobody has told it anything while the other one came to work.
        messages.extend(telling.update(feed));
        loop {
            for message in messages {
                tell(channel, message).await.ok()?;
            }
            messages = tokio::select! {
                Ok(()) = feed.identity.changed() => vec![feed.identity()],
                Ok(()) = feed.host_network.changed() => telling.update(feed),
                Ok(()) = feed.unreachable.changed() => telling.away(feed).into_iter().collect(),
                received = channel.receiver.recv() => {
                    pulse.handle_word();
                    match received.ok()? {
                        Up::Metrics(measured) => {
                            *last = measured.families;
                            Vec::new()
                        }
                        Up::Want(want) => telling.update_and_answer(want, feed),
                        Up::Applied { .. } | Up::Pong | Up::Hello(_) => Vec::new(),
                        Up::Drained => return None,
                    }
                }
                () = process.ended() => return None,
                Ok(deadline) = &mut end => return Some(deadline),
                _ = beat.tick(), if hello.answers => match pulse.handle_beat() {
                    Alive::Lost => return None,
                    Alive::Yes | Alive::Silent => vec![Down::Ping],
                }
            };
        }
    }
}

/// Ends a sidecar that is not connected: it takes nothing new and finishes what it carries, for a while, or as long as the word
/// of `end` says. One that hangs is killed then.
pub(super) async fn end(mut process: SidecarProcess, end: oneshot::Receiver<Duration>) {
    process.terminate();
    let word = async {
        match end.await {
            Ok(deadline) => deadline,
            // Nobody says anything any more.
            Err(_) => std::future::pending().await,
        }
    };
    let time = async {
        if let Ok(deadline) = tokio::time::timeout(DRAIN, word).await {
            tokio::time::sleep(deadline).await;
        }
        tokio::time::sleep(GRACE).await;
    };
    let in_time = tokio::select! {
        () = process.ended() => true,
        () = time => false,
    };
    if !in_time {
        process.cut_off().await;
    }
    process.forget();
}
