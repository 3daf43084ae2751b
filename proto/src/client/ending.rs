//! Endings of a stream to control, in words for people and as a reason to wait.

use sealane_base::text::one_line;

use super::words::of_loss;
use crate::resource::ControlAddr;
use crate::wire::LEADER;

/// Length to which a reason that control gives is shown.
pub(super) const LONGEST_REASON: usize = 2_048;

/// Ending of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) reason: String,
    /// True if control wants nothing of this host.
    pub(super) refused: bool,
    /// True if another agent has taken this host's place.
    pub(super) displaced: bool,
    /// Address of the control plane that leads, in the words of one that does not.
    pub(super) leader: Option<ControlAddr>,
}

impl From<String> for Ending {
    fn from(reason: String) -> Self {
        Self { reason, refused: false, displaced: false, leader: None }
    }
}

impl Ending {
    /// Ends because another control plane leads.
    pub(super) fn leads(leader: ControlAddr) -> Self {
        Self { leader: Some(leader.clone()), ..format!("the control plane at {leader} leads").into() }
    }

    pub(super) fn of(status: &tonic::Status, address: &ControlAddr) -> Self {
        let message = &one_line(status.message(), LONGEST_REASON);
        // What control itself says has no cause on this side.
        if std::error::Error::source(status).is_some() {
            let why = of_loss(status).map(|why| format!(": {why}")).unwrap_or_default();
            return format!("the connection to control at {address} was lost{why}").into();
        }
        let refused = status.code() == tonic::Code::PermissionDenied;
        let displaced = status.code() == tonic::Code::Aborted;
        let leader = leader(status);
        Self { reason: format!("control at {address} refuses: {message}"), refused, displaced, leader }
    }
}

/// Reads from a refusal where the control plane is that leads.
pub(super) fn leader(status: &tonic::Status) -> Option<ControlAddr> {
    status.metadata().get(LEADER)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_control_s_own_word_and_a_broken_connection_is_none() {
        let address: ControlAddr = "192.0.2.1:7443".parse().unwrap();
        let check = |status: tonic::Status, reason: &str, refused: bool| {
            let ending = Ending::of(&status, &address);
            assert_eq!(ending, Ending { reason: reason.to_owned(), refused, displaced: false, leader: None });
        };
        check(
            tonic::Status::permission_denied("node host-4 was removed"),
            "control at 192.0.2.1:7443 refuses: node host-4 was removed",
            true,
        );
        check(
            tonic::Status::unavailable("the control plane is shutting down"),
            "control at 192.0.2.1:7443 refuses: the control plane is shutting down",
            false,
        );
        check(
            tonic::Status::from_error(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()),
            "the connection to control at 192.0.2.1:7443 was lost: the other side closed it",
            false,
        );
    }

    #[test]
    fn who_was_displaced_by_another_agent_knows_it_and_nobody_writes_its_lines() {
        let address: ControlAddr = "192.0.2.1:7443".parse().unwrap();
        let status = tonic::Status::aborted("another stream of node host-4 has taken over\n\u{1b}[2J");
        let ending = Ending::of(&status, &address);
        assert!(
            ending.displaced && !ending.refused && !ending.reason.contains(['\n', '\u{1b}']),
            "{ending:?}"
        );
    }
}
