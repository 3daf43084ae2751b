//! Talking to the control plane or the agent of this host, over a unix socket in the run directory.

mod reach;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use sealane_proto::client::{ConnectError, of_loss};
use sealane_proto::wire::v1::{admin_client::AdminClient, read_client::ReadClient};
use sealane_sys::run_dir::{AGENT_SOCKET, CONTROL_SOCKET};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::args::Common;
use crate::failure::{Exit, Failure, as_root};
use reach::{comes, first, has_ended, lives, reach, reach_agent};

/// Time for which a verb waits for an answer; whatever takes longer is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer: a message of the largest mesh is a part of that.
pub(crate) const LARGEST_ANSWER: usize = 1 << 30;

/// Time for which nothing is said while an agent is waited for: less than people take for a fault.
const SILENCE: Duration = Duration::from_millis(500);

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
    control(common).await.map(AdminClient::new)
}

/// A channel to control, which both changes and reads.
pub(crate) async fn control(common: &Common) -> Result<Channel, Failure> {
    reach(&sockets(common, &[CONTROL_SOCKET])).await.map_err(|error| {
        unreachable(
            &error,
            "sealane control",
            "run this on the control host, as root; `sealane control` or `sealane up` starts one",
        )
    })
}

/// Reads what is there: from control, or where there is none, from the agent.
pub(crate) async fn read(common: &Common) -> Result<ReadClient<Channel>, Failure> {
    let channel = reach(&sockets(common, &[CONTROL_SOCKET, AGENT_SOCKET])).await.map_err(|error| {
        unreachable(
            &error,
            "sealane",
            "`sealane up`, `sealane control` or `sealane agent` starts one; --run-dir or --socket names another",
        )
    })?;
    Ok(reader(channel))
}

/// Reads from whoever serves `channel`: what a large mesh is, in one message.
pub(crate) fn reader(channel: Channel) -> ReadClient<Channel> {
    ReadClient::new(channel).max_decoding_message_size(LARGEST_ANSWER)
}

/// A channel to this host's agent.
pub(crate) async fn agent(common: &Common) -> Result<Channel, Failure> {
    reach(&sockets(common, &[AGENT_SOCKET])).await.map_err(|error| no_agent(&error))
}

/// The same, for what is worth waiting for an agent that restarts; `told` hears once, and soon, that it is waited for.
pub(crate) async fn coming_agent(common: &Common, told: impl FnOnce(&str)) -> Result<Channel, Failure> {
    let socket = common.socket.clone().unwrap_or_else(|| common.run_dir.socket(AGENT_SOCKET));
    let mut reached = pin!(reach_agent(&socket));
    let reached = match tokio::time::timeout(SILENCE, &mut reached).await {
        Ok(reached) => reached,
        Err(_) => {
            if comes(&socket) {
                told(&format!(
                    "waiting for the agent of this host, which does not answer at {}",
                    socket.display()
                ));
            }
            reached.await
        }
    };
    reached.map_err(|error| match &error {
        ConnectError::Unix { source, .. } if has_ended(source) && !lives(&socket) && comes(&socket) => {
            absent()
        }
        ConnectError::Unix { .. }
        | ConnectError::Tcp { .. }
        | ConnectError::Tls { .. }
        | ConnectError::Http { .. }
        | ConnectError::Identity(_) => no_agent(&error),
    })
}

/// Explains that an agent has left workloads running and does not come back.
fn absent() -> Failure {
    let waited = reach::RESTARTING.as_secs();
    Failure::new(format!("the agent of this host has ended, and none has come back within {waited} s"))
        .exit(Exit::Unreachable)
        .hint(
            "start it as it was started before, such as by `systemctl start sealane-agent`, and run this again; its log \
             says why it ended, and what runs goes on",
        )
}

fn no_agent(error: &ConnectError) -> Failure {
    unreachable(error, "sealane agent", "`sealane agent` or `sealane up` starts one on this host")
}

/// A channel to the agent of this host beside control, if there is one and nobody named a certain socket.
///
/// # Errors
/// When an agent runs and cannot be asked.
pub(crate) async fn agent_beside(common: &Common) -> Result<Option<Channel>, Failure> {
    let socket = common.run_dir.socket(AGENT_SOCKET);
    if common.socket.is_some() || !(socket.exists() || lives(&socket)) {
        return Ok(None);
    }
    match reach(std::slice::from_ref(&socket)).await {
        Ok(channel) => Ok(Some(channel)),
        Err(_) if !lives(&socket) => Err(Failure::new(
            "the agent of this host has ended: what runs goes on, and nothing new starts; see its log, then start it again",
        )),
        Err(error) => Err(unreachable(&error, "sealane agent", "see its log")),
    }
}

/// Connects to the socket that the user names, or to the first of these that answers now; nobody is waited for.
pub(crate) async fn answering(common: &Common, names: &[&str]) -> Option<Channel> {
    first(&sockets(common, names)).await.ok()
}

/// The socket that the user names, or these in the run directory.
fn sockets(common: &Common, names: &[&str]) -> Vec<PathBuf> {
    match &common.socket {
        Some(socket) => vec![socket.clone()],
        None => names.iter().map(|name| common.run_dir.socket(name)).collect(),
    }
}

fn unreachable(error: &ConnectError, who: &str, hint: &str) -> Failure {
    let ConnectError::Unix { path, source } = error else {
        return Failure::new(error.to_string()).exit(Exit::Unreachable).hint(hint);
    };
    let forbidden = source.kind() == io::ErrorKind::PermissionDenied;
    if !forbidden && lives(path) {
        let failure = format!("{who} is starting and does not answer yet at {}", path.display());
        return Failure::new(failure).exit(Exit::Unreachable).hint("its log says what it waits for");
    }
    let hint = if forbidden { as_root(std::env::args_os()) } else { hint.to_owned() };
    let known = [
        (io::ErrorKind::NotFound, "there is no such socket"),
        (io::ErrorKind::ConnectionRefused, "nobody listens there any more"),
        (io::ErrorKind::ConnectionReset, "who listened there has ended"),
        (io::ErrorKind::PermissionDenied, "only root may open it"),
    ];
    let why = known.iter().find(|(kind, _)| *kind == source.kind()).map(|&(_, why)| why.to_owned());
    let why = why.unwrap_or_else(|| "what listens there does not speak as control and agents do".to_owned());
    Failure::new(format!("cannot reach {who} at {}: {why}", path.display()))
        .exit(Exit::Unreachable)
        .hint(hint)
}

/// Waits for the answer to one question.
pub(crate) async fn answer<T>(
    question: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failure> {
    answer_within(ANSWER_TIMEOUT, question).await
}

/// Waits for the answer to a question that may take its time.
pub(crate) async fn answer_within<T>(
    patience: Duration,
    question: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(patience, question).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refusal(&status)),
        Err(_) => {
            Err(Failure::new(format!("no answer within {} s", patience.as_secs())).exit(Exit::Unreachable))
        }
    }
}

/// The socket that the command line or the environment names.
fn named_socket() -> Option<PathBuf> {
    let mut words = std::env::args_os().skip(1).take_while(|word| word != "--");
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text == "--socket" {
            return words.next().map(Into::into);
        } else if let Some(path) = text.strip_prefix("--socket=") {
            return Some(path.into());
        }
    }
    std::env::var_os("SEALANE_SOCKET").filter(|path| !path.is_empty()).map(Into::into)
}

/// A conversation that broke off. Sockets of sidecars and keep speak another language, so `named` may be the reason;
/// where it can be none, the other side has ended.
fn lost(why: &str, named: Option<&Path>) -> Failure {
    let failure = Failure::new(format!("the connection was lost{why}")).exit(Exit::Unreachable);
    let ours = |path: &Path| path.ends_with(CONTROL_SOCKET) || path.ends_with(AGENT_SOCKET);
    if named.is_some_and(|path| !ours(path)) {
        return failure.hint(
            "only control.sock and agent.sock in the run directory answer verbs: see what --socket or SEALANE_SOCKET names",
        );
    }
    failure.hint("who was asked has ended or restarts: run this again when `sealane status` answers")
}

/// Translates a status for the user. Its text already names the object, the field and the fix.
pub(crate) fn refusal(status: &Status) -> Failure {
    // A status that the other side sent has no cause on this one.
    if std::error::Error::source(status).is_some() {
        let why = of_loss(status).map(|why| format!(": {why}")).unwrap_or_default();
        return lost(&why, named_socket().as_deref());
    }
    let message = match status.message() {
        "" => status.code().description().to_owned(),
        text => text.to_owned(),
    };
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

    #[test]
    fn a_lost_connection_blames_a_socket_that_was_named_only_where_that_can_be_the_reason() {
        for (named, expected) in [
            (None, "run this again when `sealane status` answers"),
            (Some("/run/sealane/agent.sock"), "run this again when `sealane status` answers"),
            (Some("/run/sealane/keep.sock"), "see what --socket"),
        ] {
            let failure = lost(": broken pipe", named.map(Path::new));
            assert_eq!(
                (failure.exit, failure.message.as_str()),
                (Exit::Unreachable, "the connection was lost: broken pipe")
            );
            assert!(failure.hint.unwrap().contains(expected), "{named:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_does_not_come_back_is_named_soon_and_once_and_what_to_do_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("keep.pid");
        std::fs::write(&pid, format!("{}\n", std::process::id())).unwrap();
        let file = std::fs::File::open(&pid).unwrap();
        let _lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).unwrap();
        let socket = folder.path().join(AGENT_SOCKET);
        let common = Common { socket: Some(socket), ..common_of(folder.path()) };
        let began = tokio::time::Instant::now();
        let mut said = Vec::new();
        let failure =
            coming_agent(&common, |text| said.push((text.to_owned(), began.elapsed()))).await.unwrap_err();
        let [(text, when)] = said.as_slice() else { panic!("{said:?}") };
        assert!(text.starts_with("waiting for the agent of this host"), "{text}");
        assert!(*when <= Duration::from_secs(1), "{when:?}");
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.message.contains("none has come back within"), "{}", failure.message);
        assert!(failure.hint.unwrap().contains("systemctl start sealane-agent"));
    }

    fn common_of(run_dir: &Path) -> Common {
        let line = ["sealane", "status", "--run-dir"].map(Into::into).into_iter();
        crate::args::parse(line.chain([run_dir.as_os_str().to_owned()])).unwrap().common
    }
}
