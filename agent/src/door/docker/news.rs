//! News of Docker's containers: names and health follow, and what it has forgotten is taken back.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::book::Endpoint;
use super::{Docker, names, plan};
use crate::attachment::ContainerCondition;
use crate::engine::{Container, News};
use crate::workload::Workloads;

/// The keys of complaints about containers that do not start begin so.
pub(super) const NOT_STARTED: &str = "docker-start/";

/// Hears what is new with Docker until nobody tells any more. Without a `door`, it concerns attached containers alone.
pub(crate) async fn hear(
    workloads: Arc<Workloads>,
    door: Option<Arc<Docker>>,
    mut news: mpsc::Receiver<News>,
) {
    const SILENT: &str = "docker-api";
    while let Some(news) = news.recv().await {
        let conditions = workloads.conditions();
        match &news {
            News::Container(container) => conditions.set(&container.id, container.condition),
            News::Condition(id, condition) => conditions.set(id, *condition),
            News::Removed(id) => conditions.forget(id),
            News::Whole(containers, _) => conditions.retain(|id| containers.contains_key(id)),
            // Attached containers may be another runtime's.
            News::Away(why) if door.is_some() => workloads.complain(
                SILENT,
                Some(format!(
                    "dockerd does not answer ({why}): names, health and ends of its containers are as they were; start it \
                     (systemctl start docker), or name its socket with --docker-api"
                )),
            ),
            News::Here => workloads.complain(SILENT, None),
            News::Away(_) | News::NetworkRemoved(_) => {}
        }
        if let Some(door) = &door {
            door.hear(news).await;
        }
    }
}

impl Docker {
    async fn hear(self: &Arc<Self>, news: News) {
        match news {
            News::Container(container) => self.follow(&Arc::new(*container)).await,
            News::Condition(id, condition) => self.declare(&id, condition).await,
            News::Removed(id) => self.unlearn(&id).await,
            News::NetworkRemoved(id) => self.forget_network(&id).await,
            News::Whole(containers, networks) => self.compare(&containers, &networks).await,
            News::Away(_) | News::Here => {}
        }
    }

    /// Returns Docker's description of the container whose end this is.
    pub(super) fn known(&self, endpoint: &str) -> Option<Arc<Container>> {
        self.containers.borrow().get(endpoint).cloned()
    }

    /// Remembers a container by its ends.
    pub(super) fn learn(&self, container: &Arc<Container>) {
        self.containers.send_modify(|known| {
            known.retain(|_, other| other.id != container.id);
            let ends = container.ends.iter().filter(|end| !end.endpoint.is_empty());
            known.extend(ends.map(|end| (end.endpoint.clone(), container.clone())));
        });
        self.forget_strangers();
    }

    async fn unlearn(&self, id: &str) {
        self.containers.send_modify(|known| known.retain(|_, container| container.id != id));
        self.forget_strangers();
        self.workloads.complain(&format!("{NOT_STARTED}{id}"), None);
        self.forget_past(|past| past.container == id).await;
    }

    /// A container is so now.
    async fn follow(&self, container: &Arc<Container>) {
        let concerns = {
            let book = self.book.lock().await;
            container.ends.iter().any(|end| book.network(&end.network).is_some())
        };
        self.learn(container);
        if !concerns {
            return;
        }
        self.declare(&container.id, container.condition).await;
        let failed = container.stopped.as_ref().map(|why| {
            format!("container {} should run and does not: {why}; docker start {0}", container.name)
        });
        self.workloads.complain(&format!("{NOT_STARTED}{}", container.id), failed);
        for end in &container.ends {
            self.name_anew(&end.endpoint, container).await;
        }
    }

    /// Says how the workloads of a container are.
    async fn declare(&self, container: &str, condition: ContainerCondition) {
        let book = self.book.lock().await;
        let of_it =
            |endpoint: &Endpoint| endpoint.owner.as_ref().is_some_and(|owner| owner.container == container);
        for (_, endpoint) in book.endpoints().filter(|(_, endpoint)| of_it(endpoint)) {
            self.workloads.conditions().set(&endpoint.hold, condition);
        }
    }

    /// Lets a workload follow the names of its container, and status what is wrong with its labels.
    pub(super) async fn name_anew(&self, endpoint: &str, container: &Container) {
        let known = self.book.lock().await.endpoint(endpoint).cloned();
        let Some(known) = known else { return };
        let (Some(hold), Some(owner)) = (known.hold(), &known.owner) else { return };
        let Some(end) = container.end(endpoint) else { return };
        let wrong = plan::complaint(&known, container, self.workloads.ports());
        self.workloads.complain(&wrong_labels(&known), wrong);
        let aliases = names::names(container, end, &owner.name);
        if let Err(failure) = self.workloads.name_anew(&hold, aliases).await {
            tracing::error!(%failure, container = container.name, "cannot write a container's names down");
        }
    }
}

/// Makes the key of a complaint about the labels of an end's container.
pub(super) fn wrong_labels(endpoint: &Endpoint) -> String {
    format!("labels/{}", endpoint.hold)
}
