//! The environment that a runtime calls a plugin with (CNI 1.1, section 2, "Parameters").

use std::path::PathBuf;

use sealane_fabric::seat::DeviceName;

use super::failure::{CniError, Code};

/// Commands of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

/// An attachment as the runtime names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) container: String,
    pub(super) interface: String,
    /// Absent for a DEL of a container whose namespace is gone.
    pub(super) netns: Option<PathBuf>,
}

/// Content of `CNI_ARGS` that is of use here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) ip: Option<String>,
    pub(super) mac: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) namespace: Option<String>,
}

fn wrong(message: impl Into<String>) -> CniError {
    CniError::new(Code::Environment, message)
}

impl Command {
    /// The command of the environment.
    pub(super) fn of(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let command = env("CNI_COMMAND").unwrap_or_default();
        Ok(match command.as_str() {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "STATUS" => Self::Status,
            "GC" => Self::Gc,
            "VERSION" => Self::Version,
            "" => {
                return Err(wrong("CNI_COMMAND is missing")
                    .hint("container runtimes call this; by hand, set CNI_COMMAND to ADD, DEL, CHECK, STATUS, GC or VERSION"));
            }
            other => return Err(wrong(format!("CNI_COMMAND {other:?} is not known"))),
        })
    }
}

impl Place {
    /// The attachment of the environment.
    pub(super) fn of(command: Command, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let netns = env("CNI_NETNS").filter(|path| !path.is_empty());
        let place = Self {
            container: env("CNI_CONTAINERID").unwrap_or_default(),
            interface: env("CNI_IFNAME").unwrap_or_default(),
            netns: netns.map(PathBuf::from),
        };
        if !is_word(&place.container) {
            let id = &place.container;
            return Err(wrong(format!(
                "CNI_CONTAINERID {id:?} must be letters, digits, `.`, `_` and `-`, and begin with a letter or digit"
            )));
        }
        if let Err(error) = place.interface.parse::<DeviceName>()
            && command != Command::Del
        {
            return Err(wrong(format!("CNI_IFNAME: {error}")));
        }
        if place.netns.is_none() && command != Command::Del {
            return Err(wrong("CNI_NETNS is missing: the path of the container's network namespace"));
        }
        Ok(place)
    }
}

/// Returns true if a text is an identifier, as those of containers and networks are.
pub(super) fn is_word(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner)
}

impl Arguments {
    /// Reads `KEY=VALUE;...`, in any order.
    pub(super) fn parse(text: &str) -> Result<Self, CniError> {
        let (mut arguments, mut ignore, mut unknown) = (Self::default(), false, Vec::new());
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(wrong(format!("CNI_ARGS: {pair:?} is no KEY=VALUE")));
            };
            let given = Some(value.to_owned()).filter(|value| !value.is_empty());
            match key {
                "IgnoreUnknown" => ignore = matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true"),
                "IP" => arguments.ip = given,
                "MAC" => arguments.mac = given,
                "K8S_POD_NAME" => arguments.pod = given,
                "K8S_POD_NAMESPACE" => arguments.namespace = given,
                "K8S_POD_UID" | "K8S_POD_INFRA_CONTAINER_ID" => {}
                other => unknown.push(other),
            }
        }
        match unknown.as_slice() {
            [first, ..] if !ignore => Err(wrong(format!("CNI_ARGS: {first:?} is not known"))
                .hint("IgnoreUnknown=1 passes over what is not known")),
            _ => Ok(arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_in_any_order() {
        let pod = "K8S_POD_UID=7;IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;X=1;K8S_POD_NAME=web-0;IP=10.42.0.9";
        let told = Arguments::parse(pod).unwrap();
        assert_eq!((told.pod.as_deref(), told.namespace.as_deref()), (Some("web-0"), Some("prod")));
        assert_eq!(told.ip.as_deref(), Some("10.42.0.9"));
        assert_eq!(Arguments::parse("X=1;IgnoreUnknown=true").unwrap(), Arguments::default());
        assert_eq!(Arguments::parse("").unwrap(), Arguments::default());
        for (text, expected) in
            [("X=1", "\"X\" is not known"), ("IP", "no KEY=VALUE"), ("IgnoreUnknown=0;X=", "not known")]
        {
            let error = Arguments::parse(text).unwrap_err();
            assert!(
                error.code == Code::Environment && error.told.message.contains(expected),
                "{text}: {error:?}"
            );
        }
    }

    #[test]
    fn a_place_is_checked_before_anything_is_asked() {
        let check = |id: &str, interface: &str, netns: &str, command| {
            let env = |name: &str| {
                let value = match name {
                    "CNI_CONTAINERID" => id,
                    "CNI_IFNAME" => interface,
                    "CNI_NETNS" => netns,
                    _ => return None,
                };
                Some(value.to_owned())
            };
            Place::of(command, &env).map(drop).map_err(|error| error.told.message)
        };
        assert_eq!(check("default-k1", "eth0", "/run/netns/a", Command::Add), Ok(()));
        assert_eq!(check("default-k1", "eth0", "", Command::Del), Ok(()));
        assert_eq!(check("default-k1", "veth%d", "", Command::Del), Ok(()), "nothing has that name");
        for (id, interface, netns, expected) in [
            ("", "eth0", "/n", "CNI_CONTAINERID"),
            ("a/b", "eth0", "/n", "CNI_CONTAINERID"),
            ("a", "", "/n", "CNI_IFNAME"),
            ("a", "sixteen-letters!", "/n", "CNI_IFNAME"),
            ("a", "lo", "/n", "CNI_IFNAME"),
            ("a", "veth%d", "/n", "CNI_IFNAME: \"veth%d\" is a pattern"),
            ("a", "%d", "/n", "CNI_IFNAME"),
            ("a", "eth*", "/n", "CNI_IFNAME"),
            ("a", "all", "/n", "CNI_IFNAME"),
            ("a", "eth0", "", "CNI_NETNS"),
        ] {
            let error = check(id, interface, netns, Command::Add).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
