//! The control plane that is measured: a process of the real binary.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use sealane_proto::client::{ConnectError, unix_channel};
use sealane_proto::token::JoinToken;
use sealane_proto::wire::v1;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};
use v1::admin_client::AdminClient;

use crate::plan::Plan;

/// Address that control listens on: every address of a simulated host is one of its own.
const LISTEN: &str = "0.0.0.0:7443";
/// Address that it is looked for at.
const LOOPBACK: &str = "127.0.0.1:7443";
/// Address of its metrics.
const METRICS: &str = "127.0.0.1:9465";
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// Lifetime of the hosts' token.
const TOKEN_SECONDS: u64 = 86_400;

/// A running control plane. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Plane {
    plan: Arc<Plan>,
    process: Child,
}

/// Commits of control so far.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Commits {
    pub(crate) commits: f64,
    pub(crate) commit_seconds: f64,
}

/// Reasons for which there is no control plane.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaneError {
    /// A file cannot be opened, or the binary not be started.
    #[error("{path} cannot be used: {source}")]
    Start {
        /// Path of it.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// It ended.
    #[error("control ended ({status}); its log is {log}")]
    Ended {
        /// Status of its end.
        status: ExitStatus,
        /// Path of its log.
        log: PathBuf,
    },
    /// It does not listen.
    #[error("control does not listen on {LISTEN} after {0:?}")]
    Deaf(Duration),
    /// Its socket does not answer.
    #[error(transparent)]
    Socket(#[from] ConnectError),
    /// It refuses a call.
    #[error("control refuses {what}: {reason}")]
    Refused {
        /// Name of the call.
        what: &'static str,
        /// Reason in control's words.
        reason: String,
    },
}

impl Plane {
    /// Starts control.
    ///
    /// # Errors
    /// When the binary or its log cannot be used.
    pub(crate) fn start(plan: Arc<Plan>) -> Result<Self, PlaneError> {
        let failed = |path: &PathBuf| {
            let path = path.clone();
            |source| PlaneError::Start { path, source }
        };
        let log = OpenOptions::new().create(true).append(true).open(&plan.log).map_err(failed(&plan.log))?;
        let mut command = Command::new(&plan.sealane);
        command.args(["control", "--listen", LISTEN, "--metrics", METRICS]);
        command.arg("--data-dir").arg(&plan.data).arg("--run-dir").arg(&plan.run);
        command.env("SEALANE_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().map_err(failed(&plan.sealane))?;
        Ok(Self { plan, process })
    }

    /// Number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it listens.
    ///
    /// # Errors
    /// When it ends, or does not within the plan's patience.
    pub(crate) async fn listening(&mut self) -> Result<(), PlaneError> {
        let begun = Instant::now();
        while TcpStream::connect(LOOPBACK).await.is_err() {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(PlaneError::Ended { status, log: self.plan.log.clone() });
            }
            if begun.elapsed() > self.plan.patience() {
                return Err(PlaneError::Deaf(begun.elapsed()));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Makes the networks, and a token for any number of hosts.
    ///
    /// # Errors
    /// When control refuses.
    pub(crate) async fn prepare(&self) -> Result<JoinToken, PlaneError> {
        let refused = |what| {
            move |status: tonic::Status| PlaneError::Refused { what, reason: status.message().to_owned() }
        };
        let mut admin = self.admin().await?;
        for index in 0..self.plan.networks {
            let request = v1::CreateNetworkRequest {
                name: Plan::network(index),
                subnet: format!("10.0.0.0/{}", self.plan.prefix),
                deny_egress: true,
                ..v1::CreateNetworkRequest::default()
            };
            admin.create_network(request).await.map_err(refused("a network"))?;
        }
        let request =
            v1::CreateTokenRequest { ttl_seconds: TOKEN_SECONDS, ..v1::CreateTokenRequest::default() };
        let made = admin.create_token(request).await.map_err(refused("a token"))?.into_inner().token;
        let none = |error: &dyn std::fmt::Display| PlaneError::Refused {
            what: "a token",
            reason: error.to_string(),
        };
        made.parse().map_err(|error| none(&error))
    }

    async fn admin(&self) -> Result<AdminClient<tonic::transport::Channel>, PlaneError> {
        let (begun, socket) = (Instant::now(), self.plan.run.join("control.sock"));
        loop {
            match unix_channel(&socket).await {
                Ok(channel) => return Ok(AdminClient::new(channel)),
                Err(error) if begun.elapsed() > self.plan.patience() => return Err(error.into()),
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    /// Kills it and starts another one with the same store.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn restart(&mut self) -> Result<(), PlaneError> {
        self.end();
        *self = Self::start(self.plan.clone())?;
        Ok(())
    }

    /// Reads the commits so far from its metrics; none if they cannot be read.
    pub(crate) async fn commits(&self) -> Commits {
        let text = scrape().await.unwrap_or_default();
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0.0)
        };
        Commits {
            commits: of("sealane_control_commit_seconds_count "),
            commit_seconds: of("sealane_control_commit_seconds_sum "),
        }
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.end();
    }
}

async fn scrape() -> io::Result<String> {
    let mut stream = TcpStream::connect(METRICS).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: control\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
