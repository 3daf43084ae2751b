//! Histories of silence, by tables and at random.

use proptest::prelude::*;

use super::super::settings::Settings;
use super::*;

const WAITS: Look =
    Look { heard: false, talked: false, waits: true, in_use: true, traffic: Some(taken(0)), ..SILENT };
const SILENT: Look = Look {
    heard: false,
    talked: false,
    waits: false,
    in_use: false,
    away: false,
    proven: false,
    accepts: false,
    traffic: None,
};
const QUIET: Look = Look { waits: false, ..WAITS };
const HEARD: Look = Look { heard: true, ..QUIET };

/// Everything has arrived, and so many segments came back.
const fn taken(received: u32) -> TcpTraffic {
    TcpTraffic { unacknowledged: 0, sent_again: 0, received, sent_last: false }
}

const fn lost(sent_again: u32) -> TcpTraffic {
    TcpTraffic { unacknowledged: 1, sent_again, received: 0, sent_last: false }
}

struct Tunnel {
    liveness: Liveness,
    start: Instant,
    settings: Settings,
}

impl Tunnel {
    fn new() -> Self {
        let start = Instant::now();
        Self { liveness: Liveness::new(start), start, settings: Settings::default() }
    }

    fn look(&mut self, millis: u64, look: Look) -> Verdict {
        self.look_doubted(millis, look, false)
    }

    fn look_doubted(&mut self, millis: u64, look: Look, doubted: bool) -> Verdict {
        let now = self.start + Duration::from_millis(millis);
        self.liveness.check(now, look, self.settings.idle_timeout, self.settings.patience(doubted))
    }

    /// Looks whenever it is time until there is another verdict than to wait and to ask; returns it with the time, and how often the
    /// peer was asked.
    fn until_verdict(&mut self, from: u64, look: Look) -> (u64, Verdict, u32) {
        let (mut at, mut asked) = (from, 0);
        loop {
            match self.look(at, look) {
                Verdict::Fine => {}
                Verdict::Ping => asked += 1,
                verdict @ (Verdict::Settled | Verdict::Abandon(_) | Verdict::Lost | Verdict::Idle) => {
                    return (at, verdict, asked);
                }
            }
            let now = self.start + Duration::from_millis(at);
            at += self.liveness.next(now, self.settings.patience(false)).as_millis() as u64;
        }
    }
}

#[test]
fn silence_of_a_quiet_tunnel_is_asked_about_and_then_ends_it_and_so_does_disuse() {
    let mut tunnel = Tunnel::new();
    let unused = Look { in_use: false, ..HEARD };
    let table = [
        (2, QUIET, Verdict::Fine),
        (3, QUIET, Verdict::Ping),
        (5, HEARD, Verdict::Fine),
        (8, QUIET, Verdict::Ping),
        (12, QUIET, Verdict::Ping),
        (13, QUIET, Verdict::Lost),
        (36, HEARD, Verdict::Fine),
        (95, unused, Verdict::Fine),
        (96, unused, Verdict::Idle),
    ];
    for (seconds, look, expected) in table {
        assert_eq!(tunnel.look(seconds * 1_000, look), expected, "at {seconds} s");
    }
}

#[test]
fn a_peer_that_may_be_about_to_go_is_asked_sooner_and_given_up_sooner_but_not_while_it_answers() {
    let mut tunnel = Tunnel::new();
    let table = [
        (500, QUIET, true, Verdict::Ping),
        (1_000, HEARD, true, Verdict::Fine),
        (1_500, QUIET, true, Verdict::Ping),
        (3_000, QUIET, true, Verdict::Ping),
        // Taken back: it is as patient as with any.
        (4_000, QUIET, false, Verdict::Ping),
        (9_000, QUIET, false, Verdict::Lost),
    ];
    for (millis, look, doubted, expected) in table {
        assert_eq!(tunnel.look_doubted(millis, look, doubted), expected, "at {millis} ms");
    }
}

#[test]
fn a_call_leaves_a_frozen_peer_within_a_second_and_a_peer_that_came_back_has_more_time() {
    let mut tunnel = Tunnel::new();
    let asked = Look { heard: true, talked: true, ..WAITS };
    for (from, expected) in [(0, 900), (20_000, 1_500), (40_000, 2_700), (60_000, 5_100), (80_000, 5_100)] {
        assert_eq!(tunnel.look(from, asked), Verdict::Fine);
        let (at, verdict, _) = tunnel.until_verdict(from + 200, WAITS);
        assert_eq!(verdict, Verdict::Abandon(Silence::Mute));
        assert!(at - from <= expected && at - from > expected - 300, "{at} from {from}");
        tunnel.look(at + 200, HEARD);
    }
    tunnel.look(200_000, asked);
    assert_eq!(tunnel.until_verdict(200_200, WAITS).0, 200_800, "that was long ago");
}

#[test]
fn a_frozen_peer_is_left_in_time_although_calls_to_it_go_on_to_begin() {
    let mut tunnel = Tunnel::new();
    tunnel.look(0, Look { heard: true, talked: true, ..WAITS });
    let (at, verdict, asked) = tunnel.until_verdict(200, Look { talked: true, ..WAITS });
    assert_eq!((at, verdict, asked), (1_000, Verdict::Abandon(Silence::Mute), 6));
}

#[test]
fn a_peer_that_does_not_answer_twice_as_long_is_frozen() {
    for look in [WAITS, QUIET] {
        let mut tunnel = Tunnel::new();
        tunnel.look(0, Look { heard: true, talked: true, ..WAITS });
        let mut said = Vec::new();
        for at in (200..3_000).step_by(100) {
            let verdict = tunnel.look(at, look);
            let before = said.last().map(|(_, silence)| *silence);
            if let Verdict::Abandon(silence) = verdict
                && before != Some(silence)
            {
                said.push((at, silence));
            }
        }
        assert_eq!(said, [(800, Silence::Mute), (1_400, Silence::Frozen)]);
    }
}

#[test]
fn a_peer_that_answers_what_it_is_asked_is_waited_for_and_asked_ever_more_seldom() {
    let mut tunnel = Tunnel::new();
    let (mut at, mut asked, mut looks, mut owes) = (0, 0, 0, false);
    tunnel.liveness.hurry(tunnel.start);
    while at < 600_000 {
        let look = Look { heard: std::mem::take(&mut owes), ..WAITS };
        let verdict = tunnel.look(at, look);
        assert!([Verdict::Fine, Verdict::Ping].contains(&verdict), "{verdict:?}");
        if verdict == Verdict::Ping {
            (asked, owes) = (asked + 1, true);
        }
        let now = tunnel.start + Duration::from_millis(at);
        at += tunnel.liveness.next(now, tunnel.settings.patience(false)).as_millis() as u64;
        looks += 1;
    }
    assert!(asked < 400 && looks < 800, "{asked} {looks}");
}

#[test]
fn what_was_said_last_is_asked_about_once_and_then_the_tunnel_rests() {
    let mut tunnel = Tunnel::new();
    let spoke = Look { talked: true, ..HEARD };
    assert_eq!(tunnel.look(0, spoke), Verdict::Fine);
    assert!(tunnel.liveness.is_hasty());
    assert_eq!(tunnel.look(200, QUIET), Verdict::Ping);
    assert_eq!(tunnel.look(300, HEARD), Verdict::Settled);
    assert!(!tunnel.liveness.is_hasty());
    assert_eq!(tunnel.look(2_300, QUIET), Verdict::Fine);
    assert_eq!(tunnel.look(4_300, QUIET), Verdict::Ping, "as any that is silent");
    // A stream that breaks off in the middle is left as one that waits for its first word.
    tunnel.look(5_000, spoke);
    assert_eq!(tunnel.until_verdict(5_200, QUIET), (5_800, Verdict::Abandon(Silence::Mute), 6));
}

#[test]
fn a_call_leaves_a_peer_that_is_away_as_soon_as_that_is_known_if_it_has_not_answered() {
    let away = Look { away: true, traffic: Some(lost(2)), ..WAITS };
    let mut tunnel = Tunnel::new();
    tunnel.look(0, HEARD);
    assert_eq!(tunnel.look(200, Look { traffic: Some(lost(0)), ..WAITS }), Verdict::Ping);
    for at in [300, 400, 500, 600] {
        assert_eq!(tunnel.look(at, Look { traffic: Some(lost(1)), ..WAITS }), Verdict::Fine);
    }
    assert_eq!(tunnel.look(650, away), Verdict::Abandon(Silence::Away));
    // One of before that asks only now has its time.
    let mut tunnel = Tunnel::new();
    tunnel.liveness.hurry(tunnel.start + Duration::from_secs(60));
    assert_eq!(tunnel.until_verdict(60_200, away), (60_400, Verdict::Abandon(Silence::Away), 1));
    // One that answers is called, whatever is said of its host.
    let mut tunnel = Tunnel::new();
    for at in 0..100 {
        let verdict = tunnel.look(at * 200, Look { heard: at % 2 == 0, ..away });
        assert!([Verdict::Fine, Verdict::Ping].contains(&verdict), "{verdict:?}");
    }
    // And one on which nothing is expected stays as it is.
    let mut tunnel = Tunnel::new();
    assert_eq!(tunnel.look(0, Look { away: true, ..HEARD }), Verdict::Fine);
    assert_eq!(tunnel.look(2_000, Look { away: true, ..QUIET }), Verdict::Fine);
}

#[test]
fn a_way_that_loses_packets_and_a_worker_that_is_late_do_not_accuse_a_peer_soon() {
    let mut lossy = Tunnel::new();
    lossy.look(0, Look { heard: true, traffic: Some(TcpTraffic { sent_again: 9, ..taken(0) }), ..WAITS });
    let silent = Look { traffic: Some(TcpTraffic { sent_again: 9, ..taken(0) }), ..WAITS };
    assert_eq!(lossy.until_verdict(200, silent), (3_800, Verdict::Abandon(Silence::Mute), 36));
    let mut late = Tunnel::new();
    late.look(0, Look { heard: true, ..WAITS });
    for at in 1..14 {
        let verdict = late.look(at * 350, WAITS);
        assert!([Verdict::Fine, Verdict::Ping].contains(&verdict), "at {at}: {verdict:?}");
    }
    // Something of the peer's comes that cannot be read yet.
    let mut holes = Tunnel::new();
    holes.look(0, Look { heard: true, ..WAITS });
    holes.look(200, WAITS);
    for at in 0..40 {
        let verdict = holes.look(300 + at * 100, Look { traffic: Some(taken(at as u32 / 4)), ..WAITS });
        assert!([Verdict::Fine, Verdict::Ping].contains(&verdict), "at {at}: {verdict:?}");
    }
}

#[test]
fn a_peer_that_speaks_on_another_connection_is_waited_for_and_asked_there_again_and_again() {
    let mut tunnel = Tunnel::new();
    tunnel.look(0, Look { heard: true, talked: true, ..WAITS });
    let mut doubts = Vec::new();
    let mut lost = None;
    for at in (200..30_000).step_by(100) {
        // It answers there within a look, until it freezes.
        let proven = at < 10_000 && doubts.last() == Some(&(at - 100));
        let verdict = tunnel.look(at, Look { proven, ..WAITS });
        if tunnel.liveness.take_doubt() {
            doubts.push(at);
        }
        assert_eq!(tunnel.liveness.is_stalled(), at >= 500, "at {at}");
        if !matches!(verdict, Verdict::Fine | Verdict::Ping) {
            lost = Some((at, verdict));
            break;
        }
    }
    assert_eq!(doubts[..3], [500, 800, 1_100]);
    let (at, verdict) = lost.unwrap();
    assert_eq!(verdict, Verdict::Abandon(Silence::Mute));
    assert!((10_000..10_700).contains(&at), "{at}");
    // A word there makes up for that.
    assert_eq!(tunnel.look(at + 200, Look { proven: true, ..WAITS }), Verdict::Ping);
}

#[test]
fn a_peer_that_speaks_on_another_connection_for_ever_is_given_up_here_after_long() {
    for traffic in [Some(taken(0)), Some(lost(9)), None] {
        let mut tunnel = Tunnel::new();
        tunnel.look(0, Look { heard: true, talked: true, ..WAITS });
        let (at, verdict, _) = tunnel.until_verdict(200, Look { proven: true, traffic, ..WAITS });
        assert_eq!((at, verdict), (20_200, Verdict::Abandon(Silence::Unknown)));
    }
}

#[test]
fn nobody_is_asked_on_another_connection_whose_host_is_away_or_of_whom_nothing_is_expected() {
    for look in [Look { away: true, traffic: Some(lost(1)), ..WAITS }, QUIET] {
        let mut tunnel = Tunnel::new();
        tunnel.look(0, HEARD);
        for at in (200..20_000).step_by(100) {
            tunnel.look(at, look);
            assert!(!tunnel.liveness.take_doubt() && !tunnel.liveness.is_stalled(), "at {at}");
        }
    }
}

#[test]
fn the_side_that_accepts_waits_for_long_for_whose_kernel_takes_its_questions() {
    for (traffic, expected) in [(Some(taken(0)), 18), (None, 8)] {
        let mut tunnel = Tunnel::new();
        let accepts = Look { accepts: true, traffic, ..QUIET };
        tunnel.look(0, Look { heard: true, ..accepts });
        let at = (1..60).find(|at| tunnel.look(at * 1_000, accepts) == Verdict::Lost);
        assert_eq!(at, Some(expected));
    }
}

#[test]
fn nobody_waits_for_ever_where_the_kernel_tells_nothing() {
    let mut tunnel = Tunnel::new();
    let blind = Look { traffic: None, ..WAITS };
    tunnel.look(0, Look { heard: true, ..blind });
    assert_eq!(tunnel.until_verdict(200, blind), (5_200, Verdict::Abandon(Silence::Unknown), 1));
    assert_eq!(tunnel.until_verdict(5_400, Look { waits: false, ..blind }).1, Verdict::Lost);
    // What was lost is sent again, at last after more than three seconds.
    let mut stuck = Tunnel::new();
    stuck.look(0, Look { heard: true, ..WAITS });
    for at in 2..100 {
        let again = u32::try_from(at).unwrap().ilog2();
        let verdict = stuck.look(at * 100, Look { traffic: Some(lost(again)), ..WAITS });
        assert!([Verdict::Fine, Verdict::Ping].contains(&verdict), "at {at}: {verdict:?}");
    }
    let silent = Look { traffic: Some(lost(7)), ..WAITS };
    let (at, verdict, _) = stuck.until_verdict(10_000, silent);
    assert!(at <= 10_400 && verdict == Verdict::Abandon(Silence::Unknown), "{verdict:?} at {at}");
}

/// A peer of a random history: whether it runs, and how it and its way behave.
#[derive(Clone, Debug)]
struct Stretch {
    millis: u64,
    waits: bool,
    runs: bool,
    answers_after: u64,
}

fn stretch() -> impl Strategy<Value = Stretch> {
    (100_u64..3_000, any::<bool>(), prop::bool::weighted(0.8), 0_u64..350)
        .prop_map(|(millis, waits, runs, answers_after)| Stretch { millis, waits, runs, answers_after })
}

proptest! {
    #[test]
    fn a_peer_that_runs_is_never_left_and_one_that_does_not_is_left_in_time(
        stretches in prop::collection::vec(stretch(), 1..40),
        delays in prop::collection::vec(prop_oneof![9 => 0_u64..40, 1 => 100_u64..700], 64),
    ) {
        let mut tunnel = Tunnel::new();
        let (mut now, mut looks, mut waited) = (0_u64, 0, false);
        // Times at which questions are answered, and since when the peer has not run while a call waits.
        let mut answers: Vec<u64> = Vec::new();
        let (mut next, mut frozen_before) = (0, false);
        for stretch in stretches {
            let end = now + stretch.millis;
            if frozen_before && stretch.runs {
                // Thawed: it answers everything at once.
                answers.push(now);
            }
            frozen_before |= !stretch.runs;
            let mut delay_sum = 0;
            let mut stuck = if !stretch.runs && stretch.waits { Some(now) } else { None };
            if stretch.waits && !waited {
                next = next.min(now + tunnel.liveness.hurry(tunnel.start + Duration::from_millis(now)).as_millis() as u64);
            }
            waited = stretch.waits;
            while next < end {
                let delay = delays[looks % delays.len()];
                looks += 1;
                let at = next.max(now) + delay;
                if at >= end { break; }
                delay_sum += delay;
                let heard = stretch.runs && answers.iter().any(|answer| *answer <= at);
                if stretch.runs { answers.retain(|answer| *answer > at); }
                let look = Look { heard, waits: stretch.waits, ..WAITS };
                match tunnel.look(at, look) {
                    Verdict::Ping => answers.push(at + stretch.answers_after),
                    Verdict::Abandon(silence) => {
                        prop_assert!(frozen_before, "a peer that has always run is left: {silence:?}");
                        stuck = None;
                    }
                    Verdict::Fine | Verdict::Settled => {}
                    Verdict::Lost | Verdict::Idle => return Ok(()),
                }
                if let Some(since) = stuck && tunnel.liveness.lapses == 0 && delay_sum == 0 {
                    prop_assert!(at - since <= 1_300, "left too late: {}", at - since);
                }
                let instant = tunnel.start + Duration::from_millis(at);
                next = at + tunnel.liveness.next(instant, tunnel.settings.patience(false)).as_millis() as u64;
            }
            now = end;
        }
    }
}
