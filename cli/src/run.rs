//! `sealane run` and `sealane exec`: the command takes the place of this process, so that terminal, signals and
//! exit status are its own. Between the last word to the agent and exec, this process has one thread.

pub(crate) mod choice;
mod enter;
mod notify;
mod program;
mod told;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sealane_proto::types::{Mtls, ServicePort, Transport};
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;
use sealane_proto::wire::v1::run_event::Event;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::args::{Attach, Common, Exec, Run};
use crate::client::{agent, answer, coming_agent, converse, refusal};
use crate::failure::{Exit, Failure, require_root};
use crate::printer::Printer;
use told::Told;

/// Number of agents that may end over one workload until something is wrong with it.
const AGENTS: usize = 5;

/// `sealane run`; returns only when the command could not be started.
pub(crate) fn run(run: Run, common: &Common, printer: &Printer) -> Failure {
    let missing = run.command.first().and_then(|program| program::check(program).err());
    if let Some(missing) = missing {
        return missing;
    }
    let located = require_root("run").and_then(|()| {
        let request = request(&run.attach, program_of(&run.command))?;
        notify::check(printer);
        let located = converse(within(run.timeout, attach(request, common, printer)))?;
        located.notes.iter().for_each(|note| printer.talk(note));
        Ok(located)
    });
    start(located, run.command)
}

/// `sealane exec`; returns only when the command could not be started.
pub(crate) fn exec(exec: Exec, common: &Common) -> Failure {
    let request = v1::LocateRequest { workload: exec.workload.to_string(), ..Default::default() };
    let located = require_root("exec").and_then(|()| {
        converse(async { answer(AgentClient::new(agent(common).await?).locate(request)).await })
    });
    start(located, exec.command)
}

fn start(located: Result<v1::Location, Failure>, command: Vec<OsString>) -> Failure {
    match located.and_then(|location| enter::enter(&location)) {
        Ok(()) => replace_by(command),
        Err(failure) => failure.exit(Exit::NotStarted),
    }
}

fn program_of(command: &[OsString]) -> String {
    let program = command.first().and_then(|program| Path::new(program).file_name());
    program.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Builds the request to the agent for a workload; without a name, one is made from `command`.
pub(crate) fn request(attach: &Attach, command: String) -> Result<v1::RunRequest, Failure> {
    choice::check_effect(attach)?;
    let mut networks = choice::networks(attach)?;
    // An agent that knows of one network alone refuses several, and does not take the first for all.
    let only = if networks.len() == 1 { networks.remove(0) } else { v1::NetworkChoice::default() };
    Ok(v1::RunRequest {
        network: only.network,
        address: only.address,
        mac: only.mac,
        aliases: only.aliases,
        networks,
        service: attach.service.as_ref().map(ToString::to_string).unwrap_or_default(),
        ports: attach.ports.iter().map(|port| offered(port, attach.mtls)).collect(),
        name: attach.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        no_sidecar: attach.no_sidecar,
        weight: Some(attach.weight.get().into()),
        health: attach.health.check().map_err(Failure::usage)?.as_ref().map(Into::into),
        command,
        again: false,
        preferred: String::new(),
    })
}

/// Datagrams pass no sidecar: there is no mode for them.
fn offered(port: &ServicePort, mtls: Option<Mtls>) -> v1::ServicePort {
    let mtls = mtls.filter(|_| port.protocol.transport() == Transport::Tcp);
    (&ServicePort { mtls, ..port.clone() }).into()
}

/// Gives up after `timeout`; the agent, whose asker leaves, takes back what it has made.
async fn within<T>(
    timeout: Option<Duration>,
    attached: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(timeout) = timeout else { return attached.await };
    match tokio::time::timeout(timeout, attached).await {
        Ok(attached) => attached,
        Err(_) => Err(Failure::new(format!("the workload could not start within {timeout:?}")).hint(
            "`sealane status` on this host says what is wrong; a longer --timeout, or none, waits longer",
        )),
    }
}

/// Asks the agent for a workload and says what it waits for, until it is there; when the agent ends meanwhile, the next
/// one.
async fn attach(
    mut request: v1::RunRequest,
    common: &Common,
    printer: &Printer,
) -> Result<v1::Location, Failure> {
    let talk = |text: &str| printer.talk(text);
    let mut client = AgentClient::new(coming_agent(common, talk).await?);
    for _ in 1..AGENTS {
        match ask(&mut client, &request, printer).await {
            Err(lost) if lost.exit == Exit::Unreachable => {}
            attached => return attached,
        }
        if !request.again {
            printer.talk("waiting for the next agent: the one that was asked has ended");
        }
        request.again = true;
        // Who waits has just been told so.
        client = AgentClient::new(coming_agent(common, |_| {}).await?);
    }
    ask(&mut client, &request, printer).await
}

async fn ask(
    client: &mut AgentClient<Channel>,
    request: &v1::RunRequest,
    printer: &Printer,
) -> Result<v1::Location, Failure> {
    follow(client.run(request.clone()).await, printer).await
}

/// Says what the agent, which was asked for a workload, waits for, until that is there.
pub(crate) async fn follow(
    begun: Result<Response<Streaming<v1::RunEvent>>, Status>,
    printer: &Printer,
) -> Result<v1::Location, Failure> {
    let mut events = begun.map_err(|status| refusal(&status))?.into_inner();
    let ended = || {
        let ended = Failure::new("the agent ended before the workload was attached");
        ended.exit(Exit::Unreachable).hint("see the agent's log")
    };
    let refused = |status: Status| match refusal(&status) {
        lost if lost.exit == Exit::Unreachable => ended(),
        refused => refused,
    };
    let mut told = Told::default();
    while let Some(event) = events.message().await.map_err(refused)? {
        match event.event {
            Some(Event::Waiting(what)) if told.is_news(&what, Instant::now()) => {
                printer.talk(&format!("waiting for {what}"));
            }
            Some(Event::Attached(location)) => return Ok(location),
            Some(Event::Waiting(_)) | None => {}
        }
    }
    Err(ended())
}

/// Executes the command in place of this process. Exec resets the signal mask and SIGPIPE; nothing else was changed.
fn replace_by(command: Vec<OsString>) -> Failure {
    let mut words = command.into_iter();
    let program = words.next().unwrap_or_default();
    let error = Command::new(&program).args(words).exec();
    program::refused(&program, &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_cannot_be_executed_is_told_from_one_that_is_missing() {
        let check = |program: &str| replace_by(vec![program.into()]).exit;
        assert_eq!(check("/nonexistent/program"), Exit::NotFound);
        assert_eq!(check("/etc/passwd"), Exit::NotExecutable);
        assert_eq!(check("/"), Exit::NotExecutable);
    }
}
