//! Places of the programs.

use std::env;
use std::path::{Path, PathBuf};

/// The binary under test: `SEALANE_BIN`, else the one of the profile `ci`, else the one built beside this test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn sealane() -> PathBuf {
    if let Some(path) = env::var_os("SEALANE_BIN") {
        return existing(path.into());
    }
    let beside = profile_folder();
    let ci = beside.with_file_name("ci").join("sealane");
    if ci.exists() { ci } else { existing(beside.join("sealane")) }
}

/// The application of the tests: servers and loads.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn testapp() -> PathBuf {
    existing(profile_folder().join("testapp"))
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{} is not there: build it with `cargo build -p sealane --profile ci`, or name it in SEALANE_BIN",
        path.display()
    );
    path
}

/// `target/PROFILE`, where this test lies in `deps`.
fn profile_folder() -> PathBuf {
    let test = env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap_or(Path::new("/")).to_owned()
}
