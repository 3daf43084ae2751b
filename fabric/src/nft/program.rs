//! Scripts inside a namespace: by netlink where they can be, or by running `nft`.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use super::{kernel, script};
use crate::netlink::NetlinkError;
use crate::netlink::netfilter::NetfilterSocket;
use crate::seat::Seat;

/// Largest listing of a table that is read, in bytes: that of a network with 10,000 workloads has 4 MB.
const LONGEST: u64 = 16 << 20;
/// Largest listing of all rules of a host that is read.
const LONGEST_OF_HOST: u64 = 256 << 20;

/// Reasons for which rules could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no such program.
    #[error("the nft program is not installed: install nftables (`apt-get install nftables`)")]
    NotInstalled,
    /// The kernel has no nf_tables, or not all that the rules need.
    #[error(
        "the kernel has not the nf_tables that redirecting needs ({0}); load it with `modprobe nf_tables nft_redir nft_ct nft_reject_inet`"
    )]
    Unsupported(String),
    /// nft said no.
    #[error("nft refuses the rules: {0}")]
    Refused(String),
    /// The listing is larger than is read.
    #[error("nft lists more than {0} bytes of rules; somebody has added to them")]
    TooLong(u64),
    /// The program could not be started or talked to.
    #[error("cannot run nft: {0}")]
    Process(#[source] io::Error),
    /// The kernel could not be asked.
    #[error("cannot ask nf_tables: {0}")]
    Kernel(#[source] NetlinkError),
}

/// Runs a script as one transaction: by netlink, which takes a fraction of a millisecond, if it is of the kind that starts
/// need; otherwise by the program, which also has the better words for what the kernel refuses.
pub(super) fn run(hopper: &Hopper, netns: &NetNs, script: String) -> Result<(), NftError> {
    if let Some(transaction) = script::compile(&script) {
        let done = NetfilterSocket::open(hopper, netns)
            .and_then(|mut socket| socket.commit(&transaction, "change the rules"));
        match done {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!(%error, "rules are left to the nft program"),
        }
    }
    run_program(hopper, netns, script)
}

/// The same by the program.
pub(super) fn run_program(hopper: &Hopper, netns: &NetNs, script: String) -> Result<(), NftError> {
    let mut child = spawn(hopper, netns, &["-f", "-"])?;
    // Taken, so that nft sees its end; small enough for the pipe.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).map_err(NftError::Process)?;
    }
    answer(child, LONGEST).map(drop)
}

/// The table that is there; `None` when there is none.
pub(super) fn list(hopper: &Hopper, netns: &NetNs, seat: Seat) -> Result<Option<String>, NftError> {
    list_table(hopper, netns, "inet", &seat.table())
}

/// The table of this family and name; `None` when there is none.
pub(super) fn list_table(
    hopper: &Hopper,
    netns: &NetNs,
    family: &str,
    table: &str,
) -> Result<Option<String>, NftError> {
    // Most namespaces that are asked were made a moment ago: the kernel says so in no time.
    if !kernel::has_table(hopper, netns, table).unwrap_or(true) {
        return Ok(None);
    }
    match answer(spawn(hopper, netns, &["-s", "-n", "list", "table", family, table])?, LONGEST) {
        Ok(text) => Ok(Some(text)),
        Err(NftError::Refused(words) | NftError::Unsupported(words))
            if words.contains("No such file or directory") =>
        {
            Ok(None)
        }
        // It is there, and not as it should be.
        Err(NftError::TooLong(_)) => Ok(Some(String::new())),
        Err(error) => Err(error),
    }
}

/// The names of all tables, a line each.
pub(super) fn tables(hopper: &Hopper, netns: &NetNs) -> Result<String, NftError> {
    answer(spawn(hopper, netns, &["list", "tables"])?, LONGEST)
}

/// All rules as JSON, without the rows of sets.
pub(super) fn list_ruleset(hopper: &Hopper, netns: &NetNs) -> Result<String, NftError> {
    answer(spawn(hopper, netns, &["-j", "-s", "-t", "list", "ruleset"])?, LONGEST_OF_HOST)
}

/// Started from there, a child lives in `netns`.
fn spawn(hopper: &Hopper, netns: &NetNs, arguments: &[&str]) -> Result<Child, NftError> {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let start = move || {
        Command::new("nft")
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    };
    match hopper.run(netns, start).and_then(|child| child) {
        Ok(child) => Ok(child),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NftError::NotInstalled),
        Err(error) => Err(NftError::Process(error)),
    }
}

/// Reads at most `longest` bytes of what nft says: who may change rules in a namespace may make its list as long as the
/// memory that reads it. What is longer is none of ours.
fn answer(mut child: Child, longest: u64) -> Result<String, NftError> {
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(longest + 1).read_to_end(&mut said).map_err(NftError::Process)?;
    }
    if said.len() as u64 > longest {
        child.kill().and_then(|()| child.wait()).map_err(NftError::Process)?;
        return Err(NftError::TooLong(longest));
    }
    let output = child.wait_with_output().map_err(NftError::Process)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&said).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    // The first line says it; the others show the script.
    let words = words.lines().next().unwrap_or("no reason given").trim().to_owned();
    let unsupported = ["not supported", "cache initialization failed"];
    if unsupported.iter().any(|part| words.contains(part)) {
        Err(NftError::Unsupported(words))
    } else {
        Err(NftError::Refused(words))
    }
}
