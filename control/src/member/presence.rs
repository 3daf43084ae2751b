//! Keeps the control plane's place on the roll of those that share the store, and reads the others' places.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sealane_base::task::{self, Task};
use tokio::sync::watch;

use crate::fellows::MEMBERS;
use crate::kv::{Failure, Roll, RollLease};
use crate::roster::{Life, Roster, RosterMember};

/// Rows of those that run, each with a lease.
const RUNNING: &str = "/sealane/running/";
/// Time without a sign of life after which a control plane counts as lost, in whole seconds.
pub(super) const LIFE: Duration = Duration::from_secs(5);
/// Interval of signs of life, and of looks at the others.
const TURN: Duration = Duration::from_secs(1);
/// Limit for saying goodbye, and the pause after a try that failed: a store that has just lost its leader takes it later.
const GOODBYE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(200);

/// Value of a control plane's row.
#[derive(Clone, PartialEq, Message)]
struct MemberRow {
    #[prost(string, tag = "1")]
    version: String,
    /// True if the control plane was ended in order.
    #[prost(bool, tag = "2")]
    stopped: bool,
}

/// The place of one control plane on the roll.
#[derive(Debug)]
pub(super) struct Presence {
    roll: Roll,
    address: String,
    roster: Arc<watch::Sender<Roster>>,
    lease: Option<RollLease>,
}

impl Presence {
    pub(super) fn new(roll: Roll, address: String, roster: Arc<watch::Sender<Roster>>) -> Self {
        Self { roll, address, roster, lease: None }
    }

    /// Starts the task that keeps it until `stopping`, and then says goodbye.
    pub(super) fn keep(mut self, mut stopping: watch::Receiver<bool>) -> Task {
        task::spawn("presence", async move {
            loop {
                // The next turn comes soon; that the store cannot be reached is said by whoever stands for election.
                if let Err(failure) = self.turn().await {
                    tracing::debug!(%failure, "the roll of control planes is not read");
                }
                tokio::select! {
                    () = tokio::time::sleep(TURN) => {}
                    _ = stopping.wait_for(|stopping| *stopping) => break,
                }
            }
            if tokio::time::timeout(GOODBYE, self.leave()).await.is_err() {
                tracing::debug!("the store does not hear that this control plane ends; it counts as lost");
            }
        })
    }

    /// Gives a sign of life, and looks at the others.
    pub(super) async fn turn(&mut self) -> Result<(), Failure> {
        let lives = match &self.lease {
            Some(lease) => self.roll.renew(lease).await?,
            None => false,
        };
        if !lives {
            self.lease = None;
            self.roll.put(&[MEMBERS, &self.address].concat(), row(false)).await?;
            self.lease = Some(self.roll.live(&[RUNNING, &self.address].concat(), vec![]).await?);
        }
        let (members, running) = (self.roll.rows(MEMBERS).await?, self.roll.rows(RUNNING).await?);
        let members = read(members, &running);
        self.roster.send_if_modified(|roster| {
            let is_news = roster.members != members;
            roster.members = members;
            is_news
        });
        Ok(())
    }

    async fn leave(self) {
        while let Err(failure) = self.roll.put(&[MEMBERS, &self.address].concat(), row(true)).await {
            tracing::debug!(%failure, "the roll of control planes does not say that this one ends");
            tokio::time::sleep(AGAIN).await;
        }
        if let Some(lease) = self.lease {
            self.roll.end(lease).await;
        }
    }
}

fn row(stopped: bool) -> Vec<u8> {
    MemberRow { version: crate::VERSION.to_owned(), stopped }.encode_to_vec()
}

/// Reads the roll. Who runs is on it, whatever else is.
fn read(
    members: BTreeMap<String, Vec<u8>>,
    running: &BTreeMap<String, Vec<u8>>,
) -> BTreeMap<String, RosterMember> {
    let member = |(address, row): (String, Vec<u8>)| {
        let MemberRow { version, stopped } = MemberRow::decode(row.as_slice()).unwrap_or_default();
        let life = match (running.contains_key(&address), stopped) {
            (true, _) => Life::Running,
            (false, true) => Life::Stopped,
            (false, false) => Life::Lost,
        };
        (address, RosterMember { version, life })
    };
    members.into_iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_renew_its_lease_is_lost_unless_it_has_said_goodbye() {
        let members = [("a:1", false), ("b:1", false), ("c:1", true), ("d:1", true)];
        let members = members.map(|(address, stopped)| (address.to_owned(), row(stopped))).into();
        let running = ["a:1", "d:1"].map(|address| (address.to_owned(), vec![])).into();
        let lives: Vec<Life> = read(members, &running).into_values().map(|member| member.life).collect();
        assert_eq!(lives, [Life::Running, Life::Lost, Life::Stopped, Life::Running]);
    }
}
