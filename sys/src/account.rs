//! Users of this machine: names, and who has logged in behind a process.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

/// Longest part of `/etc/passwd` that is read, in bytes.
const LONGEST: u64 = 4 << 20;
/// The kernel's word for a process that nobody has logged in for (`AUDIT_UID_UNSET`).
const UNSET: u32 = u32::MAX;

/// Finds the name of a user in `/etc/passwd`; directories of users elsewhere are not asked.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    let file = File::open("/etc/passwd").ok()?;
    name_in(BufReader::new(file.take(LONGEST)), uid)
}

/// Reads which user has logged in behind a process, where the kernel keeps it and somebody has.
///
/// # Errors
/// When there is no such process, or the kernel keeps no such thing.
pub fn login_uid(pid: u32) -> io::Result<Option<u32>> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/loginuid"))?.take(16).read_to_string(&mut text)?;
    let uid: u32 = text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Some(uid).filter(|&uid| uid != UNSET))
}

fn name_in(passwd: impl BufRead, uid: u32) -> Option<String> {
    let lines = passwd.split(b'\n').map_while(Result::ok);
    let mut lines = lines.filter_map(|line| String::from_utf8(line).ok());
    lines.find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_number_and_lines_of_another_form_are_passed_over() {
        let passwd: &[u8] =
            b"\n# users\nroot:x:0:0:root:/root:/bin/sh\n\xff\xfe:x:7:7\n:x:8:8\nada:x:1000:1000::/:/bin/sh";
        let name = |uid| name_in(passwd, uid);
        assert_eq!([name(0), name(1_000)], [Some("root".to_owned()), Some("ada".to_owned())]);
        assert_eq!([name(7), name(8), name(9)], [None, None, None]);
    }

    #[test]
    fn a_process_without_a_login_has_none() {
        let own = login_uid(std::process::id());
        // Kernels without audit have no such file.
        assert!(
            own.as_ref()
                .map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |uid| *uid != Some(UNSET))
        );
        assert!(login_uid(0).is_err());
    }
}
