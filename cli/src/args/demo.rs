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
    /// End after the tour: 0 when every claim held
    #[arg(long)]
    pub(crate) once: bool,
    /// How many hosts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    pub(crate) hosts: u8,
    /// The part that runs in namespaces of its own
    #[arg(long, hide = true)]
    pub(crate) inside: bool,
}

/// What else can be done with a demo.
#[derive(Debug, Subcommand)]
pub(crate) enum DemoAction {
    /// A shell, or a command, on a host of the demo that runs
    Shell {
        /// The host, such as host-1
        host: String,
        /// The command and its arguments; a shell when not given
        #[arg(last = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
}
