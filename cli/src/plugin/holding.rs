//! Attachments that a runtime holds, asked of the agent. A refusal keeps its kind, which every runtime has its own numbers for.

use std::path::PathBuf;
use std::time::Duration;

use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;
use sealane_proto::wire::v1::read_client::ReadClient;
use sealane_proto::wire::v1::run_event::Event;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::args::Common;
use crate::client::{agent, coming_agent, refusal};
use crate::failure::{Exit, Failure};
use crate::printer::Format;

/// Within this, an attachment is there: runtimes wait about two minutes for all plugins of a container.
const PATIENCE: Duration = Duration::from_secs(60);
/// Within this, everything else is answered.
const ANSWER: Duration = Duration::from_secs(20);

/// Why the agent did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Of what kind it is.
    pub(super) kind: Kind,
    /// What failed and why.
    pub(super) message: String,
    /// What to do about it.
    pub(super) hint: Option<String>,
}

/// What kinds of refusals there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The agent does not answer, or not in time.
    Unreachable,
    /// The request is wrong.
    Wrong,
    /// There is no such thing.
    Missing,
    /// It is another one's.
    InUse,
    /// The namespace is not there, or not one to attach.
    Namespace,
    /// Anything else.
    Failed,
}

impl Refused {
    fn of(status: &Status) -> Self {
        let told = refusal(status);
        let kind = match status.code() {
            _ if told.exit == Exit::Unreachable => Kind::Unreachable,
            Code::InvalidArgument | Code::OutOfRange => Kind::Wrong,
            Code::NotFound => Kind::Missing,
            Code::AlreadyExists => Kind::InUse,
            Code::FailedPrecondition => Kind::Namespace,
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => Kind::Unreachable,
            Code::Ok
            | Code::Unknown
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => Kind::Failed,
        };
        Self::new(kind, told)
    }

    fn new(kind: Kind, Failure { message, hint, .. }: Failure) -> Self {
        Self { kind, message, hint }
    }
}

/// The agent at a socket: the one of the configuration, else the one of the environment or the usual place.
pub(super) struct Agent(Common);

impl Agent {
    /// The agent at `socket`, or where it is by default.
    pub(super) fn at(socket: Option<PathBuf>) -> Self {
        let named = |name| std::env::var_os(name).map(PathBuf::from);
        let run_dir = named("SEALANE_RUN_DIR").unwrap_or_else(|| PathBuf::from("/run/sealane"));
        Self(Common {
            output: Format::default(),
            socket: socket.or_else(|| named("SEALANE_SOCKET")),
            run_dir,
        })
    }

    /// Attaches a namespace.
    ///
    /// # Errors
    /// [`Kind::InUse`] when its holder holds one already.
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
        match attached {
            Err(late) if late.hint.is_none() && late.kind == Kind::Unreachable && !waits_for.is_empty() => {
                let hint = Some(format!("it waits for {waits_for}; `sealane status` says what is wrong"));
                Err(Refused { hint, ..late })
            }
            attached => attached,
        }
    }

    /// Ends what `holder` holds, if it holds anything.
    pub(super) fn detach(&self, holder: &str) -> Result<(), Refused> {
        let request = v1::DetachRequest { holder: holder.to_owned(), ..Default::default() };
        converse(ANSWER, async { self.client().await?.detach(request).await.map(drop).map_err(refused) })
    }

    /// Where what `holder` holds lives.
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

    /// How the agent is, and the networks that its host carries.
    pub(super) fn status(&self) -> Result<(v1::StatusResponse, Vec<String>), Refused> {
        converse(ANSWER, async {
            let mut client = ReadClient::new(agent(&self.0).await.map_err(unreachable)?);
            let status = client.status(v1::StatusRequest {}).await.map_err(refused)?.into_inner();
            let networks = client.list_networks(v1::ListNetworksRequest {}).await.map_err(refused)?;
            let names = networks.into_inner().networks.into_iter().filter_map(|view| view.network);
            Ok((status, names.map(|network| network.name).collect()))
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

fn unreachable(failure: Failure) -> Refused {
    Refused::new(Kind::Unreachable, failure)
}

fn converse<T>(patience: Duration, talk: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Refused::new(Kind::Failed, Failure::new(format!("cannot start a runtime: {error}")))
    })?;
    let late =
        || unreachable(Failure::new(format!("no answer of the agent within {} s", patience.as_secs())));
    runtime.block_on(async { tokio::time::timeout(patience, talk).await.unwrap_or_else(|_| Err(late())) })
}
