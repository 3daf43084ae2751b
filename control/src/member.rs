//! A control plane of several that share a store in etcd: a standby until it is elected, and again when its term is over.
//!
//! A term is a row with a lease. Every commit of the term has the condition that the row is still the one that was made for it, so
//! that a leader that froze or was cut off writes nothing once another one has been elected.

mod bereft;
mod following;
mod presence;
mod shown;
mod standby;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sealane_base::metrics::Family;
use sealane_base::ready::Readiness;
use sealane_base::task::{self, Task};
use sealane_proto::resource::ControlAddr;
use sealane_proto::types::TrustDomain;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::api::Standing;
use crate::ca::{Authority, SealKey};
use crate::fellows::Fellows;
use crate::kv::{Candidate, EtcdPlace, Failure, Roll, Term};
use crate::roster::Roster;
use crate::serve::Leader;
use crate::start::{self, Cause, Ground, StartError};
use crate::store::{Anchor, Image, LEADER, LastKnown, SharedError, Store, open_shared};
use crate::{Config, Control, store};
use following::{Following, Heir};
use presence::Presence;
use shown::Shown;
use standby::{Known, Standby};

/// Pause after a term that could not begin.
const AGAIN: Duration = Duration::from_secs(1);

/// Addresses and folders of one of several control planes, and their common store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberConfig {
    /// Settings that every control plane has.
    pub control: Config,
    /// The store.
    pub place: EtcdPlace,
    /// File by which the authority's key is encrypted.
    pub key_file: PathBuf,
    /// Address at which hosts and other control planes reach this one.
    pub advertise: ControlAddr,
    /// Time without a renewal after which a term is over.
    pub term: Duration,
}

/// A running control plane of several. Dropping it ends it at once; [`Member::shutdown`] in order.
#[derive(Debug)]
pub struct Member {
    readiness: Readiness,
    local_addr: std::net::SocketAddr,
    shown: Arc<Shown>,
    stopping: watch::Sender<bool>,
    running: Task,
    presence: Task,
    _asking: Task,
    /// None restores a store here meanwhile.
    _lock: File,
}

/// Value of the row of whoever leads.
#[derive(Clone, PartialEq, Message)]
struct LeaderRow {
    #[prost(string, tag = "1")]
    address: String,
    /// Random: another one for each process.
    #[prost(uint64, tag = "2")]
    instance: u64,
    #[prost(string, tag = "3")]
    version: String,
}

impl Member {
    /// Starts a control plane; it serves, as a standby, when this returns.
    ///
    /// # Errors
    /// When the store, a socket or a directory is not to be had.
    pub async fn start(config: MemberConfig) -> Result<Self, StartError> {
        Ok(Box::pin(begin(config)).await?)
    }

    /// Returns the readiness of all parts.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Returns the address that hosts connect to, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> std::net::SocketAddr {
        self.local_addr
    }

    /// Returns a function that gathers the metrics, anew each time.
    pub fn gather(&self) -> impl Fn() -> Vec<Family> + Send + Sync + use<> {
        let shown = self.shown.clone();
        move || shown.gather()
    }

    /// Returns a function that lists the targets for Prometheus, as JSON, anew each time; the reason where it is a standby,
    /// which knows of none.
    pub fn scrape_targets(&self) -> impl Fn() -> Result<String, String> + Send + Sync + use<> {
        let shown = self.shown.clone();
        move || shown.targets()
    }

    /// Ends in order; a leader gives its term up, so that another one follows at once.
    pub async fn shutdown(self) {
        self.stopping.send_replace(true);
        for task in [self.running, self.presence] {
            if let Err(error) = task.await {
                tracing::error!(%error, "the control plane did not end in order");
            }
        }
    }
}

async fn begin(config: MemberConfig) -> Result<Member, Cause> {
    start::ensure_directories(&config.control)?;
    let lock = store::lock(&config.control.data_dir)?;
    let candidate = Candidate::new(&config.place, LEADER, config.term)
        .map_err(|error| SharedError::Etcd(error.into()))?;
    let (listener, local_addr) = start::listen(config.control.listen).await?;
    let listener = listener.into_std().map_err(|source| Cause::Listen { address: local_addr, source })?;
    let anchor = Arc::new(Anchor::open(&config.control.data_dir)?);
    let (_, image) = open(&config, &anchor).await?;
    let roster = Arc::new(watch::Sender::new(Roster::default()));
    let (readiness, shown) = (Readiness::default(), Arc::new(Shown::new(roster.subscribe())));
    let stopping = watch::Sender::new(false);
    let roll = Roll::new(&config.place, presence::LIFE).map_err(|error| SharedError::Etcd(error.into()))?;
    let presence = Presence::new(roll.clone(), config.advertise.to_string(), roster.clone());
    let presence = presence.keep(stopping.subscribe());
    let known = Known::new(&config.control, image)?;
    let here = (config.advertise.clone(), roster.subscribe());
    let (fellows, asking) = Fellows::start(here, (roll, candidate.clone()), known.authority.clone());
    let course = Course {
        stopping: stopping.subscribe(),
        readiness: readiness.clone(),
        shown: shown.clone(),
        leader: Leader::default(),
        roster,
        fellows,
        known,
        anchor,
        last: LastKnown::default(),
        listener,
        local_addr,
        candidate,
        config,
    };
    let standby = course.stand_by().await?;
    let running = task::spawn("member", course.run(standby));
    Ok(Member { readiness, local_addr, shown, stopping, running, presence, _asking: asking, _lock: lock })
}

/// Opens the store, or makes it unless this control plane has known one.
async fn open(config: &MemberConfig, anchor: &Arc<Anchor>) -> Result<(Store, Image), Cause> {
    let key = SealKey::read(&config.key_file).map_err(SharedError::Seal)?;
    let (place, domain, runtime) =
        (config.place.clone(), config.control.trust_domain.clone(), Handle::current());
    let fallback: TrustDomain = start::TRUST_DOMAIN.parse()?;
    let anchor = anchor.clone();
    let opening = move || open_shared(place, key, (domain, fallback), start::clock(), runtime, &anchor);
    let opened = task::blocking(opening).await;
    Ok(opened.map_err(Cause::Thread)??)
}

/// The life of a control plane, from election to election.
struct Course {
    config: MemberConfig,
    candidate: Candidate,
    listener: std::net::TcpListener,
    local_addr: std::net::SocketAddr,
    readiness: Readiness,
    shown: Arc<Shown>,
    /// Address of whoever leads.
    leader: Leader,
    /// All control planes.
    roster: Arc<watch::Sender<Roster>>,
    /// The others.
    fellows: Fellows,
    /// The mesh as this one last knew it.
    known: Known,
    /// The mesh that this one is of.
    anchor: Arc<Anchor>,
    /// The whole mesh as this one last knew it, while it does not follow the store.
    last: LastKnown,
    stopping: watch::Receiver<bool>,
}

impl Course {
    async fn run(mut self, mut standby: (Standby, Following)) {
        loop {
            let elected = self.elected().await;
            let (serving, following) = standby;
            drop(following);
            if let Some(term) = &elected {
                let own = self.config.advertise.clone();
                self.roster.send_modify(|roster| roster.leads(own, term.number()));
            }
            serving.end().await;
            let Some(term) = elected else { return };
            let stopped = self.lead(term).await;
            self.roster.send_modify(Roster::leads_no_more);
            if stopped {
                return;
            }
            standby = loop {
                match self.stand_by().await {
                    Ok(standby) => break standby,
                    Err(error) => tracing::error!(%error, "this control plane cannot stand by yet"),
                }
                tokio::time::sleep(AGAIN).await;
            };
        }
    }

    /// Serves as a standby.
    async fn stand_by(&self) -> Result<(Standby, Following), Cause> {
        let (listener, run_dir) = (self.listener()?, &self.config.control.run_dir);
        let standby = Standby::start(
            &self.known,
            (self.leader.clone(), self.fellows.clone(), self.last.clone()),
            listener,
            run_dir,
            &self.readiness,
        )
        .await?;
        self.shown.stands_by(standby.metrics());
        let heir = Heir {
            registry: self.known.registry.clone(),
            roster: self.roster.clone(),
            anchor: self.anchor.clone(),
            last: self.last.clone(),
        };
        let following = Following::start(self.config.clone(), heir);
        Ok((standby, following))
    }

    /// Waits for a term; `None` when this is to end before.
    async fn elected(&mut self) -> Option<Term> {
        let row = LeaderRow {
            address: self.config.advertise.to_string(),
            instance: rand::random(),
            version: crate::VERSION.to_owned(),
        };
        let (leader, shown, own) = ((&self.leader, &*self.roster), &self.shown, &self.config.advertise);
        let told = |found: Result<(Vec<u8>, u64), Failure>| note(leader, shown, own, found);
        let value = row.encode_to_vec();
        let mut roster = self.roster.subscribe();
        // Who has lost its mesh has nothing to lead.
        let stands = async {
            let mut told = told;
            loop {
                // The sender is this one's: it does not go away.
                let _ = roster.wait_for(|roster| roster.mesh_lost.is_none()).await;
                tokio::select! {
                    term = self.candidate.elected(&value, &mut told) => return term,
                    _ = roster.wait_for(|roster| roster.mesh_lost.is_some()) => {}
                }
            }
        };
        let elected = tokio::select! {
            term = stands => Some(term),
            _ = self.stopping.wait_for(|stopping| *stopping) => None,
        };
        self.leader.store(None);
        elected
    }

    /// Leads until the term is over, or this is to end: then true.
    async fn lead(&mut self, term: Term) -> bool {
        let control = match Box::pin(self.take_over(&term)).await {
            Ok(control) => control,
            Err(error) => {
                tracing::error!(%error, "this control plane is elected and cannot lead");
                following::note_loss(&self.roster, &error);
                term.resign().await;
                tokio::time::sleep(AGAIN).await;
                return *self.stopping.borrow();
            }
        };
        tracing::info!("this control plane leads");
        let stopped = tokio::select! {
            () = term.tenure().over() => false,
            _ = self.stopping.wait_for(|stopping| *stopping) => true,
        };
        self.known = control.known();
        if stopped {
            control.shutdown().await;
            term.resign().await;
        } else {
            tracing::warn!("this control plane leads no more");
            control.abandon().await;
        }
        stopped
    }

    async fn take_over(&self, term: &Term) -> Result<Control, Cause> {
        let (mut store, image) = open(&self.config, &self.anchor).await?;
        store.fence(term.condition(), term.tenure().clone());
        self.last.forget();
        store.leave_to(self.last.clone(), image.authority.clone());
        let ground = Ground {
            store,
            image,
            listener: (self.listener()?, self.local_addr),
            folder: None,
            readiness: self.readiness.clone(),
            standing: Standing::Leading,
            fellows: Some(self.fellows.clone()),
        };
        let control = start::assemble(&self.config.control, ground).await?;
        self.shown.leads(&control);
        Ok(control)
    }

    fn listener(&self) -> Result<TcpListener, Cause> {
        let unlistened = |source| Cause::Listen { address: self.local_addr, source };
        TcpListener::from_std(self.listener.try_clone().map_err(unlistened)?).map_err(unlistened)
    }
}

/// Takes in who leads, or that nobody can be asked. A row that is still there from an own term names nobody.
fn note(
    (leader, roster): (&Leader, &watch::Sender<Roster>),
    shown: &Shown,
    own: &ControlAddr,
    found: Result<(Vec<u8>, u64), Failure>,
) {
    let (mut term, mut problem) = (0, None);
    let address = match found {
        Ok((row, number)) => {
            term = number;
            shown.reaches_store();
            let row = LeaderRow::decode(row.as_slice()).ok();
            row.and_then(|row| row.address.parse().ok()).filter(|address| address != own)
        }
        Err(failure) => {
            if shown.lost_store(&failure) {
                tracing::warn!(%failure, "the store cannot be reached, so nobody is elected here");
            }
            problem = Some(failure.to_string());
            None
        }
    };
    roster
        .send_if_modified(|roster| std::mem::replace(&mut roster.store_problem, problem.clone()) != problem);
    let is_known = roster.borrow().is_known;
    if is_known && leader.load().as_deref() == address.as_ref() && roster.borrow().term >= term {
        return;
    }
    if let Some(leader) = &address {
        tracing::info!(%leader, "another control plane leads");
    }
    leader.store(address.clone().map(Arc::new));
    roster.send_modify(|roster| roster.is_led_by(address, term));
}

impl Known {
    fn new(config: &Config, image: Image) -> Result<Self, Cause> {
        let Image { meta, authority, state } = image;
        let authority = Authority::load(meta.trust_domain.clone(), authority)?;
        let authority = Arc::new(authority.with_workload_lifetime(config.certificate_lifetime));
        Self::of(authority, &state, &meta)
    }
}
