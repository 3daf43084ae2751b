//! Docker's door: the sockets of its network and IPAM plugins. What a call means is decided in [`core`], pure; what Docker
//! was told is on disk ([`book`]) before it is answered; a container's inside is set up once its namespace is there
//! ([`attach`]), never while dockerd waits.

mod addresses;
mod attach;
mod book;
mod core;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod instance;
mod mend;
mod names;
mod news;
mod past;
mod plan;
mod server;
mod socket;
mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_base::task::{self, Task};
use sealane_fabric::overlay::{InterfaceOffer, Overlay};
use sealane_fabric::seat::number;
use sealane_proto::resource::Network;
use sealane_proto::types::{NetworkName, OverlayIp};
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

use self::core::Pool;
use crate::attachment::{Claim, Event, FailureKind, Progress, RequestFailure};
use crate::disk::{DiskError, Folder};
use crate::engine::{Container, Engine};
use crate::workload::Workloads;
use book::{Book, Endpoint};
use mend::Young;
pub(crate) use news::hear;
pub(crate) use server::serve;
pub(crate) use socket::key as socket_key;
pub use socket::retire;
use wire::{Call, CreateNetwork, OfEndpoint, RequestPool};

/// Limit for control's answer while dockerd waits: it has no limit of its own.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time for which a network that was named is meant by the request for its pool that follows.
const HINT: Duration = Duration::from_secs(5);

/// Returns Docker's name of the driver whose socket this is.
#[must_use]
pub(crate) fn driver(plugin: &Path) -> String {
    plugin.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The door's state.
#[derive(Debug)]
pub(crate) struct Docker {
    workloads: Arc<Workloads>,
    overlay: Arc<Overlay>,
    engine: Engine,
    book: Mutex<Book>,
    /// The network that Docker has just asked about.
    hint: Mutex<Option<(NetworkName, Instant)>>,
    /// The addresses that Docker has asked for last, for the same ends' addresses of IPv6.
    last: Mutex<BTreeMap<NetworkName, OverlayIp>>,
    /// Tasks beside answering, by the ids of the endpoints and networks that they are for.
    work: std::sync::Mutex<BTreeMap<String, Task>>,
    /// Containers as Docker describes them, by the ids of their ends.
    containers: watch::Sender<BTreeMap<String, Arc<Container>>>,
    /// Objects that Docker may not remember yet.
    young: Young,
}

impl Docker {
    /// The door over these workloads, as it was left.
    ///
    /// # Errors
    /// When its folder cannot be read.
    pub(crate) fn open(
        workloads: Arc<Workloads>,
        overlay: Arc<Overlay>,
        folder: Folder,
        engine: Engine,
    ) -> Result<Arc<Self>, DiskError> {
        let book = Mutex::new(Book::recall(folder)?);
        let (hint, work) = (Mutex::default(), std::sync::Mutex::default());
        let (containers, young, last) = (watch::Sender::default(), Young::default(), Mutex::default());
        Ok(Arc::new(Self { workloads, overlay, engine, book, hint, last, work, containers, young }))
    }

    async fn handle(self: &Arc<Self>, call: Call) -> Result<Value, RequestFailure> {
        match call {
            Call::Activate => Ok(json!({"Implements": ["NetworkDriver", "IpamDriver"]})),
            Call::NetworkCapabilities => {
                Ok(json!({"Scope": "local", "ConnectivityScope": "local", "GwAllocChecker": true}))
            }
            Call::IpamCapabilities => {
                Ok(json!({"RequiresMACAddress": false, "RequiresRequestReplay": false}))
            }
            Call::AddressSpaces => {
                Ok(json!({"LocalDefaultAddressSpace": core::SPACE, "GlobalDefaultAddressSpace": core::SPACE}))
            }
            Call::Ignored | Call::ReleasePool => Ok(json!({})),
            Call::EndpointInfo => Ok(json!({"Value": {}})),
            Call::GatewayCheck(request) => self.gateway_check(&request).await,
            Call::RequestPool(request) => self.request_pool(&request).await,
            Call::RequestAddress(request) => self.request_address(&request).await,
            Call::ReleaseAddress(request) => self.release_address(&request).await,
            Call::CreateNetwork(request) => self.create_network(&request).await,
            Call::DeleteNetwork(request) => self.delete_network(&request).await,
            Call::CreateEndpoint(request) => self.create_endpoint(&request).await,
            Call::DeleteEndpoint(request) => self.delete_endpoint(&request).await,
            Call::Join(request) => self.join(&request).await,
            Call::Leave(request) => self.leave(&request).await,
        }
    }

    async fn gateway_check(&self, request: &CreateNetwork) -> Result<Value, RequestFailure> {
        if let Some(network) = core::named(request)? {
            *self.hint.lock().await = Some((network, Instant::now()));
        }
        Ok(json!({"SkipIPv4": true, "SkipIPv6": true}))
    }

    async fn request_pool(&self, request: &RequestPool) -> Result<Value, RequestFailure> {
        if request.v6 {
            return core::ipv6::pool(request, rand::random());
        }
        let hint = self.hint.lock().await.take();
        let hint = hint.filter(|(_, since)| since.elapsed() < HINT).map(|(network, _)| network);
        let pool = core::pool(request, hint, &self.workloads.carried(), rand::random())?;
        let Pool::Of(network) = &pool else { return Ok(pool.answer(None)) };
        let network = self.carry(network).await?;
        core::check_subnet(request, &network)?;
        // With a subnet that nobody asked for, dockerd would look whether a route of the host's overlaps it, for ever.
        Ok(pool.answer(Some(&network).filter(|_| !request.pool.is_empty())))
    }

    async fn create_network(&self, request: &CreateNetwork) -> Result<Value, RequestFailure> {
        self.young.begin(&request.network_id);
        self.forget_removed(request).await?;
        let plan = core::network(request, &*self.book.lock().await)?;
        let network = self.carry(&plan.network).await?;
        let network = plan.check(&network)?;
        self.book.lock().await.put_network(&request.network_id, network).map_err(full)?;
        Ok(json!({}))
    }

    /// Forgets a network that is in the way of this one, if Docker has removed it without a word while the agent was away.
    async fn forget_removed(&self, request: &CreateNetwork) -> Result<(), RequestFailure> {
        let named = core::named(request)?;
        let known: Vec<String> = {
            let book = self.book.lock().await;
            let same = book.networks().filter(|(_, known)| Some(&known.network) == named.as_ref());
            same.map(|(id, _)| id.clone()).filter(|id| *id != request.network_id).collect()
        };
        for id in known {
            if matches!(self.engine.has_network(&id).await, Ok(false)) {
                self.forget_network(&id).await;
            }
        }
        Ok(())
    }

    async fn delete_network(&self, request: &OfEndpoint) -> Result<Value, RequestFailure> {
        self.book.lock().await.remove_network(&request.network_id).map_err(full)?;
        self.forget_past(|past| past.network_id == request.network_id).await;
        Ok(json!({}))
    }

    async fn create_endpoint(&self, request: &OfEndpoint) -> Result<Value, RequestFailure> {
        let plan = core::endpoint(request, &*self.book.lock().await)?;
        self.make_way(&request.endpoint_id, &plan).await?;
        if !plan.address6.is_empty() {
            core::ipv6::check(&self.carry(&plan.network).await?, plan.address, &plan.address6)?;
        }
        let kept = self.workloads.host().reserved(plan.network.clone(), plan.address).await;
        let mut kept = kept.ok_or_else(|| {
            let text = format!(
                "sealane: address {} of network {} was not given by Sealane",
                plan.address, plan.network
            );
            RequestFailure::new(FailureKind::Wrong, text)
        })?;
        if plan.mac.is_some_and(|mac| mac != kept.mac) {
            let claim = Claim {
                hold: kept.hold,
                network: plan.network,
                address: Some(plan.address),
                mac: plan.mac,
                from: None,
            };
            kept = self.reserve(claim).await?;
        }
        let endpoint = Endpoint {
            network_id: request.network_id.clone(),
            network: kept.network,
            address: kept.address,
            mac: kept.mac.to_string(),
            hold: kept.hold.to_string(),
            sandbox: None,
            boot: String::new(),
            owner: None,
        };
        self.young.begin(&request.endpoint_id);
        self.book.lock().await.put_endpoint(&request.endpoint_id, endpoint).map_err(full)?;
        // Docker refuses an answer to what it has asked for itself.
        let given = if plan.mac.is_some() { json!({}) } else { json!({"MacAddress": kept.mac.to_string()}) };
        Ok(json!({"Interface": given}))
    }

    async fn join(self: &Arc<Self>, request: &OfEndpoint) -> Result<Value, RequestFailure> {
        let (endpoint, internal) = {
            let mut book = self.book.lock().await;
            let internal = core::known(request, &book)?.internal;
            let mut endpoint = core::joined(request, &book)?.clone();
            endpoint.sandbox = Some(request.sandbox.clone());
            endpoint.boot = self.workloads.boot().to_owned();
            book.put_endpoint(&request.endpoint_id, endpoint.clone()).map_err(full)?;
            (endpoint, internal)
        };
        // What it had before is on its way out.
        self.ended(&request.endpoint_id).await;
        let network = self.carry(&endpoint.network).await?;
        let offer = self.offer(&request.endpoint_id, &endpoint, &network)?;
        self.overlay
            .offer(offer)
            .await
            .map_err(|error| RequestFailure::new(FailureKind::Broken, format!("sealane: {error}")))?;
        self.attach(&request.endpoint_id, endpoint);
        Ok(core::join_answer(&offer.source(), internal))
    }

    fn offer(
        &self,
        id: &str,
        endpoint: &Endpoint,
        network: &Network,
    ) -> Result<InterfaceOffer, RequestFailure> {
        let mac = endpoint.mac().ok_or_else(|| {
            RequestFailure::new(
                FailureKind::Broken,
                format!("sealane: the record of address {} is damaged", endpoint.address),
            )
        })?;
        let mtu =
            self.overlay.mtu_of(network).map_err(|error| RequestFailure::new(FailureKind::Broken, error))?;
        Ok(InterfaceOffer { number: number(id), mac, mtu })
    }

    async fn leave(self: &Arc<Self>, request: &OfEndpoint) -> Result<Value, RequestFailure> {
        let left = {
            let mut book = self.book.lock().await;
            let mut endpoint = core::joined(request, &book)?.clone();
            endpoint.sandbox = None;
            book.put_endpoint(&request.endpoint_id, endpoint.clone()).map_err(full)?;
            endpoint
        };
        self.end(&request.endpoint_id, left);
        Ok(json!({}))
    }

    async fn delete_endpoint(self: &Arc<Self>, request: &OfEndpoint) -> Result<Value, RequestFailure> {
        let removed = self.book.lock().await.remove_endpoint(&request.endpoint_id).map_err(full)?;
        if let Some(endpoint) = removed {
            self.remember(&endpoint).await;
            self.end(&request.endpoint_id, endpoint);
        }
        Ok(json!({}))
    }

    /// The network, once this host carries it.
    async fn carry(&self, network: &NetworkName) -> Result<Network, RequestFailure> {
        let carried = bounded(async |progress| self.workloads.carry(network, &progress).await).await;
        carried.map_err(|failure| match failure.kind {
            FailureKind::NotFound => {
                // Control names a network with a similar name.
                let said = failure.message.split("; ").next().unwrap_or_default();
                RequestFailure::new(FailureKind::NotFound, format!("sealane: {said}")).hint(format!(
                    "sealane network create {network} --subnet 10.42.0.0/16, on the control host"
                ))
            }
            FailureKind::Wrong
            | FailureKind::NameInUse
            | FailureKind::InUse
            | FailureKind::Refused
            | FailureKind::Removed
            | FailureKind::Forbidden
            | FailureKind::Namespace
            | FailureKind::Disk
            | FailureKind::Broken
            | FailureKind::Away
            | FailureKind::Ending => failure,
        })
    }

    /// Runs `work` for an endpoint or a network, in the place of what was done for it before.
    fn work(&self, id: &str, work: impl Future<Output = ()> + Send + 'static) {
        let mut all = self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.retain(|_, task| !task.is_finished());
        all.insert(id.to_owned(), task::spawn("docker-work", work));
    }
}

/// Waits for what control has to say, as long as dockerd may be made to wait.
async fn bounded<T>(
    work: impl AsyncFnOnce(Progress) -> Result<T, RequestFailure>,
) -> Result<T, RequestFailure> {
    let (progress, mut events) = Progress::channel(16);
    let mut waiting = String::from("the agent");
    let work = work(progress);
    tokio::pin!(work);
    let deadline = tokio::time::sleep(PATIENCE);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(Ok(Event::Waiting(what))) = events.recv() => waiting = what,
            () = &mut deadline => {
                let text = format!("sealane: waited {} s for {waiting}", PATIENCE.as_secs());
                return Err(RequestFailure::new(FailureKind::Broken, text).hint("`sealane status` on this host says what is wrong"));
            }
        }
    }
}

fn full(error: DiskError) -> RequestFailure {
    RequestFailure::new(FailureKind::Disk, format!("sealane: {error}"))
}
