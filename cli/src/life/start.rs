//! Control and agent, started with what the command line says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealane_agent::Agent;
use sealane_base::admin;
use sealane_base::metrics::Family;
use sealane_base::ready::Readiness;
use sealane_base::task::{self, Task};
use sealane_control::{Control, Member, MemberConfig};
use sealane_fabric::overlay::{UnderlayChoice, UnderlayChoices};
use sealane_proto::document::Document;
use sealane_proto::resource::ControlAddr;
use sealane_proto::token::JoinToken;
use sealane_sys::RunDir;
use tokio::net::TcpListener;

use crate::args::{HostArgs, SharedStore, check_environment};
use crate::document;
use crate::failure::Failure;

/// Lifetime of the token that `up` makes for its own agent.
const OWN_TOKEN: Duration = Duration::from_secs(60);

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(error.to_string())
}

/// Control, with its metrics served at `address` for as long as the task is held.
pub(super) async fn control(
    config: sealane_control::Config,
    address: SocketAddr,
) -> Result<(Control, Task), Failure> {
    let listener = metrics_listener(address).await?;
    let control = sealane_control::start(config).await.map_err(failed)?;
    let targets = control.scrape_targets();
    let serving = metrics(listener, control.readiness(), control.gather(), move || Ok(targets()));
    tracing::info!(listen = %control.local_addr(), "control is ready");
    Ok((control, serving))
}

/// A control plane of several, with its metrics likewise.
pub(super) async fn member(config: MemberConfig, address: SocketAddr) -> Result<(Member, Task), Failure> {
    let listener = metrics_listener(address).await?;
    let member = Member::start(config).await.map_err(failed)?;
    let serving = metrics(listener, member.readiness(), member.gather(), member.scrape_targets());
    tracing::info!(listen = %member.local_addr(), "control is ready");
    Ok((member, serving))
}

/// Builds the settings of one control plane of several.
pub(super) fn member_config(
    control: sealane_control::Config,
    shared: SharedStore,
) -> Result<MemberConfig, Failure> {
    let advertise = match shared.advertise {
        Some(advertise) => advertise,
        None if control.listen.ip().is_unspecified() || control.listen.port() == 0 => {
            return Err(Failure::usage(format!(
                "--listen {} names no address at which hosts reach this control plane: give one with --advertise",
                control.listen
            )));
        }
        None => ControlAddr { text: control.listen.to_string(), literal: Some(control.listen) },
    };
    let (place, key_file) = shared.place.parts()?;
    Ok(MemberConfig { control, place, key_file, advertise, term: shared.leader_ttl })
}

async fn metrics_listener(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        failed(format!("cannot serve metrics on {address}: {error}; hint: choose another --metrics"))
    })
}

/// Serves what is measured, for as long as the task is held.
fn metrics(
    listener: TcpListener,
    readiness: &Readiness,
    measured: impl Fn() -> Vec<Family> + Send + Sync + 'static,
    targets: impl Fn() -> Result<String, String> + Send + Sync + 'static,
) -> Task {
    let gather: admin::Gather = Arc::new(move || {
        let families = measured();
        Box::pin(async move { families })
    });
    let targets = admin::Page { path: "/targets", content_type: "application/json", body: Arc::new(targets) };
    task::spawn_fallible("metrics", admin::serve(listener, readiness.clone(), gather, vec![targets]))
}

/// Builds the settings that an agent runs with.
pub(super) fn agent_config(
    control: Vec<ControlAddr>,
    token: Option<JoinToken>,
    data_dir: &Path,
    run_dir: &RunDir,
    host: HostArgs,
) -> Result<sealane_agent::Config, Failure> {
    check_environment().map_err(Failure::usage)?;
    let binary = std::env::current_exe().map_err(Failure::of("cannot find the own program"))?;
    Ok(sealane_agent::Config {
        control,
        token,
        name: host.name,
        underlay: choices(host.underlay)?,
        expects_others: false,
        data_dir: data_dir.to_owned(),
        run_dir: run_dir.clone(),
        metrics_port: host.metrics_port.get(),
        vxlan_port: host.vxlan_port.get(),
        peer_port: host.peer_port.get(),
        peer_timeout: host.peer_timeout,
        docker_plugin: host.docker_plugin,
        docker_api: host.docker_api,
        services_dir: host.services_dir,
        read_documents: documents,
        binary,
    })
}

/// The choices of underlay addresses: one, or one for each family.
fn choices(given: Vec<UnderlayChoice>) -> Result<Option<UnderlayChoices>, Failure> {
    let mut given = given.into_iter();
    let chosen = given.next().map(|first| UnderlayChoices { first, other: given.next() });
    match given.next() {
        None => Ok(chosen),
        Some(third) => Err(Failure::usage(format!(
            "--underlay {third} is one too many: a host has one underlay address for IPv4 and one for IPv6"
        ))),
    }
}

/// The documents of a file; what is wrong with it in one line.
fn documents(path: &Path) -> Result<Vec<Document>, String> {
    let read = document::read(&[path.to_owned()]);
    let read = read.map_err(|failure| failure.sentence().replace("\nerror: ", "; "))?;
    Ok(read.into_iter().map(|written| written.document).collect())
}

/// An agent that is ready.
pub(super) async fn agent(config: sealane_agent::Config) -> Result<Agent, Failure> {
    let agent = sealane_agent::start(config).await.map_err(failed)?;
    agent.readiness().ready().await;
    tracing::info!(node = %agent.node(), "agent is ready");
    Ok(agent)
}

/// The agent of the host that `control` runs on, which joins by itself.
pub(super) async fn own_agent(
    control: &Control,
    data_dir: &Path,
    run_dir: &RunDir,
    host: HostArgs,
) -> Result<Agent, Failure> {
    let token = if sealane_agent::has_joined(data_dir).map_err(failed)? {
        None
    } else {
        Some(control.create_token(OWN_TOKEN, Some(1)).await.map_err(failed)?)
    };
    let mut address = control.local_addr();
    // Others are to join: they reach this host where its packets to elsewhere come from, not on its loopback.
    let expects_others = !address.ip().is_loopback();
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let own = ControlAddr { text: address.to_string(), literal: Some(address) };
    let config = agent_config(vec![own], token, data_dir, run_dir, host)?;
    agent(sealane_agent::Config { expects_others, ..config }).await
}
