//! A row that one process has at a time, for as long as it renews its lease.

use std::sync::Arc;
use std::time::Duration;

use sealane_base::task::{self, Task};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_stream::StreamExt;

use super::client::{CallError, Client, led, number};
use super::connect::Members;
use super::wire::lease_client::LeaseClient;
use super::wire::request_op::Request;
use super::wire::response_op::Response;
use super::wire::watch_client::WatchClient;
use super::wire::watch_request::RequestUnion;
use super::wire::{
    DeleteRangeRequest, KeyValue, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
};
use super::{EtcdPlace, EtcdTlsError, Keys};
use crate::kv::{Condition, Failure};

/// Pause after a failure.
const AGAIN: Duration = Duration::from_millis(200);
/// Limit for a call about the lease: the next member has to have time for it.
const CALL: Duration = Duration::from_millis(500);
/// Number of lifetimes of a lease after which it counts as ended here, whatever etcd would say.
const LATE: u32 = 2;
/// Time after which a row is looked at although nothing was heard of it.
const LOOK: Duration = Duration::from_secs(1);

/// Competes for a row.
#[derive(Clone, Debug)]
pub struct Candidate {
    client: Arc<Client>,
    keys: Keys,
    key: String,
    ttl: Duration,
}

/// The row, held: made at a revision, and gone when this ends.
#[derive(Debug)]
pub struct Term {
    key: String,
    revision: u64,
    tenure: Tenure,
    lease: i64,
    client: Arc<Client>,
    _renewal: Task,
}

/// Duration of a term, as far as is known here.
#[derive(Clone, Debug)]
pub struct Tenure(Arc<watch::Sender<bool>>);

impl Default for Tenure {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(true)))
    }
}

impl Tenure {
    /// Ends the term.
    pub fn end(&self) {
        self.0.send_replace(false);
    }

    /// Returns true until it is over.
    #[must_use]
    pub fn lasts(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when it is over.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn over(&self) {
        // The sender is this one's: it does not go away.
        let _ = self.0.subscribe().wait_for(|lasts| !lasts).await;
    }
}

impl Candidate {
    /// Competes for the row `key`. Whoever has it loses it when it has not renewed it for `ttl`, of which etcd has whole seconds
    /// and two at least.
    ///
    /// # Errors
    /// When files for TLS are of no use.
    pub fn new(place: &EtcdPlace, key: &str, ttl: Duration) -> Result<Self, EtcdTlsError> {
        let client = Arc::new(Client::new(Members::new(place.urls.clone(), &place.tls)?));
        Ok(Self { client, keys: Keys { prefix: place.prefix.clone() }, key: key.to_owned(), ttl })
    }

    /// Returns the value of whoever has the row.
    ///
    /// # Errors
    /// When no member of etcd tells.
    pub async fn holder(&self) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.look().await?.1.map(|row| row.value))
    }

    /// Ends the term of this number although its lease has not ended: whoever had the row is known to be gone. Nothing happens once that
    /// term is over.
    ///
    /// # Errors
    /// When it is not known to be over.
    pub async fn depose(&self, term: u64) -> Result<(), Failure> {
        let key = self.keys.of(&self.key);
        let still = super::wire::Compare {
            result: super::wire::compare::CompareResult::Equal.into(),
            target: super::wire::compare::CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(super::wire::compare::TargetUnion::ModRevision(
                i64::try_from(term).unwrap_or(i64::MAX),
            )),
        };
        let delete = Request::RequestDeleteRange(DeleteRangeRequest { key });
        let success = vec![RequestOp { request: Some(delete) }];
        let request = TxnRequest { compare: vec![still], success, failure: vec![] };
        self.client.transact(request, true).await.map(drop).map_err(|error| self.client.unread(error))
    }

    /// Waits until the row is this one's, with this value; `told` hears of whoever has it meanwhile, with the number of the term, and of
    /// failures.
    ///
    /// # Cancel safety
    /// Safe: a row that was made meanwhile ends with its lease.
    pub async fn elected(&self, value: &[u8], mut told: impl FnMut(Result<(Vec<u8>, u64), Failure>)) -> Term {
        loop {
            match self.look().await {
                Ok((revision, Some(row))) => {
                    told(Ok((row.value, number(row.create_revision))));
                    let patience = Instant::now() + LOOK;
                    // An error is heard of by the next look.
                    let _ = timeout_at(patience, self.gone(revision)).await;
                }
                Ok((_, None)) => match self.compete(value).await {
                    Ok(Some(term)) => return term,
                    Ok(None) => {}
                    Err(failure) => {
                        told(Err(failure));
                        sleep(AGAIN).await;
                    }
                },
                Err(failure) => {
                    told(Err(failure));
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn look(&self) -> Result<(u64, Option<KeyValue>), Failure> {
        let read = self.client.range(self.keys.of(&self.key), vec![]).await;
        let (revision, rows) = read.map_err(|error| self.client.unread(error))?;
        Ok((revision, rows.into_iter().next()))
    }

    /// Returns when something happens to the row after this revision.
    async fn gone(&self, revision: u64) -> Result<(), Failure> {
        let connection = self.client.connection().await?;
        let from = i64::try_from(revision + 1).unwrap_or(i64::MAX);
        let create = WatchCreateRequest {
            key: self.keys.of(&self.key),
            start_revision: from,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The requests' side stays open: its end would be the watch's.
        let requests = tokio_stream::once(create).chain(tokio_stream::pending());
        let failed = |status: tonic::Status| self.client.unread(self.client.error(&status));
        let watch = WatchClient::new(connection.channel).watch(led(requests)).await;
        let mut incoming = watch.map_err(failed)?.into_inner();
        while let Some(response) = incoming.next().await {
            let response = response.map_err(failed)?;
            if response.canceled || !response.events.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Makes the row, if nobody has it, with a lease of its own.
    async fn compete(&self, value: &[u8]) -> Result<Option<Term>, Failure> {
        let asked = Instant::now();
        let granted = grant(&self.client, self.ttl).await?;
        let key = self.keys.of(&self.key);
        let nobody = super::wire::Compare {
            result: super::wire::compare::CompareResult::Equal.into(),
            target: super::wire::compare::CompareTarget::Version.into(),
            key: key.clone(),
            target_union: Some(super::wire::compare::TargetUnion::Version(0)),
        };
        let put = PutRequest { key: key.clone(), value: value.to_vec(), lease: granted.id };
        let range = RangeRequest { key, ..RangeRequest::default() };
        let op = |request| RequestOp { request: Some(request) };
        let request = TxnRequest {
            compare: vec![nobody],
            success: vec![op(Request::RequestPut(put))],
            failure: vec![op(Request::RequestRange(range))],
        };
        let made = match self.client.transact(request, true).await {
            Ok((answer, _)) if answer.succeeded => answer.header.map(|header| number(header.revision)),
            // An earlier try may have made it.
            Ok((answer, true)) => answer.responses.into_iter().find_map(|op| match op.response {
                Some(Response::ResponseRange(range)) => {
                    let own = range.kvs.into_iter().find(|row| row.value == value);
                    own.map(|row| number(row.create_revision))
                }
                Some(Response::ResponsePut(_) | Response::ResponseDeleteRange(_)) | None => None,
            }),
            Ok((_, false)) => None,
            Err(error) => {
                revoke(&self.client, granted.id).await;
                return Err(self.client.unread(error));
            }
        };
        let Some(revision) = made else {
            revoke(&self.client, granted.id).await;
            return Ok(None);
        };
        let ttl = Duration::from_secs(number(granted.ttl));
        let tenure = Tenure::default();
        let renewing = renew(self.client.clone(), granted.id, asked + ttl * LATE, ttl, tenure.clone());
        Ok(Some(Term {
            key: self.key.clone(),
            revision,
            tenure,
            lease: granted.id,
            client: self.client.clone(),
            _renewal: task::spawn("lease", renewing),
        }))
    }
}

impl Term {
    /// Returns its number; that of a later term is larger.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.revision
    }

    /// Returns the condition that holds as long as the row is the one that was made for this term.
    #[must_use]
    pub fn condition(&self) -> Condition {
        Condition::Modified(self.key.clone(), self.revision)
    }

    /// Returns the word that ends with it.
    #[must_use]
    pub fn tenure(&self) -> &Tenure {
        &self.tenure
    }

    /// Gives the row up, so that nobody has to wait for the lease's end.
    pub async fn resign(self) {
        self.tenure.end();
        revoke(&self.client, self.lease).await;
    }
}

/// Makes a lease.
pub(super) async fn grant(client: &Client, ttl: Duration) -> Result<LeaseGrantResponse, Failure> {
    let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    let connection = client.connection().await?;
    let mut lease = LeaseClient::new(connection.channel.clone());
    let answer = timeout(CALL, lease.lease_grant(led(LeaseGrantRequest { ttl, id: 0 }))).await;
    let answer = answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time")));
    answer.map(tonic::Response::into_inner).map_err(|status| {
        let error = client.error(&status);
        if let CallError::Lost(_) = &error {
            client.leave_it(&connection);
        }
        client.unread(error)
    })
}

/// Ends a lease; where that fails it ends by itself.
pub(super) async fn revoke(client: &Client, id: i64) {
    let revoking = async {
        let connection = client.connection().await.ok()?;
        LeaseClient::new(connection.channel).lease_revoke(led(LeaseRevokeRequest { id })).await.ok()
    };
    if timeout(CALL, revoking).await.ok().flatten().is_none() {
        tracing::debug!(id, "a lease of etcd cannot be given up; it ends by itself");
    }
}

/// Renews a lease until it has ended. While etcd elects a leader of its own it renews nothing, and lets no lease end either: that a renewal is
/// late says nothing before twice the time. Whoever leads meanwhile without a lease writes nothing.
async fn renew(client: Arc<Client>, id: i64, mut end: Instant, ttl: Duration, tenure: Tenure) {
    let every = ttl / 4;
    let mut next = Instant::now() + every;
    loop {
        tokio::select! {
            () = sleep_until(end) => {
                tracing::warn!("the lease of the leadership could not be renewed in time");
                return tenure.end();
            }
            () = tenure.over() => return,
            renewed = async { sleep_until(next).await; (Instant::now(), renewal(&client, id).await) } => match renewed {
                (asked, Ok(true)) => (end, next) = (asked + ttl * LATE, asked + every),
                (_, Ok(false)) => return tenure.end(),
                (asked, Err(failure)) => {
                    tracing::debug!(%failure, "the lease is not renewed yet");
                    next = asked + AGAIN;
                }
            }
        }
    }
}

/// Renews a lease once; false when it is over.
pub(super) async fn renewal(client: &Client, id: i64) -> Result<bool, Failure> {
    let connection = client.connection().await?;
    let asked = async {
        let request = tokio_stream::once(LeaseKeepAliveRequest { id });
        let mut answers = LeaseClient::new(connection.channel.clone()).lease_keep_alive(led(request)).await?;
        answers.get_mut().message().await
    };
    let answer = timeout(CALL, asked).await;
    match answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time"))) {
        Ok(Some(answer)) => Ok(answer.ttl > 0),
        Ok(None) => Err(client.failure("it closed the stream", false)),
        Err(status) => {
            client.leave_it(&connection);
            Err(client.unread(client.error(&status)))
        }
    }
}
