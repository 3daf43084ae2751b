//! Calls of etcd, by whichever of its members answers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::connect::{Members, words};
use super::wire::kv_client::KvClient;
use super::wire::{KeyValue, RangeRequest, TxnRequest, TxnResponse};
use crate::kv::Failure;

/// Limit for a call: a member that is cut off from the others would answer after 7 s that it has no answer.
const CALL: Duration = Duration::from_secs(3);
/// Number of rows that are asked for at once.
const PAGE: i64 = 4_096;

/// Calls of one etcd. A member that fails is left for the next one.
#[derive(Debug)]
pub(super) struct Client {
    members: Members,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    /// Number of members that were left so far.
    left: usize,
    channel: Option<Channel>,
}

/// A connection, and the number of those before it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    number: usize,
}

/// Reasons for which a call has no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// No member was reached: nothing was sent.
    Unsent(Failure),
    /// The answer was lost: whatever was asked for may have happened.
    Lost(Failure),
    /// The transaction is too large for etcd as it is configured; nothing happened.
    TooLarge(String),
    /// History before this revision is compacted.
    Compacted,
    /// Refused for good; nothing happened.
    Refused(Failure),
}

impl Client {
    pub(super) fn new(members: Members) -> Self {
        Self { members, current: Mutex::default() }
    }

    /// The members, for people.
    pub(super) fn place(&self) -> String {
        self.members.place()
    }

    /// Returns a failure of what is at these members.
    pub(super) fn failure(&self, reason: impl Into<String>, full: bool) -> Failure {
        Failure { place: self.place(), reason: reason.into(), full, lost: false }
    }

    /// Returns a failure after which what was asked for may have happened.
    pub(super) fn lost(&self, reason: impl Into<String>) -> Failure {
        Failure { lost: true, ..self.failure(reason, false) }
    }

    /// Returns a connection to a member, the same one as long as it lasts.
    pub(super) async fn connection(&self) -> Result<Connection, Failure> {
        let mut reasons = vec![];
        for _ in 0..self.members.urls.len() {
            let number = {
                let current = self.current();
                if let Some(channel) = &current.channel {
                    return Ok(Connection { channel: channel.clone(), number: current.left });
                }
                current.left
            };
            let url = &self.members.urls[number % self.members.urls.len()];
            match self.members.connect(url).await {
                Ok(channel) => {
                    let mut current = self.current();
                    if current.left == number {
                        current.channel = Some(channel.clone());
                    }
                    return Ok(Connection { channel, number });
                }
                Err(error) => {
                    reasons.push(format!("{url}: {}", words(&error)));
                    self.leave(number);
                }
            }
        }
        Err(self.failure(reasons.join("; "), false))
    }

    /// Leaves the member of a connection that failed, unless that has been left already.
    pub(super) fn leave_it(&self, connection: &Connection) {
        self.leave(connection.number);
    }

    fn leave(&self, number: usize) {
        let mut current = self.current();
        if current.left == number {
            *current = Current { left: number + 1, channel: None };
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call once, whatever becomes of it.
    async fn call<Q, A, F>(
        &self,
        request: Q,
        call: impl FnOnce(KvClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, CallError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let connection = self.connection().await.map_err(CallError::Unsent)?;
        let client = KvClient::new(connection.channel.clone()).max_decoding_message_size(usize::MAX);
        let answer = timeout(CALL, call(client, led(request))).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        answer.map(Response::into_inner).map_err(|status| {
            let error = self.error(&status);
            if let CallError::Lost(_) = &error {
                self.leave_it(&connection);
            }
            error
        })
    }

    /// Reads what changes nothing, from another member where one fails.
    async fn read<Q: Clone, A, F>(
        &self,
        request: Q,
        call: impl Fn(KvClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, CallError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        // One more than there are: the first may have been lost long ago without anybody noticing.
        for _ in 0..self.members.urls.len() {
            match self.call(request.clone(), &call).await {
                Err(CallError::Lost(_)) => {}
                done => return done,
            }
        }
        self.call(request, &call).await
    }

    /// Rows of one moment from `key` up to `end` (none: the one row), with the newest revision of that moment.
    pub(super) async fn range(&self, key: Vec<u8>, end: Vec<u8>) -> Result<(u64, Vec<KeyValue>), CallError> {
        loop {
            match self.pages(key.clone(), end.clone()).await {
                // History was compacted between two pages.
                Err(CallError::Compacted) => {}
                done => return done,
            }
        }
    }

    async fn pages(&self, key: Vec<u8>, end: Vec<u8>) -> Result<(u64, Vec<KeyValue>), CallError> {
        let mut request = RangeRequest { key, range_end: end, limit: PAGE, ..RangeRequest::default() };
        let mut rows = vec![];
        loop {
            let answer =
                self.read(request.clone(), |mut client, request| async move { client.range(request).await });
            let answer = answer.await?;
            if request.revision == 0 {
                request.revision = answer.header.map_or(0, |header| header.revision);
            }
            rows.extend(answer.kvs);
            match rows.last() {
                Some(last) if answer.more => request.key = [last.key.as_slice(), &[0]].concat(),
                Some(_) | None => return Ok((number(request.revision), rows)),
            }
        }
    }

    /// Makes a transaction happen, or not. `once`: it cannot happen twice, so it is tried again when the answer is lost.
    ///
    /// Returns true with the answer if an earlier try may have been the one that happened.
    pub(super) async fn transact(
        &self,
        request: TxnRequest,
        once: bool,
    ) -> Result<(TxnResponse, bool), CallError> {
        let mut lost = None;
        for _ in 0..=self.members.urls.len() {
            let answer =
                self.call(request.clone(), |mut client, request| async move { client.txn(request).await });
            match (answer.await, lost) {
                (Ok(answer), earlier) => return Ok((answer, earlier.is_some())),
                (Err(CallError::Lost(failure)), _) if once => lost = Some(failure),
                // The earlier one may have happened.
                (Err(_), Some(failure)) => return Err(CallError::Lost(failure)),
                (Err(error), None) => return Err(error),
            }
        }
        Err(CallError::Lost(lost.unwrap_or_else(|| self.lost("no member answered"))))
    }

    /// Tells what an answer that is none means for whoever asked.
    pub(super) fn error(&self, status: &Status) -> CallError {
        let words = status.message().trim_start_matches("etcdserver: ");
        let connection = std::error::Error::source(status).is_some();
        match status.code() {
            _ if connection => CallError::Lost(self.lost(format!("the connection was lost ({words})"))),
            Code::InvalidArgument if words.contains("too many operations") || words.contains("too large") => {
                CallError::TooLarge(words.to_owned())
            }
            Code::ResourceExhausted if words.contains("space exceeded") => {
                CallError::Refused(self.failure("its database has reached its quota", true))
            }
            Code::ResourceExhausted if words.contains("larger than max") => {
                CallError::TooLarge(words.to_owned())
            }
            Code::OutOfRange => CallError::Compacted,
            Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => {
                CallError::Refused(self.failure(words, false))
            }
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => CallError::Lost(self.lost(words)),
        }
    }

    /// Returns the failure that an error is to whoever only reads.
    pub(super) fn unread(&self, error: CallError) -> Failure {
        match error {
            CallError::Unsent(failure) | CallError::Lost(failure) | CallError::Refused(failure) => failure,
            CallError::TooLarge(reason) => self.failure(reason, false),
            CallError::Compacted => self.failure("its history is compacted", false),
        }
    }
}

/// A request that a member without a leader refuses at once: another one may have it.
pub(super) fn led<Q>(request: Q) -> Request<Q> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

/// A number of etcd, none of which is negative.
pub(super) fn number(signed: i64) -> u64 {
    signed.max(0).unsigned_abs()
}
