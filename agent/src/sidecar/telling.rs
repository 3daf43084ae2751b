//! State that a connected sidecar was told of its network, and its next messages: a change where it can follow one, or
//! the whole state. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sealane_fabric::transition::{service, workload};
use sealane_proto::resource::{NetworkChange, NetworkContent, Service, Workload};
use sealane_proto::sidecar::{Change, Down, Hello, Want};

use super::leaving::Feed;
use super::scope::Scope;
use crate::attachment::AttachmentId;
use crate::host::HostNetwork;

/// State that one connection has carried.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    /// True if the sidecar can be told changes.
    follows: bool,
    /// True if it can be told who is away.
    fails_over: bool,
    /// The addresses that it is told of; `None`: it is told everything.
    scope: Option<Scope>,
    sent: Option<Sent>,
    /// Workloads that it was told are away; `None` before the first word.
    away: Option<BTreeSet<IpAddr>>,
}

/// A configuration on its way.
#[derive(Clone, Debug)]
struct Sent {
    /// Sequence that was told with it.
    sequence: u64,
    /// The newest state that says the same.
    network: Arc<HostNetwork>,
}

impl Telling {
    /// To a sidecar that has just introduced itself; `former` are addresses that its workload has called before.
    pub(super) fn to(hello: &Hello, former: &BTreeSet<Ipv4Addr>) -> Self {
        let Hello { follows, fails_over, asks, ref calls, .. } = *hello;
        let scope = (asks && follows).then(|| Scope::of(calls.union(former).copied().collect())).flatten();
        Self { follows, fails_over, scope, sent: None, away: None }
    }

    /// To nobody.
    pub(super) fn to_nobody() -> Self {
        Self { follows: false, fails_over: false, scope: None, sent: None, away: None }
    }

    /// The addresses that it is told of, if not all.
    pub(super) fn scope(&self) -> Option<&Scope> {
        self.scope.as_ref()
    }

    /// The message that says which workloads are away, if that is news to a sidecar that wants to know. An agent before this one may
    /// have told it of others.
    pub(super) fn away(&mut self, feed: &mut Feed) -> Option<Down> {
        let away = feed.away(self.scope.as_ref());
        if !self.fails_over || self.away.as_ref() == Some(&away) {
            return None;
        }
        self.away = Some(away.clone());
        Some(Down::Away(away))
    }

    /// The sequence of the last configuration, when that says all that the newest state does: whoever works by it works by
    /// the newest state.
    pub(super) fn knows(&mut self, id: &AttachmentId, newest: &Arc<HostNetwork>) -> Option<u64> {
        let same = {
            let sent = self.sent.as_ref()?;
            sent.network.content == newest.content
                || self.portion_change(id, newest).is_some_and(|change| change == NetworkChange::default())
        };
        let sent = self.sent.as_mut().filter(|_| same)?;
        sent.network = newest.clone();
        Some(sent.sequence)
    }

    /// The newest sequence that says the same as this configuration.
    pub(super) fn meaning(&self, sequence: u64) -> u64 {
        let sent = self.sent.as_ref().filter(|sent| sent.sequence == sequence);
        sent.map_or(sequence, |sent| sent.network.sequence)
    }

    /// Builds the messages that lead to the newest state; none once the workload is not in it any more.
    pub(super) fn lead(&mut self, feed: &Feed, newest: &Arc<HostNetwork>) -> Vec<Down> {
        let messages = match &self.scope {
            None => self.steps(feed, newest),
            Some(_) => self.portion_change(&feed.id, newest).and_then(|change| {
                let since = self.sent.as_ref()?.sequence;
                Some(vec![Down::Change(follow_up([since, newest.sequence], change))])
            }),
        };
        let messages = messages.or_else(|| {
            // Whoever calls a service needs what its routes send to.
            self.scope = self.scope.take().and_then(|scope| scope.with_backends(&newest.snapshot));
            Some(vec![feed.config(newest, self.scope.as_ref())?])
        });
        let Some(messages) = messages else { return Vec::new() };
        self.sent = Some(Sent { sequence: newest.sequence, network: newest.clone() });
        messages
    }

    /// Builds the messages that say what is news to a sidecar that nobody waits for: of its network, and of who is away.
    pub(super) fn update(&mut self, feed: &mut Feed) -> Vec<Down> {
        let newest = feed.host_network.borrow_and_update().clone();
        if self.knows(&feed.id, &newest).is_some() {
            return Vec::new();
        }
        let mut messages = self.lead(feed, &newest);
        messages.extend(self.away(feed));
        messages
    }

    /// The same before the answer to what it wants.
    pub(super) fn update_and_answer(&mut self, want: Want, feed: &mut Feed) -> Vec<Down> {
        let mut messages = self.update(feed);
        messages.extend(self.answer(want, feed));
        messages.extend(self.away(feed));
        messages
    }

    /// Builds the messages that answer a sidecar by the state that it was led to: what is at the addresses that it wants, and that it is
    /// not told any more of others.
    pub(super) fn answer(&mut self, want: Want, feed: &Feed) -> Vec<Down> {
        let (Some(scope), Some(sent)) = (&mut self.scope, &mut self.sent) else { return Vec::new() };
        // Not a newer one: what is told of other addresses stays as it is.
        let network = sent.network.clone();
        let mut left = scope.addresses().clone();
        left.retain(|address| !want.unused.contains(address));
        left.extend(&want.addresses);
        let next = Scope::of(left).and_then(|scope| scope.with_backends(&network.snapshot));
        let Some(next) = next else {
            tracing::info!(workload = %feed.id, "the workload calls very many addresses: its sidecar is told the whole network");
            (self.scope, self.sent) = (None, None);
            return self.lead(feed, &network);
        };
        if next
            .routes(&network.snapshot)
            .any(|route| !scope.routes(&network.snapshot).any(|known| known == route))
        {
            // Routes come with a whole configuration.
            (self.scope, self.sent) = (Some(next), None);
            return self.lead(feed, &network);
        }
        let untold: BTreeSet<_> = scope.addresses().difference(next.addresses()).copied().collect();
        let told: BTreeSet<_> = next.addresses().difference(scope.addresses()).copied().collect();
        let mut messages = Vec::new();
        if !untold.is_empty() {
            let change = scope.narrow(&untold, &network);
            let change = follow_up([sent.sequence, network.sequence], change);
            messages.push(Down::Change(Change { untold, ..change }));
            sent.sequence = network.sequence;
        }
        if !told.is_empty() {
            let change = scope.widen(&told, &network);
            let change = follow_up([sent.sequence, network.sequence], change);
            messages.push(Down::Change(Change { told, ..change }));
            sent.sequence = network.sequence;
        }
        messages
    }

    /// The change of the sidecar's portion since the last configuration; `None` when that is to be told whole.
    fn portion_change(&self, id: &AttachmentId, newest: &HostNetwork) -> Option<NetworkChange> {
        let (scope, sent) = (self.scope.as_ref()?, self.sent.as_ref()?);
        let (before, now) = (own(id, &sent.network.snapshot), own(id, &newest.snapshot));
        // A workload that ends calls to the last.
        if now.0.is_none() || before == now { scope.change(&sent.network, newest) } else { None }
    }

    /// The changes since the last configuration; `None` when the whole state is due.
    fn steps(&self, feed: &Feed, newest: &HostNetwork) -> Option<Vec<Down>> {
        let sent = self.sent.as_ref().filter(|_| self.follows)?;
        let steps = newest.steps.since(sent.network.content)?;
        let own = workload(&newest.snapshot, &feed.id.workload)?;
        if steps.iter().any(|step| step.change.concerns(own)) {
            return None;
        }
        let (mut since, mut messages) = (sent.sequence, Vec::new());
        for (place, step) in steps.iter().enumerate() {
            let sequence = if place + 1 == steps.len() { newest.sequence } else { step.content };
            let (told, untold) = Default::default();
            let change = step.change.clone();
            messages.push(Down::Change(Change { sequence, since, change, told, untold }));
            since = sequence;
        }
        Some(messages)
    }
}

/// A sidecar's own workload and its service, whose rules it goes by.
fn own<'a>(id: &AttachmentId, network: &'a NetworkContent) -> (Option<&'a Workload>, Option<&'a Service>) {
    let own = workload(network, &id.workload);
    (own, own.and_then(|own| own.service.as_ref()).and_then(|name| service(network, name)))
}

/// The change of a portion that leads from the first of these sequences to the second.
fn follow_up([since, sequence]: [u64; 2], change: NetworkChange) -> Change {
    Change { sequence, since, change: change.into(), told: BTreeSet::new(), untold: BTreeSet::new() }
}

#[cfg(test)]
mod tests;
