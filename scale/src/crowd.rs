//! All simulated hosts: they join, open their streams and get their addresses.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use sealane_base::task::{self, Task};
use sealane_proto::client::{TlsIdentity, join};
use sealane_proto::identity::Trust;
use sealane_proto::resource::{ControlAddr, Node};
use sealane_proto::token::JoinToken;
use sealane_proto::wire::v1;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Duration, Instant, sleep, timeout_at};
use tonic::transport::Channel;
use v1::control_client::ControlClient;

use crate::book::{Book, Place};
use crate::figures::{Counters, Round, Ticket};
use crate::host::{Host, Member, Order};
use crate::message::VERSION;
use crate::plan::Plan;

/// Hosts that join, or ask for addresses, at the same time.
const AT_ONCE: usize = 64;
/// Pause before a host tries again.
const AGAIN: Duration = Duration::from_millis(200);
/// Blocks that a host asks for at most.
const BLOCKS: usize = 32;
/// Port of control.
const PORT: u16 = 7443;

/// Everything that hosts share.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) plan: Arc<Plan>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) counters: Arc<Counters>,
}

/// Hosts with a stream each.
#[derive(Debug)]
pub(crate) struct Crowd {
    common: Common,
    hosts: Vec<Handle>,
    _tasks: Vec<Task>,
}

/// Ends at which others reach a host.
#[derive(Clone, Debug)]
struct Handle {
    network: String,
    orders: mpsc::UnboundedSender<Order>,
    calls: watch::Receiver<Option<Channel>>,
}

/// Lets all hosts join; those that could not within the plan's patience are missing from the result.
pub(crate) async fn join_all(common: &Common, token: &JoinToken) -> Vec<Member> {
    let (places, deadline) = (Arc::new(Semaphore::new(AT_ONCE)), Instant::now() + common.plan.patience());
    let joining = (0..common.plan.hosts).map(|index| {
        let (common, token, places) = (common.clone(), token.clone(), places.clone());
        task::spawn("join", async move {
            let _place = places.acquire().await;
            join_one(&common, &token, index, deadline).await
        })
    });
    let (joining, mut members): (Vec<_>, _) = (joining.collect(), vec![]);
    for joined in joining {
        match joined.await {
            Ok(Ok(member)) => members.push(member),
            Ok(Err(reason)) => common.counters.complain(&reason),
            Err(panicked) => common.counters.complain(&panicked.to_string()),
        }
    }
    members
}

async fn join_one(
    common: &Common,
    token: &JoinToken,
    index: usize,
    deadline: Instant,
) -> Result<Member, String> {
    let (name, underlay) = (Plan::host(index), Plan::underlay(index));
    let words = |error: &dyn std::fmt::Display| error.to_string();
    // At its own address, which is control's too: so each connection comes from the host's.
    let address: ControlAddr = format!("{underlay}:{PORT}").parse().map_err(|error| words(&error))?;
    let node = Node {
        name: name.parse().map_err(|error| words(&error))?,
        underlay: underlay.to_string().parse().map_err(|error| words(&error))?,
        mtu: None,
    };
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| words(&error))?;
    let request = CertificateParams::default().serialize_request(&pair).map_err(|error| words(&error))?;
    let joined = loop {
        let asked = join(&address, token, &node, request.der().to_vec(), VERSION, &common.provider);
        match timeout_at(deadline, asked).await {
            Ok(Ok(joined)) => break joined,
            Ok(Err(error)) if error.is_retryable() && Instant::now() < deadline => {
                common.counters.complain(&error.to_string());
                sleep(AGAIN).await;
            }
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer to a join in time".to_owned()),
        }
    };
    let trust = Trust::new(joined.trust_domain, &joined.roots).map_err(|error| words(&error))?;
    let key = PrivatePkcs8KeyDer::from(pair.serialize_der()).into();
    let identity = TlsIdentity { chain: joined.chain, key, trust };
    Ok(Member { index, underlay: underlay.to_string(), address, identity })
}

impl Crowd {
    /// Lets all members open their streams.
    pub(crate) fn open(common: Common, members: Vec<Member>) -> (Self, Arc<Round>) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (round, begun) = (Arc::new(Round::default()), Instant::now());
        let (mut hosts, mut tasks) = (vec![], vec![]);
        for member in members {
            let (orders, taken) = mpsc::unbounded_channel();
            let (called, calls) = watch::channel(None);
            hosts.push(Handle { network: common.plan.network_of(member.index), orders, calls });
            let book = Book::new(common.plan.clone(), member.index, since_epoch.as_secs());
            let shared = (common.provider.clone(), common.counters.clone());
            let host = Host::new((member, book), shared, taken, called);
            tasks.push(task::spawn("host", host.returning(round.ticket(begun)).live()));
        }
        (Self { common, hosts, _tasks: tasks }, round)
    }

    /// Number of hosts.
    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Lets all hosts get addresses on their streams. Those that got none within the plan's patience are no part of the crowd's
    /// further steps; returns their number.
    pub(crate) async fn carry(&mut self) -> usize {
        let (places, deadline) =
            (Arc::new(Semaphore::new(AT_ONCE)), Instant::now() + self.common.plan.patience());
        let carrying = self.hosts.iter().map(|host| {
            let (host, places, needed) = (host.clone(), places.clone(), self.common.plan.addresses_of_host());
            task::spawn("carry", async move {
                let _place = places.acquire().await;
                let leased = host.lease(needed, deadline).await?;
                host.order(Order::Hold(leased));
                Ok::<_, String>(host)
            })
        });
        let (carrying, all): (Vec<_>, _) = (carrying.collect(), self.hosts.len());
        let mut able = vec![];
        for carried in carrying {
            match carried.await {
                Ok(Ok(host)) => able.push(host),
                Ok(Err(reason)) => self.common.counters.complain(&reason),
                Err(panicked) => self.common.counters.complain(&panicked.to_string()),
            }
        }
        self.hosts = able;
        all - self.hosts.len()
    }

    /// Gives an order to every host.
    pub(crate) fn order_all(&self, order: impl Fn(Ticket) -> Order) -> Arc<Round> {
        let (round, now) = (Arc::new(Round::default()), Instant::now());
        self.hosts.iter().for_each(|host| host.order(order(round.ticket(now))));
        round
    }

    /// Gives the change of this number in a round, which is due now, to the host whose turn it is: neighbours in time are none
    /// in name.
    pub(crate) fn change(&self, number: usize, ticket: Ticket) {
        if let Some(host) = self.hosts.get(number.wrapping_mul(7_919) % self.hosts.len().max(1)) {
            host.order(Order::Change(ticket));
        }
    }
}

impl Handle {
    fn order(&self, order: Order) {
        // A host ends only with the crowd.
        let _ = self.orders.send(order);
    }

    /// For calls, as soon as the host has a stream.
    async fn channel(&self) -> Option<Channel> {
        let mut calls = self.calls.clone();
        calls.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Asks for blocks until there are so many addresses.
    async fn lease(&self, needed: usize, deadline: Instant) -> Result<Place, String> {
        let (mut held, late) = (0, |_| "no addresses in time".to_owned());
        for _ in 0..BLOCKS {
            let channel = timeout_at(deadline, self.channel()).await.map_err(late)?;
            let channel = channel.ok_or("the host has ended")?;
            let request = v1::CarryRequest { network: self.network.clone(), blocks_held: held, ahead: false };
            let mut client = ControlClient::new(channel);
            match timeout_at(deadline, client.carry(request)).await.map_err(late)? {
                Ok(answer) => {
                    let place = Place::of(answer.into_inner()).map_err(|error| error.to_string())?;
                    if place.addresses() >= needed {
                        return Ok(place);
                    }
                    held = place.blocks;
                }
                // The stream may have broken.
                Err(status) if status.code() == tonic::Code::Unavailable => sleep(AGAIN).await,
                Err(status) => return Err(status.message().to_owned()),
            }
        }
        Err(format!("{BLOCKS} blocks do not suffice for {needed} addresses"))
    }
}
