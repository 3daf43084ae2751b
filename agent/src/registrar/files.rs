//! The files of the folder: read when they change, remembered as they were last understood.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sealane_base::disk;
use sealane_proto::document::{Document, DocumentId, ServiceDocument};

use super::{ReadDocuments, RegisterError};

/// Endings of files that are read: those that `sealane apply` reads of a folder.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// Number of files that are read.
const MOST: usize = 1_000;

/// By what a file is known to be as it was: its number, size and times.
type Stamp = (u64, u64, i64, i64, i64);

#[derive(Debug)]
struct KnownFile {
    stamp: Stamp,
    /// As it was last understood; `None`: it never was.
    documents: Option<Vec<ServiceDocument>>,
    /// Fault of its present content.
    flaw: Option<String>,
}

/// The folder's files.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    read: ReadDocuments,
    known: BTreeMap<PathBuf, KnownFile>,
    /// Reason for which not all of them are read.
    trouble: Option<String>,
    /// Control has not taken what there is now; every look that finds something new says so.
    pub(super) due: bool,
}

impl Files {
    pub(super) fn new(folder: PathBuf, read: ReadDocuments) -> Self {
        Self { folder, read, known: BTreeMap::new(), trouble: None, due: true }
    }

    /// Reads what has changed, which is due then; answers whether anything has.
    pub(super) fn look(&mut self) -> bool {
        let changed = self.read_changes();
        self.due |= changed;
        changed
    }

    fn read_changes(&mut self) -> bool {
        let (there, trouble) = match listed(&self.folder) {
            Ok(there) if there.len() > MOST => {
                let first = there.into_iter().take(MOST).collect();
                (
                    first,
                    Some(format!(
                        "{} has more than {MOST} files; the last ones are not read",
                        self.folder.display()
                    )),
                )
            }
            Ok(there) => (there, None),
            Err(error) => {
                let trouble = format!("cannot read {}: {error}", self.folder.display());
                return self.trouble.replace(trouble.clone()).as_ref() != Some(&trouble);
            }
        };
        let mut changed = std::mem::replace(&mut self.trouble, trouble) != self.trouble;
        let before = self.known.len();
        self.known.retain(|path, _| there.contains_key(path));
        changed |= self.known.len() != before;
        for (path, stamp) in there {
            if self.known.get(&path).is_some_and(|known| known.stamp == stamp) {
                continue;
            }
            changed = true;
            let last = self.known.remove(&path).and_then(|known| known.documents);
            let (documents, flaw) = match services((self.read)(&path), &path) {
                Ok(documents) => (Some(documents), None),
                Err(flaw) => (last, Some(flaw)),
            };
            self.known.insert(path, KnownFile { stamp, documents, flaw });
        }
        changed
    }

    /// Every service, with the file it is in.
    pub(super) fn documents(&self) -> Vec<(PathBuf, Document)> {
        let of = |(path, known): (&PathBuf, &KnownFile)| {
            let documents = known.documents.clone().unwrap_or_default();
            let path = path.clone();
            documents.into_iter().map(move |document| (path.clone(), Document::Service(document)))
        };
        self.known.iter().flat_map(of).collect()
    }

    /// Returns true if there may be services that are not known: in files that were never understood, or not read.
    pub(super) fn are_partial(&self) -> bool {
        self.trouble.is_some() || self.known.values().any(|known| known.documents.is_none())
    }

    /// Describes the faults, a sentence each.
    pub(super) fn flaws(&self) -> BTreeMap<String, String> {
        let flaws = self.known.iter().filter_map(|(path, known)| {
            let flaw = known.flaw.as_ref()?;
            let stays = match &known.documents {
                Some(_) => "what the file said before stays in effect",
                None => "nothing of the file is in effect, and no service that this host registered before is taken back",
            };
            Some((format!("services.d/{}", path.display()), format!("{flaw}; {stays}")))
        });
        let trouble = self.trouble.clone().map(|trouble| ("services.d".to_owned(), trouble));
        flaws.chain(trouble).collect()
    }

    /// The file that has a service.
    pub(super) fn of(&self, id: &DocumentId) -> Option<&PathBuf> {
        let has = |known: &KnownFile| {
            let mut documents = known.documents.iter().flatten();
            documents.any(|document| is(document, id))
        };
        self.known.iter().find(|(_, known)| has(known)).map(|(path, _)| path)
    }

    /// The file that is written for a service.
    pub(super) fn own(&self, id: &DocumentId) -> PathBuf {
        self.folder.join(format!("{}.{}.json", id.name(), id.network()))
    }

    /// Writes a service's file; answers what was there.
    pub(super) fn write(
        &mut self,
        path: &Path,
        document: &ServiceDocument,
    ) -> Result<Option<Vec<u8>>, RegisterError> {
        let text = serde_json::to_vec_pretty(document).map_err(|error| failed(path, &error))?;
        let before = match fs::read(path) {
            Ok(before) => Some(before),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(path, &error)),
        };
        self.restore(path, Some(text))?;
        Ok(before)
    }

    /// Makes a file what it was, or removes it.
    pub(super) fn restore(&mut self, path: &Path, text: Option<Vec<u8>>) -> Result<(), RegisterError> {
        let done = match text {
            Some(text) => fs::create_dir_all(&self.folder).and_then(|()| {
                // Its ending is none that is read.
                let new = path.with_extension("json.new");
                fs::write(&new, text)?;
                fs::File::open(&new)?.sync_all()?;
                fs::rename(&new, path)
            }),
            None => match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
        };
        done.map_err(|error| failed(path, &error))?;
        self.look();
        Ok(())
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> RegisterError {
    RegisterError::Disk { file: path.to_owned(), reason: error.to_string() }
}

fn is(document: &ServiceDocument, id: &DocumentId) -> bool {
    let metadata = &document.metadata;
    metadata.network == *id.network() && metadata.name.as_str() == id.name()
}

/// Nothing but services.
fn services(read: Result<Vec<Document>, String>, path: &Path) -> Result<Vec<ServiceDocument>, String> {
    let of = |document: Document| {
        let id = document.id();
        let Document::Service(service) = document else {
            let path = path.display();
            return Err(format!(
                "{path}: {id} is nothing that a host registers; apply it on the control host"
            ));
        };
        Ok(service)
    };
    read?.into_iter().map(of).collect()
}

/// The files that are read, with what they are known by; none where there is no folder.
fn listed(folder: &Path) -> io::Result<BTreeMap<PathBuf, Stamp>> {
    let mut files = BTreeMap::new();
    for path in disk::listed(folder)? {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        // One that has just gone is not there.
        let Ok(about) = fs::metadata(&path) else { continue };
        if ENDINGS.contains(&ending) && about.is_file() {
            let stamp = (about.ino(), about.len(), about.mtime(), about.mtime_nsec(), about.ctime_nsec());
            files.insert(path, stamp);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Result<Vec<Document>, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        Ok(vec![Document::from_json(&text).map_err(|error| format!("{}:1: {error}", path.display()))?])
    }

    fn service(name: &str) -> String {
        format!(
            r#"{{"apiVersion":"sealane.dev/v1","kind":"Service","metadata":{{"name":"{name}","network":"shop"}},"spec":{{"ports":[{{"port":80}}],"external":["192.0.2.50"]}}}}"#
        )
    }

    fn names(files: &Files) -> Vec<String> {
        files.documents().iter().map(|(_, document)| document.id().name().to_owned()).collect()
    }

    #[test]
    fn a_file_that_is_not_understood_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut files = Files::new(folder.path().to_owned(), read);
        assert!(!files.look() && names(&files).is_empty(), "nothing is there");
        fs::write(at("db.yaml"), service("db")).unwrap();
        fs::write(at("db.yaml~"), "an editor's").unwrap();
        assert!(files.look() && !files.look());
        assert_eq!((names(&files), files.are_partial()), (vec!["db".to_owned()], false));
        // As editors write: another file in its place.
        fs::write(at("new"), "{").unwrap();
        fs::rename(at("new"), at("db.yaml")).unwrap();
        assert!(files.look());
        assert_eq!((names(&files), files.are_partial()), (vec!["db".to_owned()], false));
        let flaws: Vec<String> = files.flaws().into_values().collect();
        assert!(flaws[0].contains("db.yaml:1: ") && flaws[0].contains("stays in effect"), "{flaws:?}");

        let mut fresh = Files::new(folder.path().to_owned(), read);
        assert!(fresh.look() && names(&fresh).is_empty() && fresh.are_partial());
        fs::remove_file(at("db.yaml")).unwrap();
        assert!(files.look() && names(&files).is_empty() && files.flaws().is_empty());
    }

    #[test]
    fn a_service_s_own_file_is_written_and_put_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::new(folder.path().join("services.d"), read);
        let Document::Service(db) = Document::from_json(&service("db")).unwrap() else { panic!() };
        let id = Document::Service(db.clone()).id();
        let own = files.own(&id);
        assert_eq!(files.write(&own, &db).unwrap(), None);
        assert_eq!((files.of(&id), names(&files)), (Some(&own), vec!["db".to_owned()]));
        let before = files.write(&own, &db).unwrap();
        assert!(before.is_some());
        files.restore(&own, before).unwrap();
        assert_eq!(files.of(&id), Some(&own));
        files.restore(&own, None).unwrap();
        files.restore(&own, None).unwrap();
        assert_eq!((files.of(&id), names(&files).len()), (None, 0));
    }

    #[test]
    fn what_any_look_has_found_is_due_until_control_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::new(folder.path().to_owned(), read);
        assert!(files.due, "after a start, control is told whatever there is");
        files.due = false;
        assert!(!files.look() && !files.due);
        fs::write(folder.path().join("db.json"), service("db")).unwrap();
        // One look is for somebody who asks for something else, and comes to nothing.
        assert!(files.look() && !files.look() && files.due);
    }

    #[test]
    fn networks_are_not_registered() {
        let network = r#"{"apiVersion":"sealane.dev/v1","kind":"Network","metadata":{"name":"shop"},"spec":{"subnets":["10.42.0.0/16"]}}"#;
        let read = Ok(vec![Document::from_json(network).unwrap()]);
        assert!(
            services(read, Path::new("/x.yaml")).unwrap_err().contains("network shop is nothing that a host")
        );
    }
}
