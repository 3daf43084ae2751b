//! Sealane's own processes: from their start to the signal that ends them.

mod pidfile;
mod start;

use std::path::Path;
use std::time::Duration;

use sealane_base::telemetry;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::args;
use crate::failure::{Failure, require_root};
use pidfile::PidFile;
pub(crate) use pidfile::{recorded, running};

/// How long a sidecar that is told to end lets work in progress run.
const SIDECAR_DRAIN: Duration = Duration::from_secs(30);

/// `sealane keep`. It keeps its own pid file, in the same manner, and needs this process to have one thread.
pub(crate) fn keep(run_dir: &Path) -> Result<(), Failure> {
    require_root("keep")?;
    sealane_keep::serve(run_dir).map_err(|error| Failure::new(error.to_string()))
}

/// `sealane proxy`.
pub(crate) fn proxy(args: args::Proxy) -> Result<(), Failure> {
    telemetry::init();
    sealane_proxy::run(args.settings(SIDECAR_DRAIN)).map_err(|error| Failure::new(error.to_string()))
}

/// `sealane control`.
pub(crate) fn control(args: args::Control, run_dir: &Path) -> Result<(), Failure> {
    require_root("control")?;
    telemetry::init();
    let _claimed = PidFile::new(run_dir, "control").claim()?;
    let config = sealane_control::Config {
        listen: args.listen,
        data_dir: args.data.data_dir,
        run_dir: run_dir.to_owned(),
        trust_domain: args.trust_domain,
    };
    runtime()?.block_on(async move {
        let end = end()?;
        let (control, _metrics) = start::control(config, args.metrics).await?;
        end.await;
        control.shutdown().await;
        Ok(())
    })
}

/// `sealane agent`.
pub(crate) fn agent(args: args::Agent, run_dir: &Path) -> Result<(), Failure> {
    require_root("agent")?;
    telemetry::init();
    let _claimed = PidFile::new(run_dir, "agent").claim()?;
    let config = start::agent_config(args.control, args.token, &args.data.data_dir, run_dir, args.host)?;
    runtime()?.block_on(async move {
        let end = end()?;
        tokio::pin!(end);
        let agent = tokio::select! {
            agent = start::agent(config) => agent?,
            () = &mut end => return Ok(()),
        };
        end.await;
        drop(agent);
        Ok(())
    })
}

/// `sealane up`.
pub(crate) fn up(args: args::Up, run_dir: &Path) -> Result<(), Failure> {
    require_root("up")?;
    telemetry::init();
    let _control = PidFile::new(run_dir, "control").claim()?;
    let _agent = PidFile::new(run_dir, "agent").claim()?;
    let config = sealane_control::Config {
        listen: args.listen,
        data_dir: args.data.data_dir.clone(),
        run_dir: run_dir.to_owned(),
        trust_domain: None,
    };
    runtime()?.block_on(async move {
        let end = end()?;
        let (control, _metrics) = start::control(config, args.metrics).await?;
        let joined = start::own_agent(&control, &args.data.data_dir, run_dir, args.host).await;
        if joined.is_ok() {
            end.await;
        }
        control.shutdown().await;
        joined.map(drop)
    })
}

fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::of("cannot start the runtime"))
}

/// Returns a wait for SIGTERM or SIGINT; from now on neither ends the process by itself.
fn end() -> Result<impl Future<Output = ()>, Failure> {
    let fail = || Failure::of("cannot wait for signals");
    let mut terminate = signal(SignalKind::terminate()).map_err(fail())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
