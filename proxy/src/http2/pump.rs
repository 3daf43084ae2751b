//! Pump of one body, from one stream to another, no faster than it is read.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream};
use http::HeaderMap;

use super::{Outgoing, SendBody, reason_of};

/// Pieces shorter than this are joined when they wait, to pieces of so many bytes.
const SMALL: usize = 1024;
const JOINED: usize = 16 * 1024;
/// Number of pieces that wait here at most.
const PIECES: usize = 16;

/// Side that a body was broken off by.
#[derive(Debug)]
pub(super) enum PumpError {
    /// The sender.
    Source(h2::Error),
    /// The receiver wants no more of it.
    Sink(Reason),
}

/// Passes on what is left of a body and its trailers, and ends the stream; `tap` sees every piece before it is sent.
///
/// At most one frame is held here whose window was given back to the sender, none when memory is short, and what came while the
/// receiver had no room.
pub(super) async fn pump(
    from: &mut RecvStream,
    (to, outgoing): (&mut SendBody, &Outgoing),
    mut tap: impl FnMut(&Bytes),
    on_end: impl FnOnce(Option<&HeaderMap>),
) -> Result<(), PumpError> {
    let mut behind = Behind::default();
    loop {
        let piece = match behind.take() {
            Some(piece) => piece,
            None => {
                let Some(piece) = next(from, to).await? else { break };
                tap(&piece);
                piece
            }
        };
        let (length, short) = (piece.len(), outgoing.is_short());
        // Fails only for a stream that is over, as the next read says.
        if !short {
            let _ = from.flow_control().release_capacity(length);
        }
        let last = from.is_end_stream() && behind.is_empty();
        if last {
            on_end(None);
            return send(to, outgoing, piece, true).await.map_err(PumpError::Sink);
        }
        pass(from, (to, outgoing), piece, &mut behind, &mut tap).await.map_err(PumpError::Sink)?;
        if short {
            let _ = from.flow_control().release_capacity(length);
        }
    }
    let trailers = poll_fn(|cx| or_reset(to, cx, |cx| from.poll_trailers(cx))).await;
    let trailers = trailers.map_err(PumpError::Sink)?.map_err(PumpError::Source)?;
    on_end(trailers.as_ref());
    let sent = match trailers {
        Some(trailers) => to.send_trailers(trailers),
        None => to.send_data(Bytes::new(), true),
    };
    sent.map_err(|error| PumpError::Sink(reason_of(&error)))
}

/// Pieces that came while their receiver had no room: small ones are joined, since each costs more than its bytes.
#[derive(Default)]
struct Behind {
    pieces: VecDeque<Bytes>,
    small: BytesMut,
}

impl Behind {
    /// Takes what is there.
    fn gather(&mut self, from: &mut RecvStream, cx: &mut Context<'_>, mut tap: impl FnMut(&Bytes)) {
        while self.pieces.len() < PIECES
            && let Poll::Ready(Some(Ok(piece))) = from.poll_data(cx)
        {
            tap(&piece);
            let small = piece.len() < SMALL;
            if small {
                self.small.extend_from_slice(&piece);
            }
            if !self.small.is_empty() && (!small || self.small.len() >= JOINED) {
                self.pieces.push_back(self.small.split().freeze());
            }
            if !small {
                self.pieces.push_back(piece);
            }
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let small = |small: &mut BytesMut| (!small.is_empty()).then(|| small.split().freeze());
        self.pieces.pop_front().or_else(|| small(&mut self.small))
    }

    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.small.is_empty()
    }
}

/// Sends all of `piece` as the receiver makes room for it, and takes meanwhile what comes behind it.
async fn pass(
    from: &mut RecvStream,
    (to, outgoing): (&mut SendBody, &Outgoing),
    mut piece: Bytes,
    behind: &mut Behind,
    tap: &mut impl FnMut(&Bytes),
) -> Result<(), Reason> {
    while !piece.is_empty() {
        to.reserve_capacity(piece.len());
        let room = poll_fn(|cx| {
            let room = poll_room(to, outgoing, cx, piece.len());
            if room.is_pending() {
                behind.gather(from, cx, &mut *tap);
            }
            room
        });
        let room = room.await?;
        let piece = outgoing.count(piece.split_to(room));
        to.send_data(piece, false).map_err(|error| reason_of(&error))?;
    }
    Ok(())
}

/// Sends all of `piece`, as the receiver makes room for it.
pub(super) async fn send(
    to: &mut SendBody,
    outgoing: &Outgoing,
    mut piece: Bytes,
    last: bool,
) -> Result<(), Reason> {
    loop {
        to.reserve_capacity(piece.len());
        let room = poll_fn(|cx| poll_room(to, outgoing, cx, piece.len())).await?;
        let end = last && room == piece.len();
        let part = outgoing.count(piece.split_to(room));
        to.send_data(part, end).map_err(|error| reason_of(&error))?;
        if piece.is_empty() {
            return Ok(());
        }
    }
}

/// Says all of a short text, and ends the stream.
pub(super) async fn say(to: &mut SendBody, mut text: Bytes) -> Result<(), Reason> {
    loop {
        to.reserve_capacity(text.len());
        let room = poll_fn(|cx| poll_capacity(to, cx, text.len())).await?;
        let end = room == text.len();
        to.send_data(text.split_to(room), end).map_err(|error| reason_of(&error))?;
        if text.is_empty() {
            return Ok(());
        }
    }
}

/// Waits for room for a part of so many bytes; ready with 0 only for 0.
fn poll_room(
    to: &mut SendBody,
    outgoing: &Outgoing,
    cx: &mut Context<'_>,
    wanted: usize,
) -> Poll<Result<usize, Reason>> {
    if wanted == 0 {
        return Poll::Ready(Ok(0));
    }
    match outgoing.poll_room(cx) {
        Poll::Ready(room) => poll_capacity(to, cx, wanted.min(room)),
        Poll::Pending => reset(to, cx).map(Err),
    }
}

/// As [`poll_room`], where nothing but the receiver's window is asked.
fn poll_capacity(to: &mut SendBody, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Reason>> {
    loop {
        let room = to.capacity().min(wanted);
        if room > 0 || wanted == 0 {
            return Poll::Ready(Ok(room));
        }
        match to.poll_capacity(cx) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(reason_of(&error))),
            Poll::Ready(None) => return reset(to, cx).map(Err),
            Poll::Pending => return reset(to, cx).map(Err),
        }
    }
}

async fn next(from: &mut RecvStream, to: &mut SendBody) -> Result<Option<Bytes>, PumpError> {
    let data = poll_fn(|cx| or_reset(to, cx, |cx| from.poll_data(cx))).await.map_err(PumpError::Sink)?;
    data.transpose().map_err(PumpError::Source)
}

/// Waits for `poll`, or for the reason for which the receiver wants nothing any more.
fn or_reset<T>(
    to: &mut SendBody,
    cx: &mut Context<'_>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<Result<T, Reason>> {
    match poll(cx) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending => reset(to, cx).map(Err),
    }
}

/// Ready when the receiver has reset the stream, or is gone.
fn reset(to: &mut SendBody, cx: &mut Context<'_>) -> Poll<Reason> {
    to.poll_reset(cx).map(|reset| reset.unwrap_or_else(|error| reason_of(&error)))
}
