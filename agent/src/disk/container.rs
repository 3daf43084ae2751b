//! The stored form of an attached container.

use std::path::PathBuf;

use prost::Message;
use sealane_proto::wire::v1;

use super::messages::ContainerMessage;
use super::records::{RecordError, unreadable};
use crate::attachment::{AttachRequest, AttachmentId};

/// A container that is attached whenever it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredContainer {
    /// Wishes with which it was attached, by the name that its workload has.
    pub(crate) wanted: AttachRequest,
    /// The id that its runtime gave it.
    pub(crate) container: String,
    /// The control group that its runtime makes for it.
    pub(crate) group: PathBuf,
}

impl StoredContainer {
    /// Returns the id of its first attachment.
    #[must_use]
    pub(crate) fn id(&self) -> Option<AttachmentId> {
        let first = self.wanted.seats.first()?;
        Some(AttachmentId { network: first.network.clone(), workload: self.wanted.name.clone()? })
    }

    /// For [`super::Folder::write`].
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let group = self.group.display().to_string();
        let workload = Some((&self.wanted).into());
        let request = v1::AttachRequest { workload, container: self.container.clone(), ..Default::default() };
        ContainerMessage { request: Some(request), group }.encode_to_vec()
    }

    /// From [`super::Folder::read`].
    ///
    /// # Errors
    /// When another version wrote it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let fail = unreadable("container");
        let message = ContainerMessage::decode(bytes).map_err(|error| fail(&error))?;
        let request = message.request.ok_or_else(|| fail(&"no request in it"))?;
        let workload = request.workload.ok_or_else(|| fail(&"no workload in it"))?;
        let wanted = AttachRequest::try_from(workload).map_err(|error| fail(&error))?;
        Ok(Self { wanted, container: request.container, group: message.group.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_read_back_with_its_first_attachment() {
        let choice = |network: &str| v1::NetworkChoice { network: network.to_owned(), ..Default::default() };
        let workload = v1::RunRequest {
            networks: vec![choice("shop"), choice("office")],
            name: "web".to_owned(),
            ..Default::default()
        };
        let wanted = AttachRequest::try_from(workload).unwrap();
        let group = "/sys/fs/cgroup/docker/3f2a".into();
        let stored = StoredContainer { wanted, container: "3f2a".to_owned(), group };
        let read = StoredContainer::from_bytes(&stored.to_bytes()).unwrap();
        assert_eq!(read, stored);
        assert_eq!(read.id().unwrap().to_string(), "shop/web");
    }
}
