//! One simulated host: its stream to control, and what it does of its own accord.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prost::Message as _;
use rustls::crypto::CryptoProvider;
use sealane_base::backoff::Backoff;
use sealane_proto::client::{TlsIdentity, control_channel};
use sealane_proto::resource::ControlAddr;
use sealane_proto::wire::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, interval_at, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use v1::control_client::ControlClient;

use crate::book::{Book, Place};
use crate::figures::{Counters, Ticket};
use crate::message::{self, Heard};
use crate::progress::Progress;

/// Waits, limits and intervals of an agent's link (proto/client/link).
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
const LASTING: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(10);
/// Largest message that it reads.
const LARGEST: usize = 256 << 20;

/// Request to a host.
#[derive(Debug)]
pub(crate) enum Order {
    /// These are its addresses.
    Hold(Place),
    /// All its endpoints start.
    Fill(Ticket),
    /// The next change happens.
    Change(Ticket),
    /// Its next stream is waited for.
    Return(Ticket),
    /// It leaves its stream and opens another one, which is waited for.
    Cut(Ticket),
}

/// Facts of a host that has joined.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) index: usize,
    pub(crate) underlay: String,
    pub(crate) address: ControlAddr,
    pub(crate) identity: TlsIdentity,
}

/// Ends of a stream.
#[derive(Debug)]
enum Ended {
    /// Nobody gives orders any more.
    Over,
    /// It was not welcomed.
    Failed(String),
    /// It broke.
    Lost(String),
    /// An order was to leave it.
    Cut,
}

type Up = mpsc::Sender<v1::AgentMessage>;
type Down = Streaming<v1::ControlMessage>;

/// A host with its task.
#[derive(Debug)]
pub(crate) struct Host {
    member: Member,
    provider: Arc<CryptoProvider>,
    counters: Arc<Counters>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// For calls, while the stream stands.
    calls: watch::Sender<Option<Channel>>,
    book: Book,
    applied: BTreeMap<String, v1::Generation>,
    progress: Progress,
    returning: Option<Ticket>,
    heard: Instant,
    instance: u64,
}

impl Host {
    /// A host without a stream.
    pub(crate) fn new(
        (member, book): (Member, Book),
        (provider, counters): (Arc<CryptoProvider>, Arc<Counters>),
        orders: mpsc::UnboundedReceiver<Order>,
        calls: watch::Sender<Option<Channel>>,
    ) -> Self {
        Self {
            member,
            provider,
            counters,
            orders,
            calls,
            book,
            applied: BTreeMap::new(),
            progress: Progress::default(),
            returning: None,
            heard: Instant::now(),
            instance: rand::random::<u64>().max(1),
        }
    }

    /// The same host, whose next stream is waited for.
    pub(crate) fn returning(self, ticket: Ticket) -> Self {
        Self { returning: Some(ticket), ..self }
    }

    /// Keeps a stream open, until nobody gives orders any more.
    pub(crate) async fn live(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let begun = Instant::now();
            let Err(ended) = self.session().await;
            self.calls.send_replace(None);
            match ended {
                Ended::Over => return,
                Ended::Cut => backoff.reset(),
                Ended::Failed(reason) => {
                    self.counters.failed_connects.fetch_add(1, Relaxed);
                    self.counters.complain(&reason);
                }
                Ended::Lost(reason) => {
                    self.counters.lost_streams.fetch_add(1, Relaxed);
                    self.counters.complain(&reason);
                    if begun.elapsed() >= LASTING {
                        backoff.reset();
                    }
                }
            }
            sleep(backoff.next_wait(rand::random())).await;
        }
    }

    /// Runs one stream to its end.
    async fn session(&mut self) -> Result<Infallible, Ended> {
        let (up, mut down, channel) = Box::pin(self.open()).await?;
        self.heard = Instant::now();
        self.calls.send_replace(Some(channel));
        say(&up, message::nothing_to_recall()).await?;
        let returning = self.returning.take();
        if let Some(ticket) = &returning {
            ticket.welcomed();
        }
        match (self.book.is_filled(), returning) {
            (true, ticket) => self.report(&up, ticket).await?,
            (false, Some(ticket)) => ticket.settled(),
            (false, None) => {}
        }
        self.converse(&up, &mut down).await
    }

    /// Connects and says hello, until control welcomes.
    async fn open(&self) -> Result<(Up, Down, Channel), Ended> {
        let Member { address, identity, underlay, .. } = &self.member;
        let channel = control_channel(address, identity, &self.provider).await;
        let channel = channel.map_err(|error| Ended::Failed(error.to_string()))?;
        let (up, outgoing) = mpsc::channel(16);
        let acks = self.applied.iter().map(|(network, &generation)| v1::Ack {
            network: network.clone(),
            generation: Some(generation),
            voucher: None,
        });
        say(&up, message::hello(underlay.clone(), acks.collect(), self.instance)).await?;
        let mut client = ControlClient::new(channel.clone()).max_decoding_message_size(LARGEST);
        let refused = |status: Status| Ended::Failed(status.message().to_owned());
        let mut down = client.sync(ReceiverStream::new(outgoing)).await.map_err(refused)?.into_inner();
        let first = timeout(SILENCE, down.message()).await;
        let first = first.map_err(|_| Ended::Failed("control says nothing".to_owned()))?.map_err(refused)?;
        match first.map(message::read) {
            Some(Ok(Heard::Welcome)) => Ok((up, down, channel)),
            Some(_) | None => Err(Ended::Failed("control did not welcome the host".to_owned())),
        }
    }

    async fn converse(&mut self, up: &Up, down: &mut Down) -> Result<Infallible, Ended> {
        let mut heartbeat = heartbeat();
        loop {
            let silent = self.heard + SILENCE;
            tokio::select! {
                message = down.message() => match message {
                    Ok(Some(message)) => self.hear(up, message).await?,
                    Ok(None) => return Err(Ended::Lost("control closed the stream".to_owned())),
                    Err(status) => return Err(Ended::Lost(status.message().to_owned())),
                },
                order = self.orders.recv() => self.obey(up, order).await?,
                _ = heartbeat.tick() => say(up, message::heartbeat()).await?,
                () = sleep_until(silent) => return Err(Ended::Lost("control fell silent".to_owned())),
            }
        }
    }

    async fn hear(&mut self, up: &Up, message: v1::ControlMessage) -> Result<(), Ended> {
        self.heard = Instant::now();
        self.counters.bytes.fetch_add(message.encoded_len() as u64, Relaxed);
        let heard = message::read(message).map_err(|error| Ended::Lost(error.to_string()))?;
        match heard {
            Heard::Network { name, generation, from } => self.follow(up, name, generation, from).await?,
            Heard::Gone(network) => drop(self.applied.remove(&network)),
            Heard::Reported { sequence, refused, reason } => {
                self.progress.answered(sequence);
                if let Some(reason) = reason {
                    self.counters.refused.fetch_add(refused, Relaxed);
                    self.counters.complain(&reason);
                }
            }
            Heard::Settled(sequence) => self.progress.settled(sequence),
            Heard::Welcome | Heard::Other => {}
        }
        Ok(())
    }

    /// Takes in news of a network and acknowledges them, unless they lead on from what the host has not got.
    async fn follow(
        &mut self,
        up: &Up,
        name: String,
        generation: v1::Generation,
        from: Option<u64>,
    ) -> Result<(), Ended> {
        let count = if from.is_some() { &self.counters.deltas } else { &self.counters.states };
        count.fetch_add(1, Relaxed);
        let leads = |known: &v1::Generation| known.epoch == generation.epoch && from <= Some(known.revision);
        if from.is_some() && !self.applied.get(&name).is_some_and(leads) {
            self.counters.astray.fetch_add(1, Relaxed);
            return say(up, message::missing(name)).await;
        }
        self.counters.acks.fetch_add(1, Relaxed);
        self.applied.insert(name.clone(), generation);
        say(up, message::ack(name, generation)).await
    }

    async fn obey(&mut self, up: &Up, order: Option<Order>) -> Result<(), Ended> {
        match order.ok_or(Ended::Over)? {
            Order::Hold(place) => self.book.hold(place),
            Order::Fill(ticket) => {
                self.book.fill();
                self.report(up, Some(ticket)).await?;
            }
            Order::Change(ticket) => {
                self.book.change();
                self.report(up, Some(ticket)).await?;
            }
            Order::Return(ticket) => {
                ticket.taken();
                self.returning = Some(ticket);
            }
            Order::Cut(ticket) => {
                ticket.taken();
                self.returning = Some(ticket);
                return Err(Ended::Cut);
            }
        }
        Ok(())
    }

    async fn report(&mut self, up: &Up, ticket: Option<Ticket>) -> Result<(), Ended> {
        let report = self.book.report(self.progress.next(ticket));
        say(up, message::report(report)).await
    }
}

async fn say(up: &Up, message: v1::AgentMessage) -> Result<(), Ended> {
    up.send(message).await.map_err(|_| Ended::Lost("control closed the stream".to_owned()))
}

/// Signs of life, spread like those of hosts that started at different times.
fn heartbeat() -> Interval {
    interval_at(Instant::now() + HEARTBEAT.mul_f64(rand::random()), HEARTBEAT)
}
