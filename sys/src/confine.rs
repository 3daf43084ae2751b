//! Giving up what a process does not need, before it reads the first byte of a stranger.

mod filter;

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use nix::unistd::{Gid, Uid, chdir, chroot, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_keep_capabilities, set_no_new_privs,
};

/// The first of the users that belong to processes by their number, where systemd and containers have none: no file is
/// theirs, and no two processes of a host share one.
const FIRST_USER: u32 = 0x7000_0000;
/// User that a process becomes where the kernel maps none of these: in a user namespace.
const NOBODY: u32 = 65_534;
/// The most memory that a confined process may write to, in bytes: one that grows without end ends itself, not its host.
const MAX_DATA: u64 = 2 << 30;

/// Privilege that could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct ConfineError {
    what: &'static str,
    source: io::Error,
}

/// Returns true if a confined process `pid` may be this user. The user nobody is one like any other where processes get a user of their
/// own.
#[must_use]
pub fn is_user_of(user: u32, pid: u32) -> bool {
    static MAP: OnceLock<Option<String>> = OnceLock::new();
    let own = FIRST_USER.saturating_add(pid);
    let map = || MAP.get_or_init(|| std::fs::read_to_string("/proc/self/uid_map").ok());
    user == own || (user == NOBODY && map().as_ref().is_some_and(|map| !maps(map, own)))
}

/// Returns true if a user namespace with this map (user_namespaces(7)) has `user`.
fn maps(map: &str, user: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (first, length) = (numbers.next(), numbers.nth(1));
        matches!((first, length), (Some(first), Some(length)) if user >= first && user - first < length)
    })
}

/// Leaves the process what a proxy needs that marks its connections (SO_MARK): system calls of a list (the module
/// `filter`), the one capability that the mark takes, no new privileges, no core dumps, nobody's debugger. With `root`,
/// that folder is all it sees of the file system, and its user is one of its own.
///
/// To be called while the process has one thread, as root. Descriptors stay.
///
/// # Errors
/// When something cannot be given up; the process should end then.
pub fn confine(root: Option<&Path>) -> Result<(), ConfineError> {
    let failed = |what: &'static str| move |errno| ConfineError { what, source: io::Error::from(errno) };
    let refused =
        |what: &'static str| move |errno: rustix::io::Errno| ConfineError { what, source: errno.into() };
    if let Some(root) = root {
        chroot(root).and_then(|()| chdir("/")).map_err(failed("leave the file system"))?;
    }
    for bit in 0..u64::BITS {
        // The kernel knows fewer than that.
        let _ = remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit));
    }
    if root.is_some() {
        set_keep_capabilities(true).map_err(refused("keep a capability"))?;
        become_nobody().map_err(failed("become another user"))?;
    }
    let marking = keep_marking()?;
    // A kernel without ambient capabilities has none to clear.
    let _ = clear_ambient_capability_set();
    hold(marking, marking).map_err(refused("give up capabilities"))?;
    set_no_new_privs(true).map_err(refused("renounce new privileges"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused("hide its memory"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("forbid core dumps"))?;
    setrlimit(Resource::RLIMIT_DATA, MAX_DATA, MAX_DATA).map_err(failed("bound its memory"))?;
    filter::install().map_err(|source| ConfineError { what: "filter its system calls", source })
}

/// A user that nobody else is, or at least one that owns nothing.
fn become_nobody() -> nix::Result<()> {
    setgroups(&[])?;
    let become_user = |id: u32| {
        let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
        setresgid(group, group, group).and_then(|()| setresuid(user, user, user))
    };
    match become_user(FIRST_USER.saturating_add(std::process::id())) {
        Err(nix::errno::Errno::EINVAL) => become_user(NOBODY),
        outcome => outcome,
    }
}

/// The capability that the mark takes: CAP_NET_RAW, or CAP_NET_ADMIN before Linux 5.17.
fn keep_marking() -> Result<CapabilitySet, ConfineError> {
    let failed = |source: io::Error| ConfineError { what: "mark its connections", source };
    let candidates = [CapabilitySet::NET_RAW, CapabilitySet::NET_ADMIN];
    let mut outcome = Err(io::ErrorKind::PermissionDenied.into());
    for candidate in candidates {
        hold(candidate, CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN)
            .map_err(|errno| failed(errno.into()))?;
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        let marked = socket.and_then(|socket| setsockopt(&socket, sockopt::Mark, &1));
        match marked {
            Ok(()) => return Ok(candidate),
            Err(errno) => outcome = Err(io::Error::from(errno)),
        }
    }
    outcome.map_err(failed)
}

fn hold(effective: CapabilitySet, permitted: CapabilitySet) -> rustix::io::Result<()> {
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confined_process_has_a_user_of_its_own() {
        assert!(is_user_of(0x7000_0000 + 17, 17));
        assert!(!is_user_of(0x7000_0000 + 17, 18));
        assert!(!is_user_of(1000, 17) && !is_user_of(0, 17));
        assert!(!is_user_of(65_534, 17), "its user is mapped here");
    }

    #[test]
    fn a_user_namespace_has_the_users_of_its_map() {
        let table = [
            ("         0          0 4294967295\n", true),
            ("0 100000 65536\n", false),
            ("0 100000 65536\n1879048192 200000 4194304\n", true),
            ("1879048193 0 1\n", false),
            ("", false),
            ("nonsense\n", false),
        ];
        for (map, expected) in table {
            assert_eq!(maps(map, FIRST_USER), expected, "{map}");
        }
    }
}
