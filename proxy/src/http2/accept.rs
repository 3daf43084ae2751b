//! The requests of one connection, as they come.

use std::future::Future;
use std::pin::pin;

use futures_util::FutureExt as _;
use sealane_base::drain::Draining;
use sealane_base::task;

use super::{Connection, Request};

/// Serves every request by a task of its own, until the connection ends. When a drain begins, the client is told by
/// GOAWAY; what it has sent before is served.
///
/// # Errors
/// How the connection broke.
pub(crate) async fn accept_all<F>(
    mut connection: Connection,
    draining: &Draining,
    serve: impl Fn(Request) -> F,
) -> Result<(), h2::Error>
where
    F: Future<Output = ()> + 'static,
{
    let mut drain = draining.clone();
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
        let (served, work) = (Box::pin(serve(Request::new(request, respond))), draining.clone());
        task::spawn_local(async move {
            served.await;
            drop(work);
        })
        .detach();
    }
}
