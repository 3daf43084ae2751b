//! Secrets that travel by descriptor: sealed, anonymous memory that never touches a disk or a wire.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// The most bytes [`read`] takes from a descriptor; private keys are far smaller.
pub const MAX_LEN: u64 = 64 * 1024;

/// Puts `bytes` in sealed anonymous memory (memfd_create(2)): readers cannot change it any more.
///
/// # Errors
/// At the limits of memory or open files.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    let fd = OwnedFd::from(file);
    fcntl_add_seals(&fd, SealFlags::SEAL | SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK)?;
    Ok(fd)
}

/// Reads all of a descriptor made by [`sealed`]; the caller overwrites it after use.
///
/// # Errors
/// When it holds more than [`MAX_LEN`] bytes or cannot be read.
pub fn read(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(fd);
    let length = file.metadata()?.len();
    let length = usize::try_from(length).ok().filter(|_| length <= MAX_LEN);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "more than 64 KiB in a secret"))?;
    file.rewind()?;
    // One that grew would leave what it had before behind.
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_reads_back_and_cannot_be_changed() {
        let fd = sealed("test", b"key").unwrap();
        let copy = fd.try_clone().unwrap();
        assert!(File::from(copy).write_all(b"x").is_err());
        assert_eq!(read(fd).unwrap(), b"key");
    }
}
