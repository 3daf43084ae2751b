//! Location of a workload.

use std::time::SystemTime;

use sealane_proto::wire::v1;
use serde::Serialize;

use crate::printer::Sheet;

/// A workload as `attach` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LocationView {
    workload: String,
    attachments: Vec<AttachmentView>,
    nameserver: String,
    resolv_conf: String,
    netns: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct AttachmentView {
    network: String,
    address: String,
    interface: String,
}

impl From<v1::Location> for LocationView {
    fn from(location: v1::Location) -> Self {
        let attachment = |of: v1::Attachment| AttachmentView {
            network: of.network,
            address: of.address,
            interface: of.interface,
        };
        Self {
            workload: location.workload,
            attachments: location.attachments.into_iter().map(attachment).collect(),
            nameserver: location.nameserver,
            resolv_conf: location.resolv_conf,
            netns: location.netns,
        }
    }
}

impl Sheet for LocationView {
    fn lines(&self, _now: SystemTime) -> Vec<(&'static str, String)> {
        let attachment =
            |of: &AttachmentView| ("NETWORK", format!("{}: {} on {}", of.network, of.address, of.interface));
        let mut lines = vec![("WORKLOAD", self.workload.clone())];
        lines.extend(self.attachments.iter().map(attachment));
        lines.push(("NAMESERVER", self.nameserver.clone()));
        lines.push(("RESOLV.CONF", self.resolv_conf.clone()));
        lines
    }
}
