//! The stored form of a workload.

use std::path::PathBuf;

use prost::Message;
use sealane_fabric::seat::{Owner, Seat};
use sealane_proto::resource::Workload;
use sealane_proto::types::Check;

use super::messages::WorkloadMessage;
use super::records::{RecordError, unreadable};
use crate::attachment::{Attachment, Hold};

/// The process that a workload ends with; it is another one after a reboot, whatever its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredProcess {
    /// The process id.
    pub(crate) pid: u32,
    /// Start time in clock ticks since boot.
    pub(crate) started: u64,
    /// The boot that it ran in (/proc/sys/kernel/random/boot_id).
    pub(crate) boot: String,
}

/// The path that a workload ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredPath {
    /// Path at which its namespace is bound.
    pub(crate) path: PathBuf,
    /// The namespace's inode.
    pub(crate) inode: u64,
    /// The boot that the inode is of.
    pub(crate) boot: String,
}

/// Holder of a workload until it is dismissed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredHold {
    /// Name of the holder.
    pub(crate) hold: Hold,
    /// Path at which the workload's namespace is bound.
    pub(crate) path: PathBuf,
    /// A process of its, by number and start time.
    pub(crate) process: Option<(u32, u64)>,
    /// The boot that the namespace is of.
    pub(crate) boot: String,
}

/// Anchor that a workload ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoredAnchor {
    /// The end of a process.
    Process(StoredProcess),
    /// The end of a path.
    Path(StoredPath),
    /// A holder's dismissal.
    Held(StoredHold),
}

impl StoredAnchor {
    /// The boot that it is of.
    #[must_use]
    pub(crate) fn boot(&self) -> &str {
        match self {
            Self::Process(process) => &process.boot,
            Self::Path(path) => &path.boot,
            Self::Held(held) => &held.boot,
        }
    }

    /// The process, if it is one.
    #[must_use]
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::Process(process) => Some(process.pid),
            Self::Path(_) | Self::Held(_) => None,
        }
    }

    /// Returns its holder, if it has one.
    #[must_use]
    pub(crate) fn hold(&self) -> Option<&Hold> {
        match self {
            Self::Held(held) => Some(&held.hold),
            Self::Process(_) | Self::Path(_) => None,
        }
    }
}

/// A workload on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredWorkload {
    /// Attachments, at least one, in the order of its networks.
    pub(crate) attachments: Vec<Attachment>,
    /// Anchor that it ends with.
    pub(crate) anchor: StoredAnchor,
    /// Check of its own, in place of its service's.
    pub(crate) health: Option<Check>,
}

impl StoredWorkload {
    /// The name of its record, which its first attachment gives.
    #[must_use]
    pub(crate) fn name(&self) -> Option<String> {
        self.attachments.first().map(|attachment| attachment.id().record_name())
    }

    /// For [`super::Folder::write`].
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut workloads = self.attachments.iter().map(|attachment| (&attachment.workload).into());
        let seat = |attachment: &Attachment| attachment.seat;
        let mut message = WorkloadMessage {
            workload: workloads.next(),
            further: workloads.collect(),
            seats: self.attachments.iter().map(|attachment| seat(attachment).number().into()).collect(),
            given: self.attachments.iter().any(|attachment| seat(attachment).owner() == Owner::Other),
            boot: self.anchor.boot().to_owned(),
            interfaces: self.interfaces(),
            health: self.health.as_ref().map(Into::into),
            ..WorkloadMessage::default()
        };
        match &self.anchor {
            StoredAnchor::Process(process) => {
                (message.pid, message.started) = (process.pid, process.started);
            }
            StoredAnchor::Path(path) => {
                (message.path, message.inode) = (path.path.display().to_string(), path.inode);
            }
            StoredAnchor::Held(held) => {
                (message.path, message.holder) = (held.path.display().to_string(), held.hold.to_string());
                (message.pid, message.started) = held.process.unwrap_or_default();
            }
        }
        message.encode_to_vec()
    }

    /// The names of its interfaces, if one is not the usual.
    fn interfaces(&self) -> Vec<String> {
        let names = self.attachments.iter().map(|attachment| attachment.seat.name());
        if names.clone().all(|name| name.is_none()) {
            return Vec::new();
        }
        names.map(|name| name.map(|name| name.to_string()).unwrap_or_default()).collect()
    }

    /// From [`super::Folder::read`].
    ///
    /// # Errors
    /// When another version wrote it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let fail = unreadable("workload");
        let message = WorkloadMessage::decode(bytes).map_err(|error| fail(&error))?;
        let first = message.workload.ok_or_else(|| fail(&"no workload in it"))?;
        let owner = if message.given { Owner::Other } else { Owner::Agent };
        let numbers = message.seats.into_iter().map(Some).chain(std::iter::repeat(None));
        let mut names = message.interfaces.into_iter();
        let mut attachments = Vec::new();
        for (workload, number) in std::iter::once(first).chain(message.further).zip(numbers) {
            let workload = Workload::try_from(workload).map_err(|error| fail(&error))?;
            let number = number.map_or(Ok(0), u8::try_from).map_err(|error| fail(&error))?;
            let name = names.next().filter(|name| !name.is_empty()).map(|name| name.parse()).transpose();
            let name = name.map_err(|error| fail(&error))?;
            attachments.push(Attachment {
                workload,
                seat: Seat::new(owner, number).named(name),
                ending: false,
            });
        }
        let health = message.health.map(Check::try_from).transpose().map_err(|error| fail(&error))?;
        let boot = message.boot;
        let anchor = if !message.holder.is_empty() {
            let hold = message.holder.parse().map_err(|error| fail(&error))?;
            let process = (message.pid != 0).then_some((message.pid, message.started));
            StoredAnchor::Held(StoredHold { hold, path: message.path.into(), process, boot })
        } else if message.path.is_empty() {
            StoredAnchor::Process(StoredProcess { pid: message.pid, started: message.started, boot })
        } else {
            StoredAnchor::Path(StoredPath { path: message.path.into(), inode: message.inode, boot })
        };
        Ok(Self { attachments, anchor, health })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn attachment(network: &str, seat: Seat) -> Attachment {
        let workload =
            Workload { network: network.parse().unwrap(), ..testing::workload("web", "10.42.0.9") };
        Attachment { workload, seat, ending: false }
    }

    #[test]
    fn workloads_of_several_networks_are_read_back() {
        let seats = Seat::all(Owner::Other).skip(1);
        let attachments: Vec<Attachment> = ["shop", "office"]
            .into_iter()
            .zip(seats)
            .map(|(network, seat)| attachment(network, seat))
            .collect();
        let path = StoredPath { path: "/run/netns/web".into(), inode: 7, boot: "b".into() };
        let stored = StoredWorkload {
            attachments,
            anchor: StoredAnchor::Path(path),
            health: "exec:true".parse().ok().map(Check::of),
        };
        assert_eq!(stored.name().unwrap(), "shop.web");
        assert_eq!(StoredWorkload::from_bytes(&stored.to_bytes()).unwrap(), stored);
    }

    #[test]
    fn a_held_workload_is_read_back_with_the_name_of_its_interface() {
        let seat = Seat::new(Owner::Other, 1).named("net1".parse().ok());
        let held = StoredHold {
            hold: "cni/4f1c/net1".parse().unwrap(),
            path: "/run/netns/web".into(),
            process: Some((17, 4)),
            boot: "b".into(),
        };
        let stored = StoredWorkload {
            attachments: vec![attachment("shop", seat)],
            anchor: StoredAnchor::Held(held),
            health: None,
        };
        assert_eq!(StoredWorkload::from_bytes(&stored.to_bytes()).unwrap(), stored);
    }

    #[test]
    fn records_of_before_there_were_several_are_read() {
        let workload = attachment("shop", Seat::default()).workload;
        let old = WorkloadMessage {
            workload: Some((&workload).into()),
            pid: 17,
            started: 4,
            boot: "b".into(),
            ..WorkloadMessage::default()
        };
        let stored = StoredWorkload::from_bytes(&old.encode_to_vec()).unwrap();
        assert_eq!(stored.attachments, [attachment("shop", Seat::default())]);
        assert_eq!(stored.anchor.pid(), Some(17));
    }
}
