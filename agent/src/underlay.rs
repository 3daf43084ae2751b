//! This host's underlay address: found by what was chosen, and followed while the agent runs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sealane_base::task::{self, Task};
use sealane_fabric::netlink::NetlinkError;
use sealane_fabric::overlay::{Overlay, UnderlayChoice, UnderlayError, source_towards};
use sealane_proto::resource::ControlAddr;
use sealane_proto::types::UnderlayAddr;
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
    /// Choice among the host's addresses.
    pub(crate) choice: UnderlayChoice,
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
    /// Finds the address by what the host has now; `before` stays where it fits.
    ///
    /// # Errors
    /// When no address fits, or there is no way to control.
    pub(crate) async fn find(
        &self,
        hopper: &Arc<Hopper>,
        before: Option<UnderlayAddr>,
    ) -> Result<UnderlayAddr, SourceError> {
        let (choice, hopper) = (self.choice.clone(), hopper.clone());
        let looked = task::blocking(move || choice.resolve(&hopper, before)).await;
        match looked.map_err(|error| UnderlayError::from(NetlinkError::from(error)))?? {
            Some(address) => Ok(address),
            None => self.source(before).await,
        }
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

/// Finds the source address of packets to far away; nothing is sent there.
fn source_to_elsewhere(before: Option<UnderlayAddr>) -> Result<UnderlayAddr, UnderlayError> {
    let first = usize::from(before.is_some_and(|before| before.to_ip().is_ipv6()));
    source_towards(ELSEWHERE[first]).or_else(|error| source_towards(ELSEWHERE[1 - first]).map_err(|_| error))
}

async fn source_to(control: &ControlAddr, before: Option<UnderlayAddr>) -> Result<UnderlayAddr, SourceError> {
    let lookup = |error| SourceError::Lookup(control.clone(), error);
    let mut targets = resolve(control).await.map_err(lookup)?;
    let is_ipv4 = before.is_none_or(|before| before.to_ip().is_ipv4());
    targets.sort_by_key(|target| target.is_ipv4() != is_ipv4);
    let target = targets.first().ok_or_else(|| lookup(io::ErrorKind::NotFound.into()))?;
    Ok(source_towards(*target)?)
}

/// Looks control's name up; a resolver that does not answer is named before it gives up.
async fn resolve(control: &ControlAddr) -> io::Result<Vec<SocketAddr>> {
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
        match source.find(&hopper, Some(before)).await {
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
