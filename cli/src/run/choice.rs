//! Assignment of `--ip` and `--mac` to networks, and flags that would have no effect beside the others.

use std::fmt::Display;

use sealane_proto::types::{NetworkName, ServicePort, Transport, Weight};
use sealane_proto::wire::v1;

use crate::args::{Attach, InNetwork};
use crate::failure::{Exit, Failure};

/// The networks with their addresses, in the order in which they were given.
pub(super) fn networks(attach: &Attach) -> Result<Vec<v1::NetworkChoice>, Failure> {
    let mut choices: Vec<v1::NetworkChoice> = attach
        .networks
        .iter()
        .map(|network| v1::NetworkChoice { network: network.to_string(), ..Default::default() })
        .collect();
    for ip in &attach.ips {
        place("--ip", ip, &attach.networks, &mut choices, |choice| &mut choice.address)?;
    }
    for mac in &attach.macs {
        place("--mac", mac, &attach.networks, &mut choices, |choice| &mut choice.mac)?;
    }
    for alias in &attach.aliases {
        let choice = choice_of("--alias", alias, &attach.networks, &mut choices)?;
        choice.aliases.push(alias.value.to_string());
    }
    Ok(choices)
}

/// Refuses what a virtual machine would pass over in silence.
pub(crate) fn check_machine(attach: &Attach) -> Result<(), Failure> {
    match attach.mtls {
        None => Ok(()),
        Some(mode) => Err(usage(format!(
            "--mtls {mode} has no effect with --tap: only sidecars do mutual TLS, and a virtual machine has none"
        ))
        .hint("leave --mtls out")),
    }
}

/// Refuses what would be passed over in silence.
pub(super) fn check_effect(attach: &Attach) -> Result<(), Failure> {
    if let Some(mode) = attach.mtls {
        if attach.no_sidecar {
            return Err(usage(format!(
                "--mtls {mode} has no effect with --no-sidecar: only sidecars do mutual TLS"
            ))
            .hint("leave one of them out"));
        }
        let datagrams = |port: &&ServicePort| port.protocol.transport() == Transport::Udp;
        if let Some(port) = attach.ports.iter().find(datagrams)
            && attach.ports.iter().all(|port| datagrams(&port))
        {
            return Err(usage(format!(
                "--mtls {mode} has no effect on --port {port}: datagrams pass by sidecars, whatever the mode"
            ))
            .hint("leave --mtls out, or name a TCP port that it is for"));
        }
    }
    if attach.service.is_none() && attach.weight != Weight::default() {
        let message =
            format!("--weight {} has no effect without --service, whose calls it shares out", attach.weight);
        return Err(usage(message).hint("add --service NAME, or leave it out"));
    }
    Ok(())
}

fn place<T: Display>(
    flag: &str,
    given: &InNetwork<T>,
    networks: &[NetworkName],
    choices: &mut [v1::NetworkChoice],
    field: fn(&mut v1::NetworkChoice) -> &mut String,
) -> Result<(), Failure> {
    let value = &given.value;
    let choice = choice_of(flag, given, networks, choices)?;
    let network = choice.network.clone();
    let place = field(choice);
    if !place.is_empty() {
        return Err(usage(format!("{flag} is given twice for network {network}: {place} and {value}")));
    }
    *place = value.to_string();
    Ok(())
}

/// The network that a value is for.
fn choice_of<'a, T: Display>(
    flag: &str,
    given: &InNetwork<T>,
    networks: &[NetworkName],
    choices: &'a mut [v1::NetworkChoice],
) -> Result<&'a mut v1::NetworkChoice, Failure> {
    let value = &given.value;
    let network = match (&given.network, networks) {
        (Some(network), _) => network,
        (None, [only]) => only,
        (None, _) => {
            let ways: Vec<String> =
                networks.iter().map(|network| format!("{flag} {network}={value}")).collect();
            return Err(
                usage(format!("{flag} {value} does not say in which network")).hint(ways.join(" or "))
            );
        }
    };
    choices.iter_mut().find(|choice| choice.network == network.as_str()).ok_or_else(|| {
        usage(format!("{flag} {network}={value}: the workload does not join network {network}"))
            .hint(format!("add --network {network}"))
    })
}

fn usage(message: String) -> Failure {
    Failure::new(message).exit(Exit::Usage)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    fn of(flags: &str) -> Result<Vec<v1::NetworkChoice>, Failure> {
        let line = format!("sealane run {flags} -- true");
        let Verb::Run(run) = Cli::try_parse_from(line.split(' ')).unwrap().verb else {
            panic!("not a run");
        };
        networks(&run.attach)
    }

    #[test]
    fn an_address_goes_to_its_network() {
        assert_eq!(of("--network shop --ip 10.42.0.9").unwrap()[0].address, "10.42.0.9");
        let both = of("--network shop --network office --ip office=10.44.0.9 --ip shop=10.42.0.9").unwrap();
        let both: Vec<_> = both.iter().map(|choice| (&*choice.network, &*choice.address)).collect();
        assert_eq!(both, [("shop", "10.42.0.9"), ("office", "10.44.0.9")]);
    }

    #[test]
    fn a_flag_that_would_have_no_effect_is_refused() {
        let check = |flags: &str, expected: Option<&str>| {
            let line = format!("sealane run --network shop {flags} -- true");
            let Verb::Run(run) = Cli::try_parse_from(line.split(' ')).unwrap().verb else {
                panic!("not a run")
            };
            let refused = check_effect(&run.attach).err();
            assert!(refused.iter().all(|failure| failure.exit == Exit::Usage && failure.hint.is_some()));
            let message = refused.map(|failure| failure.message);
            assert!(
                message.as_deref().unwrap_or_default().contains(expected.unwrap_or_default()),
                "{message:?}"
            );
            assert_eq!(message.is_some(), expected.is_some(), "{message:?}");
        };
        check("--service a --port 53/udp --mtls strict", Some("no effect on --port 53/udp"));
        check("--service a --port 53/udp --port 53/tcp --mtls strict", None);
        check("--service a --port 80 --mtls strict", None);
        check("--service a --port 80 --mtls strict --no-sidecar", Some("no effect with --no-sidecar"));
        check("--weight 5", Some("no effect without --service"));
        check("--service a --weight 5", None);
    }

    #[test]
    fn a_flag_about_sidecars_is_refused_for_a_machine() {
        let line =
            |more: &str| format!("sealane attach --tap vm1 --network shop --service a --port 80{more}");
        let check = |more: &str| {
            let Verb::Attach(to) = Cli::try_parse_from(line(more).split(' ')).unwrap().verb else {
                panic!("not an attach");
            };
            check_machine(&to.attach).map_err(|failure| failure.message)
        };
        assert_eq!(check(""), Ok(()));
        assert!(check(" --mtls strict").unwrap_err().starts_with("--mtls strict has no effect with --tap"));
    }

    #[test]
    fn aliases_go_to_their_networks() {
        assert_eq!(of("--network shop --alias db --alias db_1").unwrap()[0].aliases, ["db", "db_1"]);
        let both = of("--network shop --network office --alias office=db").unwrap();
        assert_eq!((both[0].aliases.len(), both[1].aliases.len()), (0, 1));
    }

    #[test]
    fn an_address_without_its_network_is_refused() {
        let check = |flags: &str, expected: &str| {
            let failure = of(flags).unwrap_err();
            assert!(failure.message.contains(expected), "{failure:?}");
            assert_eq!(failure.exit, Exit::Usage);
        };
        check(
            "--network shop --network office --ip 10.42.0.9",
            "--ip 10.42.0.9 does not say in which network",
        );
        check("--network shop --ip office=10.42.0.9", "does not join network office");
        check("--network shop --alias office=db", "does not join network office");
        check("--network shop --ip 10.42.0.9 --ip shop=10.42.0.8", "given twice for network shop");
    }
}
