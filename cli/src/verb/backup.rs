//! `sealane backup` and `sealane restore`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sealane_control::Backup;
use sealane_proto::wire::v1;

use crate::args::{Backup as Take, Common, Restore, Store};
use crate::client::{admin, answer, converse, refusal};
use crate::failure::Failure;
use crate::printer::{Printer, ago};

/// `sealane backup FILE`.
pub(crate) fn take(take: &Take, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let to_stdout = take.file == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(
            Failure::new("a backup is not for a terminal").hint("name a file, or pipe it to a program")
        );
    }
    let bytes = converse(async {
        let mut pieces = answer(admin(common).await?.backup(v1::BackupRequest {})).await?;
        let mut bytes = vec![];
        while let Some(piece) = pieces.message().await.map_err(|status| refusal(&status))? {
            bytes.extend_from_slice(&piece.data);
        }
        Ok(bytes)
    })?;
    // What is written can be restored, or nothing is written.
    let backup =
        Backup::from_bytes(&bytes).map_err(Failure::of("the backup that control sent is of no use"))?;
    if to_stdout {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&bytes).and_then(|()| stdout.flush());
        written.map_err(Failure::of("the backup cannot be written to standard output"))?;
    } else {
        let name = take.file.display();
        write(&take.file, &bytes).map_err(Failure::of(format!("the backup cannot be written to {name}")))?;
    }
    printer.talk(&format!("{}; it holds the authority's key: keep it like one", describe(&backup)));
    Ok(())
}

/// All of it or nothing, for its owner alone.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_string_lossy();
    let draft: PathBuf = folder.join(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        // The rename is durable when the directory is.
        File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| {
        // Where it was not made there is nothing to remove.
        let _ = fs::remove_file(&draft);
    })
}

/// `sealane restore FILE`.
pub(crate) fn restore(restore: &Restore, printer: &Printer) -> Result<(), Failure> {
    let name = restore.file.display();
    let bytes = fs::read(&restore.file).map_err(Failure::of(format!("cannot read {name}")))?;
    let unfit = Failure::of(format!("{name} is not restored"));
    let backup = Backup::from_bytes(&bytes).map_err(unfit)?;
    let now = SystemTime::now().into();
    if let Store::Etcd = restore.store {
        return bring(restore, backup, printer);
    }
    let restored = sealane_control::restore(&backup, &restore.data.data_dir, restore.force, now)
        .map_err(Failure::of(format!("{name} is not restored")))?;
    if let Some(aside) = &restored.aside {
        printer.talk(&format!("the store that was there is {} now", aside.display()));
    }
    printer.talk(&format!(
        "{} is restored: {}; start `sealane control`, and its hosts tell what they have got since",
        restored.path.display(),
        describe(&backup)
    ));
    Ok(())
}

/// Brings a backup into etcd.
fn bring(restore: &Restore, backup: Backup, printer: &Printer) -> Result<(), Failure> {
    let (name, described) = (restore.file.display(), describe(&backup));
    let (place, directory) = (restore.place.clone().parts()?, restore.data.data_dir.clone());
    let now = SystemTime::now().into();
    let restored = converse(async {
        let restored = sealane_control::restore_shared(backup, place, directory, restore.force, now).await;
        restored.map_err(Failure::of(format!("{name} is not restored")))
    })?;
    if let Some(aside) = &restored.aside {
        printer.talk(&format!("a backup of the store that was there is {} now", aside.display()));
    }
    printer.talk(&format!(
        "the store in etcd is restored: {described}; control planes that share it go on by it, once they are started, and hosts tell what \
         they have got since"
    ));
    Ok(())
}

fn describe(backup: &Backup) -> String {
    let [networks, hosts, workloads] = backup.counts();
    let taken = std::time::UNIX_EPOCH + std::time::Duration::from_secs(backup.taken.unix());
    format!(
        "backup of {} at revision {}, taken {} by Sealane {}: {}, {}, {}",
        backup.trust_domain(),
        backup.revision(),
        ago(taken, SystemTime::now()),
        backup.version,
        counted(networks, "network"),
        counted(hosts, "host"),
        counted(workloads, "workload"),
    )
}

fn counted(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}
