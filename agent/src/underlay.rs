//! Underlay addresses of this host: found by what was chosen, and followed while the agent runs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sealane_base::task::{self, Task};
use sealane_fabric::netlink::NetlinkError;
use sealane_fabric::overlay::{
    Overlay, UnderlayChoice, UnderlayChoices, UnderlayError, is_of_one_host, source_towards,
};
use sealane_proto::resource::ControlAddr;
use sealane_proto::types::{IpFamily, UnderlayAddr, UnderlayAddrs};
use sealane_sys::hop::Hopper;

/// Addresses far away, of either family (RFC 5737, RFC 3849).
const ELSEWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 7443),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 7443),
];
/// Time that resolvers may take until that is named.
const LOOKUP: Duration = Duration::from_secs(1);
/// Time within which changes of the host's addresses count as one: a lease is removed and given anew in steps.
const TOGETHER: Duration = Duration::from_millis(100);
/// Least time between two looks at the host's addresses, however often they change.
const REST: Duration = Duration::from_millis(500);
/// Interval at which an address that could not be found or taken is looked for again without a notice.
const AGAIN: Duration = Duration::from_secs(5);

/// Source of the underlay address.
#[derive(Clone, Debug)]
pub(crate) struct UnderlaySource {
    /// Choices among the host's addresses.
    pub(crate) choices: UnderlayChoices,
    /// Addresses of control.
    pub(crate) control: Vec<ControlAddr>,
    /// True if control is on this host and others may join: then loopback is no address for it.
    pub(crate) expects_others: bool,
}

/// Reasons for which this host has no underlay address.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Control's name has no address.
    #[error(
        "cannot look up {0}, where control should be: {1}; hint: name control by its address in --control, or see resolv.conf(5)"
    )]
    Lookup(ControlAddr, #[source] io::Error),
    /// No control to look towards.
    #[error("no address of control is known; give one with --control")]
    NoControl,
    /// No address of the host fits.
    #[error(transparent)]
    Underlay(#[from] UnderlayError),
}

impl UnderlaySource {
    /// Finds the addresses by what the host has now; those of `before` stay where they fit. Names are looked up for an address
    /// that the host can do without only if `thorough`.
    ///
    /// # Errors
    /// When no main address fits, or there is no way to control, or a second one was chosen and none has ever fit.
    pub(crate) async fn find(
        &self,
        hopper: &Arc<Hopper>,
        before: Option<UnderlayAddrs>,
        thorough: bool,
    ) -> Result<UnderlayAddrs, SourceError> {
        // Who has both keeps the family of each: others go by it.
        let main = before.filter(|before| before.other().is_some()).map(UnderlayAddrs::first);
        let kept = before.map(UnderlayAddrs::first);
        let found = resolve(hopper, &self.choices.first, kept, main.map(UnderlayAddr::family)).await?;
        let first = match (found, main) {
            (Some(address), _) => address,
            (None, Some(main)) => self.source_of(main.family(), thorough).await.unwrap_or(main),
            (None, None) => self.source(kept).await?,
        };
        let family = first.family().other();
        let known = before.and_then(UnderlayAddrs::other).filter(|other| other.family() == family);
        // One that is gone may come back: whoever goes without another choice keeps it in mind.
        let other = match self.other(hopper, first, known, thorough).await {
            Ok(found) => found.or(known),
            Err(error) => Some(known.ok_or(error)?),
        };
        // One of another family than the first one's: this cannot fail.
        Ok(UnderlayAddrs::new(first, other).unwrap_or(first.into()))
    }

    /// Finds an address of the other family than that of `first`.
    async fn other(
        &self,
        hopper: &Arc<Hopper>,
        first: UnderlayAddr,
        before: Option<UnderlayAddr>,
        thorough: bool,
    ) -> Result<Option<UnderlayAddr>, SourceError> {
        let family = Some(first.family().other());
        match (&self.choices.other, &self.choices.first) {
            (Some(chosen), _) => {
                let found = resolve(hopper, chosen, before, family).await?;
                if found.is_some() || *chosen != UnderlayChoice::Auto {
                    return Ok(found);
                }
            }
            (None, UnderlayChoice::Address(_) | UnderlayChoice::Prefix(_)) => return Ok(None),
            // An interface need not have both.
            (None, choice @ UnderlayChoice::Interface(_)) => {
                return Ok(resolve(hopper, choice, before, family).await.unwrap_or_default());
            }
            (None, UnderlayChoice::Auto) => {
                let found = resolve(hopper, &UnderlayChoice::Auto, before, family).await?;
                if found.is_some() || first.to_ip().is_loopback() {
                    return Ok(found);
                }
            }
        }
        Ok(self.source_of(first.family().other(), thorough).await)
    }

    /// Finds the source address of packets to control in a family in which control has an address.
    async fn source_of(&self, family: IpFamily, thorough: bool) -> Option<UnderlayAddr> {
        let is_other = |found: &UnderlayAddr| found.family() == family && is_of_one_host(found.to_ip());
        if self.expects_others {
            // Control listens to both.
            let listens = self.control.iter().any(|control| control.literal.is_some_and(|at| at.is_ipv6()));
            let far = ELSEWHERE.into_iter().find(|far| IpFamily::of(far.ip()) == family)?;
            return source_towards(far).ok().filter(|found| listens && is_other(found));
        }
        for control in &self.control {
            let targets = match control.literal {
                Some(literal) => vec![literal],
                None if thorough => resolve_name(control).await.unwrap_or_default(),
                None => Vec::new(),
            };
            let of_family =
                targets.into_iter().filter(|target| IpFamily::of(target.ip().to_canonical()) == family);
            let found = of_family.filter_map(|target| source_towards(target).ok()).find(is_other);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Finds the source address of packets to control. Whoever had one that others reach does not go back to loopback.
    async fn source(&self, before: Option<UnderlayAddr>) -> Result<UnderlayAddr, SourceError> {
        let reached = before.filter(|before| !before.to_ip().is_loopback());
        if self.expects_others
            && let Ok(found) = source_to_elsewhere(reached)
        {
            return Ok(found);
        }
        let mut found = Err(SourceError::NoControl);
        for control in &self.control {
            found = source_to(control, reached).await;
            if found.is_ok() {
                break;
            }
        }
        match found {
            Ok(found) if found.to_ip().is_loopback() && reached.is_some() => {
                Ok(source_to_elsewhere(reached)?)
            }
            found => found,
        }
    }
}

/// Chooses among the addresses that the host has.
async fn resolve(
    hopper: &Arc<Hopper>,
    choice: &UnderlayChoice,
    before: Option<UnderlayAddr>,
    family: Option<IpFamily>,
) -> Result<Option<UnderlayAddr>, SourceError> {
    let (choice, hopper) = (choice.clone(), hopper.clone());
    let looked = task::blocking(move || choice.resolve(&hopper, before, family)).await;
    Ok(looked.map_err(|error| UnderlayError::from(NetlinkError::from(error)))??)
}

/// Finds the source address of packets to far away; nothing is sent there.
fn source_to_elsewhere(before: Option<UnderlayAddr>) -> Result<UnderlayAddr, UnderlayError> {
    let first = usize::from(before.is_some_and(|before| before.to_ip().is_ipv6()));
    source_towards(ELSEWHERE[first]).or_else(|error| source_towards(ELSEWHERE[1 - first]).map_err(|_| error))
}

async fn source_to(control: &ControlAddr, before: Option<UnderlayAddr>) -> Result<UnderlayAddr, SourceError> {
    let lookup = |error| SourceError::Lookup(control.clone(), error);
    let mut targets = resolve_name(control).await.map_err(lookup)?;
    let is_ipv4 = before.is_none_or(|before| before.to_ip().is_ipv4());
    targets.sort_by_key(|target| target.is_ipv4() != is_ipv4);
    let target = targets.first().ok_or_else(|| lookup(io::ErrorKind::NotFound.into()))?;
    Ok(source_towards(*target)?)
}

/// Looks control's name up; a resolver that does not answer is named before it gives up.
async fn resolve_name(control: &ControlAddr) -> io::Result<Vec<SocketAddr>> {
    let mut lookup = std::pin::pin!(tokio::net::lookup_host(&control.text));
    let resolved = match tokio::time::timeout(LOOKUP, lookup.as_mut()).await {
        Ok(resolved) => resolved,
        Err(_) => {
            tracing::warn!(%control, "the resolvers of this host (resolv.conf) do not answer for control's name yet");
            lookup.await
        }
    };
    Ok(resolved?.collect())
}

/// Follows the host's addresses for ever: when the one beneath is gone and another one fits, everything moves there.
/// `announces` says that the address is another one than when the agent ran last.
pub(crate) async fn follow(
    source: UnderlaySource,
    overlay: Arc<Overlay>,
    hopper: Arc<Hopper>,
    announces: bool,
) {
    let mut announcing = announces.then(|| announce(&overlay));
    let mut notices = overlay.underlay_notices().map_err(unnoticed).ok();
    loop {
        let before = *overlay.underlay().borrow();
        match source.find(&hopper, Some(before), false).await {
            Ok(now) if now != before => {
                match overlay.relocate(now).await {
                    Ok(()) => tracing::info!(%before, %now, "this host has another underlay address"),
                    Err(error) => {
                        tracing::error!(%before, %now, %error, "cannot move to another underlay address")
                    }
                }
                announcing = Some(announce(&overlay));
            }
            Ok(_) => {}
            // It may come back or be followed by another one: `status` says that it is gone.
            Err(error) => tracing::debug!(%before, %error, "no underlay address of this host fits now"),
        }
        announcing = announcing.filter(|announcing| !announcing.is_finished());
        tokio::time::sleep(REST).await;
        let told = async {
            match &mut notices {
                Some(notices) => notices.changed().await,
                None => std::future::pending().await,
            }
        };
        match tokio::time::timeout(AGAIN, told).await {
            Ok(Ok(())) => tokio::time::sleep(TOGETHER).await,
            Ok(Err(error)) => {
                unnoticed(error.into());
                notices = None;
            }
            Err(_) => {}
        }
    }
}

fn unnoticed(error: NetlinkError) {
    tracing::error!(%error, "changes of this host's addresses are not noticed, but looked for every few seconds");
}

fn announce(overlay: &Arc<Overlay>) -> Task {
    let overlay = overlay.clone();
    task::spawn("underlay-announcement", async move {
        if let Err(error) = overlay.announce_underlay().await {
            tracing::debug!(%error, "the underlay address cannot be announced");
        }
    })
}
