//! Calls without a pause, while something is broken on purpose.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::Stage;
use crate::demo::flaw::{Flaw, ensure};

/// File by which the loop is told to end, on the client's host.
const STOP: &str = "/run/demo-stop";
/// Four callers, each with one request after the other and a line that says who answered, or that nobody did.
const LOOP: &str = "for caller in 1 2 3 4; do \
    while [ ! -e /run/demo-stop ]; do curl -sS --max-time 10 http://api:8080/ 2>&1; done & \
    done; wait";
/// Limit for the next answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The client calls `api` again and again until it is stopped.
pub(in crate::demo) struct Load {
    child: Child,
    answers: Receiver<String>,
    report: Report,
}

/// Result of the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::demo) struct Report {
    /// Number of calls that were made.
    pub(in crate::demo) calls: usize,
    /// Words that came instead of an answer.
    pub(in crate::demo) failures: Vec<String>,
}

impl Load {
    pub(in crate::demo) fn start(stage: &Stage) -> Result<Self, Flaw> {
        let host = stage.first();
        host.within(|| fs::remove_file(STOP)).map_err(Flaw::of("load"))?.or_else(absent)?;
        let mut sealane = stage.sealane(host);
        sealane.args(["exec", "web", "--", "sh", "-c", LOOP]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = sealane.stderr(Stdio::null()).spawn().map_err(Flaw::of("cannot start the calls"))?;
        let stdout = child.stdout.take().ok_or_else(|| Flaw::new("the calls have no output".to_owned()))?;
        let load = Self { child, answers: read(stdout), report: Report::default() };
        Ok(load)
    }

    /// Waits until this many further calls were made.
    pub(in crate::demo) fn wait_for(&mut self, calls: usize) -> Result<(), Flaw> {
        for _ in 0..calls {
            let answer = self.answers.recv_timeout(PATIENCE);
            let answer =
                answer.map_err(|_| Flaw::new(format!("no call ended within {} s", PATIENCE.as_secs())))?;
            self.report.count(answer);
        }
        Ok(())
    }

    /// Waits for calls during this time.
    pub(in crate::demo) fn wait(&mut self, length: Duration) -> Result<(), Flaw> {
        let end = Instant::now() + length;
        while Instant::now() < end {
            self.wait_for(1)?;
        }
        Ok(())
    }

    /// Ends the calls and tells what came of all of them.
    pub(in crate::demo) fn stop(mut self, stage: &Stage) -> Result<Report, Flaw> {
        stage.first().within(|| fs::write(STOP, "")).map_err(Flaw::of("load"))?.map_err(Flaw::of(STOP))?;
        while let Ok(answer) = self.answers.recv_timeout(PATIENCE) {
            self.report.count(answer);
        }
        let status = self.child.wait().map_err(Flaw::of("cannot wait for the calls"))?;
        ensure(status.success(), || format!("the calls ended with {status}"))?;
        Ok(self.report)
    }
}

impl Report {
    fn count(&mut self, answer: String) {
        self.calls += 1;
        if !answer.starts_with("api on ") {
            self.failures.push(answer);
        }
    }

    /// The flaw in them, if there is one.
    pub(in crate::demo) fn flawless(&self) -> Result<(), Flaw> {
        ensure(self.failures.is_empty(), || {
            format!(
                "{} of {} requests failed: {}",
                self.failures.len(),
                self.calls,
                self.failures.join(" | ")
            )
        })
    }
}

fn read(stdout: ChildStdout) -> Receiver<String> {
    let (send, answers) = mpsc::channel();
    // Ends with the pipe, or with the receiver.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    answers
}

fn absent(error: std::io::Error) -> Result<(), Flaw> {
    if error.kind() == std::io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(Flaw::new(format!("{STOP}: {error}")))
    }
}
