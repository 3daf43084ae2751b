//! Traces of a first start: one that fails leaves nothing that was not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files of the store that a first start makes, and of the identity that its own agent joins with.
const STORE: [&str; 4] = ["control.redb", "control.lock", "node/node", "node/node.key"];

/// The folders of a process, as they were before it started.
#[derive(Debug)]
pub(super) struct Traces {
    folders: Vec<PathBuf>,
    before: BTreeSet<PathBuf>,
}

impl Traces {
    /// Notes what is in these folders, and which folders they are in.
    pub(super) fn before(folders: &[&Path]) -> Self {
        let above = folders.iter().flat_map(|folder| folder.ancestors()).filter(|path| path.exists());
        let inside =
            folders.iter().flat_map(|folder| [entries(folder), entries(&folder.join("node"))].concat());
        let before = above.map(Path::to_owned).chain(inside).collect();
        Self { folders: folders.iter().map(|&folder| folder.to_owned()).collect(), before }
    }

    /// Removes the folders that are new, as far as nothing is in them.
    pub(super) fn remove_empty(&self) {
        for folder in &self.folders {
            for inside in entries(folder).into_iter().filter(|path| self.is_new(path)) {
                // One that is not empty is somebody's.
                let _ = fs::remove_dir(inside);
            }
            for path in folder.ancestors().take_while(|path| self.is_new(path)) {
                let _ = fs::remove_dir(path);
            }
        }
    }

    /// Removes a store in the folder as well, if there was none before: nobody knows of what is in it.
    pub(super) fn remove_store(&self, data_dir: &Path) {
        if self.is_new(&data_dir.join("control.redb")) && !is_used(data_dir) {
            for path in STORE.map(|name| data_dir.join(name)).iter().filter(|path| self.is_new(path)) {
                let _ = fs::remove_file(path);
            }
        }
        self.remove_empty();
    }

    fn is_new(&self, path: &Path) -> bool {
        !self.before.contains(path)
    }
}

/// Returns true if another process has the store, or nobody can tell.
fn is_used(data_dir: &Path) -> bool {
    let lock = fs::File::open(data_dir.join("control.lock"));
    lock.is_ok_and(|lock| lock.try_lock().is_err())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).into_iter().flatten();
    read.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(root: &Path) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder) {
                names.push(path.strip_prefix(root).unwrap().display().to_string());
                folders.push(path);
            }
        }
        names.sort();
        names
    }

    #[test]
    fn what_was_not_there_is_gone_and_what_was_stays() {
        let root = tempfile::tempdir().unwrap();
        let (data, run) = (root.path().join("lib/sealane"), root.path().join("run"));
        fs::create_dir(&run).unwrap();
        fs::write(run.join("other"), "").unwrap();
        let before = listed(root.path());
        let traces = Traces::before(&[&data, &run]);
        fs::create_dir_all(data.join("node")).unwrap();
        fs::create_dir(run.join("netns")).unwrap();
        traces.remove_empty();
        assert_eq!(listed(root.path()), before);

        fs::create_dir_all(data.join("node")).unwrap();
        STORE.iter().for_each(|name| fs::write(data.join(name), "").unwrap());
        traces.remove_empty();
        assert!(data.join("control.redb").exists(), "it may be somebody's");
        traces.remove_store(&data);
        assert_eq!(listed(root.path()), before);
    }

    #[test]
    fn a_store_that_was_there_stays_with_the_identity_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().to_owned();
        fs::create_dir(data.join("node")).unwrap();
        STORE.iter().for_each(|name| fs::write(data.join(name), "").unwrap());
        let before = listed(root.path());
        Traces::before(&[&data]).remove_store(&data);
        assert_eq!(listed(root.path()), before);
        // An identity of another mesh stays, and a store that another process has.
        fs::remove_file(data.join("control.redb")).unwrap();
        let traces = Traces::before(&[&data]);
        fs::write(data.join("control.redb"), "").unwrap();
        let lock = fs::File::open(data.join("control.lock")).unwrap();
        lock.lock().unwrap();
        traces.remove_store(&data);
        assert_eq!(listed(root.path()), before);
        drop(lock);
        traces.remove_store(&data);
        let before: Vec<_> = before.into_iter().filter(|name| name != "control.redb").collect();
        assert_eq!(listed(root.path()), before);
    }
}
