//! Two cores that talk without sockets, clocks or tasks.

use proptest::prelude::*;

use super::*;
use crate::protocol::Protocol;
use crate::tunnel::frame::{MAX_STREAM, ResetCode};
use crate::tunnel::share::Share;
use bytes::Bytes;

struct Pair {
    web: Core,
    api: Core,
}

impl Pair {
    fn new(max_streams: u32) -> Self {
        let api = Core::new(Side::Accepting { max_streams });
        let mut pair = Self { web: Core::new(Side::Connecting), api };
        assert!(!pair.web.can_open(), "nothing is opened before HELLO");
        pair.exchange();
        pair
    }

    /// Carries frames until both are silent.
    fn exchange(&mut self) {
        while self.web.output_len() + self.api.output_len() > 0 {
            carry(&mut self.web, &mut self.api).unwrap();
            carry(&mut self.api, &mut self.web).unwrap();
        }
    }

    fn open(&mut self) -> StreamId {
        assert!(self.web.can_open());
        self.web.open(&OpenHeader::new(Protocol::Opaque, 8080_u16.try_into().unwrap()))
    }

    /// Opens a stream that the other side has taken.
    fn opened(&mut self) -> StreamId {
        let id = self.open();
        self.exchange();
        assert_eq!(self.api.take_opened().iter().map(|opened| opened.id).collect::<Vec<_>>(), [id]);
        id
    }
}

fn carry(from: &mut Core, to: &mut Core) -> Result<(), TunnelError> {
    let mut bytes = Vec::new();
    from.take_output(&mut bytes);
    handle(to, &bytes)
}

/// Takes all of `bytes`, in as many turns as that needs.
fn handle(core: &mut Core, mut bytes: &[u8]) -> Result<(), TunnelError> {
    while !bytes.is_empty() {
        let taken = core.handle(bytes, &mut Share::default().turn(), Bytes::copy_from_slice)?;
        bytes = &bytes[taken..];
    }
    Ok(())
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn write(core: &mut Core, id: StreamId, data: &[u8]) -> usize {
    match core.poll_write(id, &cx(), data) {
        Poll::Ready(sent) => sent.unwrap(),
        Poll::Pending => 0,
    }
}

fn recv(core: &mut Core, id: StreamId) -> Poll<Result<Option<Bytes>, StreamError>> {
    core.poll_recv(id, &cx())
}

fn received(core: &mut Core, id: StreamId) -> Vec<u8> {
    let mut all = Vec::new();
    while let Poll::Ready(Ok(Some(data))) = recv(core, id) {
        all.extend_from_slice(&data);
    }
    all
}

fn drop_both(core: &mut Core, id: StreamId) {
    core.drop_sender(id);
    core.drop_receiver(id);
}

const RESET: fn(ResetCode) -> Poll<Result<Option<Bytes>, StreamError>> =
    |code| Poll::Ready(Err(StreamError::Reset(code)));

#[test]
fn each_direction_ends_on_its_own_in_either_order() {
    for web_first in [true, false] {
        let mut pair = Pair::new(10);
        let id = pair.opened();
        let (first, second) =
            if web_first { (&mut pair.web, &mut pair.api) } else { (&mut pair.api, &mut pair.web) };
        assert_eq!(write(first, id, b"ping"), 4);
        first.finish(id);
        carry(first, second).unwrap();
        assert_eq!(received(second, id), b"ping");
        assert_eq!(recv(second, id), Poll::Ready(Ok(None)));
        assert_eq!(write(second, id, b"pong"), 4);
        second.finish(id);
        carry(second, first).unwrap();
        assert_eq!(received(first, id), b"pong");
        assert_eq!(recv(first, id), Poll::Ready(Ok(None)));
        drop_both(first, id);
        drop_both(second, id);
        assert_eq!((first.stream_count(), second.stream_count()), (0, 0));
        assert_eq!(first.output_len() + second.output_len(), 0, "nobody reset what was complete");
    }
}

#[test]
fn a_sender_waits_for_credit_that_the_reader_returns() {
    let mut pair = Pair::new(10);
    let id = pair.opened();
    let data = vec![1; 2 * INITIAL_WINDOW as usize];
    let mut sent = 0;
    loop {
        let more = write(&mut pair.web, id, &data[sent..]);
        if more == 0 {
            break;
        }
        sent += more;
        pair.exchange();
    }
    assert_eq!(sent, INITIAL_WINDOW as usize);
    assert_eq!(received(&mut pair.api, id).len(), sent);
    pair.exchange();
    assert!(write(&mut pair.web, id, &data[sent..]) > 0);
}

#[test]
fn a_window_grows_while_its_reader_keeps_up_and_never_beyond_the_limits() {
    let mut pair = Pair::new(100);
    let data = vec![1; 1 << 16];
    for _ in 0..40 {
        let id = pair.opened();
        for _ in 0..100 {
            while write(&mut pair.web, id, &data) > 0 {
                carry(&mut pair.web, &mut pair.api).unwrap();
            }
            received(&mut pair.api, id);
            pair.exchange();
        }
        assert!(pair.api.streams[&id].window <= MAX_WINDOW);
        assert_eq!(pair.web.streams[&id].credit, pair.api.streams[&id].allowed);
    }
    let grown: u32 = pair.api.streams.values().map(|state| state.window - INITIAL_WINDOW).sum();
    assert_eq!(grown, GROWTH, "the tunnel's share is used up, and not more");
    for id in 1..=40 {
        pair.web.reset(id, ResetCode::Cancelled);
        drop_both(&mut pair.web, id);
        pair.exchange();
        drop_both(&mut pair.api, id);
    }
    assert_eq!(pair.api.growth, GROWTH);
}

#[test]
fn output_is_bounded_and_streams_go_on_when_it_is_taken() {
    let mut pair = Pair::new(10);
    let ids: Vec<_> = (0..8).map(|_| pair.opened()).collect();
    let data = vec![1; INITIAL_WINDOW as usize];
    for &id in &ids {
        while write(&mut pair.web, id, &data) > 0 {}
    }
    assert!(pair.web.output_len() < OUTPUT_LIMIT + INITIAL_WINDOW as usize + 1024);
    let mut output = Vec::new();
    assert!(pair.web.take_output(&mut output), "there are streams that wait for room");
    handle(&mut pair.api, &output).unwrap();
    assert!(!pair.web.take_output(&mut Vec::new()), "they have been woken");
    assert!(write(&mut pair.web, ids[7], &data) > 0);
}

#[test]
fn a_reset_ends_both_directions_after_what_had_arrived() {
    let mut pair = Pair::new(10);
    let id = pair.opened();
    write(&mut pair.api, id, b"half an ans");
    pair.api.reset(id, ResetCode::Internal);
    pair.exchange();
    assert_eq!(received(&mut pair.web, id), b"half an ans");
    assert_eq!(recv(&mut pair.web, id), RESET(ResetCode::Internal));
    let expected = Poll::Ready(Err(StreamError::Reset(ResetCode::Internal)));
    assert_eq!(pair.web.poll_write(id, &cx(), b"x"), expected);
    drop_both(&mut pair.web, id);
    drop_both(&mut pair.api, id);
    assert_eq!((pair.web.stream_count(), pair.api.stream_count()), (0, 0));
}

#[test]
fn an_answer_that_was_complete_survives_the_reset_of_the_question() {
    let mut pair = Pair::new(10);
    let id = pair.opened();
    write(&mut pair.web, id, b"a long question, of which");
    pair.exchange();
    write(&mut pair.api, id, b"413");
    pair.api.finish(id);
    drop_both(&mut pair.api, id);
    pair.exchange();
    assert_eq!(received(&mut pair.web, id), b"413");
    assert_eq!(recv(&mut pair.web, id), Poll::Ready(Ok(None)));
    let expected = Poll::Ready(Err(StreamError::Reset(ResetCode::Cancelled)));
    assert_eq!(pair.web.poll_write(id, &cx(), b"x"), expected);
}

#[test]
fn a_dropped_half_cancels_what_is_not_complete() {
    for sender in [true, false] {
        let mut pair = Pair::new(10);
        let id = pair.opened();
        if sender {
            pair.web.drop_sender(id)
        } else {
            pair.web.drop_receiver(id)
        }
        pair.exchange();
        assert_eq!(recv(&mut pair.api, id), RESET(ResetCode::Cancelled));
    }
}

#[test]
fn streams_beyond_the_limit_are_refused_and_places_become_free() {
    let mut pair = Pair::new(2);
    let [first, _second] = [pair.opened(), pair.opened()];
    assert!(!pair.web.can_open());
    // A peer that does not count.
    let third = pair.web.open(&OpenHeader::new(Protocol::Opaque, 80_u16.try_into().unwrap()));
    write(&mut pair.web, third, b"too much");
    pair.exchange();
    assert_eq!(recv(&mut pair.web, third), RESET(ResetCode::Refused));
    assert!(ResetCode::Refused.never_processed());
    assert_eq!(pair.api.take_counts().refused, 1);
    drop_both(&mut pair.web, third);
    drop_both(&mut pair.web, first);
    drop_both(&mut pair.api, first);
    pair.exchange();
    pair.opened();
}

/// Outcome of frames that arrive together: which streams are announced, and what is counted.
fn arrive(write: impl Fn(&mut Vec<u8>)) -> (Vec<StreamId>, Counts) {
    let mut pair = Pair::new(1000);
    let mut bytes = Vec::new();
    write(&mut bytes);
    pair.api.take_counts();
    handle(&mut pair.api, &bytes).unwrap();
    let opened = pair.api.take_opened().iter().map(|opened| opened.id).collect();
    (opened, pair.api.take_counts())
}

#[test]
fn nobody_begins_what_was_given_up_in_the_same_breath_except_what_a_connection_has_said() {
    let header = |kind| OpenHeader::new(kind, 8080_u16.try_into().unwrap());
    let (opened, counts) = arrive(|out| {
        for id in 1..=30 {
            let kind = if id <= 20 { Protocol::Http1 } else { Protocol::Opaque };
            encode::open(out, id, &header(kind));
            if id > 10 {
                encode::data(out, id, b"GET / HTTP/1.1\r\n\r\n");
            }
            if id != 5 {
                encode::reset(out, id, ResetCode::Cancelled, "");
            }
        }
        encode::open(out, 31, &header(Protocol::Opaque));
        encode::reset(out, 31, ResetCode::Cancelled, "");
    });
    assert_eq!(opened, [5].into_iter().chain(21..=30).collect::<Vec<_>>());
    assert_eq!(counts, Counts { given_up: 30, ..Counts::default() });
}

#[test]
fn frames_that_carry_nothing_are_counted() {
    let (_, counts) = arrive(|out| {
        encode::open(out, 1, &OpenHeader::new(Protocol::Opaque, 8080_u16.try_into().unwrap()));
        encode::ping(out, [0; 8]);
        encode::pong(out, [0; 8]);
        encode::window(out, 1, 0);
        encode::data(out, 1, b"");
        encode::go_away(out, 7);
        out.extend([0, 0, 2, 99, 0, 0, 0, 0, 1, 2]);
        encode::window(out, 1, 1);
        encode::data(out, 1, b"x");
        encode::end(out, 1);
    });
    assert_eq!(counts, Counts { idle: 6, ..Counts::default() });
}

#[test]
fn frames_are_handled_in_turns() {
    let mut pair = Pair::new(1000);
    for _ in 0..500 {
        pair.open();
    }
    let mut bytes = Vec::new();
    pair.web.take_output(&mut bytes);
    let (mut at, mut turns) = (0, 0);
    while at < bytes.len() {
        at += pair.api.handle(&bytes[at..], &mut Share::default().turn(), Bytes::copy_from_slice).unwrap();
        assert!(pair.api.take_opened().len() <= 64);
        turns += 1;
    }
    assert_eq!((turns, pair.api.stream_count()), (8, 500));
}

#[test]
fn a_tunnel_that_goes_away_finishes_its_streams_and_takes_no_more() {
    let mut pair = Pair::new(10);
    let old = pair.opened();
    pair.api.go_away();
    let crossing = pair.open();
    pair.exchange();
    assert!(!pair.web.can_open() && !pair.web.accepts_work());
    assert_eq!(recv(&mut pair.web, crossing), RESET(ResetCode::Gone));
    assert!(pair.api.take_opened().is_empty());
    drop_both(&mut pair.web, crossing);
    assert_eq!(write(&mut pair.web, old, b"still here"), 10);
    pair.exchange();
    assert_eq!(received(&mut pair.api, old), b"still here");
    assert!(!pair.api.is_done());
    for core in [&mut pair.web, &mut pair.api] {
        core.finish(old);
    }
    pair.exchange();
    drop_both(&mut pair.web, old);
    drop_both(&mut pair.api, old);
    assert!(pair.api.is_done() && pair.web.is_done());
}

#[test]
fn a_lost_tunnel_says_whether_a_stream_was_sent() {
    let mut pair = Pair::new(10);
    let sent = pair.opened();
    let unsent = pair.open();
    write(&mut pair.api, sent, b"a start");
    carry(&mut pair.api, &mut pair.web).unwrap();
    pair.web.lose("the cable was cut");
    pair.web.lose("and then some");
    assert_eq!(received(&mut pair.web, sent), b"a start");
    let lost = |never_sent| StreamError::TunnelLost { never_sent, reason: "the cable was cut".into() };
    assert_eq!(recv(&mut pair.web, sent), Poll::Ready(Err(lost(false))));
    assert_eq!(recv(&mut pair.web, unsent), Poll::Ready(Err(lost(true))));
    drop_both(&mut pair.web, sent);
    drop_both(&mut pair.web, unsent);
    assert_eq!(pair.web.stream_count(), 0);
}

#[test]
fn a_peer_that_may_be_short_of_time_keeps_what_cannot_be_made_again() {
    let mut pair = Pair::new(8);
    let [fresh, written, answered] = [(); 3].map(|()| {
        let id = pair.web.open(&OpenHeader::new(Protocol::Http1, 8080_u16.try_into().unwrap()));
        pair.exchange();
        id
    });
    let connection = pair.open();
    let requests = pair.web.open(&OpenHeader::new(Protocol::Http2, 8080_u16.try_into().unwrap()));
    pair.exchange();
    pair.web.set_work(written);
    for id in [answered, requests] {
        assert!(pair.api.poll_write(id, &cx(), b"begun").is_ready());
    }
    pair.exchange();
    let left = |core: &Core| -> Vec<StreamId> {
        let open = [fresh, written, answered, connection, requests];
        let is_left = |id: &StreamId| core.streams.get(id).is_none_or(|state| state.reset.is_some());
        open.into_iter().filter(is_left).collect()
    };
    assert_eq!(pair.web.abandon(Silence::Mute), 2);
    assert_eq!(left(&pair.web), [fresh, requests]);
    assert!(!pair.web.can_open(), "nothing new is sent there");
    assert_eq!(pair.web.abandon(Silence::Frozen), 3);
    assert_eq!(left(&pair.web), [fresh, written, answered, connection, requests]);
}

#[test]
fn a_stream_on_which_the_peer_has_stopped_to_speak_while_it_spoke_elsewhere_stays() {
    let mut pair = Pair::new(8);
    let [idle, busy] = [(); 2].map(|()| pair.opened());
    let say = |pair: &mut Pair, id| {
        assert!(pair.api.poll_write(id, &cx(), b"word").is_ready());
        pair.exchange();
        pair.web.resume();
    };
    say(&mut pair, idle);
    for _ in 0..3 {
        say(&mut pair, busy);
    }
    assert_eq!(pair.web.abandon(Silence::Frozen), 1);
    assert!(pair.web.streams[&idle].reset.is_none() && pair.web.streams[&busy].reset.is_some());
}

#[test]
fn a_peer_that_breaks_the_rules_loses_the_tunnel() {
    let frames = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        bytes
    };
    let header = OpenHeader::new(Protocol::Opaque, 80_u16.try_into().unwrap());
    let data = vec![0; 16_000];
    let table = [
        (frames(&|out| encode::data(out, 9, b"x")), TunnelError::Unopened(9)),
        (frames(&|out| encode::open(out, 1, &header)), TunnelError::Open(1)),
        (frames(&|out| (0..5).for_each(|_| encode::data(out, 1, &data))), TunnelError::Credit(1)),
        (frames(&|out| encode::window(out, 1, MAX_STREAM)), TunnelError::Window(1)),
        (
            frames(&|out| {
                encode::end(out, 1);
                encode::data(out, 1, b"x");
            }),
            TunnelError::AfterEnd(1),
        ),
        (frames(&|out| (0..100_000).for_each(|_| encode::ping(out, [0; 8]))), TunnelError::Flood),
    ];
    for (bytes, expected) in table {
        let mut pair = Pair::new(10);
        assert_eq!(pair.opened(), 1);
        assert_eq!(handle(&mut pair.api, &bytes), Err(expected));
    }
}

#[test]
fn many_small_pieces_do_not_cost_a_reader_that_lags_many_times_their_size() {
    let mut pair = Pair::new(10);
    let id = pair.opened();
    for _ in 0..10_000 {
        write(&mut pair.web, id, b"x");
    }
    pair.exchange();
    assert!(pair.api.streams[&id].inbox.len() < 100);
    assert_eq!(received(&mut pair.api, id).len(), 10_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is sent arrives, in order, whatever the order of writing, carrying and reading.
    #[test]
    fn data_arrives_whole_and_in_order(
        steps in prop::collection::vec((0_u8..6, 0_usize..4, 1_usize..40_000), 1..80),
    ) {
        let mut pair = Pair::new(10);
        let ids: Vec<_> = (0..4).map(|_| pair.opened()).collect();
        let (mut sent, mut got) = ([0_u64; 4], [0_u64; 4]);
        for (action, stream, size) in steps {
            let id = ids[stream];
            match action {
                0..3 => {
                    let data: Vec<u8> = (sent[stream]..).take(size).map(|at| at as u8).collect();
                    sent[stream] += write(&mut pair.web, id, &data) as u64;
                }
                3 => carry(&mut pair.web, &mut pair.api).unwrap(),
                4 => carry(&mut pair.api, &mut pair.web).unwrap(),
                _ => check(&received(&mut pair.api, id), &mut got[stream]),
            }
        }
        for _ in 0..3 {
            pair.exchange();
            for stream in 0..4 {
                check(&received(&mut pair.api, ids[stream]), &mut got[stream]);
            }
        }
        prop_assert_eq!(sent, got);
    }

    #[test]
    fn arbitrary_plaintext_does_no_harm(bytes in prop::collection::vec(0_u8..12, 0..400)) {
        let mut pair = Pair::new(2);
        pair.opened();
        let _ = handle(&mut pair.api, &bytes);
        let _ = handle(&mut pair.web, &bytes);
    }
}

fn check(data: &[u8], at: &mut u64) {
    for &byte in data {
        assert_eq!(byte, *at as u8);
        *at += 1;
    }
}
