//! Changes in a folder, as the kernel tells of them (inotify(7)).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

/// Looks at the way to a folder while it is being made; whoever makes and removes it all the time is polled.
const TRIES: usize = 8;

/// Returns a descriptor that is readable once something in the folder has changed, or the folder itself; while it is not there,
/// once something on the way to it has.
///
/// # Errors
/// When the kernel watches no more, or no folder on the way can be read.
pub fn watch(folder: &Path) -> io::Result<OwnedFd> {
    let watched = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let gone = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
    let comes = WatchFlags::CREATE | WatchFlags::MOVED_TO;
    let inside =
        comes | WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_FROM | WatchFlags::DELETE | WatchFlags::ATTRIB;
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..TRIES {
        match add_watch(&watched, folder, gone | inside) {
            Ok(_) => return Ok(watched),
            Err(error) => refused = error.into(),
        }
        if !folder.ancestors().skip(1).any(|parent| add_watch(&watched, parent, gone | comes).is_ok()) {
            break;
        }
        if !folder.exists() {
            return Ok(watched);
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn tells(watched: &OwnedFd) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(watched, PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    #[test]
    fn whatever_becomes_of_a_folder_and_what_is_in_it_is_told() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("etc/services.d");
        let file = folder.join("db.yaml");
        let step = |what: &str, change: &dyn Fn() -> io::Result<()>| {
            let watched = watch(&folder).unwrap();
            assert!(!tells(&watched), "before: {what}");
            change().unwrap();
            assert!(tells(&watched), "{what}");
        };
        step("the way to it is made", &|| fs::create_dir(base.path().join("etc")));
        step("it is made", &|| fs::create_dir(&folder));
        step("a file is written", &|| fs::write(&file, "a"));
        step("a file is written again", &|| fs::write(&file, "b"));
        step("another one takes its place", &|| {
            fs::write(base.path().join("new"), "c")?;
            fs::rename(base.path().join("new"), &file)
        });
        step("a file goes", &|| fs::remove_file(&file));
        step("it is renamed", &|| fs::rename(&folder, base.path().join("etc/other")));
        step("it comes back", &|| fs::rename(base.path().join("etc/other"), &folder));
        step("it goes", &|| fs::remove_dir(&folder));
    }
}
