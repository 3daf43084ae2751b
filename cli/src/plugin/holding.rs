//! Attachments that a runtime holds, asked of the agent. A refusal keeps its kind, which every runtime has its own numbers for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sealane_agent::labels::LabelledInstance as Instance;
use sealane_proto::types::NetworkName;
use sealane_proto::wire::v1::agent_client::AgentClient;
use sealane_proto::wire::v1::run_event::Event;
use sealane_proto::wire::{RETRY, v1};
use sealane_sys::{NetNs, RunDir};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::args::Common;
use crate::client::{self, agent, coming_agent, refusal};
use crate::failure::{Exit, Failure};
use crate::printer::Format;

/// Within this, an attachment is there: runtimes wait about two minutes for all plugins of a container.
const PATIENCE: Duration = Duration::from_secs(60);
/// Within this, everything else is answered.
const ANSWER: Duration = Duration::from_secs(20);

/// The longest name of a holder, in bytes.
pub(super) const LONGEST: usize = 200;

/// Reason for which the agent did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The kind of refusal, which every runtime has its own number for.
    pub(super) kind: RefusalKind,
    /// True when the same may succeed later by itself.
    pub(super) retry: bool,
    /// The words about what failed, why, and what to do about it.
    pub(super) told: Failure,
}

/// The kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// The agent does not answer, or not in time, or waits for control.
    Unreachable,
    /// The request is wrong.
    Wrong,
    /// No such object exists.
    Missing,
    /// Control does not let this host do that.
    Forbidden,
    /// Control wants nothing of this host any more.
    Removed,
    /// The object is another one's.
    InUse,
    /// The namespace is not there, or not one to attach.
    Namespace,
    /// The agent does not know the question: it is older than this program.
    Unknown,
    /// Anything else.
    Failed,
}

impl Refused {
    fn of(status: &Status) -> Self {
        let told = refusal(status);
        let kind = match status.code() {
            _ if told.exit == Exit::Unreachable => RefusalKind::Unreachable,
            Code::InvalidArgument | Code::OutOfRange => RefusalKind::Wrong,
            Code::NotFound => RefusalKind::Missing,
            Code::PermissionDenied => RefusalKind::Forbidden,
            Code::Unauthenticated => RefusalKind::Removed,
            Code::AlreadyExists => RefusalKind::InUse,
            Code::FailedPrecondition => RefusalKind::Namespace,
            Code::Unimplemented => RefusalKind::Unknown,
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => RefusalKind::Unreachable,
            Code::Ok
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::DataLoss => RefusalKind::Failed,
        };
        let retry = kind == RefusalKind::Unreachable || status.metadata().contains_key(RETRY);
        Self { kind, retry, told }
    }

    /// Puts the words of whoever asked in the place of the command line's.
    pub(super) fn in_words(self, words: &[(&str, &str)]) -> Failure {
        let put = |text: String| words.iter().fold(text, |text, (flag, word)| text.replace(flag, word));
        let Failure { message, hint, exit } = self.told;
        Failure { message: put(message), hint: hint.map(put), exit }
    }
}

/// The agent at a socket: the one of the configuration, else the one of the environment or the usual place.
pub(super) struct Agent(Common);

impl Agent {
    /// The agent at `socket`, or where it is by default.
    pub(super) fn at(socket: Option<PathBuf>) -> Self {
        let named = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let run_dir = named("SEALANE_RUN_DIR").map_or_else(|| RunDir::from(RunDir::DEFAULT), RunDir::from);
        Self(Common {
            output: Format::default(),
            socket: socket.or_else(|| named("SEALANE_SOCKET")),
            run_dir,
        })
    }

    /// Attaches a namespace.
    ///
    /// # Errors
    /// [`RefusalKind::InUse`] when its holder holds one already.
    pub(super) fn attach(&self, request: v1::AttachRequest) -> Result<v1::Location, Refused> {
        let mut waits_for = String::new();
        let attached = converse(PATIENCE, async {
            let mut events = self.client().await?.attach(request).await.map_err(refused)?.into_inner();
            while let Some(event) = events.message().await.map_err(refused)? {
                match event.event {
                    Some(Event::Waiting(what)) => waits_for = what,
                    Some(Event::Attached(location)) => return Ok(location),
                    None => {}
                }
            }
            Err(unreachable(Failure::new("the agent ended before the container was attached")))
        });
        attached.map_err(|refused| {
            let late = refused.kind == RefusalKind::Unreachable && refused.told.hint.is_none();
            if !late || waits_for.is_empty() {
                return refused;
            }
            let hint = format!("it waits for {waits_for}; `sealane status` says what is wrong");
            Refused { told: refused.told.hint(hint), ..refused }
        })
    }

    /// Attaches, or finds what an earlier call attached whose answer nobody heard. What is held for another namespace is of a
    /// container that has gone without a word.
    pub(super) fn ensure(&self, request: &v1::AttachRequest) -> Result<v1::Location, Refused> {
        let refused = match self.attach(request.clone()) {
            Ok(location) => return Ok(location),
            Err(refused) if refused.kind == RefusalKind::InUse => refused,
            Err(refused) => return Err(refused),
        };
        let Ok(held) = self.locate(&request.holder) else { return Err(refused) };
        if inode(&held.netns).is_ok_and(|inode| inode == request.inode) {
            return Ok(held);
        }
        self.detach(&request.holder)?;
        self.attach(request.clone())
    }

    /// Ends what `holder` holds, if it holds anything.
    pub(super) fn detach(&self, holder: &str) -> Result<(), Refused> {
        let request = v1::DetachRequest { holder: holder.to_owned(), ..Default::default() };
        converse(ANSWER, async { self.client().await?.detach(request).await.map(drop).map_err(refused) })
    }

    /// Locates the workload that `holder` holds.
    pub(super) fn locate(&self, holder: &str) -> Result<v1::Location, Refused> {
        let request = v1::LocateRequest { holder: holder.to_owned(), ..Default::default() };
        converse(ANSWER, async {
            self.client().await?.locate(request).await.map(tonic::Response::into_inner).map_err(refused)
        })
    }

    /// The holders whose names begin with `prefix`.
    pub(super) fn held(&self, prefix: &str) -> Result<Vec<String>, Refused> {
        let request = v1::HeldRequest { prefix: prefix.to_owned() };
        converse(ANSWER, async {
            let held = self.client().await?.held(request).await.map_err(refused)?.into_inner().held;
            Ok(held.into_iter().map(|held| held.holder).collect())
        })
    }

    /// The network, if a workload of this host could join it now.
    pub(super) fn available(&self, network: &NetworkName) -> Result<v1::Network, Refused> {
        let request = v1::AvailableRequest { network: network.to_string() };
        converse(ANSWER, async {
            let mut client = AgentClient::new(agent(&self.0).await.map_err(unreachable)?);
            let answer = client.available(request).await.map_err(refused)?.into_inner();
            Ok(answer.network.unwrap_or_default())
        })
    }

    async fn client(&self) -> Result<AgentClient<Channel>, Refused> {
        Ok(AgentClient::new(coming_agent(&self.0, |_| ()).await.map_err(unreachable)?))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(status: Status) -> Refused {
    Refused::of(&status)
}

fn unreachable(told: Failure) -> Refused {
    Refused { kind: RefusalKind::Unreachable, retry: true, told }
}

/// Asks the agent for a container: `holder` holds it, and it is called `name` unless another workload is.
pub(super) fn request(
    holder: String,
    netns: Option<&Path>,
    name: String,
    choice: v1::NetworkChoice,
    instance: &Instance,
) -> v1::AttachRequest {
    let Instance { service, ports, sidecar, weight } = instance;
    let workload = v1::RunRequest {
        networks: vec![choice],
        service: service.as_ref().map(ToString::to_string).unwrap_or_default(),
        ports: ports.iter().map(Into::into).collect(),
        no_sidecar: !sidecar,
        weight: Some(weight.get().into()),
        command: name.clone(),
        preferred: name,
        ..Default::default()
    };
    v1::AttachRequest {
        workload: Some(workload),
        netns: netns.map(|path| path.display().to_string()).unwrap_or_default(),
        holder,
        ..Default::default()
    }
}

/// The number by which the kernel knows the namespace at a path.
pub(super) fn inode(path: &str) -> Result<u64, String> {
    let netns = NetNs::open(path).map_err(|error| error.to_string())?;
    netns.inode().map_err(|error| error.to_string())
}

fn converse<T>(patience: Duration, talk: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    let late =
        || unreachable(Failure::new(format!("no answer of the agent within {} s", patience.as_secs())));
    let answered = client::converse(async { Ok(tokio::time::timeout(patience, talk).await) });
    answered
        .map_err(|told| Refused { kind: RefusalKind::Failed, retry: true, told })?
        .unwrap_or_else(|_| Err(late()))
}
