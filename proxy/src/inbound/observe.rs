//! Reading along: HTTP/1 on a connection whose bytes pass untouched and unawaited, for the sake of metrics.
//!
//! Each request passes the door when its head is complete. What cannot be followed is not counted any more; it passes the door once, as
//! bytes that are not read as requests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Inbound;
use super::door::Admitted;
use crate::http::answer::{self, Manner, Status};
use crate::http::response::Next;
use crate::http::{self, Body, BodyScanner, HeadError, MAX_HEAD, Method, Parsed, request, response};
use crate::listen::ConnectionUsage;
use crate::request::RequestView;
use crate::tcp::{Denied, Tap};
use crate::telemetry::Traffic;

/// Number of requests that may be without an answer before the connection is not followed any more.
const MAX_UNANSWERED: usize = 64;

/// Counts bytes, and requests where there are any, and lets them pass.
pub(super) struct Observed<'a> {
    inbound: &'a Inbound,
    call: &'a Admitted,
    traffic: &'a Traffic,
    usage: &'a ConnectionUsage,
    exchanges: RefCell<Exchanges>,
}

/// Both directions of a connection. Pure.
#[derive(Debug, Default)]
struct Exchanges {
    requests: Messages,
    responses: Messages,
    unanswered: VecDeque<(Method, Instant)>,
    /// Time at which the request came whose response is under way.
    answering: Option<Instant>,
}

/// Part of a response that is seen, and the time since its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResponsePart {
    /// The head of a final response with this status.
    Head(u16, Duration),
    /// The last byte.
    End(Duration),
}

/// The messages of one direction.
#[derive(Debug)]
enum Messages {
    /// In a head, or between two messages; what has come of it when it did not come whole.
    Head(Vec<u8>),
    Body(BodyScanner),
    /// This is not HTTP/1, or not any more.
    Lost,
}

impl Default for Messages {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Messages {
    fn is_lost(&self) -> bool {
        matches!(self, Self::Lost)
    }

    /// Follows `bytes`; `on_head` says which body comes behind the head at the start of what it gets, `None` when
    /// none that could be followed does.
    fn advance(
        &mut self,
        mut bytes: &[u8],
        mut on_head: impl FnMut(&[u8]) -> Result<Parsed<Option<Body>>, HeadError>,
    ) {
        while !bytes.is_empty() {
            let next = match self {
                Self::Lost => return,
                Self::Body(scanner) => match scanner.advance(bytes) {
                    Ok(length) => {
                        bytes = &bytes[length..];
                        if !scanner.is_done() {
                            return;
                        }
                        Self::default()
                    }
                    Err(_) => Self::Lost,
                },
                Self::Head(gathered) => {
                    let before = gathered.len();
                    // Nearly always the whole head comes at once.
                    let parsed = if before == 0 {
                        on_head(bytes)
                    } else {
                        gathered.extend_from_slice(bytes);
                        // One that drips in is parsed once, not once per byte.
                        let ended = http::has_head(gathered, before);
                        if ended { on_head(gathered) } else { Ok(Parsed::Partial) }
                    };
                    match parsed {
                        Ok(Parsed::Partial) if before + bytes.len() < MAX_HEAD => {
                            if before == 0 {
                                gathered.extend_from_slice(bytes);
                            }
                            return;
                        }
                        Ok(Parsed::Complete(Some(body), length)) => {
                            bytes = &bytes[length - before..];
                            let scanner = BodyScanner::new(body);
                            if scanner.is_done() { Self::default() } else { Self::Body(scanner) }
                        }
                        Ok(Parsed::Partial | Parsed::Complete(None, _)) | Err(_) => Self::Lost,
                    }
                }
            };
            *self = next;
        }
    }
}

impl Exchanges {
    /// `pass` hears of every request's head, and of the first bytes that cannot be followed.
    ///
    /// # Errors
    /// Words of `pass` for what may not pass.
    fn handle_sent(
        &mut self,
        bytes: &[u8],
        now: Instant,
        pass: impl Fn(Option<RequestView<'_>>) -> Result<(), String>,
    ) -> Result<(), String> {
        let (unanswered, mut passed) = (&mut self.unanswered, Ok(()));
        let was_lost = self.requests.is_lost();
        self.requests.advance(bytes, |bytes| {
            Ok(match request::parse(bytes)? {
                Parsed::Complete(head, length) => {
                    passed = pass(Some(RequestView::Http1(bytes)));
                    if passed.is_err() {
                        return Ok(Parsed::Complete(None, length));
                    }
                    let followed = unanswered.len() < MAX_UNANSWERED;
                    unanswered.push_back((head.method, now));
                    Parsed::Complete(followed.then_some(head.body), length)
                }
                Parsed::Partial => Parsed::Partial,
            })
        });
        passed?;
        if self.requests.is_lost() && !was_lost { pass(None) } else { Ok(()) }
    }

    /// Returns true if nothing of an answer is there or to be expected.
    fn is_unasked(&self) -> bool {
        self.unanswered.is_empty() && self.answering.is_none()
    }

    /// `on_seen` hears of every final response's head, and of its end where that can be followed.
    fn handle_received(&mut self, bytes: &[u8], now: Instant, mut on_seen: impl FnMut(ResponsePart)) {
        let Self { unanswered, answering, .. } = self;
        let end = |answering: &mut Option<Instant>, on_seen: &mut dyn FnMut(ResponsePart)| {
            if let Some(asked) = answering.take() {
                on_seen(ResponsePart::End(now.saturating_duration_since(asked)));
            }
        };
        self.responses.advance(bytes, |bytes| {
            // Another head begins only behind the whole of the one before.
            end(answering, &mut on_seen);
            let Some(&(method, asked)) = unanswered.front() else {
                return Err(HeadError::Malformed("an answer to nothing"));
            };
            let Parsed::Complete(head, length) = response::parse(bytes, method)? else {
                return Ok(Parsed::Partial);
            };
            if head.next == Next::Head {
                return Ok(Parsed::Complete(Some(Body::Empty), length));
            }
            unanswered.pop_front();
            on_seen(ResponsePart::Head(head.status, now.saturating_duration_since(asked)));
            let body = match head.next {
                Next::Body(body) => Some(body),
                Next::Head | Next::Upgrade => None,
            };
            *answering = body.is_some().then_some(asked);
            Ok(Parsed::Complete(body, length))
        });
        if matches!(&self.responses, Messages::Head(gathered) if gathered.is_empty()) {
            end(&mut self.answering, &mut on_seen);
        }
    }
}

impl<'a> Observed<'a> {
    /// For a connection whose beginning is still to come.
    pub(super) fn new(
        inbound: &'a Inbound,
        call: &'a Admitted,
        traffic: &'a Traffic,
        usage: &'a ConnectionUsage,
    ) -> Self {
        Self { inbound, call, traffic, usage, exchanges: RefCell::default() }
    }
}

impl Tap for Observed<'_> {
    fn sent(&self, bytes: &[u8]) -> Result<(), Denied> {
        let now = Instant::now();
        self.usage.moved(now);
        self.traffic.bytes().sent(bytes)?;
        let mut exchanges = self.exchanges.borrow_mut();
        let is_http = Cell::new(false);
        let passed = exchanges.handle_sent(bytes, now, |request| {
            is_http.set(request.is_some());
            self.call.pass(self.inbound, request)
        });
        passed.map_err(|text| {
            let manner = Manner { bodiless: false, close: true };
            let can_answer = is_http.get() && exchanges.is_unasked();
            Denied { answer: can_answer.then(|| answer::local(Status::Forbidden, &text, manner)) }
        })
    }

    fn received(&self, bytes: &[u8]) {
        let now = Instant::now();
        self.usage.moved(now);
        self.traffic.bytes().received(bytes);
        let count = |seen| match seen {
            ResponsePart::Head(status, latency) => self.traffic.answered(status, latency),
            ResponsePart::End(took) => self.traffic.finished(took),
        };
        self.exchanges.borrow_mut().handle_received(bytes, now, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statuses that are seen when each direction comes in pieces of `size` bytes.
    fn statuses(sent: &str, received: &str, size: usize) -> Vec<u16> {
        let (mut exchanges, mut seen, now) = (Exchanges::default(), Vec::new(), Instant::now());
        sent.as_bytes().chunks(size).for_each(|piece| exchanges.handle_sent(piece, now, |_| Ok(())).unwrap());
        for piece in received.as_bytes().chunks(size) {
            exchanges.handle_received(piece, now, |what| {
                if let ResponsePart::Head(status, _) = what {
                    seen.push(status);
                }
            });
        }
        seen
    }

    #[test]
    fn answers_are_seen_however_the_bytes_are_cut() {
        let sent = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
                    HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let received = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabc\
                        HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 404 No\r\n\r\nall the rest";
        for size in 1..sent.len() {
            assert_eq!(statuses(sent, received, size), [201, 200, 404], "{size}");
        }
    }

    #[test]
    fn a_response_ends_with_its_last_byte() {
        let (mut exchanges, mut seen, asked) = (Exchanges::default(), Vec::new(), Instant::now());
        let after = |millis| asked + Duration::from_millis(millis);
        exchanges
            .handle_sent(
                b"GET / HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                asked,
                |_| Ok(()),
            )
            .unwrap();
        let pieces: [(u64, &[u8]); 4] = [
            (2, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"),
            (5, b"cdHTTP/1.1 204 No Content\r\n\r\n"),
            (7, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"),
            (9, b"0\r\n\r\n"),
        ];
        for (millis, piece) in pieces {
            exchanges.handle_received(piece, after(millis), |what| seen.push(what));
        }
        let millis = Duration::from_millis;
        let expected = [
            ResponsePart::Head(200, millis(2)),
            ResponsePart::End(millis(5)),
            ResponsePart::Head(204, millis(5)),
            ResponsePart::End(millis(5)),
            ResponsePart::Head(200, millis(7)),
            ResponsePart::End(millis(9)),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_is_not_http_is_not_counted() {
        assert_eq!(statuses("PING\r\n", "+PONG\r\n", 100), [0; 0]);
        assert_eq!(statuses("GET / HTTP/1.1\r\n\r\n", "220 welcome\r\n", 100), [0; 0]);
        assert_eq!(statuses("", "HTTP/1.1 200 OK\r\n\r\n", 100), [0; 0], "an answer to nothing");
        let upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n";
        let after = format!("{upgrade}HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(statuses("GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n", &after, 100), [101]);
    }
}
