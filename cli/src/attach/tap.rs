//! `sealane attach --tap`: a device for a virtual machine.

use std::time::SystemTime;

use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;
use serde::Serialize;

use crate::args::{AttachTo, Common};
use crate::client::{agent, converse};
use crate::failure::Failure;
use crate::printer::{Printer, Sheet};
use crate::run::choice::check_machine;
use crate::run::{follow, request};

/// A machine's place as `attach` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct MachineView {
    workload: String,
    network: String,
    tap: String,
    mac: String,
    address: String,
    gateway: String,
}

impl Sheet for MachineView {
    fn lines(&self, _now: SystemTime) -> Vec<(&'static str, String)> {
        vec![
            ("WORKLOAD", self.workload.clone()),
            ("NETWORK", self.network.clone()),
            ("TAP", self.tap.clone()),
            ("MAC", self.mac.clone()),
            ("ADDRESS", format!("{}, by DHCP", self.address)),
            ("NAMESERVER", self.gateway.clone()),
        ]
    }
}

/// Makes the device.
pub(super) fn attach(device: &str, to: &AttachTo, common: &Common, printer: &Printer) -> Result<(), Failure> {
    check_machine(&to.attach)?;
    let mut workload = request(&to.attach, device.to_owned())?;
    workload.no_sidecar = true;
    workload.preferred = device.to_owned();
    let request =
        v1::AttachRequest { workload: Some(workload), tap: device.to_owned(), ..Default::default() };
    let location = converse(async {
        let mut client = AgentClient::new(agent(common).await?);
        follow(client.attach(request).await, printer).await
    })?;
    location.notes.iter().for_each(|note| printer.talk(note));
    let seat = location.attachments.into_iter().next().unwrap_or_default();
    let machine = MachineView {
        workload: location.workload,
        network: seat.network,
        tap: device.to_owned(),
        mac: seat.mac,
        address: seat.address,
        gateway: seat.gateway,
    };
    printer.talk(&format!(
        "start the machine with: -netdev tap,id={device},ifname={device},script=no,downscript=no \
         -device virtio-net-pci,netdev={device},mac={}",
        machine.mac
    ));
    printer.sheet(&machine)
}
