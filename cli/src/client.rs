//! Talking to the control plane or the agent of this host, over a unix socket in the run directory.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealane_proto::client::{ConnectError, unix_channel};
use sealane_proto::wire::v1::{admin_client::AdminClient, read_client::ReadClient};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::args::Common;
use crate::failure::{Exit, Failure};

/// Control's socket in the run directory.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";
/// The agent's.
pub(crate) const AGENT_SOCKET: &str = "agent.sock";
/// How long a verb waits for an answer; what takes longer is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs one conversation on a runtime of its own, without further threads; the runtime is gone afterwards.
pub(crate) fn converse<T>(talk: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::of("cannot start a runtime"))?;
    runtime.block_on(talk)
}

/// Changes what the mesh should be: control alone does that.
pub(crate) async fn admin(common: &Common) -> Result<AdminClient<Channel>, Failure> {
    let path = common.socket.clone().unwrap_or_else(|| common.run_dir.join(CONTROL_SOCKET));
    match unix_channel(&path).await {
        Ok(channel) => Ok(AdminClient::new(channel)),
        Err(error) => Err(unreachable(&error, "sealane control")
            .hint("run this on the control host, as root; `sealane control` or `sealane up` starts one")),
    }
}

/// Reads what is there: from control, or where there is none, from the agent.
pub(crate) async fn read(common: &Common) -> Result<ReadClient<Channel>, Failure> {
    let mut last = None;
    for path in read_sockets(common) {
        match unix_channel(&path).await {
            Ok(channel) => return Ok(ReadClient::new(channel)),
            Err(error) => last = Some(error),
        }
    }
    let hint =
        "`sealane up`, `sealane control` or `sealane agent` starts one; --run-dir or --socket names another";
    Err(match last {
        Some(error) => unreachable(&error, "sealane").hint(hint),
        None => Failure::new("no socket to read from").exit(Exit::Unreachable).hint(hint),
    })
}

/// A channel to this host's agent.
pub(crate) async fn agent(common: &Common) -> Result<Channel, Failure> {
    let path = common.socket.clone().unwrap_or_else(|| common.run_dir.join(AGENT_SOCKET));
    unix_channel(&path).await.map_err(|error| {
        unreachable(&error, "sealane agent").hint("`sealane agent` or `sealane up` starts one on this host")
    })
}

/// A stale control.sock must not hide an agent that answers.
fn read_sockets(common: &Common) -> Vec<PathBuf> {
    if let Some(socket) = &common.socket {
        return vec![socket.clone()];
    }
    let control = common.run_dir.join(CONTROL_SOCKET);
    let agent = common.run_dir.join(AGENT_SOCKET);
    if exists(&control) { vec![control, agent] } else { vec![agent] }
}

/// Whether something stands there; what may not be looked at is tried, for the sake of the better error.
fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

fn unreachable(error: &ConnectError, who: &str) -> Failure {
    let ConnectError::Unix { path, source } = error else {
        return Failure::new(error.to_string()).exit(Exit::Unreachable);
    };
    let known = [
        (io::ErrorKind::NotFound, "there is no such socket"),
        (io::ErrorKind::ConnectionRefused, "nobody listens there any more"),
        (io::ErrorKind::PermissionDenied, "only root may open it"),
    ];
    let why = known.iter().find(|(kind, _)| *kind == source.kind()).map(|&(_, why)| why.to_owned());
    let why = why.unwrap_or_else(|| source.to_string());
    Failure::new(format!("cannot reach {who} at {}: {why}", path.display())).exit(Exit::Unreachable)
}

/// Waits for the answer to one question.
pub(crate) async fn answer<T>(
    question: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER_TIMEOUT, question).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refusal(&status)),
        Err(_) => {
            Err(Failure::new(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))
                .exit(Exit::Unreachable))
        }
    }
}

/// What a status means to the user. Its text already names the object, the field and the fix.
pub(crate) fn refusal(status: &Status) -> Failure {
    let message = match status.message() {
        "" => status.code().description().to_owned(),
        text => text.to_owned(),
    };
    // A status that the other side sent has no cause on this one.
    if std::error::Error::source(status).is_some() {
        return Failure::new(format!("the connection was lost: {message}")).exit(Exit::Unreachable);
    }
    match status.code() {
        Code::Unavailable | Code::Cancelled => {
            Failure::new(format!("the connection was lost: {message}")).exit(Exit::Unreachable)
        }
        Code::Unimplemented => Failure::new("this socket does not offer that").hint(
            "only control.sock on the control host changes the mesh; agent.sock reads, runs and executes",
        ),
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => Failure::new(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_exits_differently_from_a_refusal() {
        let lost = refusal(&Status::unavailable("broken pipe"));
        assert_eq!(
            (lost.exit, lost.message.as_str()),
            (Exit::Unreachable, "the connection was lost: broken pipe")
        );
        let refused = refusal(&Status::already_exists("network shop exists"));
        assert_eq!((refused.exit, refused.message.as_str()), (Exit::Failed, "network shop exists"));
        assert!(refusal(&Status::unimplemented("")).hint.is_some());
    }
}
