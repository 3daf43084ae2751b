//! Load for a control plane: thousands of simulated hosts in one process that join, stream over mTLS, report and acknowledge as
//! agents do, against a real `sealane control` that this program starts.
//!
//! `sealane-scale PLAN` takes a plan (`plan`) as JSON and writes a line of figures per step. `bench/run scale` calls it in a
//! network namespace in which all underlay addresses are local. A simulated host applies nothing and acknowledges at once, so
//! what is measured is control. Its messages are in `message`, where a further kind is a small change.

mod book;
mod course;
mod crowd;
mod figures;
mod host;
mod message;
mod plan;
mod plane;
mod process;
mod progress;

use std::io::Write as _;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use plan::Plan;

/// Threads of the load: control has the rest of the machine.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(text), None) = (arguments.next(), arguments.next()) else {
        return fail("give one plan as JSON, as bench/run scale does");
    };
    let plan = match Plan::parse(&text) {
        Ok(plan) => plan,
        Err(error) => return fail(&error.to_string()),
    };
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(course::run(plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// As many descriptors as may be had: each host takes one here and one in control, which inherits the limit.
fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With too few of them, hosts say so as they connect.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn fail(reason: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {reason}");
    ExitCode::FAILURE
}
