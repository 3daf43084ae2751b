//! Keep as a process of its own: this program is both the test and, asked for `keep`, the keep.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use sealane_keep::{Keep, KeepError, ensure_running, serve};
use sealane_sys::run_dir::Daemon;
use sealane_sys::{Process, RunDir};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["keep", "--run-dir", run_dir] => Ok(serve(&RunDir::from(*run_dir))?),
        arguments if arguments.contains(&"--list") => {
            if !arguments.contains(&"--ignored") {
                writeln!(std::io::stdout(), "keep_is_started_once_and_outlives_its_starter: test")?;
            }
            Ok(())
        }
        _ => {
            keep_is_started_once_and_outlives_its_starter()?;
            a_program_that_is_no_keep_is_named()
        }
    }
}

fn keep_is_started_once_and_outlives_its_starter() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let dir = RunDir::from(folder.path());
    let (binary, log) = (std::env::current_exe()?, folder.path().join("log"));
    let starters: Vec<_> = (0..4)
        .map(|_| {
            let (dir, binary, log) = (dir.clone(), binary.clone(), File::create(&log));
            std::thread::spawn(move || ensure_running(&dir, &binary, log.ok()))
        })
        .collect();
    let (mut reader, writer) = std::io::pipe()?;
    let mut clients = Vec::new();
    for starter in starters {
        clients.push(starter.join().map_err(|_| "a starter panicked")??);
    }
    clients.first().ok_or("no client")?.put("writer", &[writer.as_fd()])?;
    for client in &clients {
        assert_eq!(client.list()?.len(), 1, "all starters see one keep");
    }
    drop((clients, writer));
    let keep = ensure_running(&dir, Path::new("/nowhere"), None)?;
    let fd = keep.get("writer")?.and_then(|mut fds| fds.pop()).ok_or("writer is gone")?;
    File::from(fd).write_all(b"x")?;
    reader.read_exact(&mut [0])?;

    let pid = fs::read_to_string(dir.pid_file(Daemon::Keep))?.trim().parse()?;
    let process = Process::open(pid)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    // Those of the other starters end when they find it; one that came after its end would take its place.
    while processes(folder.path())? > 1 {
        assert!(Instant::now() < deadline, "keeps that came too late did not end");
        std::thread::yield_now();
    }
    process.terminate()?;
    while !process.has_ended() {
        assert!(Instant::now() < deadline, "keep did not end by SIGTERM");
        std::thread::yield_now();
    }
    assert!(matches!(Keep::connect(&dir), Err(KeepError::Connect { .. })));
    assert!(!dir.pid_file(Daemon::Keep).exists());
    Ok(())
}

/// Counts the processes that were started for this directory.
fn processes(dir: &Path) -> Result<usize, Failure> {
    let dir = dir.as_os_str().as_encoded_bytes();
    let mut found = 0;
    for entry in fs::read_dir("/proc")? {
        // A process may end while it is looked at.
        let command = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        found += usize::from(command.split(|&byte| byte == 0).any(|word| word == dir));
    }
    Ok(found)
}

fn a_program_that_is_no_keep_is_named() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let dir = RunDir::from(folder.path());
    match ensure_running(&dir, Path::new("/bin/false"), None) {
        Err(error @ KeepError::Start { .. }) => {
            let text = error.to_string();
            assert!(text.contains("/bin/false") && text.contains("exit status: 1"), "{text}");
            Ok(())
        }
        other => Err(format!("{other:?}").into()),
    }
}
