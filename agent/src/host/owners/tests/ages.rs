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
    let mut words = said(&[(3, 9), (3, 8)]);
    words.fall_silent(&name(1));
    assert_eq!(words.doubts().count(), 0);
}
