//! Sealane's own processes: from their start to the signal that ends them.

mod ending;
mod notify;
mod pidfile;
mod start;
mod token;
mod traces;

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sealane_base::{slack, task, telemetry};
use sealane_sys::run_dir::{Daemon, RunDir};
use sealane_sys::{heap, resident, spawn};
use tokio::runtime::Runtime;

use crate::args;
use crate::failure::{Failure, require_root};
use ending::Ending;
use pidfile::PidFile;
pub(crate) use pidfile::{recorded, running};
use traces::Traces;

/// Number of threads that wait for the kernel, at most: half of them may program networks, and others work on workloads'
/// namespaces.
const BLOCKING: usize = 8;
/// Time for which a sidecar that is told to end lets work in progress run.
const SIDECAR_DRAIN: Duration = Duration::from_secs(30);

/// `sealane keep`. It keeps its own pid file, in the same manner, and needs this process to have one thread.
pub(crate) fn keep(run_dir: &RunDir) -> Result<(), Failure> {
    require_root("keep")?;
    forbid_core_dumps();
    sealane_keep::serve(run_dir).map_err(|error| Failure::new(error.to_string()))
}

/// `sealane proxy`.
pub(crate) fn proxy(args: args::Proxy) -> Result<(), Failure> {
    spawn::stand_alone();
    // Its agent has the same environment, and has said what is wrong with it.
    drop(telemetry::init());
    let settings = sealane_proxy::confine(args.settings(SIDECAR_DRAIN));
    let settings = settings
        .map_err(|error| Failure::new(format!("a sidecar does not run with all privileges: {error}")))?;
    sealane_proxy::run(settings).map_err(|error| Failure::new(error.to_string()))
}

/// `sealane control`.
pub(crate) fn control(args: args::Control, run_dir: &RunDir) -> Result<(), Failure> {
    require_root("control")?;
    let data_dir = args.data.data_dir.clone();
    let traces = Traces::before(&[&data_dir, run_dir.path()]);
    serve_control(args, run_dir).inspect_err(|_| traces.remove_store(&data_dir))
}

fn serve_control(args: args::Control, run_dir: &RunDir) -> Result<(), Failure> {
    let runtime = begin()?;
    let mut claimed = [PidFile::new(run_dir, Daemon::Control).claim()?];
    let config = sealane_control::Config {
        listen: args.listen,
        data_dir: args.data.data_dir,
        run_dir: run_dir.clone(),
        trust_domain: args.trust_domain,
        certificate_lifetime: args.certificate_lifetime,
    };
    if args.store == args::Store::Etcd {
        let config = start::member_config(config, args.shared)?;
        return runtime.block_on(serve_member(config, args.metrics, claimed));
    }
    runtime.block_on(async move {
        let mut ending = Ending::expect()?;
        let (control, _metrics) = ending.unless_asked(start::control(config, args.metrics)).await??;
        // What hosts report is large for a moment, and large again after a long time.
        let _memory = task::spawn("memory", slack::watch(heap::unused, resident::release_heap));
        notify::ready();
        ending.asked_of(&mut claimed).await;
        ending.end(control.shutdown()).await;
        Ok(())
    })
}

/// `sealane control` with a store that several control planes share.
async fn serve_member(
    config: sealane_control::MemberConfig,
    metrics: std::net::SocketAddr,
    mut claimed: [pidfile::Claimed; 1],
) -> Result<(), Failure> {
    let mut ending = Ending::expect()?;
    let (member, _metrics) = ending.unless_asked(start::member(config, metrics)).await??;
    let _memory = task::spawn("memory", slack::watch(heap::unused, resident::release_heap));
    notify::ready();
    ending.asked_of(&mut claimed).await;
    ending.end(member.shutdown()).await;
    Ok(())
}

/// `sealane agent`. Workloads, sidecars and connections live on when it ends.
pub(crate) fn agent(args: args::Agent, run_dir: &RunDir) -> Result<(), Failure> {
    require_root("agent")?;
    let traces = Traces::before(&[&args.data.data_dir, run_dir.path()]);
    serve_agent(args, run_dir).inspect_err(|_| traces.remove_empty())
}

fn serve_agent(args: args::Agent, run_dir: &RunDir) -> Result<(), Failure> {
    let runtime = begin()?;
    let mut claimed = [PidFile::new(run_dir, Daemon::Agent).claim()?];
    let token = token::read(&args)?;
    let config = start::agent_config(args.control, token, &args.data.data_dir, run_dir, args.host)?;
    runtime.block_on(async move {
        let mut ending = Ending::expect()?;
        let agent = ending.unless_asked(Box::pin(start::agent(config))).await??;
        notify::ready();
        ending.asked_of(&mut claimed).await;
        drop(agent);
        Ok(())
    })
}

/// `sealane up`.
pub(crate) fn up(args: args::Up, run_dir: &RunDir) -> Result<(), Failure> {
    require_root("up")?;
    let data_dir = args.data.data_dir.clone();
    let traces = Traces::before(&[&data_dir, run_dir.path()]);
    serve_both(args, run_dir).inspect_err(|_| traces.remove_store(&data_dir))
}

fn serve_both(args: args::Up, run_dir: &RunDir) -> Result<(), Failure> {
    let runtime = begin()?;
    let mut claimed =
        [PidFile::new(run_dir, Daemon::Control).claim()?, PidFile::new(run_dir, Daemon::Agent).claim()?];
    let config = sealane_control::Config {
        listen: args.listen,
        data_dir: args.data.data_dir.clone(),
        run_dir: run_dir.clone(),
        trust_domain: None,
        certificate_lifetime: None,
    };
    runtime.block_on(async move {
        let mut ending = Ending::expect()?;
        let (control, _metrics) = ending.unless_asked(start::control(config, args.metrics)).await??;
        // What hosts report is large for a moment, and large again after a long time.
        let _memory = task::spawn("memory", slack::watch(heap::unused, resident::release_heap));
        let joining = Box::pin(start::own_agent(&control, &args.data.data_dir, run_dir, args.host));
        let joined = ending.unless_asked(joining).await.and_then(|joined| joined);
        if joined.is_ok() {
            notify::ready();
            ending.asked_of(&mut claimed).await;
        }
        ending.end(control.shutdown()).await;
        joined.map(drop)
    })
}

/// Starts logging and a runtime for a process that stays.
fn begin() -> Result<Runtime, Failure> {
    // Before there are threads.
    resident::bound_heaps();
    telemetry::init().iter().for_each(|flaw| tracing::warn!("{flaw}"));
    raise_open_files();
    forbid_core_dumps();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name(task::THREADS)
        .worker_threads(2)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build();
    runtime.map_err(Failure::of("cannot start the runtime"))
}

/// Keys are in this memory, and in sockets' buffers what is said: neither is for a disk.
fn forbid_core_dumps() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "a crash may leave a core dump");
    }
}

/// As many descriptors as may be had: each network and workload takes some.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!(%error, soft, hard, "the limit of open files stays");
    }
}
