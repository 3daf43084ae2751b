//! The program of a workload, looked for before anything is made for it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sealane_base::text::plain;

use crate::failure::{Exit, Failure};

/// Folders that are searched without PATH, as execvp(3) does it.
const USUAL: &str = "/bin:/usr/bin";

/// Checks that there is such a program, where exec will look for it, and that it can be executed.
pub(super) fn check(program: &OsStr) -> Result<(), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL.into());
    found(program, &path).map_err(|error| refused(program, &error))
}

/// Explains why a program was not started, with the status that shells give it.
pub(super) fn refused(program: &OsStr, error: &io::Error) -> Failure {
    let failure = Failure::new(format!("cannot execute {}: {}", program.to_string_lossy(), plain(error)));
    let missing = error.kind() == io::ErrorKind::NotFound;
    failure.exit(if missing { Exit::NotFound } else { Exit::NotExecutable })
}

fn found(program: &OsStr, path: &OsStr) -> io::Result<()> {
    if program.as_bytes().contains(&b'/') {
        return executable(Path::new(program));
    }
    let mut outcome = Err(io::Error::from_raw_os_error(nix::libc::ENOENT));
    for folder in std::env::split_paths(path) {
        match executable(&folder.join(program)) {
            Ok(()) => return Ok(()),
            // One that may not be executed is passed over, and named if there is no other.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => outcome = Err(error),
            Err(_) => {}
        }
    }
    outcome
}

fn executable(path: &Path) -> io::Result<()> {
    let metadata = path.metadata()?;
    if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(nix::libc::EACCES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_where_exec_looks() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        for (file, mode) in
            [(first.join("held"), 0o644), (second.join("tool"), 0o755), (second.join("held"), 0o755)]
        {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = std::env::join_paths([&first, &second]).unwrap();
        let check = |program: &str, path: &OsStr| {
            let error = found(program.as_ref(), path).err()?;
            Some(refused(program.as_ref(), &error).exit)
        };
        assert_eq!(check("tool", &path), None);
        assert_eq!(check("held", &path), None, "one that cannot be executed is passed over");
        assert_eq!(check("held", first.as_os_str()), Some(Exit::NotExecutable));
        assert_eq!(check("nothing", &path), Some(Exit::NotFound));
        assert_eq!(check(second.join("tool").to_str().unwrap(), "".as_ref()), None);
        assert_eq!(check("/", &path), Some(Exit::NotExecutable));
        assert_eq!(check("/nonexistent/program", &path), Some(Exit::NotFound));
    }
}
