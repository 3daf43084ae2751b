//! Words that are ahead of everything, or behind what their owners have said.

use super::*;

#[test]
fn a_start_that_is_yet_to_come_is_believed_once_control_knows_of_it_and_closes_nobodys_mouth() {
    const NOW: u64 = 1_700_000_000;
    let snapshot = |reported: u64| told(&[0, 1], &[(1, facts(reported, 1, &[]))]);
    let told_of = |reported: u64| latest(&snapshot(reported).content, &name(1), NOW);
    assert_eq!([told_of(5), told_of(NOW + 7)], [NOW + SKEW, NOW + 7 + SKEW]);
    let mut words = Words::default();
    let say = |words: &mut Words, incarnation, number| {
        words.hear(name(1), facts(incarnation, 1, &[workload(1, number)]), (true, told_of(5)))
    };
    assert!(say(&mut words, NOW, 1));
    assert!(!say(&mut words, NOW + SKEW + 1, 2), "its clock is more than a day ahead");
    let said: Vec<String> = words.doubts().collect();
    assert!(said[0].contains("node host-1") && said[0].contains("a day ahead"), "{said:?}");
    assert!(
        said[0].contains("up to 2023-11-15T22:13:21Z") && said[0].contains("from 2023-11-14T22:13:21Z on")
    );
    let mut later = words.clone();
    assert!(!later.weigh(&snapshot(5).content, NOW) && later.weigh(&snapshot(5).content, NOW + 1));
    assert_eq!(later.doubts().count(), 0, "a clock that was wrong is right now");
    let control = snapshot(NOW + SKEW + 1);
    words.dismiss(None, &control.content);
    assert_eq!(
        (merged(&control, vec![], &words), words.doubts().count()),
        (vec![], 0),
        "control says the same"
    );
    let content = &snapshot(5).content;
    let newest = words.of(&content.network.name).unwrap()[&name(1)].facts.edition();
    assert_eq!(newest.incarnation, NOW + SKEW + 1, "what waited is taken");
    // As if an older version had taken it.
    words.recall(name(1), facts(u64::MAX, u64::MAX, &[workload(1, 9)]));
    assert!(say(&mut words, NOW + 3, 3), "who cannot have started yet keeps nobody from speaking");
    assert_eq!(merged(&snapshot(5), vec![], &words), ["wl-3@host-1"]);
}

#[test]
fn what_is_ahead_of_everything_is_counted_and_kept_in_mind_of_members_until_control_has_heard_as_much() {
    let mut words = Words::default();
    let ahead = facts(SKEW + 9, 1, &[workload(1, 1)]);
    let office = OwnerFacts { network: "office".parse().unwrap(), ..ahead.clone() };
    for (owner, facts, is_member) in [(1, &ahead, true), (7, &ahead, false), (2, &office, true)] {
        assert!(!words.hear(name(owner), facts.clone(), (is_member, SKEW)));
    }
    let doubted = |words: &Words| words.doubts().map(|doubt| doubt[..11].to_owned()).collect::<Vec<_>>();
    let mut twice = words.clone();
    assert!(!twice.hear(name(1), office.clone(), (true, SKEW)));
    assert_eq!(doubted(&twice), ["node host-1", "node host-2"], "one sentence for all networks");
    assert!(twice.doubts().next().unwrap().contains("in networks office, shop what"));
    assert_eq!(
        (words.poll_refused(), doubted(&words)),
        (3, vec!["node host-2".to_owned(), "node host-1".to_owned()])
    );
    let heard = |hosts: &[u8], incarnation| told(hosts, &[(1, facts(incarnation, 1, &[]))]).content;
    words.dismiss(None, &heard(&[0, 1], 8));
    assert_eq!((words.poll_refused(), doubted(&words).len()), (0, 2), "control has not heard enough");
    let mut gone = words;
    words = Words { networks: gone.networks.clone(), doubts: gone.doubts.clone(), refused: 0 };
    words.dismiss(None, &heard(&[0, 1], 9));
    assert_eq!(
        (doubted(&words), words.of(&ahead.network).unwrap().len()),
        (vec!["node host-2".to_owned()], 1)
    );
    gone.dismiss(None, &heard(&[0], 8));
    assert_eq!(
        doubted(&gone),
        ["node host-2"],
        "who is no member says nothing; another network is another matter"
    );
}

#[test]
fn a_host_that_says_more_than_others_keep_is_refused() {
    let mut words = Words::default();
    let many = |count: usize| facts(1, count as u64, &vec![workload(1, 1); count]);
    assert!(words.hear(name(1), many(MOST_WORKLOADS), (true, u64::MAX)));
    assert!(!words.hear(name(1), many(MOST_WORKLOADS + 1), (true, u64::MAX)));
    assert_eq!(words.poll_refused(), 1);
}

#[test]
fn an_owner_that_says_less_than_it_has_said_is_named_until_it_says_more_or_falls_silent() {
    let said = |steps: &[(u64, u64)]| {
        let mut words = Words::default();
        for (incarnation, revision) in steps {
            words.hear(name(1), facts(*incarnation, *revision, &[]), (true, 100));
        }
        words
    };
    let check = |steps: &[(u64, u64)], expected: Option<&str>| {
        let doubts: Vec<String> = said(steps).doubts().collect();
        assert_eq!(doubts.len(), expected.iter().len(), "{steps:?}");
        assert!(expected.is_none_or(|part| doubts[0].contains(part)), "{doubts:?}");
    };
    check(&[(3, 9), (4, 1)], None);
    check(&[(3, 9), (3, 9)], None);
    check(&[(3, 9), (3, 8)], Some("older (3.8) than what it has said before (3.9)"));
    check(&[(3, 9), (2, 11), (4, 1)], None);
    check(&[(100, 9), (100, 8)], Some("older (100.8) than what it has said before (100.9)"));
    let mut words = said(&[(3, 9), (3, 8)]);
    words.fall_silent(&name(1));
    assert_eq!(words.doubts().count(), 0);
}
