//! Failures of connections in words for people: libraries and the kernel speak to programmers.

use std::error::Error;
use std::io;

use sealane_base::text::plain;

/// Errors of the kernel about an address, with their meaning and what to see to.
const CONNECTING: [(io::ErrorKind, &str); 5] = [
    (
        io::ErrorKind::ConnectionRefused,
        "nobody listens there; see that `sealane control` runs on that host and that its --listen has this port",
    ),
    (
        io::ErrorKind::TimedOut,
        "nobody answers; see that the host is up and that no firewall drops TCP to this port",
    ),
    (io::ErrorKind::HostUnreachable, NO_WAY),
    (io::ErrorKind::NetworkUnreachable, NO_WAY),
    (io::ErrorKind::PermissionDenied, "a rule of this host forbids it; see `nft list ruleset`"),
];
const NO_WAY: &str = "no way leads there; see the address in --control, and `ip route get` with it";
/// Beginning of what the system's resolver says.
const LOOKUP: &str = "failed to lookup address information: ";

/// Tells what an error of the kernel or of a resolver means to who wanted to connect, and what to see to.
pub(super) fn of_connecting(error: &io::Error) -> String {
    if let Some((_, words)) = CONNECTING.iter().find(|(kind, _)| *kind == error.kind()) {
        (*words).to_owned()
    } else if is_closed(error.kind()) {
        "the connection is closed at once; see that this is control's port, and control's log".to_owned()
    } else if let Some(why) = error.to_string().strip_prefix(LOOKUP) {
        format!("its name has no address here ({why}); see resolv.conf(5), or give --control an address")
    } else {
        plain(error)
    }
}

/// Tells what ended a handshake that TLS itself has no word against.
pub(super) fn of_handshake(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        "the handshake takes too long; see that this is control's port, and what its host is busy with"
            .to_owned()
    } else if is_closed(error.kind()) {
        "the other side ended the handshake; see that this is control's port, and control's log".to_owned()
    } else {
        plain(error)
    }
}

/// Tells what ended a connection in use, as far as the kernel has said: an error of a call, with those that led to it.
#[must_use]
pub fn of_loss(error: &(dyn Error + 'static)) -> Option<String> {
    let of_kernel = of_kernel(error)?;
    if is_closed(of_kernel.kind()) {
        Some("the other side closed it".to_owned())
    } else if of_kernel.kind() == io::ErrorKind::TimedOut {
        Some("the other side fell silent".to_owned())
    } else {
        of_kernel.raw_os_error().map(|_| plain(of_kernel))
    }
}

/// Finds the error of the kernel among the causes of an error.
fn of_kernel<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|cause| cause.downcast_ref())
}

/// Returns true if the other side closed the connection, as a process that ends does.
pub(super) fn is_hang_up(error: &(dyn Error + 'static)) -> bool {
    of_kernel(error).is_some_and(|error| is_closed(error.kind()))
}

fn is_closed(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        kind,
        Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::UnexpectedEof
            | Kind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_kernel_says_people_read_what_to_do() {
        // errno(3) of Linux.
        let kernel = |number| io::Error::from_raw_os_error(number);
        let lookup = "failed to lookup address information: Name or service not known";
        for (error, expected) in [
            (kernel(111), "nobody listens there; see that `sealane control` runs"),
            (kernel(110), "nobody answers; see that the host is up"),
            (kernel(113), "no way leads there"),
            (kernel(101), "no way leads there"),
            (kernel(104), "the connection is closed at once"),
            (kernel(1), "a rule of this host forbids it"),
            (kernel(24), "Too many open files"),
            (io::Error::other(lookup), "its name has no address here (Name or service not known); see"),
        ] {
            for said in [of_connecting(&error), of_handshake(&error)] {
                assert!(!said.contains("os error"), "{said}");
            }
            let said = of_connecting(&error);
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn a_loss_is_told_by_its_first_cause_and_not_at_all_where_only_a_library_speaks() {
        let lost = |error: io::Error| of_loss(&tonic::Status::from_error(Box::new(error)));
        assert_eq!(lost(io::ErrorKind::BrokenPipe.into()).as_deref(), Some("the other side closed it"));
        assert_eq!(lost(io::ErrorKind::TimedOut.into()).as_deref(), Some("the other side fell silent"));
        assert_eq!(lost(io::Error::other("transport error")), None);
        assert_eq!(of_loss(&tonic::Status::unavailable("h2 protocol error")), None);
        for (kind, expected) in [(io::ErrorKind::ConnectionReset, true), (io::ErrorKind::TimedOut, false)] {
            let inner: Box<dyn Error + Send + Sync> = Box::new(io::Error::from(kind));
            assert_eq!(is_hang_up(&tonic::Status::from_error(inner)), expected, "{kind}");
        }
    }
}
