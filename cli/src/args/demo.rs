//! `sealane demo`.

use std::ffi::OsString;

use clap::{Args, Subcommand};

/// `sealane demo`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Demo {
    #[command(flatten)]
    pub(crate) tour: Tour,
    #[command(subcommand)]
    pub(crate) action: Option<DemoAction>,
}

/// The tour itself.
#[derive(Clone, Debug, Args)]
pub(crate) struct Tour {
    /// Exit after the tour, with 0 if every claim held
    #[arg(long)]
    pub(crate) once: bool,
    /// Number of hosts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    pub(crate) hosts: u8,
    /// The part that runs in namespaces of its own
    #[arg(long, hide = true)]
    pub(crate) inside: bool,
}

/// What else can be done with a demo.
#[derive(Debug, Subcommand)]
pub(crate) enum DemoAction {
    /// Run a shell or a command on a host of the running demo
    Shell {
        /// Host, such as host-1
        #[arg(value_name = "NODE")]
        host: String,
        /// Command and its arguments [default: a shell]
        #[arg(last = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
}
