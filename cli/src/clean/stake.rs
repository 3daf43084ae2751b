//! Losses that come with the end of a host's state: looked at before anything is ended.

use std::path::Path;

use sealane_agent::layout::NODE;
use sealane_proto::client::unix_channel;
use sealane_proto::wire::v1;
use sealane_sys::run_dir::{AGENT_SOCKET, CONTROL_SOCKET, RunDir};

use super::listed;
use crate::client::{answer, converse, reader};
use crate::failure::Failure;

/// Things that are lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stake {
    /// The store and authority of a mesh are removed; of so many hosts, when control could be asked.
    store: Option<Option<u32>>,
    /// Number of workloads that run here.
    workloads: usize,
    /// The host's identity is removed.
    host: Option<Host>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// `None` when its record cannot be read.
    name: Option<String>,
    known: Known,
}

/// Control's knowledge of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Yes,
    /// The host was removed.
    No,
    /// Control could not be asked.
    Perhaps,
}

impl Stake {
    /// Looks, and asks what runs.
    pub(super) fn of(run_dir: &RunDir, data_dir: Option<&Path>) -> Result<Self, Failure> {
        let store = data_dir.filter(|folder| folder.join("control.redb").exists());
        let identity = data_dir.filter(|folder| folder.join(NODE).exists());
        let namespaces = listed(&run_dir.namespaces())?;
        let is_network = |path: &Path| {
            path.file_name().is_some_and(|name| RunDir::network_of(&name.to_string_lossy()).is_some())
        };
        Ok(Self {
            store: store.map(|_| status(&run_dir.socket(CONTROL_SOCKET)).map(|status| status.nodes)),
            workloads: namespaces.iter().filter(|path| !is_network(path)).count(),
            host: identity.map(|folder| Host {
                name: sealane_agent::joined_as(folder).map(|name| name.to_string()),
                known: match status(&run_dir.socket(AGENT_SOCKET)) {
                    Some(status) if status.removed => Known::No,
                    Some(status) if status.control_connected => Known::Yes,
                    Some(_) | None => Known::Perhaps,
                },
            }),
        })
    }

    /// Returns true if a mesh has no control plane afterwards.
    pub(super) fn ends_the_mesh(&self) -> bool {
        self.store.is_some()
    }

    /// Lists the warnings for whoever is asked, without the full stop.
    pub(super) fn warnings(&self) -> Vec<String> {
        let store = self.store.map(|hosts| {
            let hosts = match hosts {
                Some(1) => " of a mesh of one host".to_owned(),
                Some(hosts) => format!(" of a mesh of {hosts} hosts"),
                None => " of a mesh".to_owned(),
            };
            format!(
                "the control plane{hosts} is here, and its store and authority are removed: without a backup (`sealane backup \
                 FILE` makes one while it runs) every host has to join a new mesh"
            )
        });
        let workloads = match self.workloads {
            0 => None,
            1 => Some("a workload is on this host: its process goes on without its network".to_owned()),
            many => Some(format!(
                "{many} workloads are on this host: their processes go on without their networks"
            )),
        };
        store.into_iter().chain(workloads).collect()
    }

    /// Describes the work that is left to do elsewhere.
    pub(super) fn parting(&self) -> Option<String> {
        if self.ends_the_mesh() {
            let others = self.store.flatten().is_none_or(|hosts| hosts > 1);
            return others.then(|| {
                "the mesh has no control plane any more; hint: `sealane restore` a backup here or elsewhere, or `sealane clean` \
                 on its other hosts"
                    .to_owned()
            });
        }
        let host = self.host.as_ref()?;
        let name = host.name.as_deref().unwrap_or("HOST");
        match host.known {
            Known::No => None,
            Known::Yes => Some(format!(
                "control knows this host still, with the workloads it had; hint: `sealane node rm {name}` on the control host"
            )),
            Known::Perhaps => Some(format!(
                "whether control knows this host still could not be asked; hint: if `sealane node ls` on the control host \
                 names it, `sealane node rm {name}`"
            )),
        }
    }
}

/// Asks the process at a socket for its status.
fn status(socket: &Path) -> Option<v1::StatusResponse> {
    let asked = converse(async {
        let channel = unix_channel(socket).await.map_err(|error| Failure::new(error.to_string()))?;
        answer(reader(channel).status(v1::StatusRequest {})).await
    });
    asked.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(known: Known) -> Option<Host> {
        Some(Host { name: Some("host-2".to_owned()), known })
    }

    #[test]
    fn the_parting_hint_fits_what_control_knows() {
        let parting = |stake: Stake| stake.parting().unwrap_or_default();
        let of = |known| Stake { host: host(known), ..Stake::default() };
        assert!(parting(of(Known::Yes)).contains("`sealane node rm host-2` on the control host"));
        assert!(parting(of(Known::Perhaps)).contains("if `sealane node ls` on the control host names it"));
        assert_eq!(parting(of(Known::No)), "", "it was removed already");
        assert_eq!(parting(Stake::default()), "", "it had not joined");
        let control = Stake { store: Some(Some(3)), ..of(Known::Yes) };
        assert!(
            !parting(control.clone()).contains("node rm") && parting(control).contains("no control plane")
        );
        assert_eq!(
            parting(Stake { store: Some(Some(1)), ..of(Known::Yes) }),
            "",
            "nobody else is left behind"
        );
    }

    #[test]
    fn a_control_plane_and_workloads_are_named_before_they_are_lost() {
        let stake = Stake { store: Some(Some(3)), workloads: 2, host: host(Known::Yes) };
        let said = stake.warnings().join("\n");
        assert!(
            said.contains("control plane of a mesh of 3 hosts") && said.contains("`sealane backup FILE`"),
            "{said}"
        );
        assert!(said.contains("2 workloads are on this host"), "{said}");
        assert_eq!(Stake::default().warnings(), [] as [String; 0]);
    }
}
