//! `agent.sock`: attaching workloads and reading what this host knows. Translates only.

mod identity;
mod peers;
mod read;
mod register;
mod run;
mod words;

use std::io;

use futures_util::stream;
use sealane_base::socket::Listener;
use sealane_base::task::{self, Task};
use sealane_proto::wire::v1::agent_server::AgentServer;
use sealane_proto::wire::v1::read_server::ReadServer;
use sealane_sys::run_dir::{AGENT_SOCKET, RunDir};
use tonic::transport::Server;

pub(crate) use read::ReadApi;
pub(crate) use run::RunApi;

/// Serves until the task is dropped.
///
/// # Errors
/// When the socket cannot be bound.
pub(crate) fn serve(run_dir: &RunDir, run: RunApi, read: ReadApi) -> io::Result<Task> {
    let listener = Listener::bind(&run_dir.socket(AGENT_SOCKET))?;
    let incoming = stream::unfold(listener, Listener::next);
    let server = Server::builder().add_service(AgentServer::new(run)).add_service(ReadServer::new(read));
    let serving = server.serve_with_incoming(incoming);
    Ok(task::spawn_fallible("agent-api", serving))
}
