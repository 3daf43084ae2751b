//! Programs that the tour needs from Debian.

use std::env;
use std::path::Path;

use sealane_lab::isolate;

use crate::failure::Failure;

/// Programs and the packages they are in.
const PROGRAMS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("getent", "libc-bin"),
];

/// Refuses when one is missing, and says how to get them all.
pub(super) fn require() -> Result<(), Failure> {
    let path = isolate::search_path();
    let there =
        |program: &str| env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file());
    let missing: Vec<(&str, &str)> = PROGRAMS.into_iter().filter(|(program, _)| !there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (programs, packages): (Vec<&str>, Vec<&str>) = missing.into_iter().unzip();
    Err(Failure::new(format!("the demo needs programs that are not here: {}", programs.join(", ")))
        .hint(format!("apt-get install {}", packages.join(" "))))
}
