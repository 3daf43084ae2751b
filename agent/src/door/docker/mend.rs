//! Comparison of Docker's objects with those that are written down here, whenever all of Docker is seen: an object that Docker
//! has forgotten is taken back, one that was forgotten here is written down again or named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use super::book::{Book, Endpoint};
use super::news::NOT_STARTED;
use super::wire::{CreateNetwork, IpamData};
use super::{Docker, core};
use crate::attachment::Reservation;
use crate::engine::{Container, Network, Pool};

/// Time for which Docker may not know yet what it has just asked for: it asks before it remembers.
const YOUNG: Duration = Duration::from_secs(120);
/// Time for which an address may be without the end that it was asked for, which Docker makes at once.
const UNUSED: Duration = Duration::from_secs(20);

/// The keys of complaints about containers whose ends were forgotten here begin so.
const STRANGER: &str = "docker-end/";
/// The keys of complaints about networks that cannot be known again begin so.
const LOST: &str = "docker-network/";

/// Objects that were asked for since the agent started, and the time of each request.
#[derive(Debug, Default)]
pub(super) struct Young(std::sync::Mutex<BTreeMap<String, Instant>>);

impl Young {
    /// Something begins.
    pub(super) fn begin(&self, id: &str) {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.retain(|_, since| since.elapsed() < YOUNG);
        known.insert(id.to_owned(), Instant::now());
    }

    /// Returns those that may not be known to Docker yet.
    pub(super) fn ids(&self) -> BTreeSet<String> {
        let known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.iter().filter(|(_, since)| since.elapsed() < YOUNG).map(|(id, _)| id.clone()).collect()
    }
}

/// Differences that are to be mended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mending {
    /// Networks that Docker does not have any more.
    pub(super) networks: Vec<String>,
    /// Ends that no container has any more.
    pub(super) endpoints: Vec<String>,
    /// Networks of this driver that are not written down.
    pub(super) unknown: Vec<Network>,
}

/// Compares. `ends` are those of all running containers; the `young` are not missed.
pub(super) fn compare(
    book: &Book,
    networks: &[Network],
    ends: &BTreeSet<String>,
    young: &BTreeSet<String>,
) -> Mending {
    let has = |id: &str| networks.iter().any(|network| network.id == id);
    let gone = book.networks().map(|(id, _)| id).filter(|id| !has(id) && !young.contains(*id));
    let left = book.endpoints().map(|(id, _)| id).filter(|id| !ends.contains(*id) && !young.contains(*id));
    let lost = |network: &&Network| book.network(&network.id).is_none() && !young.contains(&network.id);
    let unknown = networks.iter().filter(|network| network.own).filter(lost);
    Mending {
        networks: gone.cloned().collect(),
        endpoints: left.cloned().collect(),
        unknown: unknown.cloned().collect(),
    }
}

/// The call by which Docker has made a network, as far as it tells.
pub(super) fn call_of(network: &Network) -> CreateNetwork {
    let options: Map<String, Value> =
        network.options.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let options = json!({core::GENERIC: options, core::INTERNAL: network.internal});
    let data = |pool: &Pool| IpamData {
        address_space: core::SPACE.to_owned(),
        pool: pool.subnet.clone(),
        gateway: pool.gateway.clone(),
    };
    CreateNetwork {
        network_id: network.id.clone(),
        options: options.as_object().cloned(),
        ipv4: Some(vec![data(&network.pool)]),
        ipv6: network.pool6.as_ref().map(|pool| vec![data(pool)]),
    }
}

/// The addresses that are reserved for ends which there are not; a certain one that was asked for before there was a network is
/// Docker's to give back.
fn forsaken(idle: &[Reservation], book: &Book, now: SystemTime) -> Vec<Reservation> {
    let past = book.past().filter_map(|past| past.hold.as_deref());
    let used: BTreeSet<&str> = book.endpoints().map(|(_, known)| known.hold.as_str()).chain(past).collect();
    let is_old = |kept: &Reservation| now.duration_since(kept.since).is_ok_and(|age| age >= UNUSED);
    let forsaken = idle.iter().filter(|kept| {
        core::is_of_endpoint(&kept.hold) && !used.contains(kept.hold.as_str()) && is_old(kept)
    });
    forsaken.cloned().collect()
}

/// Names the containers whose ends of Sealane's networks were forgotten here, a sentence for each end that is not `young`.
fn strangers(
    book: &Book,
    networks: &[Network],
    containers: &BTreeMap<String, Arc<Container>>,
    young: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let is_known = |id: &String| book.endpoint(id).is_some() || young.contains(id);
    let ends = containers.iter().filter(|(id, _)| !is_known(id));
    let sentence = |(id, container): (&String, &Arc<Container>)| {
        let network = &container.end(id)?.network;
        let network = networks.iter().find(|known| known.id == *network)?;
        let is_ours = network.own || book.network(&network.id).is_some();
        let sentence = format!(
            "container {} runs in Docker's network {} without Sealane, which has forgotten it; docker restart {0}",
            container.name, network.name
        );
        is_ours.then(|| (format!("{STRANGER}{id}"), sentence))
    };
    ends.filter_map(sentence).collect()
}

impl Docker {
    /// Mends what differs between Docker, which has these containers and networks, and what is written down.
    pub(super) async fn compare(self: &Arc<Self>, containers: &BTreeMap<String, bool>, networks: &[Network]) {
        self.containers
            .send_modify(|known| known.retain(|_, container| containers.contains_key(&container.id)));
        self.workloads.keep_complaints(NOT_STARTED, |id| containers.contains_key(id));
        self.workloads.keep_complaints(LOST, |id| networks.iter().any(|network| network.id == id));
        let runs = |id: &str| containers.get(id).copied().unwrap_or_default();
        let ends: BTreeSet<String> = {
            let known = self.containers.borrow();
            known.iter().filter(|(_, container)| runs(&container.id)).map(|(end, _)| end.clone()).collect()
        };
        let young = self.young.ids();
        let mending = compare(&*self.book.lock().await, networks, &ends, &young);
        // Control, or other hosts, may have to be waited for, and there is more to hear of meanwhile.
        for network in mending.unknown {
            let (this, id) = (self.clone(), network.id.clone());
            self.work(&id, async move { this.restore(&network).await });
        }
        for id in mending.endpoints {
            let Some(endpoint) = self.book.lock().await.endpoint(&id).cloned() else { continue };
            tracing::info!(address = %endpoint.address, "no container of Docker's has this end any more");
            let (this, own) = (self.clone(), id.clone());
            self.work(&id, async move { this.take_back(&own, &endpoint).await });
        }
        for id in &mending.networks {
            self.forget_network(id).await;
        }
        self.forget_past(|past| !containers.contains_key(&past.container)).await;
        let book = self.book.lock().await;
        let strangers = strangers(&book, networks, &self.containers.borrow(), &young);
        self.workloads.complain_all(STRANGER, strangers);
    }

    /// Complains of no container's end any more that there is not.
    pub(super) fn forget_strangers(&self) {
        let known = self.containers.borrow();
        self.workloads.keep_complaints(STRANGER, |end| known.contains_key(end));
    }

    /// Gives addresses back that Docker has asked for and made no end of.
    pub(super) async fn sweep(&self) {
        let idle = self.workloads.host().views.reservations.borrow().clone();
        if idle.is_empty() {
            return;
        }
        let forsaken = forsaken(&idle, &*self.book.lock().await, SystemTime::now());
        for kept in forsaken {
            tracing::info!(address = %kept.address, network = %kept.network, "Docker has asked for an address and not used it");
            self.give_back(&kept.hold).await;
        }
    }

    /// Writes a network of Docker's down that was forgotten here.
    async fn restore(&self, network: &Network) {
        let restored = self.create_network(&call_of(network)).await;
        let about = format!("{LOST}{}", network.id);
        match restored {
            Ok(_) => {
                tracing::info!(network = network.name, "a network of Docker's is known again");
                self.workloads.complain(&about, None);
            }
            Err(failure) => self.workloads.complain(
                &about,
                Some(format!(
                    "Docker's network {} is not known here, so that no container starts in it: {failure}; remove it \
                     (docker network rm {0}) and make it again",
                    network.name
                )),
            ),
        }
    }

    /// Docker does not have this network any more.
    pub(super) async fn forget_network(&self, id: &str) {
        self.workloads.complain(&format!("{LOST}{id}"), None);
        self.forget_past(|past| past.network_id == id).await;
        let mut book = self.book.lock().await;
        if book.network(id).is_none() {
            return;
        }
        tracing::info!(network = id, "Docker has removed a network without a word");
        if let Err(error) = book.remove_network(id) {
            tracing::error!(%error, "cannot forget a network of Docker's");
        }
    }

    /// Ends what there is of an end that Docker does not have any more, and gives its address back.
    pub(super) async fn take_back(self: &Arc<Self>, id: &str, endpoint: &Endpoint) {
        let Some(hold) = endpoint.hold() else { return };
        self.dismantle(id, &hold).await;
        self.remember(endpoint).await;
        if !self.keeps(&hold).await {
            self.give_back(&hold).await;
        }
        self.forget(endpoint);
        if let Err(error) = self.book.lock().await.remove_endpoint(id) {
            tracing::error!(%error, "cannot forget an endpoint of Docker's");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::testing;
    use super::*;
    use crate::engine::ContainerEnd;

    #[test]
    fn what_docker_has_not_is_taken_back_and_what_it_has_is_known_again_but_for_what_is_young() {
        let (_dir, mut book) = testing::book();
        for id in ["kept", "gone", "new"] {
            book.put_network(id, testing::network()).unwrap();
        }
        for id in ["used", "left", "starting"] {
            book.put_endpoint(id, testing::endpoint("docker/4f1c")).unwrap();
        }
        let network = |id: &str| Network { id: id.to_owned(), own: true, ..Network::default() };
        let other = Network { own: false, ..network("other") };
        let ids = |of: &[&str]| of.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let mending = compare(
            &book,
            &[network("kept"), network("lost"), other],
            &ids(&["used"]),
            &ids(&["new", "starting"]),
        );
        let expected = Mending {
            networks: vec!["gone".to_owned()],
            endpoints: vec!["left".to_owned()],
            unknown: vec![network("lost")],
        };
        assert_eq!(mending, expected);
    }

    #[test]
    fn a_container_whose_end_of_our_network_was_forgotten_is_named_and_no_other_one() {
        let (_dir, mut book) = testing::book();
        book.put_endpoint("known", testing::endpoint("docker/4f1c")).unwrap();
        book.put_network("swarm", testing::network()).unwrap();
        let network = |id: &str, own: bool| Network {
            id: id.to_owned(),
            name: id.to_owned(),
            own,
            ..Network::default()
        };
        let container = |name: &str, network: &str| {
            let end = ContainerEnd {
                network: network.to_owned(),
                endpoint: name.to_owned(),
                ..ContainerEnd::default()
            };
            let container = Container { name: name.to_owned(), ends: vec![end], ..Container::default() };
            (name.to_owned(), Arc::new(container))
        };
        let containers = [
            container("lost", "shop"),
            container("known", "shop"),
            container("young", "shop"),
            container("task", "swarm"),
            container("stranger", "bridge"),
        ];
        let networks = [network("shop", true), network("swarm", false), network("bridge", false)];
        let named = strangers(&book, &networks, &containers.into(), &["young".to_owned()].into());
        assert_eq!(named.keys().collect::<Vec<_>>(), ["docker-end/lost", "docker-end/task"]);
        let expected = "container lost runs in Docker's network shop without Sealane, which has forgotten it; docker restart lost";
        assert_eq!(named["docker-end/lost"], expected);
    }

    #[test]
    fn a_network_of_docker_s_tells_the_call_that_made_it() {
        let network = Network {
            id: "n".to_owned(),
            options: [("sealane.network".to_owned(), "shop".to_owned())].into(),
            pool: Pool { subnet: "0.0.0.0/0".to_owned(), gateway: "0.0.0.7".to_owned() },
            ..Network::default()
        };
        assert_eq!(core::named(&call_of(&network)).unwrap().unwrap().as_str(), "shop");
    }

    #[test]
    fn an_address_that_no_end_has_is_given_back_when_it_is_old() {
        let (_dir, book) = testing::book();
        let now = SystemTime::now();
        let kept = |hold: &str, age: u64| Reservation {
            hold: hold.parse().unwrap(),
            network: "shop".parse().unwrap(),
            address: "10.42.0.9".parse().unwrap(),
            mac: "02:00:0a:2a:00:09".parse().unwrap(),
            since: now - Duration::from_secs(age),
        };
        let idle =
            [kept("docker/1", 10), kept("docker/2", 600), kept("cni/3", 600), kept("docker/aux/4", 600)];
        let forsaken = forsaken(&idle, &book, now);
        assert_eq!(forsaken.iter().map(|kept| kept.hold.as_str()).collect::<Vec<_>>(), ["docker/2"]);
    }
}
