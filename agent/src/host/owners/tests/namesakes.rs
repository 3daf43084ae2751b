//! Workloads of one name on two hosts.

use super::*;

/// The namesakes of `host`'s workload: their hosts, with a mark where all others go by that of `host`.
fn found(snapshot: &NetworkSnapshot, host: u8, own: &Workload, words: &Words) -> Vec<(NodeName, bool)> {
    let shop = "shop".parse().unwrap();
    let found = namesakes(&snapshot.content, &name(host), &[own], words.of(&shop));
    found.into_iter().map(|Namesake { owner, is_ours, .. }| (owner, is_ours)).collect()
}

#[test]
fn both_hosts_of_a_name_know_whose_workload_the_others_go_by() {
    let (one, other) = (workload(1, 5), workload(2, 5));
    let words =
        [(1, facts(1, 2, std::slice::from_ref(&one))), (2, facts(1, 2, std::slice::from_ref(&other)))];
    let check = |known: &[(u8, OwnerFacts)], winner: u8| {
        let snapshot = told(&[0, 1, 2], known);
        let seen = merged(&snapshot, vec![], &heard(&words));
        assert_eq!(seen, [format!("wl-5@host-{winner}")], "by a third host");
        assert_eq!(found(&snapshot, 1, &one, &heard(&words[1..])), [(name(2), winner == 1)]);
        assert_eq!(found(&snapshot, 2, &other, &heard(&words[..1])), [(name(1), winner == 2)]);
    };
    check(&[], 1);
    check(&[(2, facts(1, 1, &[workload(2, 5)]))], 2);
    check(&[(2, facts(1, 1, &[at(2, 5, "10.42.2.99")]))], 2);
    check(&[(1, facts(1, 1, &[workload(1, 5)]))], 1);
}

#[test]
fn who_is_not_believed_or_has_another_name_is_no_namesake() {
    let own = workload(1, 5);
    let snapshot = told(&[0, 1, 2], &[]);
    for theirs in [workload(2, 6), at(2, 5, "10.42.0.7"), workload(3, 5)] {
        let words = heard(&[(2, facts(1, 2, std::slice::from_ref(&theirs)))]);
        assert_eq!(found(&snapshot, 1, &own, &words), [], "{theirs:?}");
    }
    let stranger = heard(&[(7, facts(1, 2, &[workload(7, 5)]))]);
    assert_eq!(found(&snapshot, 1, &own, &stranger), [], "control has no such host");
    let heard_by_control = told(&[0, 1, 2], &[(2, facts(1, 2, &[]))]);
    let words = heard(&[(2, facts(1, 1, &[workload(2, 5)]))]);
    assert_eq!(found(&heard_by_control, 1, &own, &words), [], "it has ended");
}
