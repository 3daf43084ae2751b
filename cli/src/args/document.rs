//! Verbs about documents, and about this command line itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use clap_complete::Shell;
use sealane_proto::document::DocumentKind;
use sealane_proto::types::NetworkName;

/// Where documents are.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// File of documents, directory of such files, or - for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|DIR|-", value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,
}

/// Lengths to which a verb goes that changes documents.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Effort {
    /// Wait until every connected host works by the new state
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) wait: bool,
    /// Longest time to wait for the hosts
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration, requires = "wait")]
    pub(crate) timeout: Duration,
    /// Show what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `sealane apply`.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) effort: Effort,
}

/// `sealane diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// File of documents, directory of such files, or - for standard input
    #[arg(
        short = 'f',
        long = "filename",
        required_unless_present = "at",
        conflicts_with = "at",
        value_name = "FILE|DIR|-",
        value_hint = ValueHint::AnyPath
    )]
    pub(crate) files: Vec<PathBuf>,
    /// Revision to compare with in place of files, as `sealane history` shows it
    #[arg(long, value_name = "REVISION")]
    pub(crate) at: Option<u64>,
    /// Kind of the objects to compare with a revision: network, service, httproute or grpcroute [default: any]
    #[arg(value_name = "KIND", requires = "at", conflicts_with = "files")]
    pub(crate) kind: Option<DocumentKind>,
    /// Name of the object, of a service also NAME.NETWORK [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Compare only this network and its services with a revision
    #[arg(short, long, value_name = "NETWORK", requires = "at", conflicts_with = "files")]
    pub(crate) network: Option<NetworkName>,
}

/// `sealane get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Kind of the objects: network, service, httproute or grpcroute
    #[arg(value_name = "KIND")]
    pub(crate) kind: DocumentKind,
    /// Name of the object, of a service also NAME.NETWORK [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Show only services or routes of this network
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<NetworkName>,
}

/// `sealane delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Kind of the object: network, service, httproute or grpcroute
    #[arg(required_unless_present = "files", requires = "name", conflicts_with = "files")]
    pub(crate) kind: Option<DocumentKind>,
    /// Name of the object; of a service NAME.NETWORK, or NAME with --network
    #[arg(conflicts_with = "files")]
    pub(crate) name: Option<String>,
    /// Network of the service
    #[arg(long, value_name = "NETWORK", conflicts_with = "files")]
    pub(crate) network: Option<NetworkName>,
    /// File of documents, directory of such files, or - for standard input: their objects are deleted
    #[arg(short = 'f', long = "filename", id = "files", value_name = "FILE|DIR|-", value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,
    /// Show what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Succeed if an object does not exist
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

/// `sealane schema`.
#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Kind of the documents: network, service, httproute or grpcroute [default: any]
    #[arg(value_name = "KIND")]
    pub(crate) kind: Option<DocumentKind>,
}

/// `sealane completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell that the script is for
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// `sealane __complete`.
#[derive(Debug, Args)]
pub(crate) struct Complete {
    /// The words of the command line, the last one as far as it is typed
    #[arg(last = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

/// `sealane man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Directory to write the pages to
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,
}
