//! `sealane`, the one binary, as a library. [`main`] reads the command line, calls what was asked for and says how it went; each
//! verb lives in a module of its own, and what it works with in the other crates.

mod args;
mod attach;
mod below;
mod check;
mod clean;
mod client;
mod demo;
mod document;
mod failure;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod life;
mod plugin;
mod printer;
mod run;
mod verb;
mod view;

use std::process::ExitCode;

use args::{Cli, Verb};
use failure::Failure;
use printer::Printer;

/// Runs the program by the command line that it was started with.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(exit) = plugin::called(&arguments) {
        return exit;
    }
    let cli = match args::parse(arguments) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let printer = Printer::new(cli.common.output);
    match args::refuse_format(&cli).and_then(|()| call(cli, &printer)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.failure(&failure);
            failure.exit.into()
        }
    }
}

fn call(cli: Cli, printer: &Printer) -> Result<(), Failure> {
    let common = &cli.common;
    match cli.verb {
        Verb::Up(up) => life::up(up, &common.run_dir),
        Verb::Control(control) => match &control.action {
            Some(action) => verb::control::call(action, common, printer),
            None => life::control(control, &common.run_dir),
        },
        Verb::Agent(agent) => life::agent(agent, &common.run_dir),
        Verb::Keep => life::keep(&common.run_dir),
        Verb::Proxy(proxy) => life::proxy(proxy),
        Verb::Demo(demo) => demo::call(demo),
        Verb::Clean(clean) => clean::clean(&clean, common, printer),
        Verb::Backup(backup) => verb::backup::take(&backup, common, printer),
        Verb::Restore(restore) => verb::backup::restore(&restore, printer),
        Verb::Apply(apply) => verb::apply::apply(&apply, common, printer),
        Verb::Get(get) => verb::get::get(&get, common, printer),
        Verb::Diff(diff) => verb::get::diff(&diff, common, printer),
        Verb::History(history) => verb::history::history(&history, common, printer),
        Verb::Rollback(rollback) => verb::history::rollback(&rollback, common, printer),
        Verb::Delete(delete) => verb::apply::delete(&delete, common, printer),
        Verb::Schema(schema) => verb::about::schema(&schema, printer),
        Verb::Completions(completions) => verb::about::completions(&completions, printer),
        Verb::Complete(complete) => verb::complete::call(&complete, common, printer),
        Verb::Man(man) => verb::about::man(&man, printer),
        Verb::Token(token) => verb::token::call(&token, common, printer),
        Verb::Network(network) => verb::network::call(&network, common, printer),
        Verb::Service(service) => verb::members::services(&service, common, printer),
        Verb::Node(node) => verb::members::nodes(&node, common, printer),
        Verb::Workload(workload) => verb::members::workloads(&workload, common, printer),
        Verb::Identity(workload) => verb::identity::call(&workload, common, printer),
        Verb::Sidecar(sidecar) => verb::sidecar::call(&sidecar, common, printer),
        Verb::Dns(dns) => verb::dns::call(&dns, common, printer),
        Verb::Check(check) => check::call(&check, common, printer),
        Verb::Status => verb::status::call(common, printer),
        Verb::Run(run) => Err(run::run(run, common, printer)),
        Verb::Attach(to) => attach::attach(&to, common, printer),
        Verb::Detach(detach) => attach::detach(&detach, common, printer),
        Verb::Exec(exec) => Err(run::exec(exec, common)),
        Verb::Cni => plugin::cni(common.socket.clone()),
        Verb::Docker(docker) => match docker.action {
            args::DockerAction::Install(wanted) => verb::docker::install(&wanted, printer),
            args::DockerAction::Uninstall(wanted) => verb::docker::uninstall(&wanted, common, printer),
            args::DockerAction::Plugin(plugin) => plugin::docker(plugin.action, printer),
        },
    }
}
