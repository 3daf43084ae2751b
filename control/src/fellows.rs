//! The other control planes that share the store: each is asked how it is, over a connection of its own that people's calls pass too.
//!
//! A connection to the one that leads is also how its death is heard of: when nobody listens where it was, its term is ended at once.

mod views;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sealane_base::dial::dial_name;
use sealane_base::task::{self, Task};
use sealane_proto::client::control_channel;
use sealane_proto::resource::ControlAddr;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::fellows_client::FellowsClient;
use sealane_proto::wire::v1::lookout_client::LookoutClient;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::Channel;

use crate::ca::Authority;
use crate::kv::{Candidate, Failure, Roll};
use crate::roster::{Life, Roster};

/// Rows of all control planes, by their addresses: they stay.
pub(crate) const MEMBERS: &str = "/sealane/members/";
/// Pause after a connection that ended, or could not be made.
const AGAIN: Duration = Duration::from_millis(500);
/// Limit for connecting and for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Time between two questions.
const ASK: Duration = Duration::from_secs(2);
/// Limit for a look whether anybody listens.
const KNOCK: Duration = Duration::from_millis(500);
/// Number of looks, and the pause between two: a process that is killed closes its connections before it listens no more.
const KNOCKS: (u32, Duration) = (10, Duration::from_millis(50));

/// The control planes that share a store, from one of them.
#[derive(Clone, Debug)]
pub(crate) struct Fellows {
    own: ControlAddr,
    roster: watch::Receiver<Roster>,
    known: Arc<watch::Sender<BTreeMap<String, Fellow>>>,
    roll: Roll,
    authority: Arc<Authority>,
}

/// Another control plane, as it was last found.
#[derive(Clone, Debug, Default)]
struct Fellow {
    channel: Option<Channel>,
    view: Option<v1::ControlView>,
    /// The reason for which there is no connection.
    lost: String,
}

/// Reasons for which a control plane stays on the roll.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemovalError {
    /// There is none at the address.
    #[error("no control plane {0} is on the roll; see `sealane control ls`")]
    Unknown(String),
    /// A control plane that runs would put itself on the roll again.
    #[error("control plane {0} runs; end it first")]
    Runs(String),
    /// The roll is not written.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Fellows {
    /// Makes the fellows of the control plane at `own`, as its roster names them, and the task that asks them.
    pub(crate) fn start(
        (own, roster): (ControlAddr, watch::Receiver<Roster>),
        (roll, candidate): (Roll, Candidate),
        authority: Arc<Authority>,
    ) -> (Self, Task) {
        let known = Arc::new(watch::Sender::default());
        let this = Self { own, roster, known, roll, authority: authority.clone() };
        let asking = this.clone().follow(candidate, authority);
        (this, task::spawn("fellows", asking))
    }

    /// Returns the roster.
    pub(crate) fn roster(&self) -> watch::Receiver<Roster> {
        self.roster.clone()
    }

    /// Describes what is wrong with the store, as a standby sees it.
    pub(crate) fn store_problem(&self) -> Option<String> {
        let roster = self.roster.borrow();
        roster.mesh_lost.clone().or_else(|| roster.store_problem.clone())
    }

    /// Returns true if the mesh is not in the store any more.
    pub(crate) fn is_bereft(&self) -> bool {
        self.roster.borrow().mesh_lost.is_some()
    }

    /// A connection to the control plane that leads; waits for one until `deadline`. This one may have begun to lead meanwhile.
    pub(crate) async fn leader(&self, deadline: Instant) -> Option<(ControlAddr, Channel)> {
        timeout_at(deadline, self.found(|| false)).await.ok().flatten()
    }

    /// The same for who only asks: `None` at once when none is known to lead, or the one that does is known to be out of reach.
    pub(crate) async fn leader_to_ask(&self, deadline: Instant) -> Option<(ControlAddr, Channel)> {
        timeout_at(deadline, self.found(|| self.is_leaderless())).await.ok().flatten()
    }

    /// Waits for a connection to the control plane that leads, or for the end of hope.
    async fn found(&self, is_hopeless: impl Fn() -> bool) -> Option<(ControlAddr, Channel)> {
        let (mut roster, mut known) = (self.roster.clone(), self.known.subscribe());
        loop {
            let leads = roster.borrow_and_update().leads;
            known.borrow_and_update();
            if leads {
                match connect(&self.own, &self.authority).await {
                    Ok(channel) => return Some((self.own.clone(), channel)),
                    Err(_) => sleep(AGAIN).await,
                }
                continue;
            }
            if let Some(found) = self.leader_now() {
                return Some(found);
            }
            if is_hopeless() {
                return None;
            }
            tokio::select! {
                changed = roster.changed() => changed.ok()?,
                changed = known.changed() => changed.ok()?,
            }
        }
    }

    /// Returns a connection to another control plane that leads, by the word of the store, or by its own.
    pub(crate) fn leader_now(&self) -> Option<(ControlAddr, Channel)> {
        let leader = self.roster.borrow().leader.clone().filter(|leader| *leader != self.own);
        let known = self.known.borrow();
        let channel = |leader: &ControlAddr| known.get(leader.text.as_str())?.channel.clone();
        if let Some(named) = leader.and_then(|leader| Some((leader.clone(), channel(&leader)?))) {
            return Some(named);
        }
        known.iter().find_map(|(address, fellow)| {
            fellow.view.as_ref().filter(|view| view.role == "leader")?;
            Some((address.parse().ok()?, fellow.channel.clone()?))
        })
    }

    /// Returns the address of the control plane that leads, of whoever is known to, unless it is this one.
    pub(crate) fn named_leader(&self) -> Option<ControlAddr> {
        let named = self.roster.borrow().leader.clone().filter(|leader| *leader != self.own);
        named.or_else(|| self.leader_now().map(|(address, _)| address))
    }

    /// Returns true if none is known to lead, or the one that does was asked and does not answer.
    fn is_leaderless(&self) -> bool {
        let roster = self.roster.borrow();
        match &roster.leader {
            None => roster.is_known,
            Some(leader) => {
                let known = self.known.borrow();
                known.get(leader.text.as_str()).is_some_and(|fellow| !fellow.lost.is_empty())
            }
        }
    }

    /// A control plane has not answered a call: others are not passed to it before it answers again.
    pub(crate) fn doubt(&self, address: &ControlAddr) {
        self.known.send_if_modified(|known| {
            let fellow = known.get_mut(address.text.as_str());
            fellow.is_some_and(|fellow| {
                "it does not answer".clone_into(&mut fellow.lost);
                fellow.channel.take().is_some()
            })
        });
    }

    /// Views of all control planes; `own` is that of this one.
    pub(crate) fn views(&self, own: v1::ControlView) -> Vec<v1::ControlView> {
        let own = v1::ControlView { address: self.own.to_string(), asked: true, ..own };
        let (roster, known) = (self.roster.borrow(), self.known.borrow());
        let answers = known.iter().map(|(address, fellow)| {
            let answer = fellow.view.clone().filter(|_| fellow.channel.is_some());
            (address.clone(), answer.ok_or_else(|| fellow.lost.clone()))
        });
        views::all(&roster, own, &answers.collect())
    }

    /// Takes a control plane that is gone for good from the roll.
    ///
    /// # Errors
    /// When it is not on it, or runs.
    pub(crate) async fn remove(&self, address: &str) -> Result<(), RemovalError> {
        let life = self.roster.borrow().members.get(address).map(|member| member.life);
        match life {
            None => Err(RemovalError::Unknown(address.to_owned())),
            Some(Life::Running) => Err(RemovalError::Runs(address.to_owned())),
            Some(Life::Lost | Life::Stopped) => Ok(self.roll.delete(&[MEMBERS, address].concat()).await?),
        }
    }

    /// Asks those that the roster names, for ever.
    async fn follow(mut self, candidate: Candidate, authority: Arc<Authority>) {
        let own = self.own.to_string();
        let mut asked: BTreeMap<String, Task> = BTreeMap::new();
        loop {
            let others = self.roster.borrow_and_update().others(&own);
            asked.retain(|address, _| others.contains(address));
            self.known.send_if_modified(|known| {
                let before = known.len();
                known.retain(|address, _| others.contains(address));
                known.len() < before
            });
            for address in others {
                let Ok(other) = address.parse() else { continue };
                let asking = Asking {
                    address: other,
                    roster: self.roster.clone(),
                    known: self.known.clone(),
                    candidate: candidate.clone(),
                    authority: authority.clone(),
                };
                asked.entry(address).or_insert_with(|| task::spawn("fellow", asking.run()));
            }
            if self.roster.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Asks one other control plane.
struct Asking {
    address: ControlAddr,
    roster: watch::Receiver<Roster>,
    known: Arc<watch::Sender<BTreeMap<String, Fellow>>>,
    candidate: Candidate,
    authority: Arc<Authority>,
}

impl Asking {
    async fn run(self) {
        loop {
            let lost = match connect(&self.address, &self.authority).await {
                Ok(channel) => {
                    let lost = self.ask(channel).await;
                    self.depose_if_dead().await;
                    lost
                }
                Err(reason) => reason,
            };
            self.note(|fellow| (fellow.channel, fellow.lost) = (None, lost));
            sleep(AGAIN).await;
        }
    }

    /// Asks it again and again until the connection ends; says why.
    async fn ask(&self, channel: Channel) -> String {
        let watching = LookoutClient::new(channel.clone()).watch(v1::WatchControlsRequest {}).await;
        let mut words = match watching {
            Ok(words) => words.into_inner(),
            Err(status) => return status.message().to_owned(),
        };
        let mut client = FellowsClient::new(channel.clone());
        let mut due = tokio::time::interval(ASK);
        loop {
            tokio::select! {
                // The words of the store count: this says that it is there.
                word = words.message() => match word {
                    Ok(Some(_)) => {}
                    Ok(None) => return "it closed the connection".to_owned(),
                    Err(status) => return status.message().to_owned(),
                },
                _ = due.tick() => match timeout(ANSWER, client.standing(v1::StandingRequest {})).await {
                    Ok(Ok(view)) => {
                        let (view, channel) = (Some(view.into_inner()), Some(channel.clone()));
                        self.note(|fellow| {
                            (fellow.channel, fellow.view) = (channel, view);
                            fellow.lost.clear();
                        });
                    }
                    Ok(Err(status)) => return status.message().to_owned(),
                    Err(_) => return "it does not answer".to_owned(),
                },
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut Fellow)) {
        self.known.send_modify(|known| change(known.entry(self.address.to_string()).or_default()));
    }

    /// Ends its term if it leads and its host says that nobody listens there any more. Were that wrong, another one would lead a
    /// little too early: whoever leads no more writes nothing.
    async fn depose_if_dead(&self) {
        let (leads, term) = {
            let roster = self.roster.borrow();
            (roster.has_leader_at(&self.address.text), roster.term)
        };
        if !leads || !is_dead(&self.address).await {
            return;
        }
        tracing::warn!(leader = %self.address, "the control plane that leads is dead: its term ends now");
        if let Err(failure) = self.candidate.depose(term).await {
            tracing::warn!(%failure, "its term ends with its lease");
        }
    }
}

/// Connects to a control plane as one.
async fn connect(address: &ControlAddr, authority: &Authority) -> Result<Channel, String> {
    let identity = authority.control_identity(SystemTime::now().into());
    let identity = identity.map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let channel = timeout(ANSWER, control_channel(address, &identity, &provider)).await;
    let channel = channel.map_err(|_| format!("no connection to {address} in time"))?;
    channel.map_err(|error| error.to_string())
}

/// Returns true if the host at an address answers that nobody listens.
async fn is_dead(address: &ControlAddr) -> bool {
    for _ in 0..KNOCKS.0 {
        match timeout(KNOCK, dial_name(&address.text)).await {
            Ok(Err(error)) => return error.kind() == io::ErrorKind::ConnectionRefused,
            Ok(Ok(_)) => sleep(KNOCKS.1).await,
            Err(_) => return false,
        }
    }
    false
}
