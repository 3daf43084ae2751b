//! A container's inside: set up when its namespace has its interface, taken back when the container leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_base::task;
use sealane_proto::types::{NetworkName, WorkloadName};
use sealane_sys::NetNs;

use super::Docker;
use super::book::Endpoint;
use super::engine::Container;
use super::labels;
use crate::attachment::{
    AttachSpec, Failure, Hold, Kind, Netns, NetworkSeat, Progress, Target, Wanted, label,
};
use crate::seat::DeviceName;

/// How often it is looked at whether Docker has moved the interface, at first.
const LOOK: Duration = Duration::from_millis(10);
/// And when it takes long.
const SELDOM: Duration = Duration::from_millis(500);
/// How long a container that starts is asked about.
const STARTING: Duration = Duration::from_secs(5);
/// How long the namespace of a container that joined may be away until it counts as gone.
const LEFT: Duration = Duration::from_secs(10);
/// When what failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

impl Docker {
    /// Attaches a container's end as soon as its namespace is there, in a task of its own.
    pub(super) fn attach(self: &Arc<Self>, id: &str, endpoint: Endpoint) {
        let (this, own) = (Arc::downgrade(self), id.to_owned());
        self.work(id, async move {
            loop {
                let Some(docker) = this.upgrade() else { return };
                let Err(failure) = docker.attached(&own, &endpoint).await else { break };
                docker.workloads.complain(&endpoint.hold, Some(format!(
                    "the container at address {} of network {} is not attached, tried again all the time: {failure}",
                    endpoint.address, endpoint.network
                )));
                drop(docker);
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    async fn attached(&self, id: &str, endpoint: &Endpoint) -> Result<(), Failure> {
        let (Some(hold), Some(sandbox)) = (endpoint.hold(), &endpoint.sandbox) else { return Ok(()) };
        if self.workloads.holds(&hold) {
            self.workloads.complain(&endpoint.hold, None);
            return Ok(());
        }
        let interface = self.moved(&hold, sandbox).await?;
        let container = self.named(id, endpoint).await;
        let (wanted, complaint) = wanted(endpoint, &hold, interface, container.as_ref());
        let (spec, complaint) = match AttachSpec::new(wanted.clone(), self.workloads.context().ports) {
            Ok(spec) => (spec, complaint),
            Err(error) => {
                let plain = Wanted { service: None, ports: Vec::new(), ..wanted };
                let spec = AttachSpec::new(plain, self.workloads.context().ports);
                (spec.map_err(|error| Failure::new(Kind::Wrong, error))?, Some(error.to_string()))
            }
        };
        let target = Target {
            netns: Netns::Path(sandbox.into()),
            inode: None,
            container: None,
            hold: Some(hold),
            pid: container.as_ref().map(|container| container.pid).filter(|pid| *pid != 0),
        };
        let (progress, mut events) = Progress::channel(16);
        self.workloads.attach(spec, target, progress)?;
        while let Some(event) = events.recv().await {
            event?;
        }
        let name = container.map(|container| container.name).unwrap_or_default();
        self.workloads.complain(
            &endpoint.hold,
            complaint.map(|why| {
                format!(
                    "container {name} is in network {} without the service that its labels name: {why}",
                    endpoint.network
                )
            }),
        );
        Ok(())
    }

    /// Waits until Docker has moved the interface into the container's namespace and set it up; answers its name there.
    async fn moved(&self, hold: &Hold, sandbox: &str) -> Result<DeviceName, Failure> {
        let mut look = LOOK;
        loop {
            if let Ok(netns) = NetNs::open(sandbox) {
                let taken = self.overlay.taken(hold.hash(), &netns).await;
                let taken = taken.map_err(|error| Failure::new(Kind::Broken, error))?;
                if let Some(name) = taken {
                    return Ok(name);
                }
            }
            tokio::time::sleep(look).await;
            look = (look * 2).min(SELDOM);
        }
    }

    /// What Docker says of the container; as long as that starts, its labels cannot be read.
    async fn named(&self, id: &str, endpoint: &Endpoint) -> Option<Container> {
        let mut known = None;
        let asked = async {
            loop {
                match self.engine.container(&endpoint.network_id, id).await {
                    Ok(Some(container)) => {
                        let runs = container.pid != 0;
                        known = Some(container);
                        if runs {
                            return;
                        }
                    }
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "Docker does not say whose an endpoint is"),
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        // Without its name it is attached all the same.
        let _ = tokio::time::timeout(STARTING, asked).await;
        known
    }

    /// Takes a container's end back, in a task of its own: other hosts are waited for, which dockerd need not.
    pub(super) fn end(self: &Arc<Self>, id: &str, endpoint: Endpoint) {
        let this = self.clone();
        let Some(hold) = endpoint.hold() else { return };
        self.work(id, async move {
            this.workloads.complain(&endpoint.hold, None);
            // It is gone from names and balancing at once, and altogether when every host has heard of it.
            while !this.workloads.dismiss(&hold).await {}
            if let Err(error) = this.overlay.withdraw(hold.hash()).await {
                tracing::warn!(%error, holder = %hold, "cannot remove a container's interface");
            }
        });
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
            if endpoint.sandbox.as_ref().is_some_and(|sandbox| NetNs::open(sandbox).is_ok()) {
                return self.attach(id, endpoint);
            }
            tokio::time::sleep(SELDOM).await;
        }
        let Some(hold) = endpoint.hold() else { return };
        tracing::info!(address = %endpoint.address, "a container has left its network while the agent was away");
        while !self.workloads.dismiss(&hold).await {}
        if let Err(error) = self.overlay.withdraw(hold.hash()).await {
            tracing::warn!(%error, holder = %hold, "cannot remove a container's interface");
        }
        if let Err(failure) = self.workloads.release(&hold).await {
            tracing::error!(%failure, holder = %hold, "cannot give an address back");
        }
        if let Err(error) = self.book.lock().await.remove_endpoint(id) {
            tracing::error!(%error, "cannot forget an endpoint of Docker's");
        }
    }

    /// Goes on with what an earlier agent has left: ends that joined are attached, what belongs to nobody is removed.
    pub(super) async fn take_up(self: &Arc<Self>) {
        let endpoints: Vec<(String, Endpoint)> =
            self.book.lock().await.endpoints().map(|(id, known)| (id.clone(), known.clone())).collect();
        let holds: Vec<Hold> = endpoints.iter().filter_map(|(_, known)| known.hold()).collect();
        for (id, endpoint) in endpoints {
            let (this, own) = (self.clone(), id.clone());
            self.work(&id, async move { this.resume(&own, endpoint).await });
        }
        // Deleted, and the agent ended before that was done.
        for held in self.workloads.held() {
            if held.hold.has_resolver() && !holds.contains(&held.hold) {
                let (workloads, hold) = (self.workloads.clone(), held.hold);
                // It ends by itself.
                task::spawn("docker-left", async move { while !workloads.dismiss(&hold).await {} }).detach();
            }
        }
        let known: Vec<u64> = holds.iter().map(|hold| hold.hash() & 0xffff_ffff_ffff).collect();
        for number in self.overlay.offers().await.unwrap_or_default() {
            if !known.contains(&number)
                && let Err(error) = self.overlay.withdraw(number).await
            {
                tracing::warn!(%error, "cannot remove an interface that no container has");
            }
        }
    }
}

/// What a container's labels and name ask for, and what of them is wrong.
fn wanted(
    endpoint: &Endpoint,
    hold: &Hold,
    interface: DeviceName,
    container: Option<&Container>,
) -> (Wanted, Option<String>) {
    let network: NetworkName = endpoint.network.clone();
    let aliases = container.map(|container| container.aliases.clone()).unwrap_or_default();
    let seat = NetworkSeat {
        network,
        aliases,
        address: None,
        mac: None,
        interface: Some(interface),
        reserved: Some(hold.clone()),
    };
    let name = container.map_or("container", |container| container.name.as_str());
    let preferred: Option<WorkloadName> = label(name).parse().ok();
    let plain = Wanted {
        seats: vec![seat],
        name: None,
        preferred,
        stem: name.to_owned(),
        service: None,
        ports: Vec::new(),
        sidecar: true,
        weight: Default::default(),
    };
    match container.map(|container| labels::read(&container.labels, "label")) {
        Some(Ok(asked)) => (asked.ask(plain), None),
        Some(Err(error)) => (plain, Some(error)),
        None => (plain, None),
    }
}
