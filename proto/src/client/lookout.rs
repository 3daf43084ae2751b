//! A look at the control planes from one that this host has no stream with: when the one that leads vanishes, freezes or is cut off, the
//! other one says at once who leads after it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::CryptoProvider;
use sealane_base::backoff::Backoff;
use sealane_base::task::{self, Task};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::connect::{TlsIdentity, control_channel};
use super::controls::Controls;
use crate::resource::ControlAddr;
use crate::wire::v1;
use crate::wire::v1::lookout_client::LookoutClient;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A look that lasted so long was a success.
const LASTING: Duration = Duration::from_secs(10);
/// Limit for connecting: the next one has to have time for it.
const CONNECT: Duration = Duration::from_secs(5);
/// Largest word.
const LARGEST: usize = 64 << 10;

/// Looks for as long as the task is held. Words of control planes are in `controls`.
pub(super) fn start(
    controls: watch::Sender<Controls>,
    identity: watch::Receiver<Arc<TlsIdentity>>,
    provider: Arc<CryptoProvider>,
) -> Task {
    task::spawn("control-lookout", run(controls, identity, provider))
}

async fn run(
    controls: watch::Sender<Controls>,
    identity: watch::Receiver<Arc<TlsIdentity>>,
    provider: Arc<CryptoProvider>,
) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    // Hosts spread over the control planes.
    let (mut turn, mut known) = (usize::from(rand::random::<u16>()), controls.subscribe());
    loop {
        let Some(address) = known.borrow_and_update().asked(turn) else {
            // The sender is this one's: it does not go away.
            let _ = known.changed().await;
            continue;
        };
        let (begun, own) = (Instant::now(), identity.borrow().clone());
        tokio::select! {
            () = look(&address, (&own, &provider), &controls) => {}
            _ = known.wait_for(|known| !known.may_ask(&address)) => continue,
        }
        if begun.elapsed() >= LASTING {
            backoff.reset();
        }
        turn = turn.wrapping_add(1);
        sleep(backoff.next_wait(rand::random())).await;
    }
}

/// Looks from the control plane at this address until that ends, or is the one that leads while there are others.
async fn look(
    address: &ControlAddr,
    (identity, provider): (&TlsIdentity, &Arc<CryptoProvider>),
    controls: &watch::Sender<Controls>,
) {
    let Ok(Ok(channel)) = timeout(CONNECT, control_channel(address, identity, provider)).await else {
        return;
    };
    let mut client = LookoutClient::new(channel).max_decoding_message_size(LARGEST);
    let Ok(words) = client.watch(v1::WatchControlsRequest {}).await else { return };
    let mut words = words.into_inner();
    while let Ok(Some(word)) = words.message().await {
        controls.send_if_modified(|controls| controls.hear(&word));
        if word.leads && word.addresses.len() > 1 {
            return;
        }
    }
}
