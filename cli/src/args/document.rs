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
    /// A file of documents, a directory of such files, or - for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|DIR|-", value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,
}

/// `sealane apply`.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Return when every connected host works by it
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) wait: bool,
    /// How long to wait for the hosts
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration, requires = "wait")]
    pub(crate) timeout: Duration,
    /// Ask control what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `sealane diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) files: Files,
}

/// `sealane get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// network or service
    pub(crate) kind: DocumentKind,
    /// One of them, a service as NAME or NAME.NETWORK; all when not given
    pub(crate) name: Option<String>,
    /// Only those of this network
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<NetworkName>,
}

/// `sealane delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// network or service
    #[arg(required_unless_present = "files", requires = "name", conflicts_with = "files")]
    pub(crate) kind: Option<DocumentKind>,
    /// Its name; of a service NAME.NETWORK, or NAME with --network
    #[arg(conflicts_with = "files")]
    pub(crate) name: Option<String>,
    /// The network that it belongs to
    #[arg(long, value_name = "NAME", conflicts_with = "files")]
    pub(crate) network: Option<NetworkName>,
    /// What the documents of a file, a directory or - for standard input are about
    #[arg(short = 'f', long = "filename", id = "files", value_name = "FILE|DIR|-", value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,
    /// Ask control what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take what is not there for done
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

/// `sealane schema`.
#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// network or service; documents of any kind when not given
    pub(crate) kind: Option<DocumentKind>,
}

/// `sealane completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
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
    /// Where the pages are written to
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,
}
