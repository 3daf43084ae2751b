//! Networks.

use std::time::SystemTime;

use sealane_proto::resource::Egress;
use sealane_proto::types::Mtls;
use sealane_proto::wire::v1;
use serde::Serialize;

use super::{generation, hosts, text};
use crate::printer::{Row, Sheet};

/// A network as `network ls` and `network inspect` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NetworkView {
    pub(crate) name: String,
    subnet: String,
    /// Null: none.
    subnet6: Option<String>,
    vni: u32,
    /// Null: by the underlay.
    mtu: Option<u32>,
    encryption: &'static str,
    /// `allow` or `deny`.
    egress: &'static str,
    /// Hosts that may carry it; none: all.
    hosts: Vec<String>,
    /// `strict` or `permissive`.
    mtls: String,
    generation: Option<String>,
    services: u32,
    workloads: u32,
    blocks: Vec<BlockView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct BlockView {
    range: String,
    /// Null: service addresses.
    node: Option<String>,
}

impl From<v1::NetworkView> for NetworkView {
    fn from(view: v1::NetworkView) -> Self {
        let network = view.network.unwrap_or_default();
        let blocks = view.blocks.into_iter();
        Self {
            name: network.name,
            subnet: network.subnet,
            subnet6: text(network.subnet6),
            vni: network.vni,
            mtu: Some(network.mtu).filter(|&mtu| mtu != 0),
            encryption: "none",
            egress: Egress::from_denied(network.deny_egress).as_str(),
            hosts: network.hosts,
            mtls: text(network.mtls).unwrap_or_else(|| Mtls::Permissive.to_string()),
            generation: generation(view.generation),
            services: view.services,
            workloads: view.workloads,
            blocks: blocks.map(|block| BlockView { range: block.range, node: text(block.node) }).collect(),
        }
    }
}

impl From<v1::Network> for NetworkView {
    fn from(network: v1::Network) -> Self {
        v1::NetworkView { network: Some(network), ..v1::NetworkView::default() }.into()
    }
}

impl NetworkView {
    fn subnets(&self) -> String {
        let subnets = [Some(self.subnet.as_str()), self.subnet6.as_deref()];
        subnets.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn mtu(&self) -> String {
        self.mtu.map_or_else(|| "by underlay".to_owned(), |mtu| mtu.to_string())
    }
}

impl Row for NetworkView {
    const HEADERS: &'static [&'static str] =
        &["NAME", "SUBNET", "VNI", "MTU", "MTLS", "SERVICES", "WORKLOADS"];
    const NONE: &'static str = "no networks here: `sealane network create NAME --subnet CIDR` on the control \
         host makes one, and a host lists those that it carries";

    fn cells(&self, _: SystemTime) -> Vec<String> {
        vec![
            self.name.clone(),
            self.subnets(),
            self.vni.to_string(),
            self.mtu(),
            self.mtls.clone(),
            self.services.to_string(),
            self.workloads.to_string(),
        ]
    }
}

impl Sheet for NetworkView {
    fn lines(&self, _: SystemTime) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("name", self.name.clone()),
            ("subnet", self.subnet.clone()),
            ("subnet6", self.subnet6.clone().unwrap_or_else(|| "-".to_owned())),
            ("vni", self.vni.to_string()),
            ("mtu", self.mtu()),
            ("encryption", self.encryption.to_owned()),
            ("egress", self.egress.to_owned()),
            ("hosts", hosts(&self.hosts)),
            ("mtls", self.mtls.clone()),
            ("generation", self.generation.clone().unwrap_or_else(|| "-".to_owned())),
            ("services", self.services.to_string()),
            ("workloads", self.workloads.to_string()),
        ];
        for block in &self.blocks {
            let holder =
                block.node.as_ref().map_or_else(|| "services".to_owned(), |node| format!("node {node}"));
            lines.push(("block", format!("{} of {holder}", block.range)));
        }
        lines
    }
}
