//! The rules of a namespace as the `nft` program lists them: those of others, whose whole language only that knows.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};

use sealane_sys::NetNs;
use sealane_sys::hop::Hopper;

use crate::netlink::NetlinkError;

/// Largest listing of all rules that is read, in bytes.
const LONGEST: u64 = 256 << 20;

/// Reasons for which rules could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no such program.
    #[error("the nft program is not installed: install nftables (`apt-get install nftables`)")]
    NotInstalled,
    /// The kernel has no nf_tables, or not all that the rules need.
    #[error(
        "the kernel lacks parts of nf_tables that the rules need ({0}); load them with `modprobe nf_tables nft_redir nft_ct nft_reject_inet`"
    )]
    Unsupported(#[source] NetlinkError),
    /// The kernel could not be asked, or said no.
    #[error(transparent)]
    Kernel(NetlinkError),
    /// A device that rules name is not there.
    #[error("the device {0} is not there")]
    NoDevice(String),
    /// The program said no.
    #[error("nft cannot list the rules: {0}")]
    Refused(String),
    /// The listing is larger than is read.
    #[error("nft lists more than {0} bytes of rules; somebody has added to them")]
    TooLong(u64),
    /// The listing is not what the program writes.
    #[error("nft lists the rules in no known form: {0}")]
    Unreadable(#[source] serde_json::Error),
    /// The program could not be started or talked to.
    #[error("cannot run nft: {0}")]
    Process(#[source] io::Error),
}

impl NftError {
    /// The error of a change that the kernel refuses.
    pub(super) fn of_change(error: NetlinkError) -> Self {
        match error {
            NetlinkError::Refused { ref refusal, .. } if refusal.is_unsupported() => Self::Unsupported(error),
            NetlinkError::Refused { .. } | NetlinkError::Socket(_) => Self::Kernel(error),
        }
    }
}

/// All rules as JSON, without the rows of sets.
pub(super) fn list_ruleset(hopper: &Hopper, netns: &NetNs) -> Result<String, NftError> {
    answer(spawn(hopper, netns, &["-j", "-s", "-t", "list", "ruleset"])?, LONGEST)
}

/// Started from there, a child lives in `netns`.
fn spawn(hopper: &Hopper, netns: &NetNs, arguments: &[&str]) -> Result<Child, NftError> {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let start = move || {
        Command::new("nft")
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
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
    Err(NftError::Refused(words.lines().next().unwrap_or("no reason given").trim().to_owned()))
}
