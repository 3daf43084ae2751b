use super::*;

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn network(name: &str) -> NetworkName {
    name.parse().unwrap()
}

fn at(revision: u64) -> Generation {
    Generation { epoch: 1, revision }
}

fn carriers(names: &[&str]) -> Arc<BTreeSet<NodeName>> {
    Arc::new(names.iter().map(|name| node(name)).collect())
}

/// Hosts a and b carry network shop at revision 5 and are connected; both have it.
fn tracker() -> Tracker {
    let mut tracker = Tracker::default();
    tracker.publish(&network("shop"), at(5), &carriers(&["a", "b"]));
    for name in ["a", "b"] {
        tracker.connect(node(name), &[(network("shop"), at(5))].into());
    }
    tracker
}

fn change(tracker: &mut Tracker, revision: u64, sequence: u64) {
    tracker.publish(&network("shop"), at(revision), &carriers(&["a", "b"]));
    tracker.report(&node("a"), sequence, &[network("shop")].into());
}

fn settled(tracker: &mut Tracker) -> Option<u64> {
    tracker.poll_settled().remove(&node("a"))
}

#[test]
fn a_report_settles_when_every_connected_carrier_has_its_change() {
    let mut tracker = tracker();
    change(&mut tracker, 6, 1);
    assert_eq!(settled(&mut tracker), None);
    tracker.acknowledge(&node("a"), &network("shop"), at(6));
    assert_eq!(settled(&mut tracker), None);
    assert_eq!(tracker.behind(), [(node("b"), vec![network("shop")])].into());
    tracker.acknowledge(&node("b"), &network("shop"), at(7));
    assert_eq!(settled(&mut tracker), Some(1));
}

#[test]
fn a_later_generation_settles_all_reports_before_it() {
    let mut tracker = tracker();
    change(&mut tracker, 6, 1);
    change(&mut tracker, 7, 2);
    tracker.acknowledge(&node("a"), &network("shop"), at(7));
    tracker.acknowledge(&node("b"), &network("shop"), at(6));
    assert_eq!(settled(&mut tracker), Some(1));
    tracker.acknowledge(&node("b"), &network("shop"), at(7));
    assert_eq!(settled(&mut tracker), Some(2));
}

#[test]
fn a_broken_stream_is_not_waited_for_and_a_new_one_is() {
    let mut tracker = tracker();
    change(&mut tracker, 6, 1);
    tracker.acknowledge(&node("a"), &network("shop"), at(6));
    tracker.disconnect(&node("b"));
    assert_eq!(settled(&mut tracker), Some(1));

    tracker.connect(node("b"), &[(network("shop"), at(5))].into());
    change(&mut tracker, 7, 2);
    tracker.acknowledge(&node("a"), &network("shop"), at(7));
    assert_eq!(settled(&mut tracker), None);
    tracker.acknowledge(&node("b"), &network("shop"), at(7));
    assert_eq!(settled(&mut tracker), Some(2));
}

#[test]
fn a_report_without_changes_settles_at_once_when_nobody_is_behind() {
    let mut tracker = tracker();
    tracker.report(&node("a"), 1, &BTreeSet::new());
    assert_eq!(settled(&mut tracker), Some(1));
    tracker.publish(&network("shop"), at(6), &carriers(&["a", "b"]));
    tracker.report(&node("a"), 2, &BTreeSet::new());
    assert_eq!(settled(&mut tracker), None);
    tracker.acknowledge(&node("a"), &network("shop"), at(6));
    tracker.acknowledge(&node("b"), &network("shop"), at(6));
    assert_eq!(settled(&mut tracker), Some(2));
}

#[test]
fn a_removed_network_and_a_leaving_carrier_are_not_waited_for() {
    let mut tracker = tracker();
    change(&mut tracker, 6, 1);
    tracker.acknowledge(&node("a"), &network("shop"), at(6));
    tracker.publish(&network("shop"), at(7), &carriers(&["a"]));
    assert_eq!(settled(&mut tracker), Some(1));
    tracker.report(&node("a"), 2, &[network("shop")].into());
    assert_eq!(settled(&mut tracker), None);
    tracker.remove(&network("shop"));
    assert_eq!(settled(&mut tracker), Some(2));
}

#[test]
fn acknowledgements_of_another_epoch_count_for_nothing() {
    let mut tracker = tracker();
    change(&mut tracker, 6, 1);
    tracker.acknowledge(&node("a"), &network("shop"), at(6));
    tracker.acknowledge(&node("b"), &network("shop"), Generation { epoch: 2, revision: 99 });
    assert_eq!(settled(&mut tracker), None);
}

#[test]
fn what_an_old_stream_reported_does_not_settle_the_new_ones_reports() {
    let mut tracker = tracker();
    change(&mut tracker, 6, 1);
    tracker.disconnect(&node("a"));
    tracker.connect(node("a"), &[(network("shop"), at(6))].into());
    change(&mut tracker, 7, 1);
    tracker.acknowledge(&node("b"), &network("shop"), at(6));
    assert_eq!(settled(&mut tracker), None);
}

#[test]
fn who_is_given_up_is_not_waited_for_until_it_acknowledges_again() {
    let mut tracker = tracker();
    let shop = network("shop");
    change(&mut tracker, 6, 1);
    tracker.acknowledge(&node("a"), &shop, at(6));
    assert_eq!(settled(&mut tracker), None);
    assert_eq!(tracker.late_levels().into_keys().collect::<Vec<_>>(), [(node("b"), shop.clone())]);
    tracker.give_up(&node("b"), &shop);
    assert_eq!((settled(&mut tracker), tracker.known_to_all(&shop)), (Some(1), Some(6)));
    assert_eq!(tracker.given_up().into_keys().collect::<Vec<_>>(), [node("b")]);

    change(&mut tracker, 7, 2);
    tracker.acknowledge(&node("a"), &shop, at(7));
    assert_eq!(settled(&mut tracker), Some(2), "nor for what comes then");
    tracker.acknowledge(&node("b"), &shop, at(6));
    assert!(tracker.given_up().is_empty() && tracker.known_to_all(&shop) == Some(6));
    tracker.give_up(&node("b"), &shop);
    tracker.disconnect(&node("b"));
    assert!(tracker.given_up().is_empty() && tracker.known_to_all(&shop).is_none(), "it is away");
}

#[test]
fn a_host_that_is_away_has_not_confirmed_what_was_changed_since() {
    let mut tracker = tracker();
    tracker.disconnect(&node("b"));
    assert!(tracker.unconfirmed().is_empty(), "it had everything when it went away");
    change(&mut tracker, 6, 1);
    assert_eq!(tracker.unconfirmed(), [(node("b"), vec![network("shop")])].into());
    tracker.connect(node("b"), &[(network("shop"), at(6))].into());
    assert!(tracker.unconfirmed().is_empty());
    tracker.publish(&network("shop"), at(7), &carriers(&["b", "c"]));
    assert_eq!(
        tracker.unconfirmed(),
        [(node("c"), vec![network("shop")])].into(),
        "nobody knows what it has"
    );
    tracker.disconnect(&node("b"));
    tracker.retain(|known| *known != node("b"));
    assert!(tracker.away.is_empty(), "a host that was removed is forgotten");
}
