//! The requests of one connection, as they come.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use h2::Reason;
use sealane_base::drain::Draining;
use sealane_base::task;

use super::{Connection, Outgoing, Peer, Pipe, Request, Screen, Turn, Window, server};

/// Limit for a client from its first byte to the end of its preface.
const PREFACE: Duration = Duration::from_secs(60);

/// Serves every request of this peer by a task of its own, until the connection ends. When a drain begins, the peer is
/// told by GOAWAY; what it has sent before is served.
///
/// # Errors
/// How the connection broke.
pub(crate) async fn serve_all<F>(
    pipe: Pipe,
    peer: Peer,
    window: &Window,
    draining: &Draining,
    serve: impl Fn(Request) -> F,
) -> Result<(), h2::Error>
where
    F: Future<Output = ()> + 'static,
{
    let screen = Screen::new(pipe, peer);
    let turn = screen.turn();
    let served = async {
        let handshake = server(peer).handshake(screen);
        let connection = match peer {
            Peer::Client => {
                tokio::time::timeout(PREFACE, handshake).await.map_err(|_| Reason::SETTINGS_TIMEOUT)?
            }
            Peer::Application | Peer::Sidecar { .. } => handshake.await,
        };
        accept_all(connection?, window, draining, serve).await
    };
    Turn::of(turn, served).await
}

async fn accept_all<F>(
    mut connection: Connection,
    window: &Window,
    draining: &Draining,
    serve: impl Fn(Request) -> F,
) -> Result<(), h2::Error>
where
    F: Future<Output = ()> + 'static,
{
    let (mut drain, running) = (draining.clone(), Rc::new(()));
    let outgoing = Outgoing::new(window.memory());
    if let Some(size) = window.fit(0) {
        connection.set_target_window_size(size);
    }
    let mut begun = pin!(drain.begun().fuse());
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = connection.accept() => accepted,
            () = &mut begun => {
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(accepted) = accepted else { return Ok(()) };
        let (request, respond) = accepted?;
        let mut request = Request::new(request, respond, outgoing.clone());
        if request.is_abandoned() {
            continue;
        }
        request.is_too_much = window.memory().refuses(window.peer());
        let progress = (running.clone(), window.peer().begin());
        if let Some(size) = window.fit(Rc::strong_count(&running) - 1) {
            connection.set_target_window_size(size);
        }
        let (served, work) = (Box::pin(serve(request)), draining.clone());
        task::spawn_local(async move {
            served.await;
            drop((work, progress));
        })
        .detach();
    }
}
