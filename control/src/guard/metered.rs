//! A request's body, measured while it comes: a large message is read on when there is room for all of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body::{Frame, SizeHint};
use prometheus::IntCounterVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;

/// Messages up to this size take no room: there are only so many calls.
const FREE: usize = 4 << 10;
/// Up to this size they take room of their sender's alone.
const OWN: usize = super::SMALL;
/// A gRPC message begins with a flag and its length.
const HEADER: usize = 5;

/// Grants room to messages, in KiB: of a sender's, and of everybody's. Without these, whatever is not too large goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    own: Option<Arc<Semaphore>>,
    all: Option<Arc<Semaphore>>,
}

type Granted = Vec<OwnedSemaphorePermit>;
type Granting = Pin<Box<dyn Future<Output = Granted> + Send>>;

impl Meter {
    pub(super) fn new(own: Arc<Semaphore>, all: Arc<Semaphore>) -> Self {
        Self { own: Some(own), all: Some(all) }
    }

    /// Waits for room, its own first.
    fn grant(&self, bytes: usize) -> Granting {
        let budgets = [self.own.clone(), self.all.clone().filter(|_| bytes > OWN)];
        let kibibytes = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        Box::pin(async move {
            let mut granted = vec![];
            for budget in budgets.into_iter().flatten() {
                // Nobody closes them.
                granted.extend(budget.acquire_many_owned(kibibytes).await.ok());
            }
            granted
        })
    }
}

/// Position within a message.
#[derive(Debug)]
enum At {
    Header { octets: [u8; HEADER], have: usize },
    Message { left: usize },
}

const BEGIN: At = At::Header { octets: [0; HEADER], have: 0 };

/// The body.
pub(super) struct Metered {
    inner: Body,
    meter: Meter,
    largest: usize,
    refused: IntCounterVec,
    at: At,
    granting: Option<Granting>,
    granted: Granted,
    /// Of messages that are whole: theirs until more is asked for, for then they have been read.
    done: Granted,
}

impl Metered {
    pub(super) fn new(inner: Body, meter: Meter, largest: usize, refused: IntCounterVec) -> Self {
        let (granted, done) = (vec![], vec![]);
        Self { inner, meter, largest, refused, at: BEGIN, granting: None, granted, done }
    }

    /// Follows the messages in what came.
    fn follow(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            match &mut self.at {
                At::Header { octets, have } => {
                    let take = data.len().min(HEADER - *have);
                    octets[*have..*have + take].copy_from_slice(&data[..take]);
                    *have += take;
                    data = &data[take..];
                    if *have == HEADER {
                        let [_, a, b, c, d] = *octets;
                        self.begin(u32::from_be_bytes([a, b, c, d]) as usize)?;
                    }
                }
                At::Message { left } => {
                    let take = data.len().min(*left);
                    *left -= take;
                    data = &data[take..];
                    if *left == 0 {
                        self.at = BEGIN;
                        self.done.append(&mut self.granted);
                    }
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, length: usize) -> Result<(), Status> {
        if length > self.largest {
            self.refused.with_label_values(&["too_large"]).inc();
            return Err(Status::resource_exhausted(format!(
                "a message of {length} bytes is too large; the largest here is {} bytes",
                self.largest
            )));
        }
        if length > FREE {
            self.granting = Some(self.meter.grant(length));
        }
        self.at = if length == 0 { BEGIN } else { At::Message { left: length } };
        Ok(())
    }
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.done.clear();
        if let Some(granting) = &mut self.granting {
            let granted = ready!(granting.as_mut().poll(cx));
            self.granted.extend(granted);
            self.granting = None;
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.follow(data)?;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use http_body::Body as _;
    use prometheus::Opts;

    use super::*;

    /// A body of these pieces.
    struct Pieces(VecDeque<Vec<u8>>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece.into()))))
        }
    }

    fn message(length: u32) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(length.to_be_bytes());
        message.resize(HEADER + length as usize, 7);
        message
    }

    fn metered(pieces: Vec<Vec<u8>>, budget: &Arc<Semaphore>, largest: usize) -> Metered {
        let refused = IntCounterVec::new(Opts::new("refused", "Refused."), &["reason"]).unwrap();
        let all = Arc::new(Semaphore::new(1 << 20));
        Metered::new(Body::new(Pieces(pieces.into())), Meter::new(budget.clone(), all), largest, refused)
    }

    fn poll(body: &mut Metered) -> Poll<Option<Result<usize, String>>> {
        let mut cx = Context::from_waker(Waker::noop());
        let data = |frame: Frame<Bytes>| frame.into_data().map_or(0, |data| data.len());
        Pin::new(body)
            .poll_frame(&mut cx)
            .map(|frame| frame.map(|frame| frame.map(data).map_err(|status| status.message().to_owned())))
    }

    #[test]
    fn a_large_message_waits_for_room_and_gives_it_back_when_it_was_read() {
        let budget = Arc::new(Semaphore::new(100));
        let large = message(90 << 10);
        let pieces = vec![large[..1_000].to_vec(), large[1_000..].to_vec(), message(10)];
        let mut body = metered(pieces, &budget, 1 << 20);
        let others = budget.clone().try_acquire_many_owned(20).unwrap();
        assert_eq!(poll(&mut body), Poll::Ready(Some(Ok(1_000))));
        assert_eq!(poll(&mut body), Poll::Pending, "others have the room");
        drop(others);
        assert_eq!(poll(&mut body), Poll::Ready(Some(Ok(large.len() - 1_000))));
        assert_eq!(budget.available_permits(), 10);
        assert!(poll(&mut body).is_ready());
        assert_eq!(budget.available_permits(), 100);
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_header_alone_however_it_is_cut() {
        let budget = Arc::new(Semaphore::new(0));
        let header = &message(3 << 20)[..HEADER];
        for cut in 0..HEADER {
            let mut pieces = message(5);
            pieces.extend(&header[..cut]);
            let mut body = metered(vec![pieces, header[cut..].to_vec()], &budget, 1 << 20);
            assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))), "{cut}");
            let Poll::Ready(Some(Err(refusal))) = poll(&mut body) else { panic!("{cut}") };
            assert!(refusal.contains("3145728 bytes is too large"), "{refusal}");
        }
    }
}
