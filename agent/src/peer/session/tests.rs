//! Conversations over connections that lose, and hosts that start again.

mod histories;

use std::sync::Arc;

use sealane_proto::peer::FactsPart;
use sealane_proto::resource::{Edition, OwnerFacts};
use sealane_proto::types::{NetworkName, NodeName};

use super::*;
use crate::testing;

fn network(name: &str) -> NetworkName {
    name.parse().unwrap()
}

fn facts_of(owner: &str, network: &str, edition: (u64, u64), names: &[&str]) -> OwnerFacts {
    let workload = |name: &&str| {
        let mut workload = testing::workload(name, "10.42.1.3");
        workload.node = owner.parse().unwrap();
        workload.network = network.parse().unwrap();
        workload.ready = edition.1.is_multiple_of(2);
        workload
    };
    OwnerFacts {
        network: network.parse().unwrap(),
        incarnation: edition.0,
        revision: edition.1,
        workloads: names.iter().map(workload).collect(),
    }
}

fn said(all: &[OwnerFacts]) -> Said {
    let all = all.iter().map(|facts| (facts.network.clone(), Arc::new(facts.clone()))).collect();
    SaidFacts::all(&all, &Arc::default())
}

fn shared(names: &[&str]) -> BTreeSet<NetworkName> {
    names.iter().map(|name| network(name)).collect()
}

fn heard_of(owner: &str) -> Heard {
    Heard::of(owner.parse::<NodeName>().unwrap())
}

/// Two hosts in conversation: `a` on the left, `b` on the right.
struct Pair {
    a: Session,
    b: Session,
    now: Instant,
    frames: usize,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let (a, b) = (Session::new("1", heard_of("b"), now), Session::new("1", heard_of("a"), now));
        Self { a, b, now, frames: 0 }
    }

    /// Both say what they have to until nobody has.
    fn talk(&mut self) -> Result<(), Fault> {
        loop {
            let (from_a, from_b) = (self.a.poll_frame(self.now), self.b.poll_frame(self.now));
            if from_a.is_none() && from_b.is_none() {
                return Ok(());
            }
            self.frames += from_a.iter().count() + from_b.iter().count();
            from_a.map_or(Ok(()), |frame| self.b.handle_frame(frame, self.now))?;
            from_b.map_or(Ok(()), |frame| self.a.handle_frame(frame, self.now))?;
        }
    }

    /// The connection is lost and made anew.
    fn reconnect(&mut self, lasting: [bool; 2]) {
        let now = self.now;
        let again = |session: &mut Session, owner: &str, lasting: bool| {
            let before = std::mem::replace(session, Session::new("1", heard_of(owner), now));
            if lasting {
                *session = Session::new("1", before.into_heard(), now);
            }
        };
        again(&mut self.a, "b", lasting[0]);
        again(&mut self.b, "a", lasting[1]);
    }

    fn news_at_b(&mut self) -> Vec<OwnerFacts> {
        std::iter::from_fn(|| self.b.poll_heard()).collect()
    }
}

#[test]
fn facts_are_heard_and_a_change_costs_a_part_and_an_answer() {
    let mut pair = Pair::new();
    let many: Vec<String> = (0..2_000).map(|n| format!("api-{n}")).collect();
    let mut names: Vec<&str> = many.iter().map(String::as_str).collect();
    names.sort_unstable();
    let first = facts_of("a", "shop", (3, 2), &names);
    pair.a.handle_facts(said(std::slice::from_ref(&first)), &shared(&["shop"]));
    pair.b.handle_facts(said(&[]), &shared(&["shop"]));
    pair.talk().unwrap();
    assert_eq!(pair.news_at_b(), std::slice::from_ref(&first));
    assert!(pair.frames > 8, "{} frames of at most 64 KiB", pair.frames);

    let mut second = first;
    second.revision = 3;
    second.workloads.remove(7);
    second.workloads[9].ready = false;
    pair.frames = 0;
    pair.a.handle_facts(said(std::slice::from_ref(&second)), &shared(&["shop"]));
    pair.talk().unwrap();
    assert_eq!((pair.news_at_b(), pair.frames), (vec![second], 2));
}

#[test]
fn after_a_loss_only_what_differs_is_told_and_the_rest_counts_again() {
    let mut pair = Pair::new();
    let both = [facts_of("a", "blog", (3, 1), &["web-1"]), facts_of("a", "shop", (3, 1), &["api-1"])];
    pair.a.handle_facts(said(&both), &shared(&["blog", "shop"]));
    pair.b.handle_facts(said(&[]), &shared(&["blog", "shop"]));
    pair.talk().unwrap();
    assert_eq!(pair.news_at_b(), both);
    pair.reconnect([true, true]);
    let first = std::mem::take(&mut pair.frames);
    let changed = facts_of("a", "shop", (3, 2), &["api-1", "api-2"]);
    pair.a.handle_facts(said(&[both[0].clone(), changed.clone()]), &shared(&["blog", "shop"]));
    pair.talk().unwrap();
    assert_eq!(pair.news_at_b(), [both[0].clone(), changed]);
    assert_eq!(
        (first, pair.frames),
        (8, 6),
        "a hello and a digest of each, and per network a part and its answer"
    );
}

#[test]
fn a_change_has_arrived_once_the_peer_works_by_it_and_what_an_older_version_has_heard_counts() {
    let mut pair = Pair::new();
    let progress = |pair: &mut Pair| {
        let acknowledged = pair.a.take_acknowledged()?.remove(&network("shop"))?;
        Some((acknowledged.heard.revision, acknowledged.works_by.revision))
    };
    let works = |revision| [(network("shop"), Edition { incarnation: 1, revision })].into();
    pair.a.handle_facts(said(&[facts_of("a", "shop", (1, 1), &["api"])]), &shared(&["shop"]));
    pair.b.handle_facts(Said::default(), &shared(&["shop"]));
    pair.talk().unwrap();
    assert_eq!(progress(&mut pair), Some((1, 0)));
    pair.b.handle_works(&works(1));
    pair.talk().unwrap();
    assert_eq!((progress(&mut pair), progress(&mut pair)), (Some((1, 1)), None));
    let frames = pair.frames;
    pair.b.handle_works(&works(1));
    pair.talk().unwrap();
    assert_eq!(pair.frames, frames, "it is said once");
    pair.reconnect([true, true]);
    pair.a.handle_facts(said(&[facts_of("a", "shop", (1, 1), &["api"])]), &shared(&["shop"]));
    pair.talk().unwrap();
    assert_eq!(progress(&mut pair), Some((1, 0)), "the next connection says it anew");

    let mut old = Pair::new();
    let hello = PeerHello { tells_works: false, ..PeerHello::own("0.9") };
    old.a.handle_frame(PeerFrame::Hello(hello), old.now).unwrap();
    old.b.poll_frame(old.now);
    old.a.handle_facts(said(&[facts_of("a", "shop", (1, 1), &["api"])]), &shared(&["shop"]));
    old.b.handle_facts(Said::default(), &shared(&["shop"]));
    old.talk().unwrap();
    assert_eq!(progress(&mut old), Some((1, 1)));
}

#[test]
fn what_is_said_of_a_network_before_both_carry_it_is_heard_once_they_do() {
    let mut pair = Pair::new();
    let facts = facts_of("a", "shop", (1, 1), &["api-1"]);
    pair.a.handle_facts(said(std::slice::from_ref(&facts)), &shared(&["shop"]));
    pair.talk().unwrap();
    assert_eq!(pair.news_at_b(), []);
    pair.b.handle_facts(said(&[]), &shared(&["shop"]));
    assert_eq!(pair.news_at_b(), std::slice::from_ref(&facts));
    // One that left and came back begins with what it is told again.
    pair.b.handle_facts(said(&[]), &shared(&[]));
    pair.b.handle_facts(said(&[]), &shared(&["shop"]));
    assert_eq!(pair.news_at_b(), [facts]);
}

#[test]
fn facts_of_networks_that_the_peer_does_not_carry_stay_here() {
    let mut pair = Pair::new();
    let all = [facts_of("a", "blog", (1, 1), &["web-1"]), facts_of("a", "shop", (1, 1), &["api-1"])];
    pair.a.handle_facts(said(&all), &shared(&["shop"]));
    pair.talk().unwrap();
    assert!(pair.b.heard.all_held().iter().all(|held| held.network == network("shop")));
}

#[test]
fn a_digest_that_differs_has_everything_told_anew() {
    let mut pair = Pair::new();
    let facts = facts_of("a", "shop", (1, 1), &["api-1"]);
    pair.a.handle_facts(said(std::slice::from_ref(&facts)), &shared(&["shop"]));
    pair.b.handle_facts(said(&[]), &shared(&["shop"]));
    pair.talk().unwrap();
    assert_eq!(pair.news_at_b(), std::slice::from_ref(&facts));
    // As if memory had been corrupted.
    pair.b.heard = heard_of("a");
    pair.b.handle_facts(said(&[]), &shared(&["shop"]));
    pair.now += DIGEST;
    pair.talk().unwrap();
    assert_eq!((pair.news_at_b(), pair.a.take_disagreements()), (vec![facts], 1));
}

#[test]
fn workloads_of_another_host_or_network_are_refused_and_counted() {
    let mut pair = Pair::new();
    let mut facts = facts_of("a", "shop", (1, 1), &["api-1", "api-2", "api-3"]);
    facts.workloads[0].node = "c".parse().unwrap();
    facts.workloads[2].network = network("blog");
    pair.a.handle_facts(said(std::slice::from_ref(&facts)), &shared(&["shop"]));
    pair.b.handle_facts(said(&[]), &shared(&["shop"]));
    pair.talk().unwrap();
    let names: Vec<_> = pair.news_at_b().remove(0).workloads.into_iter().map(|known| known.name).collect();
    assert_eq!((names, pair.b.take_refused()), (vec!["api-2".parse().unwrap()], 2));
    // Both agree on what was said, whatever was made of it.
    pair.now += DIGEST;
    pair.talk().unwrap();
    assert_eq!(pair.a.take_disagreements(), 0);
}

#[test]
fn both_sides_give_signs_of_life_and_who_is_silent_is_given_up() {
    let mut pair = Pair::new();
    pair.talk().unwrap();
    for _ in 0..30 {
        pair.now = pair.a.due().min(pair.b.due());
        pair.a.handle_time(pair.now).unwrap();
        pair.b.handle_time(pair.now).unwrap();
        pair.talk().unwrap();
    }
    assert!(pair.a.is_greeted() && pair.b.is_greeted());
    let begin = pair.now;
    while pair.now < begin + SILENCE {
        assert_eq!(pair.b.handle_time(pair.now), Ok(()));
        pair.b.poll_frame(pair.now);
        pair.now = pair.b.due();
    }
    assert_eq!(pair.b.handle_time(pair.now), Err(Fault::Silent));
}

#[test]
fn what_has_no_place_ends_the_conversation() {
    let now = Instant::now();
    let part = |base, last| {
        let edition = Edition { incarnation: 1, revision: 2 };
        let network = network("shop");
        PeerFrame::Facts(FactsPart { network, edition, base, workloads: vec![], gone: vec![], last })
    };
    let hear = |frames: &[PeerFrame]| {
        let mut session = Session::new("1", heard_of("a"), now);
        frames.iter().try_for_each(|frame| session.handle_frame(frame.clone(), now))
    };
    let hello = PeerFrame::Hello(PeerHello::own("1"));
    assert_eq!(hear(&[part(None, true)]), Err(Fault::Unexpected));
    assert_eq!(hear(&[PeerFrame::Hint(BTreeSet::new())]), Err(Fault::Unexpected));
    assert_eq!(hear(&[PeerFrame::Alive, hello.clone(), part(None, true)]), Ok(()));
    assert_eq!(hear(&[hello.clone(), part(Some(7), true)]), Ok(()), "it is answered with what is there");
    assert_eq!(hear(&[hello.clone(), hello]), Err(Fault::Unexpected));
    let later = PeerFrame::Hello(PeerHello { protocol: 9, oldest: 8, ..PeerHello::own("9") });
    assert_eq!(hear(&[later]), Err(Fault::Protocol("9".to_owned())));
}

#[test]
fn hints_arrive_together_and_bounded_and_none_outlives_its_connection() {
    let mut pair = Pair::new();
    let about = |from: usize, to: usize| -> BTreeSet<NodeName> {
        (from..to).map(|number| format!("host-{number:05}").parse().unwrap()).collect()
    };
    pair.a.give_hint(about(0, 1));
    assert!(!pair.b.has_hints());
    pair.talk().unwrap();
    pair.a.give_hint(about(1, 3));
    pair.talk().unwrap();
    assert_eq!((pair.b.has_hints(), pair.b.take_hints()), (true, about(0, 3)));
    assert!(!pair.b.has_hints() && !pair.a.has_hints());
    pair.a.give_hint(about(0, 9_000));
    pair.talk().unwrap();
    let flood = |round: usize| PeerFrame::Hint(about(9_000 + round * HINTED, 9_000 + (round + 1) * HINTED));
    (0..100).try_for_each(|round| pair.b.handle_frame(flood(round), pair.now)).unwrap();
    assert_eq!(pair.b.take_hints().len(), HINTED);
    let long = PeerFrame::Hint(about(0, HINTED + 1));
    assert_eq!(pair.b.handle_frame(long, pair.now), Err(Fault::TooMuch), "nobody says so many at once");
    pair.a.give_hint(about(0, 1));
    pair.reconnect([true, true]);
    pair.talk().unwrap();
    assert!(!pair.b.has_hints());
}

#[test]
fn nobody_tells_of_more_than_one_host_may_have() {
    let (now, mut session) = (Instant::now(), Session::new("1", heard_of("a"), Instant::now()));
    session.handle_frame(PeerFrame::Hello(PeerHello::own("1")), now).unwrap();
    let mut rounds = 0;
    let fault = loop {
        let names: Vec<String> = (0..500).map(|name| format!("{name}-{rounds}")).collect();
        let part = FactsPart {
            network: network("shop"),
            edition: Edition { incarnation: 1, revision: 1 },
            base: None,
            workloads: vec![],
            gone: names,
            last: false,
        };
        rounds += 1;
        if let Err(fault) = session.handle_frame(PeerFrame::Facts(part), now) {
            break fault;
        }
    };
    assert_eq!((fault, rounds), (Fault::TooMuch, 65));
    assert_eq!(session.into_heard().all_held(), []);
}
