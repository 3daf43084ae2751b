//! The stream between a host's agent and control: reconnects with backoff, resumes by generation.
//!
//! Messages to control are level-triggered: the newest report and the newest acknowledgements are sent, however many
//! there were while the stream was down. Messages from control become [`LinkEvent`]s in the order in which it sent them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ipnet::Ipv4Net;
use rustls::crypto::CryptoProvider;
use sealane_base::backoff::Backoff;
use sealane_base::task::{self, Task};
use sealane_base::text::one_line;
use tokio::sync::{mpsc, watch};
use tokio::time::Interval;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::clock::ClockPair;
use super::connect::{TlsIdentity, control_channel};
use super::controls::Controls;
use super::ending::Ending;
use super::lookout;
use super::search::Search;
use super::uplink::{self, Uplink, message};
use crate::resource::{ControlAddr, Edition, NetworkDelta, NetworkSnapshot, Whereabouts, Workload};
use crate::types::{Generation, Mtu, NetworkName, NodeName, WorkloadName};
use crate::wire::v1::control_client::ControlClient;
use crate::wire::{OLDEST_PROTOCOL, PROTOCOL, ProtocolError, agree, v1};

const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Control that comes back has its hosts back within this time.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Pause when another agent has taken this host's place: it holds that, and has reasons of its own.
const DISPLACED_WAIT: Duration = Duration::from_secs(30);
/// Time that a control plane has to welcome a host which knows that another one leads in a later term.
const TRIED_BESIDE: Duration = Duration::from_millis(500);
/// A stream that lasted so long was a success: what follows it begins again.
const LASTING: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Without a word from control for this long, the stream is given up.
const SILENCE: Duration = Duration::from_secs(10);

/// All workloads of this host, at one version of the agent's own counting.
#[derive(Clone, Debug, Default)]
pub struct LinkReport {
    /// Grows with every change, from 1; 0 is "nothing to report yet" and is not sent.
    pub version: u64,
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// The word that this is, per network that the host carries.
    pub networks: BTreeMap<NetworkName, Edition>,
    /// Addresses from which the host assigns no more, so that control takes them back.
    pub offers: BTreeMap<NetworkName, BTreeSet<Ipv4Net>>,
}

/// Inputs that the owner feeds.
#[derive(Debug)]
pub struct LinkInputs {
    /// Control planes, which are tried one after another: as they tell of each other, so it is kept here.
    pub controls: watch::Sender<Controls>,
    /// The node's identity, renewed from time to time; each connection takes the newest.
    pub identity: watch::Receiver<Arc<TlsIdentity>>,
    /// The host's workloads.
    pub report: watch::Receiver<Arc<LinkReport>>,
    /// Progress with what control tells.
    pub followed: watch::Receiver<Followed>,
    /// The networks as control last said: told to a control plane of another epoch.
    pub carried: watch::Receiver<CarriedNetworks>,
    /// A random number, another one at each start of the agent.
    pub instance: u64,
    /// Underlay addresses of this host: with another one, it connects again at once and says so.
    pub place: watch::Receiver<Whereabouts>,
    /// Largest packet that its ways to the other hosts allow inside a tunnel, as far as that is known.
    pub mtu: watch::Receiver<Option<Mtu>>,
    /// The program's version.
    pub version: String,
    /// Port of the host's metrics, on its underlay address.
    pub metrics_port: u16,
}

/// A host's progress with what control tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Generations that every data plane of the host works by.
    pub applied: BTreeMap<NetworkName, Generation>,
    /// Networks of which a delta came that leads from nothing that the host has: it waits for their states.
    pub astray: BTreeSet<NetworkName>,
}

/// Networks as control last said.
pub type CarriedNetworks = BTreeMap<NetworkName, Arc<NetworkSnapshot>>;

/// A workload that control did not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Network of the workload.
    pub network: NetworkName,
    /// Name of the workload.
    pub workload: WorkloadName,
    /// Reason, in control's words.
    pub reason: String,
    /// True if the host does not carry the network, as far as control knows: it may be taken in once it does.
    pub not_carried: bool,
}

/// Events of the stream.
#[derive(Debug)]
pub enum LinkEvent {
    /// Connected and welcomed; calls can be made on this channel until [`LinkEvent::Down`].
    Up {
        /// For unary calls.
        channel: Channel,
        /// Address at which control was found.
        address: ControlAddr,
        /// The mesh's roots as of now (DER).
        roots: Vec<Vec<u8>>,
        /// True if it takes back addresses that reports offer.
        takes_blocks: bool,
    },
    /// The stream broke, or could not be made; the next try comes by itself.
    Down {
        /// Reason.
        reason: String,
        /// True if control wants nothing of this host: it was removed, or control does not know it.
        refused: bool,
    },
    /// Times that control's clock and this host's showed at about the same moment.
    Clocks(ClockPair),
    /// The hosts of this host's networks that control has lost, and since when, where it knows.
    Lost(BTreeMap<NodeName, Option<SystemTime>>),
    /// A network's newest state.
    State(Box<NetworkSnapshot>),
    /// The way to a network's newest state from what this host was told before.
    Delta(Box<NetworkDelta>),
    /// A network that this host carried is no more.
    Gone(NetworkName),
    /// A report is durable, but for what is refused.
    Reported {
        /// [`LinkReport::version`].
        version: u64,
        /// Workloads that were not accepted.
        refused: Vec<Rejection>,
    },
    /// Every connected host works by what this report led to.
    Settled {
        /// [`LinkReport::version`].
        version: u64,
    },
}

/// A running link. Dropping it closes the stream.
#[derive(Debug)]
pub struct Link {
    _task: Task,
}

impl Link {
    /// Starts connecting; events arrive on `events` until the link is dropped.
    #[must_use]
    pub fn start(inputs: LinkInputs, provider: Arc<CryptoProvider>, events: mpsc::Sender<LinkEvent>) -> Self {
        Self { _task: task::spawn("control-link", run(inputs, provider, events)) }
    }
}

async fn run(mut inputs: LinkInputs, provider: Arc<CryptoProvider>, events: mpsc::Sender<LinkEvent>) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let (mut search, mut controls, mut term) = (Search::default(), inputs.controls.subscribe(), 0);
    let _lookout = lookout::start(inputs.controls.clone(), inputs.identity.clone(), provider.clone());
    loop {
        let addresses = controls.borrow_and_update().addresses();
        let Some(address) = search.next(&addresses) else { return };
        let mut moved = inputs.place.clone();
        moved.mark_unchanged();
        let heard = (controls.clone(), term);
        let session = Session { inputs: &mut inputs, events: &events, address: &address };
        let begun = Instant::now();
        let (Ending { reason, refused, displaced, leader }, welcomed) = tokio::select! {
            ended = session.run(&provider, heard) => ended,
            // A stream from an address that the host has lost would only fall silent.
            Ok(()) = moved.changed() => {
                backoff.reset();
                ("this host has another underlay address".to_owned().into(), None)
            }
        };
        term = welcomed.unwrap_or(term);
        if welcomed.is_some() && begun.elapsed() >= LASTING {
            backoff.reset();
            search.begin(addresses.len());
        }
        search.hear(leader);
        if events.send(LinkEvent::Down { reason, refused }).await.is_err() {
            return;
        }
        let wait = if displaced {
            Backoff::new(DISPLACED_WAIT, DISPLACED_WAIT).next_wait(rand::random())
        } else if search.goes_on() {
            Duration::ZERO
        } else {
            backoff.next_wait(rand::random())
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(()) = moved.changed() => backoff.reset(),
            leader = led(&mut controls, term) => search.follow(leader),
        }
    }
}

/// Waits for news of a control plane that leads in a later term than this one; returns its address.
async fn led(controls: &mut watch::Receiver<Controls>, term: u64) -> ControlAddr {
    loop {
        // The sender is the link's own: it does not go away.
        let _ = controls.changed().await;
        if let Some(leader) = controls.borrow_and_update().later(term) {
            return leader.clone();
        }
    }
}

/// The same of one at another address. One that is heard of already counts after a while: it may not serve hosts yet, and who is at this
/// address may be the frozen one before it, which takes connections and says nothing.
async fn elsewhere(
    (mut controls, term): (watch::Receiver<Controls>, u64),
    address: &ControlAddr,
) -> ControlAddr {
    let known = controls.borrow_and_update().later(term).filter(|leader| *leader != address).cloned();
    let known = async {
        let Some(known) = known else { return std::future::pending().await };
        tokio::time::sleep(TRIED_BESIDE).await;
        known
    };
    let news = async {
        loop {
            let leader = led(&mut controls, term).await;
            if leader != *address {
                return leader;
            }
        }
    };
    tokio::select! {
        known = known => known,
        leader = news => leader,
    }
}

/// Waits until a control plane is heard to lead in a later term than this one, if it is one; returns its address.
async fn after(controls: &mut watch::Receiver<Controls>, term: u64) -> ControlAddr {
    loop {
        if let Some(leader) = controls.borrow_and_update().later(term).filter(|_| term != 0) {
            return leader.clone();
        }
        // The sender is the link's own: it does not go away.
        let _ = controls.changed().await;
    }
}

/// Progress of a stream that was welcomed.
struct Progress {
    heartbeat: Interval,
    uplink: Uplink,
    /// Time of control's last word.
    heard: tokio::time::Instant,
    /// Term in which control leads; 0 where no other control plane shares its store.
    term: u64,
    controls: watch::Receiver<Controls>,
}

/// A stream that control has welcomed.
struct Opened {
    up: mpsc::Sender<v1::AgentMessage>,
    incoming: tonic::Streaming<v1::ControlMessage>,
    acked: BTreeMap<NetworkName, Generation>,
    term: u64,
}

struct Session<'a> {
    inputs: &'a mut LinkInputs,
    events: &'a mpsc::Sender<LinkEvent>,
    address: &'a ControlAddr,
}

impl Session<'_> {
    /// Runs one stream from connecting to its end; returns its ending, and control's term if it welcomed us. News of a leader in a later
    /// term than this end the try.
    async fn run(
        mut self,
        provider: &Arc<CryptoProvider>,
        heard: (watch::Receiver<Controls>, u64),
    ) -> (Ending, Option<u64>) {
        let address = self.address;
        let opened = tokio::select! {
            opened = self.open(provider) => opened,
            leader = elsewhere(heard, address) => Err(Ending::leads(leader)),
        };
        match opened {
            Ok(opened) => {
                let term = opened.term;
                (self.converse(opened).await, Some(term))
            }
            Err(ending) => (ending, None),
        }
    }

    /// Opens a stream up to control's welcome.
    async fn open(&mut self, provider: &Arc<CryptoProvider>) -> Result<Opened, Ending> {
        let identity = self.inputs.identity.borrow_and_update().clone();
        let connecting = control_channel(self.address, &identity, provider);
        let channel = connecting.await.map_err(|error| error.to_string())?;
        let (up, outgoing) = mpsc::channel(16);
        let Followed { mut applied, astray } = self.inputs.followed.borrow_and_update().clone();
        // Control sends the states of those that it is not told.
        applied.retain(|network, _| !astray.contains(network));
        let hello = self.hello(&applied);
        // The queue is empty: this cannot wait.
        let _ = up.send(message(v1::agent_message::Message::Hello(hello))).await;
        let opened = ControlClient::new(channel.clone())
            .max_decoding_message_size(256 << 20)
            .sync(ReceiverStream::new(outgoing))
            .await;
        let refused = |status| Ending::of(&status, self.address);
        let mut incoming = opened.map_err(refused)?.into_inner();
        let welcome = match tokio::time::timeout(SILENCE, incoming.next()).await {
            Ok(Some(Ok(v1::ControlMessage {
                message: Some(v1::control_message::Message::Welcome(welcome)),
            }))) => welcome,
            Ok(Some(Err(status))) => return Err(Ending::of(&status, self.address)),
            _ => return Err(format!("control at {} did not welcome this host", self.address).into()),
        };
        if let Err(error) = agree(0, welcome.protocol) {
            return Err(self.misfit(&error, &welcome.version).into());
        }
        if !self.recall(&up, welcome.epoch).await {
            return Err(format!("control at {} closed the stream", self.address).into());
        }
        let v1::Welcome { roots, takes_blocks, term, controls, .. } = welcome;
        self.inputs.controls.send_modify(|known| known.welcome(self.address, (term, &controls)));
        let event = LinkEvent::Up { channel, address: self.address.clone(), roots, takes_blocks };
        self.events.send(event).await.map_err(|_| "the agent ended".to_owned())?;
        Ok(Opened { up, incoming, acked: applied, term })
    }

    fn hello(&mut self, applied: &BTreeMap<NetworkName, Generation>) -> v1::Hello {
        let Whereabouts { underlay, edition } = *self.inputs.place.borrow();
        let (underlay, underlay_other) = underlay.to_wire();
        let held = uplink::held(&self.inputs.carried.borrow());
        v1::Hello {
            protocol: PROTOCOL,
            version: self.inputs.version.clone(),
            metrics_port: self.inputs.metrics_port.into(),
            applied: applied.iter().map(|(network, &generation)| uplink::ack(network, generation)).collect(),
            oldest_protocol: OLDEST_PROTOCOL,
            underlay,
            underlay_other,
            place_incarnation: edition.incarnation,
            place_revision: edition.revision,
            recalls: true,
            takes_deltas: true,
            held,
            mtu: self.mtu(),
            instance: self.inputs.instance,
            echoes: true,
        }
    }

    /// Tells what this host works by although it is of another epoch than control.
    async fn recall(&self, up: &mpsc::Sender<v1::AgentMessage>, epoch: u64) -> bool {
        let carried = self.inputs.carried.borrow().clone();
        for recall in uplink::recalls(&carried, epoch) {
            if up.send(recall).await.is_err() {
                return false;
            }
        }
        true
    }

    fn misfit(&self, error: &ProtocolError, theirs: &str) -> String {
        let (address, ours) = (self.address, &self.inputs.version);
        let theirs = one_line(theirs, 64);
        format!(
            "control at {address} is Sealane {theirs}, this agent is {ours}: {error}; run the same version on both"
        )
    }

    /// Carries messages both ways until the stream or the agent ends; says why.
    async fn converse(&mut self, Opened { up, mut incoming, acked, term }: Opened) -> Ending {
        let mut progress = Progress {
            heartbeat: tokio::time::interval(HEARTBEAT),
            uplink: Uplink::new(acked),
            heard: tokio::time::Instant::now(),
            term,
            controls: self.inputs.controls.subscribe(),
        };
        self.inputs.report.mark_changed();
        loop {
            let parts = match self.turn(&mut incoming, &mut progress).await {
                Ok(parts) => parts,
                Err(ending) => return ending,
            };
            for part in parts {
                if up.send(part).await.is_err() {
                    return format!("control at {} closed the stream", self.address).into();
                }
            }
        }
    }

    /// Waits for one thing to happen; returns what is to be sent because of it.
    async fn turn(
        &mut self,
        incoming: &mut tonic::Streaming<v1::ControlMessage>,
        Progress { heartbeat, uplink, heard, term, controls }: &mut Progress,
    ) -> Result<Vec<v1::AgentMessage>, Ending> {
        let ended = |_| "the agent ended".to_owned();
        tokio::select! {
            () = tokio::time::sleep_until(*heard + SILENCE) => {
                Err(format!("control at {} fell silent", self.address).into())
            }
            received = incoming.next() => {
                *heard = tokio::time::Instant::now();
                let received = received.ok_or_else(|| format!("control at {} closed the stream", self.address))?;
                self.deliver(received.map_err(|status| Ending::of(&status, self.address))?).await?;
                Ok(Vec::new())
            }
            changed = self.inputs.report.changed() => {
                changed.map_err(ended)?;
                Ok(uplink.report(&self.inputs.report.borrow_and_update()).into_iter().collect())
            }
            changed = self.inputs.followed.changed() => {
                changed.map_err(ended)?;
                Ok(uplink.followed(&self.inputs.followed.borrow_and_update()))
            }
            _ = heartbeat.tick() => Ok(vec![self.heartbeat()]),
            changed = self.inputs.mtu.changed() => {
                changed.map_err(ended)?;
                Ok(vec![self.heartbeat()])
            }
            changed = self.inputs.identity.changed() => {
                changed.map_err(ended)?;
                Err("the node certificate was renewed".to_owned().into())
            }
            leader = after(controls, *term) => Err(Ending::leads(leader)),
        }
    }

    fn mtu(&mut self) -> u32 {
        self.inputs.mtu.borrow_and_update().map_or(0, Into::into)
    }

    fn heartbeat(&mut self) -> v1::AgentMessage {
        let mtu = self.mtu();
        message(v1::agent_message::Message::Heartbeat(v1::Heartbeat { mtu, ..v1::Heartbeat::now() }))
    }

    async fn deliver(&self, message: v1::ControlMessage) -> Result<(), String> {
        for event in uplink::events(message, SystemTime::now())? {
            self.events.send(event).await.map_err(|_| "the agent ended".to_owned())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_try_at_another_address_than_the_known_leaders_is_short() {
        let [first, second, third] =
            [1, 2, 3].map(|number| format!("192.0.2.{number}:7443").parse::<ControlAddr>().unwrap());
        let word = |leader: &ControlAddr, term| v1::Controls {
            addresses: vec![first.to_string(), second.to_string(), third.to_string()],
            leader: leader.to_string(),
            term,
            leads: false,
        };
        let known = watch::Sender::new(Controls::new(vec![first.clone()], vec![]));
        let passes = async |address, term, limit| {
            tokio::time::timeout(limit, elsewhere((known.subscribe(), term), address)).await.ok()
        };
        assert_eq!(passes(&first, 6, SILENCE).await, None, "nobody is known to lead");
        known.send_modify(|known| assert!(known.hear(&word(&second, 7))));
        assert_eq!(passes(&first, 6, TRIED_BESIDE / 2).await, None, "the leader may not serve hosts yet");
        assert_eq!(passes(&first, 6, TRIED_BESIDE * 2).await, Some(second.clone()));
        assert_eq!(passes(&second, 6, SILENCE).await, None, "it is the leader");
        assert_eq!(passes(&first, 7, SILENCE).await, None, "its term is known to be over");
        let (tried, told) = tokio::join!(passes(&second, 6, SILENCE), async {
            tokio::time::sleep(TRIED_BESIDE * 4).await;
            known.send_modify(|known| assert!(known.hear(&word(&third, 8))));
        });
        assert_eq!((tried, told), (Some(third.clone()), ()));
    }
}
