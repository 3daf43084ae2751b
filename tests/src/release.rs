//! Debian releases whose container engines hosts have.
//!
//! The machine's own engines come with its packages. Those of newer releases are in folders that `make engines` makes once,
//! `target/engines/SUITE` (or `$SEALANE_ENGINES/SUITE`):
//!
//! | | Docker, Compose | containerd | podman, netavark |
//! |---|---|---|---|
//! | the machine (bookworm) | 20.10, v1 1.29 | 1.6 | 4.3, 1.4 |
//! | trixie | 26.1, v2 2.26 | 1.7 | 5.4, 1.14 |
//! | forky | 28.5, v2 2.40 | 2.1 | 5.8, 1.17 |
//!
//! ```no_run
//! use sealane_tests::{Mesh, Release};
//! let mesh = Mesh::on(&[Release::Trixie, Release::Trixie]).up(); // Hosts with the files of that release, agents on them.
//! let podman = mesh.site(1).command("podman", &["version"]); // Any program of it; what it writes is the host's own.
//! let (mesh, engines) = Mesh::docker(&[Release::Machine, Release::Trixie]); // And dockerds with the plugin and the image bb:1.
//! ```
//!
//! A host's root is pivoted, /run and /var/lib are empty, [`Site::control_groups`] mounts control groups where a runtime looks for
//! them. Groups should be below [`sealane_lab::control_group`], which is removed when the test has ended.

use std::env;
use std::path::PathBuf;

use sealane_lab::Root;

use crate::{Site, sealane, testapp};

/// The machine's control groups, as a host of its own has them: those of version 1 that are in use, or else version 2.
const CGROUPS: &str = "mount -t tmpfs cgroups /sys/fs/cgroup
    cut -d: -f2 /proc/self/cgroup | while read -r group; do
        case $group in
            '') continue;;
            name=*) options=none,$group;;
            *) options=$group;;
        esac
        folder=/sys/fs/cgroup/${group#name=}
        mkdir $folder && mount -t cgroup -o $options cgroup $folder || exit
    done
    ls /sys/fs/cgroup | grep -q . || mount -t cgroup2 cgroup /sys/fs/cgroup";

/// The system whose files and engines a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The machine's own.
    Machine,
    /// Debian 13.
    Trixie,
    /// Debian 14, in the making.
    Forky,
}

impl Release {
    /// The root of hosts of this release.
    ///
    /// # Panics
    /// When its folder was not made; says how to.
    pub(crate) fn root(self) -> Option<Root> {
        let suite = match self {
            Self::Machine => return None,
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        };
        let folder = engines().join(suite);
        // The stamp is written when the folder is whole.
        assert!(
            folder.with_extension("packages").exists(),
            "{} is not there: run `make engines SUITES={suite}`, or name the folder of another {suite} in SEALANE_ENGINES",
            folder.display()
        );
        let programs = [sealane(), testapp()];
        let shared =
            programs.iter().filter_map(|program| Some(program.canonicalize().ok()?.parent()?.to_owned()));
        Some(Root { folder, shared: shared.collect() })
    }
}

/// Returns the folder of the kernel that virtual machines boot, and of its drivers.
///
/// # Panics
/// When it was not made; says how to.
#[must_use]
#[track_caller]
pub fn kernel() -> PathBuf {
    let folder = engines().join("kernel");
    assert!(
        folder.exists(),
        "{} is not there: run `make engines`, or name the folder of other engines in SEALANE_ENGINES",
        folder.display()
    );
    folder
}

fn engines() -> PathBuf {
    let named = env::var_os("SEALANE_ENGINES").map(PathBuf::from);
    named.unwrap_or_else(|| testapp().ancestors().nth(2).unwrap().join("engines"))
}

impl Site {
    /// Mounts the machine's control groups on the host.
    ///
    /// # Panics
    /// When that cannot be done.
    #[track_caller]
    pub fn control_groups(&self) {
        let _ = self.command("sh", &["-c", CGROUPS]).ok();
    }
}
