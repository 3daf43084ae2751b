//! A roll of processes: rows that stay, and rows that end with whoever wrote them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::client::Client;
use super::connect::Members;
use super::lease::{grant, renewal, revoke};
use super::wire::request_op::Request;
use super::wire::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use super::{EtcdPlace, EtcdTlsError, Keys};
use crate::kv::Failure;

/// Rows of a roll.
#[derive(Clone, Debug)]
pub struct Roll {
    client: Arc<Client>,
    keys: Keys,
    ttl: Duration,
}

/// Lease of a row, which ends with it.
#[derive(Debug)]
pub struct RollLease(i64);

impl Roll {
    /// The roll at this place; a row with a lease ends when that was not renewed for `ttl`.
    ///
    /// # Errors
    /// When files for TLS are of no use.
    pub fn new(place: &EtcdPlace, ttl: Duration) -> Result<Self, EtcdTlsError> {
        let client = Arc::new(Client::new(Members::new(place.urls.clone(), &place.tls)?));
        Ok(Self { client, keys: Keys { prefix: place.prefix.clone() }, ttl })
    }

    /// Reads the rows whose keys begin with `prefix`, by the rest of their keys.
    ///
    /// # Errors
    /// When no member of etcd tells.
    pub async fn rows(&self, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let (key, end) = self.keys.range(prefix);
        let (_, rows) = self.client.range(key, end).await.map_err(|error| self.client.unread(error))?;
        let rest = |key: &[u8]| self.keys.own(key).get(prefix.len()..).unwrap_or_default().to_owned();
        Ok(rows.into_iter().map(|row| (rest(&row.key), row.value)).collect())
    }

    /// Writes a row that stays.
    ///
    /// # Errors
    /// When it is not known to be there.
    pub async fn put(&self, key: &str, value: Vec<u8>) -> Result<(), Failure> {
        self.write(Request::RequestPut(PutRequest { key: self.keys.of(key), value, lease: 0 })).await
    }

    /// Removes a row, if it is there.
    ///
    /// # Errors
    /// When it is not known to be gone.
    pub async fn delete(&self, key: &str) -> Result<(), Failure> {
        self.write(Request::RequestDeleteRange(DeleteRangeRequest { key: self.keys.of(key) })).await
    }

    /// Writes a row that ends with its lease.
    ///
    /// # Errors
    /// When it is not known to be there.
    pub async fn live(&self, key: &str, value: Vec<u8>) -> Result<RollLease, Failure> {
        let lease = grant(&self.client, self.ttl).await?.id;
        let put = PutRequest { key: self.keys.of(key), value, lease };
        self.write(Request::RequestPut(put)).await?;
        Ok(RollLease(lease))
    }

    /// Renews a lease; false if it has ended.
    ///
    /// # Errors
    /// When no member of etcd tells.
    pub async fn renew(&self, RollLease(id): &RollLease) -> Result<bool, Failure> {
        renewal(&self.client, *id).await
    }

    /// Ends a lease, and its row.
    pub async fn end(&self, RollLease(id): RollLease) {
        revoke(&self.client, id).await;
    }

    async fn write(&self, request: Request) -> Result<(), Failure> {
        let request =
            TxnRequest { success: vec![RequestOp { request: Some(request) }], ..TxnRequest::default() };
        // It may happen twice: what is there then is the same.
        let written = self.client.transact(request, true).await;
        written.map(drop).map_err(|error| self.client.unread(error))
    }
}
