//! A program that runs on a host, and what it says.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{PATIENCE, eventually};

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    stdout: Said,
    stderr: Said,
}

/// A program's end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line.
    pub what: String,
    /// Status with which it ended.
    pub status: ExitStatus,
    /// Output.
    pub stdout: String,
    /// Error output.
    pub stderr: String,
}

#[derive(Debug)]
struct Said {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Said {
    fn read(from: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = text.clone();
        let reader = thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
                sink.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.so_far()
    }
}

impl Running {
    /// Starts it, with its standard streams at this end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let what = line(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start `{what}`: {error}"));
        let stdout = Said::read(child.stdout.take().unwrap());
        let stderr = Said::read(child.stderr.take().unwrap());
        Self { what, child, stdout, stderr }
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// Returns the error output so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Returns true if it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// When it does not read.
    pub fn say(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits until it has written `text`.
    ///
    /// # Panics
    /// When it ends before, or does not.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let what = format!("`{}` writes {text:?}", self.what);
        eventually(PATIENCE, &what, || {
            let ended = self.child.try_wait().unwrap();
            // Output is read after the end was seen, so what a program said last counts.
            let said = self.stdout();
            if said.contains(text) || self.stderr().contains(text) {
                return Some(());
            }
            if let Some(status) = ended {
                let all = (self.stdout.all(), self.stderr.all());
                if all.0.contains(text) || all.1.contains(text) {
                    return Some(());
                }
                panic!("`{}` ended with {status} before it wrote {text:?}: {all:?}", self.what);
            }
            None
        });
    }

    /// Waits until `sleep`, the command that `sealane run` was given, has taken that one's place in the workload's namespaces.
    ///
    /// # Panics
    /// When that takes too long.
    #[must_use]
    #[track_caller]
    pub fn entered(self) -> Self {
        eventually(PATIENCE, "the command runs", || {
            let line = fs::read(format!("/proc/{}/cmdline", self.pid())).ok()?;
            line.starts_with(b"sleep").then_some(())
        });
        self
    }

    /// Sends a signal to the program alone.
    ///
    /// # Panics
    /// When it has ended.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Ends it without a chance to say anything, and waits for the end.
    #[track_caller]
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Closes its standard input and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn wait(mut self) -> Finished {
        drop(self.child.stdin.take());
        let started = Instant::now();
        let what = format!("`{}` ends", self.what);
        let status = eventually(PATIENCE * 2, &what, || self.child.try_wait().unwrap());
        // A child of the program may hold the pipes; the program's own words are there soon.
        let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
        let what = format!("{} ({:?})", self.what, started.elapsed());
        Finished { what, status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let show = |text: String| {
                let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("answered")).collect();
                lines[lines.len().saturating_sub(40)..].join("\n")
            };
            eprintln!("--- `{}`: {}\n{}", self.what, show(self.stdout()), show(self.stderr()));
        }
    }
}

impl Finished {
    /// This, when it ended well.
    ///
    /// # Panics
    /// Otherwise.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// The exit code; a signal counts as 128 plus its number.
    #[must_use]
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Returns the output as JSON; a status with problems exits with 1 and is one all the same.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        assert!(matches!(self.code(), 0 | 1), "{self}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: {}\n{}\n{}", self.what, self.status, self.stdout.trim_end(), self.stderr.trim_end())
    }
}

fn line(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a script of shell where the wires of the hosts end: in the lab itself.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn lab_sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}
