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
use super::ending::Ending;
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
    /// Addresses of control; tried one after another.
    pub addresses: Vec<ControlAddr>,
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
    let mut search = Search::new(inputs.addresses.clone());
    while let Some(address) = search.next() {
        let mut moved = inputs.place.clone();
        moved.mark_unchanged();
        let session = Session { inputs: &mut inputs, events: &events, address: &address };
        let begun = Instant::now();
        let (Ending { reason, refused, displaced, leader }, welcomed) = tokio::select! {
            ended = session.run(&provider) => ended,
            // A stream from an address that the host has lost would only fall silent.
            Ok(()) = moved.changed() => {
                backoff.reset();
                ("this host has another underlay address".to_owned().into(), false)
            }
        };
        if welcomed && begun.elapsed() >= LASTING {
            backoff.reset();
            search.begin();
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
        }
    }
}

/// Progress of a stream that was welcomed.
struct Progress {
    heartbeat: Interval,
    uplink: Uplink,
    /// Time of control's last word.
    heard: tokio::time::Instant,
}

struct Session<'a> {
    inputs: &'a mut LinkInputs,
    events: &'a mpsc::Sender<LinkEvent>,
    address: &'a ControlAddr,
}

impl Session<'_> {
    /// Runs one stream from connecting to its end; returns its ending and true if control welcomed us.
    async fn run(mut self, provider: &Arc<CryptoProvider>) -> (Ending, bool) {
        let identity = self.inputs.identity.borrow_and_update().clone();
        let channel = match control_channel(self.address, &identity, provider).await {
            Ok(channel) => channel,
            Err(error) => return (error.to_string().into(), false),
        };
        let (up, outgoing) = mpsc::channel(16);
        let Followed { mut applied, astray } = self.inputs.followed.borrow_and_update().clone();
        // Control sends the states of those that it is not told.
        applied.retain(|network, _| !astray.contains(network));
        let Whereabouts { underlay, edition } = *self.inputs.place.borrow();
        let (underlay, underlay_other) = underlay.to_wire();
        let hello = v1::Hello {
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
            mtu: self.mtu(),
            instance: self.inputs.instance,
            echoes: true,
        };
        // The queue is empty: this cannot wait.
        let _ = up.send(message(v1::agent_message::Message::Hello(hello))).await;
        let opened = ControlClient::new(channel.clone())
            .max_decoding_message_size(256 << 20)
            .sync(ReceiverStream::new(outgoing))
            .await;
        let mut incoming = match opened {
            Ok(response) => response.into_inner(),
            Err(status) => return (Ending::of(&status, self.address), false),
        };
        match tokio::time::timeout(SILENCE, incoming.next()).await {
            Ok(Some(Ok(v1::ControlMessage {
                message: Some(v1::control_message::Message::Welcome(welcome)),
            }))) => {
                if let Err(error) = agree(0, welcome.protocol) {
                    return (self.misfit(&error, &welcome.version).into(), false);
                }
                if !self.recall(&up, welcome.epoch).await {
                    return (format!("control at {} closed the stream", self.address).into(), false);
                }
                let v1::Welcome { roots, takes_blocks, .. } = welcome;
                let event = LinkEvent::Up { channel, address: self.address.clone(), roots, takes_blocks };
                if self.events.send(event).await.is_err() {
                    return ("the agent ended".to_owned().into(), true);
                }
            }
            Ok(Some(Err(status))) => return (Ending::of(&status, self.address), false),
            _ => return (format!("control at {} did not welcome this host", self.address).into(), false),
        }
        (self.converse(&up, incoming, applied).await, true)
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
    async fn converse(
        &mut self,
        up: &mpsc::Sender<v1::AgentMessage>,
        mut incoming: tonic::Streaming<v1::ControlMessage>,
        acked: BTreeMap<NetworkName, Generation>,
    ) -> Ending {
        let mut progress = Progress {
            heartbeat: tokio::time::interval(HEARTBEAT),
            uplink: Uplink::new(acked),
            heard: tokio::time::Instant::now(),
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
        Progress { heartbeat, uplink, heard }: &mut Progress,
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
