//! A host with the files of another system than the machine's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::pivot_root;
use sealane_sys::mounts;

/// The folder, on the lab's own /run, in which such hosts' files are put together.
const PLACE: &str = "/run/lab/roots";

/// The system whose files a host has.
#[derive(Clone, Debug)]
pub struct Root {
    /// A folder with a whole system. It stays as it is: what hosts write is their own and gone with them.
    pub folder: PathBuf,
    /// Folders of the machine that hosts see at the same paths.
    pub shared: Vec<PathBuf>,
}

/// Gives the calling thread's mount namespace this root. It is pivoted, not changed (chroot(2)): runtimes that pivot containers
/// would leave them at the machine's root.
pub(super) fn enter(root: &Root, name: &str) -> io::Result<()> {
    let place = Path::new(PLACE).join(name);
    let [written, work, merged] = ["written", "work", "root"].map(|part| place.join(part));
    for folder in [&written, &work, &merged] {
        fs::create_dir_all(folder)?;
    }
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        root.folder.display(),
        written.display(),
        work.display()
    );
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    let shared = root.shared.iter().map(PathBuf::as_path).chain([Path::new("/dev")]);
    for folder in shared {
        let target = merged.join(folder.strip_prefix("/").unwrap_or(folder));
        fs::create_dir_all(&target)?;
        mount(Some(folder), &target, None::<&str>, bind, None::<&str>)?;
    }
    let old = merged.join("mnt");
    fs::create_dir_all(&old)?;
    std::env::set_current_dir(&merged)?;
    pivot_root(&merged, &old)?;
    mounts::procfs()?;
    umount2("/mnt", MntFlags::MNT_DETACH)?;
    Ok(())
}
