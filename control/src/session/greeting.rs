//! Beginning of a stream: the agent's hello, and the refusal of somebody who is not welcome.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use sealane_base::text::one_line;
use sealane_proto::resource::{Edition, Node};
use sealane_proto::types::{Generation, Mtu, NameError, NetworkName, NodeName, UnderlayAddrs};
use sealane_proto::wire::{WireError, agree, v1};
use tokio::time::{Instant, timeout};
use tonic::{Status, Streaming};
use v1::agent_message::Message as Up;

use super::{Context, NETWORKS};
use crate::VERSION;
use crate::core::{
    Actor, Outdone, Readmit, Readmitted, Relocate, Relocated, TellEchoes, TellMtu, Timestamp, ToldPlace,
};
use crate::registry::{Held, Registry};
use crate::serve::{CertifiedHost, Proof};
use crate::status::{not_a_node, status_of};

/// Limit for an agent's first message.
const HELLO: Duration = Duration::from_secs(5);
/// Longest version.
const LONGEST_VERSION: usize = 64;

/// First message of an agent.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) version: String,
    pub(super) protocol: u32,
    pub(crate) applied: BTreeMap<NetworkName, Generation>,
    pub(super) recalls: bool,
    pub(super) takes_deltas: bool,
    /// The newest states that it was told.
    pub(crate) held: Held,
    pub(crate) instance: Option<u64>,
    pub(super) metrics_port: Option<u16>,
    /// True if the host answers echoes.
    pub(crate) echoes: bool,
}

/// The underlay addresses of a host as its hello has them; empty where there is none.
#[derive(Debug)]
pub(crate) struct ToldUnderlay {
    first: String,
    other: String,
    /// Age of that word; `None` from an agent of an earlier version.
    placed: Option<Edition>,
}

/// Change of a host's record that its hello asks for.
#[derive(Debug)]
pub(crate) enum Placement {
    /// None.
    Stay,
    /// The store has no record of it.
    Readmit(Readmit),
    /// Take over the address of a host that is somewhere else than before.
    Relocate(Relocate),
}

/// Waits for Hello: what the agent runs, where its metrics are, and which generations it works by.
pub(super) async fn greet(
    context: &Context,
    opener: CertifiedHost,
    incoming: &mut Streaming<v1::AgentMessage>,
) -> Result<Greeting, Status> {
    let first = timeout(HELLO, incoming.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no Hello came within 5 s"))??;
    let Some(v1::AgentMessage { message: Some(Up::Hello(hello)) }) = first else {
        return Err(Status::invalid_argument("the first message of a stream must be Hello"));
    };
    context.metrics.message("hello", "up");
    let (greeting, underlay, mtu) = read(hello)?;
    let node = opener.node.clone();
    if let Some(outdone) = context.registry.outdone(&node, &greeting.held) {
        begin_lifetime(context, outdone).await?;
    }
    match placement(&context.registry, opener, &underlay, SystemTime::now().into())? {
        Placement::Stay => {}
        Placement::Readmit(command) => readmit(context, command).await?,
        Placement::Relocate(command) => relocate(context, command).await?,
    }
    let known = context.registry.directory().nodes.get(&node).is_some_and(|record| record.echoes);
    if known != greeting.echoes {
        let told = TellEchoes { node: node.clone(), echoes: greeting.echoes };
        context.writer.submit(Actor::Host(node.clone()), told).await.map_err(status_of)?;
    }
    // What is no sensible one says as much as none.
    if let Some(mtu) = mtu
        && context.registry.takes_mtu(&node, mtu, Instant::now())
    {
        context.writer.submit(Actor::Host(node.clone()), TellMtu { node, mtu }).await.map_err(status_of)?;
    }
    Ok(greeting)
}

/// Reads a hello: what the agent says of itself, the underlay addresses of its host, and the size of packets on its ways.
///
/// # Errors
/// The status to refuse it with.
pub(crate) fn read(hello: v1::Hello) -> Result<(Greeting, ToldUnderlay, Option<Mtu>), Status> {
    check_version(&hello.version)?;
    let protocol = check_protocol(hello.oldest_protocol, hello.protocol, &hello.version)?;
    if hello.applied.len() > NETWORKS {
        return Err(Status::invalid_argument(format!("Hello.applied names more than {NETWORKS} networks")));
    }
    let held = held(hello.held)?;
    let applied = hello.applied.into_iter().map(acknowledgement).collect::<Result<_, _>>()?;
    let metrics_port = u16::try_from(hello.metrics_port).ok().filter(|&port| port != 0);
    let instance = Some(hello.instance).filter(|&instance| instance != 0);
    let (version, recalls, echoes) = (hello.version, hello.recalls, hello.echoes);
    let takes_deltas = hello.takes_deltas;
    let greeting =
        Greeting { version, protocol, applied, recalls, takes_deltas, held, instance, metrics_port, echoes };
    let placed = Edition { incarnation: hello.place_incarnation, revision: hello.place_revision };
    let placed = Some(placed).filter(|placed| *placed != Edition::default());
    let underlay = ToldUnderlay { first: hello.underlay, other: hello.underlay_other, placed };
    Ok((greeting, underlay, Mtu::try_from(hello.mtu).ok()))
}

/// Decides what must become durable before the stream of a host that says that it is at `underlay` opens.
///
/// # Errors
/// The status to refuse it with.
pub(crate) fn placement(
    registry: &Registry,
    opener: CertifiedHost,
    underlay: &ToldUnderlay,
    now: Timestamp,
) -> Result<Placement, Status> {
    let CertifiedHost { node: name, newcomer, addr, .. } = opener;
    let source = Some(addr.ip());
    match newcomer {
        // A host that joined after the backup was taken that this store was restored from.
        Some(Proof { key, issued }) => {
            let unknown = Readmit::unknown(&name).to_string();
            let placed = underlay.placed.unwrap_or_default();
            let (underlay, underlay_other) = (underlay.first.clone(), underlay.other.clone());
            let told = v1::Node { name: name.to_string(), underlay, underlay_other, ..v1::Node::default() };
            let node = Node::try_from(told).map_err(|_| Status::permission_denied(unknown))?;
            let gone = registry.gone_from(node.underlay, source, now);
            Ok(Placement::Readmit(Readmit { node, key, issued, gone, placed }))
        }
        // Agents from before they said so are where they were.
        None if underlay.first.is_empty() => Ok(Placement::Stay),
        None => {
            let bad = |error| Status::invalid_argument(one_line(&format!("Hello.underlay: {error}"), 512));
            let placed = underlay.placed;
            let underlay = UnderlayAddrs::of_wire(&underlay.first, &underlay.other).map_err(bad)?;
            let told = ToldPlace { underlay, placed };
            let directory = registry.directory();
            let Some(known) = directory.nodes.get(&name).filter(|known| !known.says(told, now)) else {
                return Ok(Placement::Stay);
            };
            if !known.is_at(underlay) {
                registry.note_elsewhere(&name, told);
            }
            let gone = registry.gone_from(underlay, source, now);
            let meant = gone.as_ref().and_then(|gone| registry.elsewhere(gone));
            Ok(Placement::Relocate(Relocate { name, told, gone, meant }))
        }
    }
}

/// Checks that a text may be a peer's version: it is shown to people, and compared.
pub(crate) fn check_version(text: &str) -> Result<(), Status> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-+_".contains(&byte);
    if text.len() <= LONGEST_VERSION && text.bytes().all(fits) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "version must have at most {LONGEST_VERSION} letters, digits and .-+_"
    )))
}

/// The protocol to speak. Peers that have none in common refuse each other, with both versions.
pub(crate) fn check_protocol(oldest: u32, newest: u32, version: &str) -> Result<u32, Status> {
    agree(oldest, newest).map_err(|error| {
        Status::failed_precondition(format!(
            "the agent is Sealane {version}, this control plane is {VERSION}: {error}; run the same version on both"
        ))
    })
}

/// The store is an earlier copy: a new lifetime begins, unless one has meanwhile.
async fn begin_lifetime(context: &Context, outdone: Outdone) -> Result<(), Status> {
    if context.writer.begin_lifetime(outdone.clone()).await.map_err(status_of)? {
        let Outdone { node, heard, from, .. } = &outdone;
        tracing::warn!(
            %node, %heard, store = %from,
            "a host was told what the store does not know, which is an earlier copy therefore: a new lifetime begins, and hosts \
             tell what they have"
        );
        context.registry.note_outdone(outdone, SystemTime::now().into());
    }
    Ok(())
}

async fn readmit(context: &Context, command: Readmit) -> Result<(), Status> {
    let (node, at, key) = (command.node.name.clone(), command.node.underlay, command.key);
    match context.writer.submit(Actor::Host(node.clone()), command).await.map_err(status_of)? {
        Readmitted::Known => Ok(()),
        Readmitted::TakenIn { displaced } => {
            tracing::info!(%node, "taken in again by its certificate");
            warn_displaced(displaced, at, &node);
            Ok(())
        }
        Readmitted::Revoked => {
            context.metrics.revocations.with_label_values(&["node"]).inc();
            Err(not_a_node(&context.registry.directory(), &node, Some(key)))
        }
    }
}

async fn relocate(context: &Context, command: Relocate) -> Result<(), Status> {
    let (name, underlay) = (command.name.clone(), command.told.underlay);
    let actor = Actor::Host(name.clone());
    let relocated = context.writer.submit(actor, command).await.map_err(status_of)?;
    let Some(Relocated { before, displaced }) = relocated else { return Ok(()) };
    tracing::info!(node = %name, %before, now = %underlay, "the host has another underlay address");
    warn_displaced(displaced, underlay, &name);
    Ok(())
}

/// Says in the log that a host has lost its address, if one has.
pub(crate) fn warn_displaced(displaced: Option<NodeName>, underlay: UnderlayAddrs, by: &NodeName) {
    let Some(node) = displaced else { return };
    tracing::warn!(
        %node, %underlay, %by,
        "another host has come with the underlay address of this one, which was away: nothing is sent to it until it comes \
         with its own"
    );
}

/// Reads the states that an agent was told; those that nobody vouches for say nothing.
fn held(told: Vec<v1::Ack>) -> Result<Held, Status> {
    if told.len() > NETWORKS {
        return Err(Status::invalid_argument(format!("Hello.held names more than {NETWORKS} networks")));
    }
    let mut held = Held::new();
    for mut ack in told {
        let Some(voucher) = ack.voucher.take() else { continue };
        let bad = |error: WireError| Status::invalid_argument(one_line(&format!("Hello.held: {error}"), 512));
        let voucher = voucher.try_into().map_err(bad)?;
        let (network, generation) = acknowledgement(ack)?;
        held.insert(network, (generation, voucher));
    }
    Ok(held)
}

pub(super) fn acknowledgement(ack: v1::Ack) -> Result<(NetworkName, Generation), Status> {
    let network = ack.network.parse().map_err(|error: NameError| {
        Status::invalid_argument(one_line(&format!("Ack.network: {error}"), 512))
    })?;
    let generation = ack.generation.ok_or_else(|| Status::invalid_argument("Ack.generation is missing"))?;
    Ok((network, generation.into()))
}
