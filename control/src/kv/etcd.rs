//! Rows in etcd, by its v3 API: several processes may have them in common.
//!
//! Rows, revisions and transactions are etcd's own. Calls are made by whoever calls, on a runtime of the process; a task beside it
//! follows etcd's watch, so that what others write is told here as well. The history of watches begins with the store's opening.

mod client;
mod connect;
mod feed;
mod lease;
mod roll;
mod wire;

#[cfg(test)]
pub(super) mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sealane_base::task::{self, Task};
use tokio::runtime::Handle;

use super::history::History;
use super::{CommitError, Compacted, Condition, Failure, Kv, Limits, Range, Row, Transaction, Watch, Write};
use client::{CallError, Client, number};
use connect::Members;
use wire::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::request_op::Request;
use wire::response_op::Response;
use wire::{
    Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};

pub use connect::{EtcdTls, EtcdTlsError, EtcdUrl, EtcdUrlError};
pub use lease::{Candidate, Tenure, Term};
pub use roll::{Roll, RollLease};

/// Numbers of operations in a transaction that are tried: etcd does not tell its limit, which is 128 unless it was raised.
const OPERATIONS: [usize; 5] = [16_384, 4_096, 1_024, 512, 128];
/// Bytes of a transaction that etcd surely takes: 1.5 MiB are its limit, with what is around them.
const BYTES: usize = 1 << 20;
/// Time within which a watch has heard of a commit.
const NEWS: Duration = Duration::from_secs(5);

/// Address of a store in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdPlace {
    /// Members, each of which may be asked.
    pub urls: Vec<EtcdUrl>,
    /// Prefix of all keys: several stores may be in one etcd.
    pub prefix: String,
    /// Files for `https://`.
    pub tls: EtcdTls,
}

/// A store in etcd.
#[derive(Debug)]
pub struct Etcd {
    runtime: Handle,
    client: Arc<Client>,
    keys: Keys,
    history: Arc<History>,
    /// The newest revision of an own commit.
    committed: u64,
    most: usize,
    _feed: Task,
}

/// Reasons for which a store in etcd cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// The files for TLS.
    #[error(transparent)]
    Tls(#[from] EtcdTlsError),
    /// No member answers as it should.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Keys as etcd has them.
#[derive(Clone, Debug)]
struct Keys {
    prefix: String,
}

impl Etcd {
    /// The store at this place; without rows when there were none. Blocks, so it is not for the runtime's own threads.
    ///
    /// # Errors
    /// When no member answers, or files for TLS are of no use.
    pub fn open(place: EtcdPlace, runtime: Handle) -> Result<Self, EtcdError> {
        let client = Arc::new(Client::new(Members::new(place.urls, &place.tls)?));
        let keys = Keys { prefix: place.prefix };
        let (key, _) = keys.range("");
        let begin = async {
            let (revision, _) = client.range(key, vec![]).await.map_err(|error| client.unread(error))?;
            Ok::<_, Failure>((revision, most_operations(&client, &keys).await?))
        };
        let (revision, most) = runtime.block_on(begin)?;
        let history = History::new(revision);
        let feeding = feed::feed(client.clone(), keys.clone(), history.clone());
        let feed = {
            let _entered = runtime.enter();
            task::spawn("etcd-watch", feeding)
        };
        Ok(Self { runtime, client, keys, history, committed: revision, most, _feed: feed })
    }

    fn rows(&self, (key, end): (Vec<u8>, Vec<u8>)) -> Result<(u64, BTreeMap<String, Row>), Failure> {
        let read = self.runtime.block_on(self.client.range(key, end));
        let (revision, rows) = read.map_err(|error| self.client.unread(error))?;
        Ok((revision, rows.into_iter().map(|kv| (self.keys.own(&kv.key), row(kv))).collect()))
    }

    /// Builds etcd's form of a transaction. When it does not happen, etcd answers with the rows of its conditions.
    fn request(&self, transaction: &Transaction) -> TxnRequest {
        let looked = transaction.when.iter().map(|condition| {
            let range = RangeRequest { key: self.keys.of(condition.key()), ..RangeRequest::default() };
            RequestOp { request: Some(Request::RequestRange(range)) }
        });
        let writes = transaction.then.iter().map(|write| {
            let key = self.keys.of(write.key());
            let request = match write {
                Write::Put(_, value) => {
                    Request::RequestPut(PutRequest { key, value: value.clone(), lease: 0 })
                }
                Write::Delete(_) => Request::RequestDeleteRange(DeleteRangeRequest { key }),
            };
            RequestOp { request: Some(request) }
        });
        TxnRequest {
            compare: transaction.when.iter().map(|condition| self.compare(condition)).collect(),
            success: writes.collect(),
            failure: looked.collect(),
        }
    }

    fn compare(&self, condition: &Condition) -> Compare {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (target, union) = match *condition {
            Condition::Modified(_, revision) => {
                (CompareTarget::Mod, TargetUnion::ModRevision(signed(revision)))
            }
            Condition::Version(_, version) => (CompareTarget::Version, TargetUnion::Version(signed(version))),
        };
        Compare {
            result: CompareResult::Equal.into(),
            target: target.into(),
            key: self.keys.of(condition.key()),
            target_union: Some(union),
        }
    }

    /// Says what etcd's limit means for whoever wants more.
    fn too_large(&self, transaction: &Transaction) -> CommitError {
        let bytes: usize = transaction.then.iter().map(Write::size).sum();
        let (rows, most) = (transaction.then.len(), self.most);
        CommitError::TooLarge(format!(
            "{rows} rows with {bytes} bytes are more than etcd takes in one transaction ({most} rows, and 1.5 MiB unless it was \
             raised); start its members with a larger --max-txn-ops and --max-request-bytes"
        ))
    }

    /// Names the first condition that does not hold, by the rows that etcd has answered with.
    fn conflict(&self, transaction: &Transaction, answer: TxnResponse) -> CommitError {
        let rows = answer.responses.into_iter().map(|op| match op.response {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().next().map(row),
            Some(Response::ResponsePut(_) | Response::ResponseDeleteRange(_)) | None => None,
        });
        let failed = transaction.when.iter().zip(rows).find(|(when, row)| !when.holds(row.as_ref()));
        let failed = failed.map(|(when, _)| when).or(transaction.when.first());
        CommitError::Conflict { key: failed.map(|when| when.key().to_owned()).unwrap_or_default() }
    }
}

impl Kv for Etcd {
    fn get(&mut self, key: &str) -> Result<(u64, Option<Row>), Failure> {
        let (revision, rows) = self.rows((self.keys.of(key), vec![]))?;
        Ok((revision, rows.into_values().next()))
    }

    fn range(&mut self, prefix: &str) -> Result<Range, Failure> {
        let (revision, rows) = self.rows(self.keys.range(prefix))?;
        Ok(Range { revision, rows })
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<u64, CommitError> {
        transaction.ensure_distinct()?;
        if transaction.when.len().max(transaction.then.len()) > self.most {
            return Err(self.too_large(transaction));
        }
        let sent = self.client.transact(self.request(transaction), transaction.happens_once());
        let (answer, repeated) = match self.runtime.block_on(sent) {
            Ok(done) => done,
            Err(CallError::TooLarge(_)) => return Err(self.too_large(transaction)),
            Err(error) => return Err(self.client.unread(error).into()),
        };
        if answer.succeeded {
            self.committed = answer.header.map_or(0, |header| number(header.revision));
            return Ok(self.committed);
        }
        if repeated {
            let reason = "an answer was lost, and what was asked for may have happened";
            return Err(self.client.lost(reason).into());
        }
        Err(self.conflict(transaction, answer))
    }

    fn watch(&self, prefix: &str, from: u64) -> Result<Watch, Compacted> {
        self.history.watch(prefix, from)
    }

    /// Here alone: etcd's own history is everybody's, and its `--auto-compaction-retention` says how long it is kept.
    fn compact(&mut self, before: u64) {
        if !self.history.knows(self.committed, NEWS) {
            tracing::debug!(committed = self.committed, "the watch of etcd is behind");
        }
        self.history.compact(before);
    }

    fn limits(&self) -> Limits {
        Limits { writes: self.most, bytes: BYTES }
    }
}

impl Keys {
    /// Returns a key as etcd has it.
    fn of(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// Returns the first key with this prefix, and the first behind all that have it, as etcd writes a range.
    fn range(&self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let key = self.of(prefix);
        let mut end = key.clone();
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        match end.last_mut() {
            Some(last) => *last += 1,
            // To the last of all.
            None => return (vec![0], vec![0]),
        }
        (key, end)
    }

    /// Returns a key of etcd without the prefix.
    fn own(&self, key: &[u8]) -> String {
        String::from_utf8_lossy(key.get(self.prefix.len()..).unwrap_or_default()).into_owned()
    }
}

fn row(kv: KeyValue) -> Row {
    Row {
        value: kv.value,
        created: number(kv.create_revision),
        modified: number(kv.mod_revision),
        version: number(kv.version),
    }
}

/// Finds out how many operations etcd takes in a transaction, by transactions that cannot happen.
async fn most_operations(client: &Client, keys: &Keys) -> Result<usize, Failure> {
    let never = Compare {
        result: CompareResult::Less.into(),
        target: CompareTarget::Version.into(),
        key: keys.of("/"),
        target_union: Some(TargetUnion::Version(0)),
    };
    let read = RangeRequest { key: keys.of("/"), ..RangeRequest::default() };
    let read = RequestOp { request: Some(Request::RequestRange(read)) };
    let mut refused = Err(client.failure("it takes no transactions", false));
    for operations in OPERATIONS {
        let request = TxnRequest {
            compare: vec![never.clone()],
            success: vec![read.clone(); operations],
            ..TxnRequest::default()
        };
        match client.transact(request, true).await {
            Ok(_) => return Ok(operations),
            Err(CallError::TooLarge(reason)) => refused = Err(client.failure(reason, false)),
            Err(error) => return Err(client.unread(error)),
        }
    }
    refused
}

impl Transaction {
    /// Refuses a second write of one key.
    fn ensure_distinct(&self) -> Result<(), CommitError> {
        let mut keys = BTreeSet::new();
        match self.then.iter().find(|write| !keys.insert(write.key())) {
            Some(twice) => Err(CommitError::Duplicate { key: twice.key().to_owned() }),
            None => Ok(()),
        }
    }

    /// Returns true if a condition holds no more once this has happened: asked for twice, it happens once.
    fn happens_once(&self) -> bool {
        let put = |key: &str| self.then.iter().any(|write| matches!(write, Write::Put(put, _) if put == key));
        self.when.iter().any(|condition| put(condition.key()))
    }
}
