//! Folders: what is in one, and whether it can be written, which is looked at now and then, and told by whoever failed.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::mutex::lock;
use crate::task;

/// The time between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// The number of bytes that must fit at least.
const ROOM: usize = 64 << 10;
/// The number of bytes that is tried at most, however many did not fit.
const MOST: usize = 1 << 20;
/// EIO of errno(3): the device fails.
const DEVICE: i32 = 5;

/// A folder, and why it cannot be written while it cannot.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    /// Tells the files of one process apart.
    number: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    problem: Option<String>,
    /// The number of bytes that has to fit before all is well.
    needed: usize,
}

impl Disk {
    /// A folder of which nothing is known yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Arc<Self> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { folder, number, state: Mutex::new(State { problem: None, needed: ROOM }) })
    }

    /// Says why the folder cannot be written, with what to do; `None` while it can.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// Takes note that somebody could not write so many bytes. An error that is not the disk's says nothing of it.
    pub fn failed(&self, bytes: usize, error: &io::Error) {
        if let Some(fix) = fix(error) {
            self.note(bytes, error, fix);
        }
    }

    /// Writes something and takes it away again. Blocks.
    pub fn look(&self) {
        let (needed, failing) = {
            let state = self.lock();
            (state.needed, state.problem.is_some())
        };
        match self.attempt(needed, failing) {
            Ok(()) => {
                let mut state = self.lock();
                state.needed = ROOM;
                if state.problem.take().is_some() {
                    tracing::info!(folder = %self.folder.display(), "the folder can be written again");
                }
            }
            Err(error) => {
                self.note(needed, &error, fix(&error).unwrap_or("see that this process may write there"))
            }
        }
    }

    /// Looks every few seconds, for as long as it is asked to.
    pub async fn watch(self: Arc<Self>) {
        loop {
            let disk = self.clone();
            if let Err(error) = task::blocking(move || disk.look()).await {
                tracing::error!(%error, "looking at a disk failed");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn attempt(&self, bytes: usize, failing: bool) -> io::Result<()> {
        let path = self.folder.join(format!(".room.{}-{}", process::id(), self.number));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        // Nobody else needs the name, and nothing stays whatever happens.
        fs::remove_file(&path)?;
        file.write_all(&vec![0x5a; bytes])?;
        // Some file systems tell late that there is no room: that counts before all is said to be well.
        if failing { file.sync_all() } else { Ok(()) }
    }

    fn note(&self, bytes: usize, error: &io::Error, fix: &str) {
        let problem = format!("the folder {} cannot be written ({error}): {fix}", self.folder.display());
        let mut state = self.lock();
        state.needed = state.needed.max(bytes.min(MOST));
        if state.problem.as_ref() != Some(&problem) {
            tracing::error!("{problem}");
            state.problem = Some(problem);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The paths of what is in a folder; none where there is no such folder.
///
/// # Errors
/// When it cannot be read.
pub fn listed(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// Errors of a disk, each with its remedy.
const FIXES: [(ErrorKind, &str); 3] = [
    (ErrorKind::StorageFull, "make space on its file system"),
    (ErrorKind::QuotaExceeded, "make space, or raise the quota of root"),
    (ErrorKind::ReadOnlyFilesystem, "mount its file system to be written; `dmesg` says why it is not"),
];

/// Names the remedy for an error of the disk's; `None` for one of something else.
fn fix(error: &io::Error) -> Option<&'static str> {
    let known = FIXES.iter().find(|(kind, _)| *kind == error.kind()).map(|(_, fix)| *fix);
    let fails = error.raw_os_error() == Some(DEVICE);
    known.or(fails.then_some("`dmesg` says what is wrong with the device"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_can_be_written_has_no_problem_and_nothing_stays_in_it() {
        let folder = std::env::temp_dir().join(format!("sealane-disk-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let disk = Disk::new(folder.clone());
        disk.look();
        assert_eq!((disk.problem(), fs::read_dir(&folder).unwrap().count()), (None, 0));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(listed(&folder).unwrap(), [""; 0].map(PathBuf::from), "no folder has nothing in it");
        disk.look();
        assert!(disk.problem().unwrap().contains("see that this process may write there"));
        fs::create_dir_all(&folder).unwrap();
        disk.look();
        assert_eq!(disk.problem(), None, "it is told as long as it lasts");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_somebody_could_not_write_is_told_until_as_much_can_be_written() {
        let folder = std::env::temp_dir().join(format!("sealane-disk-told-{}", process::id()));
        let disk = Disk::new(folder.clone());
        disk.failed(10, &io::Error::from(ErrorKind::IsADirectory));
        assert_eq!(disk.problem(), None, "that is not the disk's");
        disk.failed(3 * ROOM, &io::Error::from(ErrorKind::StorageFull));
        assert!(disk.problem().unwrap().ends_with("make space on its file system"));
        assert_eq!(disk.lock().needed, 3 * ROOM);
        disk.failed(usize::MAX, &io::Error::from(ErrorKind::ReadOnlyFilesystem));
        assert_eq!(disk.lock().needed, MOST, "what is tried has a bound");
        fs::create_dir_all(&folder).unwrap();
        disk.look();
        assert_eq!((disk.problem(), disk.lock().needed), (None, ROOM));
        fs::remove_dir_all(&folder).unwrap();
    }
}
