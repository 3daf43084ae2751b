//! Logs beside files: what has changed since a file was written, a record each.
//!
//! A record is its length and its CRC-32 (IEEE 802.3), four octets each, big endian, and the payload. One that a kill or a
//! power cut has left half written ends the log; it is removed before another one follows it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{DiskError, Folder, read_file};

/// Octets before each payload.
const HEADER: usize = 8;

impl Folder {
    fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!(".{name}.log"))
    }

    /// Adds a record to the log beside `name`; `durable` says whether a power cut may take it, and those before it. A kill does not.
    ///
    /// # Errors
    /// When the disk is full or the log cannot be written; it is as it was then.
    pub(crate) fn append(&self, name: &str, payload: &[u8], durable: bool) -> Result<(), DiskError> {
        let path = self.log(name);
        let mut record = Vec::with_capacity(HEADER + payload.len());
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        record.extend(length.to_be_bytes());
        record.extend(crc32fast::hash(payload).to_be_bytes());
        record.extend(payload);
        let append = || -> io::Result<()> {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            let before = file.metadata()?.len();
            file.write_all(&record).inspect_err(|_| {
                // A record behind half a one would not be found.
                let _ = file.set_len(before);
            })?;
            if durable { file.sync_data() } else { Ok(()) }
        };
        append().map_err(|source| {
            self.note_failed(record.len(), &source);
            DiskError::Write { path, source }
        })
    }

    /// The records of the log beside `name`, up to the first that is not whole, from its first `most` octets. A log that cannot be read
    /// is set aside: the file says enough without it.
    pub(crate) fn records(&self, name: &str, most: usize) -> Vec<Vec<u8>> {
        let path = self.log(name);
        let bytes = match read_file(&path, most as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                let aside = self.set_aside(&path);
                tracing::warn!(path = %path.display(), %error, %aside, "a log cannot be read");
                return Vec::new();
            }
        };
        let (mut records, mut rest) = (Vec::new(), bytes.as_slice());
        while let Some((payload, behind)) = split(rest) {
            records.push(payload.to_vec());
            rest = behind;
        }
        records
    }

    /// Removes the log beside `name`: all that is in it is in the file, or of no use any more.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn forget_log(&self, name: &str) -> Result<(), DiskError> {
        self.remove(&format!(".{name}.log"))
    }
}

/// Splits the first record off, if it is whole.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let [a, b, c, d, checksum @ ..] = *header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    let (payload, behind) = rest.split_at_checked(length)?;
    (checksum == crc32fast::hash(payload).to_be_bytes()).then_some((payload, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_up_to_the_first_that_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        assert!(folder.records("shop", 1 << 20).is_empty());
        let written: [&[u8]; 3] = [b"one", b"", b"three"];
        for (number, payload) in written.iter().enumerate() {
            folder.append("shop", payload, number == 1).unwrap();
        }
        assert_eq!(folder.records("shop", 1 << 20), written);
        assert!(folder.names().unwrap().is_empty(), "a log is no file of its own");
        let path = dir.path().join(".shop.log");
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let read = folder.records("shop", 1 << 20);
            assert_eq!(read, written[..read.len()]);
            assert!(read.len() < 3);
        }
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            let read = folder.records("shop", 1 << 20);
            assert!(read.len() < 3 && read == written[..read.len()], "octet {place}");
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(folder.records("shop", whole.len() - 1), written[..2], "no more than that is read");
        folder.forget_log("shop").unwrap();
        folder.forget_log("shop").unwrap();
        assert!(folder.records("shop", 1 << 20).is_empty());
    }

    #[test]
    fn a_log_that_cannot_be_read_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        let path = dir.path().join(".shop.log");
        let fifo = || nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for make in [&|| std::fs::create_dir(&path).unwrap() as (), &fifo as &dyn Fn()] {
            make();
            assert!(folder.records("shop", 1 << 20).is_empty());
            assert!(!path.exists(), "it is in nobody's way");
            folder.append("shop", b"one", false).unwrap();
            assert_eq!(folder.records("shop", 1 << 20), [b"one"]);
            folder.forget_log("shop").unwrap();
            let aside = dir.path().join(".shop.log.damaged");
            if aside.is_dir() { std::fs::remove_dir(aside) } else { std::fs::remove_file(aside) }.unwrap();
        }
    }
}
