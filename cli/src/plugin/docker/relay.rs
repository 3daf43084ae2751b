//! From dockerd's connections to the agent's socket and back, octet by octet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sealane_base::socket::Listener;
use sealane_base::{task, telemetry};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::client::converse;
use crate::failure::Failure;

/// The time for which an agent that starts anew may be away; dockerd itself tries again for about as long.
const AWAY: Duration = Duration::from_secs(15);
/// The time between two tries to reach it.
const AGAIN: Duration = Duration::from_millis(100);

/// Serves until the process ends.
pub(super) fn serve(listen: &Path, agent: &Path) -> Result<(), Failure> {
    telemetry::init().iter().for_each(|flaw| tracing::warn!("{flaw}"));
    converse(async {
        let listener = Listener::bind(listen);
        let mut listener = listener.map_err(Failure::of(format!("cannot listen at {}", listen.display())))?;
        loop {
            match listener.accept().await {
                // A conversation ends with either side.
                Ok(dockerd) => task::spawn("docker-relay", relay(dockerd, agent.to_owned())).detach(),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    sleep(AGAIN).await;
                }
            }
        }
    })
}

async fn relay(mut dockerd: UnixStream, agent: PathBuf) {
    let relayed = async {
        let mut agent = connect(&agent).await?;
        tokio::io::copy_bidirectional(&mut dockerd, &mut agent).await
    };
    if let Err(error) = relayed.await {
        tracing::warn!(agent = %agent.display(), %error, "a call is not passed on");
    }
}

/// Connects to an agent that may be just starting.
async fn connect(agent: &Path) -> std::io::Result<UnixStream> {
    let deadline = Instant::now() + AWAY;
    loop {
        match UnixStream::connect(agent).await {
            Err(_) if Instant::now() < deadline => sleep(AGAIN).await,
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_dockerd_says_waits_for_an_agent_that_starts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let (mut dockerd, end) = UnixStream::pair().unwrap();
        let relaying = task::spawn("relay", relay(end, path.clone()));
        dockerd.write_all(b"call").await.unwrap();
        sleep(AGAIN * 2).await;
        let mut agent = Listener::bind(&path).unwrap().accept().await.unwrap();
        let mut said = [0; 4];
        agent.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"call");
        agent.write_all(b"answer").await.unwrap();
        drop(agent);
        let mut heard = Vec::new();
        dockerd.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"answer");
        drop(relaying);
    }
}
