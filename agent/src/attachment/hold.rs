//! The names by which somebody outside holds an attachment.

use std::fmt;
use std::str::FromStr;

use sealane_fabric::seat::number;
use sealane_proto::types::WorkloadName;

/// The longest one, in bytes.
const LONGEST: usize = 200;

/// The name by which a runtime holds an attachment: it lives until that is dismissed, whatever becomes of processes and
/// paths. A name holds one workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hold(Box<str>);

/// Reason for which a text is not such a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no holder: it has 1 to 200 visible ASCII characters")]
pub(crate) struct HoldError(String);

impl Hold {
    /// The beginning of the names by which Docker's door holds.
    pub(crate) const DOCKER: &str = "docker/";

    /// The name as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether Docker's door holds by this name. Docker answers names at 127.0.0.11 by rules that ours come before.
    #[must_use]
    pub(crate) fn is_of_docker(&self) -> bool {
        self.0.starts_with(Self::DOCKER)
    }

    /// The container runtime that holds `workload` by this name, and the way to end that there; `None` when no runtime does.
    #[must_use]
    pub(crate) fn runtime(&self, workload: &WorkloadName) -> Option<(&'static str, String)> {
        let gone = format!("`sealane detach --holder {self}` if its container is gone");
        let mut parts = self.0.splitn(3, '/');
        match (parts.next()?, parts.next()?, parts.next()) {
            ("docker", ..) => {
                Some(("Docker", format!("`docker network disconnect NETWORK {workload}`, or {gone}")))
            }
            ("netavark", id, Some(network)) => {
                let id = id.get(..12).unwrap_or(id);
                Some(("podman", format!("`podman network disconnect {network} {id}`, or {gone}")))
            }
            ("cni", network, _) => Some((
                "CNI",
                format!(
                    "end its pod by the runtime (of podman 4: `podman network disconnect {network} {workload}`), or {gone}"
                ),
            )),
            _ => None,
        }
    }

    /// A number that it has for itself among as many as there are on a host.
    #[must_use]
    pub(crate) fn hash(&self) -> u64 {
        number(&self.0)
    }
}

impl FromStr for Hold {
    type Err = HoldError;
    fn from_str(text: &str) -> Result<Self, HoldError> {
        let fits = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|c| c.is_ascii_graphic());
        if fits { Ok(Self(text.into())) } else { Err(HoldError(text.chars().take(64).collect())) }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_one_visible_word() {
        assert_eq!("cni/4f1c/eth0".parse::<Hold>().unwrap().to_string(), "cni/4f1c/eth0");
        for wrong in ["", "a b", "a\n", &"x".repeat(201)] {
            assert!(wrong.parse::<Hold>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_runtime_s_holder_says_how_the_runtime_ends_it() {
        let web = "web".parse().unwrap();
        let table = [
            ("docker/4f1c", Some(("Docker", "`docker network disconnect NETWORK web`"))),
            (
                "netavark/0123456789abcdef/shop",
                Some(("podman", "`podman network disconnect shop 0123456789ab`")),
            ),
            ("cni/mesh/4f1c/eth0", Some(("CNI", "`podman network disconnect mesh web`"))),
            ("tap/vm1", None),
            ("mine", None),
        ];
        for (holder, expected) in table {
            let found = holder.parse::<Hold>().unwrap().runtime(&web);
            assert_eq!(found.as_ref().map(|(who, _)| *who), expected.map(|(who, _)| who), "{holder}");
            let (Some((_, fix)), Some((_, part))) = (found, expected) else { continue };
            assert!(fix.contains(part) && fix.contains(&format!("--holder {holder}`")), "{fix}");
        }
    }
}
