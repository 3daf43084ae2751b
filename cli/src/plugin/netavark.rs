//! The netavark plugin (API 1.0.0), which podman 5 calls: like the CNI plugin, each call is a question or two to the agent, under the
//! names that podman has for container and network.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod input;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sealane_proto::wire::v1;
use serde_json::{Value, json};

use super::dns::Dns;
use super::holding::{Agent, RefusalKind, Refused, inode};
use super::json::{self, Object};
use crate::failure::Failure;
use input::{Container, Network};

/// The version of netavark's interface.
const API: &str = "1.0.0";
/// The agent speaks of the command line's flags; a network of podman's has options.
const OPTIONS: [(&str, &str); 5] = [
    ("--no-sidecar", "--opt sealane.sidecar=off"),
    ("--service", "--opt sealane.service"),
    ("--port", "--opt sealane.port"),
    ("--weight", "--opt sealane.weight"),
    ("--mac ", "--mac-address "),
];

/// The calls that podman makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Create,
    Info,
    Setup(PathBuf),
    Teardown,
}

impl Call {
    /// The call of a command line, if it is one: no verb of ours has these names.
    pub(super) fn of(words: &[OsString]) -> Option<Self> {
        let words: Vec<&str> = words.iter().skip(1).map(|word| word.to_str()).collect::<Option<_>>()?;
        match words.as_slice() {
            ["create"] => Some(Self::Create),
            ["info"] => Some(Self::Info),
            ["setup", path] if Path::new(path).is_absolute() => Some(Self::Setup(path.into())),
            ["teardown", path] if Path::new(path).is_absolute() => Some(Self::Teardown),
            _ => None,
        }
    }
}

/// Serves one call: reads standard input, and answers on standard output. At a terminal, nobody but a person who has mistaken
/// something calls.
pub(super) fn serve(call: &Call) -> Option<ExitCode> {
    if std::io::stdin().is_terminal() {
        return None;
    }
    let answer = super::hear().and_then(|text| answer(call, &text));
    Some(super::tell(answer.map_err(|failure| json!({ "error": failure.sentence() }))))
}

fn answer(call: &Call, text: &[u8]) -> Result<Option<Value>, Failure> {
    let agent = Agent::at(None);
    let asked = || json::object("podman's request", text);
    match call {
        Call::Info => Ok(Some(json!({ "version": env!("CARGO_PKG_VERSION"), "api_version": API }))),
        Call::Create => create(&agent, asked()?).map(Some),
        Call::Setup(netns) => setup(&agent, netns, &asked()?).map(Some),
        Call::Teardown => teardown(&agent, &Container::holder(&asked()?)?).map(|()| None),
    }
}

/// Ends what a container has. podman calls once, and an agent that is away ends by itself what has no namespace any more.
fn teardown(agent: &Agent, holder: &str) -> Result<(), Failure> {
    match agent.detach(holder) {
        Err(refused) if refused.kind == RefusalKind::Unreachable => {
            let why = refused.told.message;
            talk(&format!("the container's attachment ends a minute after the agent is back: {why}"));
            Ok(())
        }
        ended => ended.map_err(told),
    }
}

/// Says what podman shows to whoever calls it, who need not hear it.
fn talk(text: &str) {
    let _ = writeln!(std::io::stderr(), "sealane: {text}");
}

/// Checks what podman is to write down as a network of its own.
fn create(agent: &Agent, mut asked: Object) -> Result<Value, Failure> {
    let network = Network::of(&asked)?;
    input::refuse_subnets(&asked, &network)?;
    let known = agent.available(&network.network).map_err(told)?;
    network.check(&known)?;
    // Nothing is left to podman's own addresses and names.
    asked.insert("ipam_options".to_owned(), json!({ "driver": "none" }));
    asked.insert("dns_enabled".to_owned(), false.into());
    Ok(Value::Object(asked))
}

fn setup(agent: &Agent, netns: &Path, asked: &Object) -> Result<Value, Failure> {
    let container = Container::of(asked)?;
    if container.publishes {
        talk(&format!(
            "network {} publishes no ports: where they are to be, join one of podman's own networks as well, such as \
             `--network podman`",
            container.network.name
        ));
    }
    let mut request = container.request(netns);
    request.inode =
        inode(&request.netns).map_err(|error| Failure::new(format!("network namespace: {error}")))?;
    let location = agent.ensure(&request).map_err(told)?;
    let seat =
        location.attachments.first().ok_or_else(|| Failure::new("the agent's answer has no attachment"))?;
    Ok(status(seat, &Dns::ours(&location.nameserver, &location.resolv_conf)))
}

/// The answer that podman shows, and writes into the container's resolv.conf and hosts.
fn status(seat: &v1::Attachment, dns: &Dns) -> Value {
    let mut subnets = vec![json!({ "ipnet": format!("{}/{}", seat.address, seat.prefix_len) })];
    if !seat.deny_egress {
        subnets[0]["gateway"] = seat.gateway.clone().into();
    }
    if !seat.address6.is_empty() {
        subnets.push(json!({ "ipnet": format!("{}/{}", seat.address6, seat.prefix_len6) }));
    }
    let interfaces = json!({ &seat.interface: { "mac_address": seat.mac, "subnets": subnets } });
    json!({ "dns_search_domains": dns.search, "dns_server_ips": dns.nameservers, "interfaces": interfaces })
}

fn told(refused: Refused) -> Failure {
    refused.in_words(&OPTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_netavark_is_told_from_verbs_of_ours() {
        let check = |line: &str| Call::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(check("/usr/libexec/netavark/sealane create"), Some(Call::Create));
        assert_eq!(check("x info"), Some(Call::Info));
        assert_eq!(check("x setup /run/netns/netns-1"), Some(Call::Setup("/run/netns/netns-1".into())));
        assert_eq!(check("x teardown /run/netns/netns-1"), Some(Call::Teardown));
        for other in ["x", "x setup", "x setup relative", "x create network", "x status"] {
            assert_eq!(check(other), None, "{other}");
        }
    }

    #[test]
    fn podman_is_told_addresses_and_whom_to_ask() {
        let seat = v1::Attachment {
            address: "10.42.0.9".into(),
            prefix_len: 16,
            gateway: "10.42.0.1".into(),
            interface: "eth0".into(),
            mac: "02:00:00:00:00:09".into(),
            address6: "fd42::a2a:9".into(),
            prefix_len6: 64,
            ..Default::default()
        };
        let dns =
            Dns { nameservers: vec!["127.0.0.11".into()], search: vec!["shop".into()], ..Dns::default() };
        let subnets =
            json!([{ "ipnet": "10.42.0.9/16", "gateway": "10.42.0.1" }, { "ipnet": "fd42::a2a:9/64" }]);
        let expected = json!({
            "dns_search_domains": ["shop"], "dns_server_ips": ["127.0.0.11"],
            "interfaces": { "eth0": { "mac_address": "02:00:00:00:00:09", "subnets": subnets } },
        });
        assert_eq!(status(&seat, &dns), expected);
        let denied = status(&v1::Attachment { deny_egress: true, ..seat }, &dns);
        assert_eq!(denied["interfaces"]["eth0"]["subnets"][0], json!({ "ipnet": "10.42.0.9/16" }));
    }
}
