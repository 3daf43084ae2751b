//! Control and agent, started with what the command line says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealane_agent::Agent;
use sealane_base::admin;
use sealane_base::task::{self, Task};
use sealane_control::Control;
use sealane_fabric::overlay::{UnderlayChoice, UnderlayChoices};
use sealane_proto::document::Document;
use sealane_proto::resource::ControlAddr;
use sealane_proto::token::JoinToken;
use sealane_sys::RunDir;
use tokio::net::TcpListener;

use crate::args::{HostArgs, check_environment};
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
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| {
        failed(format!("cannot serve metrics on {address}: {error}; hint: choose another --metrics"))
    })?;
    let control = sealane_control::start(config).await.map_err(failed)?;
    let measured = control.gather();
    let gather: admin::Gather = Arc::new(move || {
        let families = measured();
        Box::pin(async move { families })
    });
    let targets = admin::Page {
        path: "/targets",
        content_type: "application/json",
        body: Arc::new(control.scrape_targets()),
    };
    let serving = admin::serve(listener, control.readiness().clone(), gather, vec![targets]);
    tracing::info!(listen = %control.local_addr(), "control is ready");
    Ok((control, task::spawn_fallible("metrics", serving)))
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
