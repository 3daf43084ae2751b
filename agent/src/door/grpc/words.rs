//! The agent's words as gRPC's: requests in, answers and failures out. A failure speaks of the command line's flags.

use std::path::PathBuf;

use sealane_fabric::seat::{DeviceName, DeviceNameError};
use sealane_proto::types::Weight;
use sealane_proto::wire::{RETRY, v1};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::attachment::{
    Attached, AttachmentId, Event, FailureKind, Field, Hold, HoldError, Netns, NetnsTarget, RequestFailure,
    Seated, SpecError, WeightChange,
};
use crate::tap;
use crate::workload::{HeldWorkload, Restarted, Weighed};

/// The namespace of a request.
///
/// # Errors
/// When its holder is none.
pub(super) fn target(request: &v1::AttachRequest) -> Result<NetnsTarget, Status> {
    if !request.tap.is_empty() {
        return machine(&request.tap);
    }
    let netns = match request.pid {
        0 => Netns::Path(PathBuf::from(&request.netns)),
        pid => Netns::Process(pid),
    };
    Ok(NetnsTarget {
        netns,
        inode: Some(request.inode).filter(|inode| *inode != 0),
        container: Some(request.container.clone()).filter(|container| !container.is_empty()),
        hold: hold(&request.holder)?,
        pid: None,
    })
}

/// The room of a virtual machine, which holds it.
fn machine(device: &str) -> Result<NetnsTarget, Status> {
    let device: DeviceName = device
        .parse()
        .map_err(|error: DeviceNameError| Status::invalid_argument(format!("--tap: {error}")))?;
    if tap::is_ours(&device) {
        return Err(Status::invalid_argument(format!(
            "--tap: devices that Sealane makes on the host for itself are called like {device}; choose a name that does not begin \
             with `sealane` or `slt`"
        )));
    }
    Ok(NetnsTarget {
        netns: Netns::Tap(device),
        inode: None,
        container: None,
        hold: tap::holder(&device),
        pid: None,
    })
}

/// Refuses a request for a virtual machine with fields that one cannot have.
///
/// # Errors
/// Names the flag.
pub(super) fn check_machine(request: &v1::RunRequest) -> Result<(), Status> {
    if request.health.as_ref().is_some_and(|check| !check.exec.is_empty()) {
        return Err(Status::invalid_argument(
            "--health: no command can be run in a virtual machine from outside; let it answer at a port, by tcp, http: or grpc",
        ));
    }
    if request.networks.len() > 1 {
        return Err(Status::invalid_argument(
            "--network: a TAP device is in one network; attach another device for each further one",
        ));
    }
    Ok(())
}

/// A holder, if one is named.
pub(super) fn hold(text: &str) -> Result<Option<Hold>, Status> {
    let hold = (!text.is_empty()).then(|| text.parse()).transpose();
    hold.map_err(|error: HoldError| Status::invalid_argument(error.to_string()))
}

/// The change of a weight that is asked for.
///
/// # Errors
/// When it is no weight.
pub(super) fn weight_change(request: &v1::WeighRequest) -> Result<WeightChange, Status> {
    let weight = request.weight.map(Weight::try_from).transpose();
    let weight = weight.map_err(|error| Status::invalid_argument(format!("--weight: {error}")))?;
    Ok(WeightChange { drained: request.drained, weight })
}

impl From<Weighed> for v1::WeighResponse {
    fn from(weighed: Weighed) -> Self {
        let view = |(id, weight): (AttachmentId, Weight)| v1::Weighed {
            workload: id.workload.to_string(),
            network: id.network.to_string(),
            weight: weight.undrain().get().into(),
            drained: weight.kept().is_some(),
        };
        Self {
            weighed: weighed.weights.into_iter().map(view).collect(),
            waits: weighed.waits.unwrap_or_default(),
        }
    }
}

impl From<HeldWorkload> for v1::HeldView {
    fn from(held: HeldWorkload) -> Self {
        Self {
            holder: held.hold.to_string(),
            workload: held.workload.to_string(),
            networks: held.networks.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<Event> for v1::RunEvent {
    fn from(event: Event) -> Self {
        use v1::run_event::Event as Said;
        let event = match event {
            Event::Waiting(what) => Said::Waiting(what),
            Event::Attached(attached) => Said::Attached(attached.into()),
        };
        Self { event: Some(event) }
    }
}

impl From<Attached> for v1::Location {
    fn from(attached: Attached) -> Self {
        let address = attached.seats.first().map(|seat| seat.address.addr().to_string());
        Self {
            workload: attached.workload.to_string(),
            netns: attached.netns.display().to_string(),
            resolv_conf: attached.resolv_conf.display().to_string(),
            address: address.unwrap_or_default(),
            attachments: attached.seats.into_iter().map(Into::into).collect(),
            nameserver: attached.nameserver.map(|at| at.to_string()).unwrap_or_default(),
            notes: attached.notes,
        }
    }
}

impl From<Seated> for v1::Attachment {
    fn from(seat: Seated) -> Self {
        Self {
            network: seat.network.to_string(),
            address: seat.address.addr().to_string(),
            interface: seat.interface,
            mac: seat.mac.to_string(),
            gateway: seat.gateway.to_string(),
            prefix_len: seat.address.prefix_len().into(),
            address6: seat.address6.map(|own| own.addr().to_string()).unwrap_or_default(),
            prefix_len6: seat.address6.map(|own| own.prefix_len().into()).unwrap_or_default(),
            deny_egress: seat.denies_egress,
        }
    }
}

impl From<Restarted> for v1::SidecarRestarted {
    fn from(restarted: Restarted) -> Self {
        let Restarted { id, problem } = restarted;
        let (workload, network) = (id.workload.to_string(), id.network.to_string());
        Self { workload, network, problem: problem.unwrap_or_default() }
    }
}

/// Describes the fault of a request, by its flag.
pub(super) fn wrong(error: &SpecError) -> Status {
    let text = match error {
        SpecError::Field { field, reason } => format!("{}: {reason}", flag(*field)),
        SpecError::NoNetwork => "--network is missing: a workload is in one network at least".to_owned(),
        SpecError::NoService => "--port needs --service: the service whose port it is".to_owned(),
        SpecError::NetworkTwice(network) => format!("--network {network} is given twice"),
        SpecError::ManyPorts(_) => format!("--port: {error}"),
        SpecError::InterfaceTwice(_) => error.to_string(),
        SpecError::PortTwice(port, transport) => format!("--port {port}/{transport} is given twice"),
        SpecError::SidecarPort(port) => format!(
            "--port {port} is one of the sidecar's own ports; hint: listen on another one, or use --no-sidecar"
        ),
    };
    Status::invalid_argument(text)
}

fn flag(field: Field) -> &'static str {
    match field {
        Field::Network => "--network",
        Field::Address => "--ip",
        Field::Mac => "--mac",
        Field::Interface => "the interface's name",
        Field::Name => "--name",
        Field::Service => "--service",
        Field::Port => "--port",
        Field::Weight => "--weight",
        Field::Alias => "--alias",
        Field::Health => "--health",
    }
}

/// Translates a failure to gRPC.
pub(super) fn status(failure: RequestFailure) -> Status {
    let code = match failure.kind {
        FailureKind::Wrong => Code::InvalidArgument,
        FailureKind::NotFound => Code::NotFound,
        FailureKind::NameInUse | FailureKind::InUse => Code::AlreadyExists,
        FailureKind::Refused | FailureKind::Forbidden => Code::PermissionDenied,
        FailureKind::Removed => Code::Unauthenticated,
        FailureKind::Namespace => Code::FailedPrecondition,
        FailureKind::Disk => Code::ResourceExhausted,
        FailureKind::Broken => Code::Internal,
        FailureKind::Away | FailureKind::Ending => Code::Unavailable,
    };
    let taken = failure.kind == FailureKind::NameInUse;
    let failure = if taken { failure.hint("choose another with --name") } else { failure };
    let mut status = Status::new(code, failure.to_string());
    if failure.retry {
        status.metadata_mut().insert(RETRY, MetadataValue::from_static("true"));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_flag() {
        let field = SpecError::Field { field: Field::Address, reason: "no address".to_owned() };
        let table = [
            (field, "--ip: no address"),
            (SpecError::NoService, "--port needs --service: the service whose port it is"),
            (SpecError::NetworkTwice("shop".parse().unwrap()), "--network shop is given twice"),
            (
                SpecError::SidecarPort(15001),
                "--port 15001 is one of the sidecar's own ports; hint: listen on another one, or use --no-sidecar",
            ),
        ];
        for (error, expected) in table {
            assert_eq!(wrong(&error).message(), expected);
        }
        let taken = RequestFailure::new(
            FailureKind::NameInUse,
            "workload name web is in use; hint: choose another one",
        );
        let taken = status(taken);
        assert_eq!(taken.code(), Code::AlreadyExists);
        assert_eq!(taken.message(), "workload name web is in use; hint: choose another with --name");
        assert!(taken.metadata().contains_key(RETRY));
        assert!(!status(RequestFailure::new(FailureKind::Wrong, "no")).metadata().contains_key(RETRY));
    }
}
