//! The CNI plugin (specification 1.1.0): the verbs, each a question or two to the agent, which remembers everything. The agent
//! writes an attachment down before it answers, under the names that the runtime has for it; so ADD and DEL may be cut short anywhere
//! and called again.

mod answer;
mod call;
mod config;
mod failure;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod inside;
mod request;
mod version;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sealane_proto::wire::v1;
use serde_json::{Value, json};

use super::dns::Dns;
use super::holding::{Agent, RefusalKind, inode};
use super::json::{self, Object};
use call::{Arguments, Command, Place};
use config::{Basics, Config};
use failure::{CniError, Code};
use version::Version;

/// Serves one call: reads the environment and standard input, and answers on standard output.
pub(crate) fn serve(socket: Option<PathBuf>) -> ExitCode {
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let input = super::hear().map_err(|told| CniError { code: Code::Io, told });
    let version = input.as_ref().map_or(Version::V110, |input| spoken(input));
    let answer = input.and_then(|input| call(&env, &input, socket));
    super::tell(answer.map_err(|error| error.answer(version.number())))
}

/// The version that an answer is in, whatever came.
fn spoken(input: &[u8]) -> Version {
    config::object(input).ok().and_then(|conf| Version::of(&conf).ok()).unwrap_or(Version::V110)
}

fn call(
    env: &dyn Fn(&str) -> Option<String>,
    input: &[u8],
    socket: Option<PathBuf>,
) -> Result<Option<Value>, CniError> {
    let command = Command::of(env)?;
    if command == Command::Version {
        let spoken = Version::ALL.map(|(_, number)| number);
        return Ok(Some(json!({ "cniVersion": self::spoken(input).number(), "supportedVersions": spoken })));
    }
    let conf = config::object(input)?;
    let basics = Basics::of(&conf)?;
    let since = match command {
        Command::Check => Version::V040,
        Command::Status | Command::Gc => Version::V110,
        Command::Add | Command::Del | Command::Version => Version::V010,
    };
    if basics.version < since {
        let (version, since) = (basics.version.number(), since.number());
        return Err(CniError::new(Code::Version, format!("cniVersion {version} does not have this command"))
            .hint(format!("it came with {since}")));
    }
    let agent = Agent::at(basics.socket.clone().or(socket));
    match command {
        Command::Add => add(&agent, &basics, &conf, env).map(Some),
        Command::Del => {
            let place = Place::of(command, env)?;
            agent.detach(&request::holder(&basics.name, &place.container, &place.interface)?)?;
            Ok(None)
        }
        Command::Check => check(&agent, &basics, &conf, &Place::of(command, env)?).map(|()| None),
        Command::Status => status(&agent, &Config::of(&conf)?).map(|()| None),
        Command::Gc => collect(&agent, &basics, &conf).map(|()| None),
        Command::Version => Ok(None),
    }
}

fn add(
    agent: &Agent,
    basics: &Basics,
    conf: &Object,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Value, CniError> {
    let config = Config::of(conf)?;
    let place = Place::of(Command::Add, env)?;
    let arguments = Arguments::parse(&env("CNI_ARGS").unwrap_or_default())?;
    let mut request = request::translate(basics, &config, &place, &arguments)?;
    let inode = inode(&request.netns);
    request.inode = inode.map_err(|error| CniError::new(Code::Environment, format!("CNI_NETNS: {error}")))?;
    let location = agent.ensure(&request)?;
    let mut dns = Dns::ours(&location.nameserver, &location.resolv_conf);
    dns.extend(config.asked.dns.clone());
    Ok(answer::result(
        basics.version,
        seat(&location, &config)?,
        &request.netns,
        &dns,
        config.previous.as_ref(),
    ))
}

/// The attachment to the configuration's network.
fn seat<'a>(location: &'a v1::Location, config: &Config) -> Result<&'a v1::Attachment, CniError> {
    let seat = location.attachments.iter().find(|seat| seat.network == config.network.as_str());
    seat.ok_or_else(|| {
        let Config { network, .. } = config;
        CniError::new(Code::Differs, format!("the container is attached, but not to network {network}"))
            .hint("remove the container and start it again: the configuration has changed since")
    })
}

fn check(agent: &Agent, basics: &Basics, conf: &Object, place: &Place) -> Result<(), CniError> {
    let config = Config::of(conf)?;
    let previous = config.previous.as_ref().ok_or_else(|| config::wrong("prevResult", "it is missing"))?;
    let holder = request::holder(&basics.name, &place.container, &place.interface)?;
    let location = agent.locate(&holder).map_err(|refused| {
        let unknown = refused.kind == RefusalKind::Missing;
        let error = CniError::from(refused);
        if unknown { CniError { code: Code::UnknownContainer, ..error } } else { error }
    })?;
    let seat = seat(&location, &config)?;
    let netns = place.netns.as_deref().unwrap_or(Path::new(""));
    inside::compare(seat, &location.nameserver, &inside::look(netns, seat, &location.nameserver)?, previous)
}

/// Checks that a container could be attached now. A network that this host carries needs no control for that.
fn status(agent: &Agent, config: &Config) -> Result<(), CniError> {
    let Err(refused) = agent.available(&config.network) else { return Ok(()) };
    if refused.kind == RefusalKind::Unknown {
        // It answers, which is all that an older one can be asked.
        return Ok(());
    }
    // No host talks to one that control has removed.
    let code = if refused.kind == RefusalKind::Removed { Code::Limited } else { Code::NotAvailable };
    let error = CniError { code, ..refused.into() };
    let said = error.told.hint.is_some();
    Err(if said { error } else { error.hint("`sealane status` on this host says why") })
}

/// The holders of those that are there still.
fn valid(conf: &Object, name: &str) -> Result<Vec<String>, CniError> {
    const KEY: &str = "cni.dev/valid-attachments";
    let valid = conf.get(KEY).or_else(|| conf.get("cni.dev/attachments"));
    if valid.is_none_or(Value::is_null) {
        return Err(config::wrong(KEY, "it is missing: which attachments are there still"));
    }
    let holder = |of: &Value| {
        let text = |key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default();
        request::holder(name, text("containerID"), text("ifname"))
    };
    json::list(KEY, valid)?.iter().map(holder).collect()
}

/// Ends what is attached to this network and not valid any more.
fn collect(agent: &Agent, basics: &Basics, conf: &Object) -> Result<(), CniError> {
    let valid = valid(conf, &basics.name)?;
    let mut failed = None;
    for held in agent.held(&request::prefix(&basics.name))? {
        if !valid.contains(&held)
            && let Err(refused) = agent.detach(&held)
        {
            failed = Some(refused);
        }
    }
    failed.map_or(Ok(()), |refused| Err(refused.into()))
}

#[cfg(test)]
mod tests;
