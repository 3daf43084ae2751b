//! Events from etcd into the history of a store, for as long as that is held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::client::{CallError, Client, Connection, led, number};
use super::wire::event::EventType;
use super::wire::watch_client::WatchClient;
use super::wire::watch_request::RequestUnion;
use super::wire::{Event, WatchCreateRequest, WatchRequest, WatchResponse};
use super::{Keys, row};
use crate::kv::history::History;
use crate::kv::{Failure, Row};

/// Pause after a watch that ended.
const AGAIN: Duration = Duration::from_millis(100);

/// Takes in what happens to rows below the prefix until aborted; from another member when one is lost.
pub(super) async fn feed(client: Arc<Client>, keys: Keys, history: Arc<History>) {
    loop {
        let ended = follow(&client, &keys, &history).await;
        tracing::debug!(%ended, "the watch of etcd ended");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Follows one watch to its end.
async fn follow(client: &Client, keys: &Keys, history: &History) -> Failure {
    let connection = match client.connection().await {
        Ok(connection) => connection,
        Err(failure) => return failure,
    };
    let lost = |connection: &Connection, reason: &str| {
        client.leave_it(connection);
        client.failure(reason, false)
    };
    let from = i64::try_from(history.revision() + 1).unwrap_or(i64::MAX);
    let (key, range_end) = keys.range("");
    let create = WatchCreateRequest { key, range_end, start_revision: from };
    let (requests, outgoing) = tokio::sync::mpsc::channel(1);
    // The queue is empty: this cannot wait.
    let _ = requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await;
    let watch = WatchClient::new(connection.channel.clone()).max_decoding_message_size(usize::MAX);
    let mut watch = watch;
    let mut incoming = match watch.watch(led(ReceiverStream::new(outgoing))).await {
        Ok(incoming) => incoming.into_inner(),
        Err(status) => return lost(&connection, status.message()),
    };
    loop {
        match incoming.next().await {
            Some(Ok(WatchResponse { canceled: true, compact_revision, cancel_reason, .. })) => {
                if compact_revision == 0 {
                    return lost(&connection, &cancel_reason);
                }
                let (key, _) = keys.range("");
                match client.range(key, vec![]).await {
                    Ok((revision, _)) => history.skip(revision),
                    Err(CallError::Unsent(failure) | CallError::Lost(failure)) => return failure,
                    Err(error) => return client.unread(error),
                }
                return client.failure("its history is compacted", false);
            }
            Some(Ok(WatchResponse { created: true, header, .. })) => {
                let told = header.map_or(0, |header| number(header.revision));
                // A member that is behind says the same of itself: a majority is asked.
                if told < history.revision()
                    && let Ok((revision, _)) = client.range(keys.of("/"), vec![]).await
                    && revision < history.revision()
                {
                    history.go_back(revision);
                    return client.failure("it is an earlier copy of what it was", false);
                }
            }
            Some(Ok(response)) => record(history, keys, response.events),
            Some(Err(status)) => return lost(&connection, status.message()),
            None => return lost(&connection, "the watch was closed"),
        }
    }
}

/// Takes in events, each revision whole: etcd never tells a part of one.
fn record(history: &History, keys: &Keys, events: Vec<Event>) {
    let mut revisions: BTreeMap<u64, BTreeMap<String, Option<Row>>> = BTreeMap::new();
    for event in events {
        let put = event.r#type() == EventType::Put;
        let Some(kv) = event.kv else { continue };
        let (revision, key) = (number(kv.mod_revision), keys.own(&kv.key));
        revisions.entry(revision).or_default().insert(key, put.then(|| row(kv)));
    }
    for (revision, effects) in revisions {
        history.record(revision, effects);
    }
}
