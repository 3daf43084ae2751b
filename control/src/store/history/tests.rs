use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::core::{Actor, Deed, Entry, Subject};

const NOW: Timestamp = Timestamp::from_unix(1_000_000_000);

fn entry(at: Timestamp, token: &str) -> Entry {
    let (subject, deed) = (Subject::Token(token.to_owned()), Deed::Created);
    Entry { at, actor: Actor::Control, deed, subject, before: None, after: None, token: None }
}

fn small(entries: usize, bytes: usize) -> Ledger {
    let bounds = Bounds { entries, bytes, age: Duration::from_secs(1_000) };
    Ledger { bounds, ..Ledger::default() }
}

/// Adds entries as a commit does.
fn add(ledger: &mut Ledger, rows: &mut Rows, revision: u64, entries: &[Entry], now: Timestamp) {
    let messages = entries.iter().map(Into::into).collect();
    let mut page = ledger.page((revision, now), messages, usize::MAX);
    for write in std::mem::take(&mut page.writes) {
        match write {
            Write::Put(key, row) => drop(rows.insert(key, row)),
            Write::Delete(key) => drop(rows.remove(&key)),
        }
    }
    ledger.turn(page);
}

fn places(ledger: &Ledger) -> Vec<(u64, u32)> {
    let places = ledger.rows.iter().flat_map(|(first, row)| row.places(*first));
    places.map(|(place, _)| (place.revision, place.number)).collect()
}

#[test]
fn the_oldest_entries_go_at_each_bound_and_with_them_what_can_be_told() {
    let mut rows = Rows::new();
    let mut ledger = small(3, usize::MAX);
    for revision in 1..=4 {
        add(&mut ledger, &mut rows, revision * 10, &[entry(NOW, "a")], NOW);
    }
    assert_eq!((places(&ledger), ledger.known_from()), (vec![(20, 0), (30, 0), (40, 0)], 10));
    let later = Timestamp::from_unix(NOW.unix() + 1_001);
    add(&mut ledger, &mut rows, 50, &[entry(later, "b")], later);
    assert_eq!((places(&ledger), ledger.known_from(), rows.len()), (vec![(50, 0)], 40, 1));

    let (mut rows, mut ledger) = (Rows::new(), small(100, 400));
    for revision in 1..=20 {
        add(&mut ledger, &mut rows, revision, &[entry(NOW, "a"), entry(NOW, "b")], NOW);
        assert!(ledger.bytes <= 400, "{}", ledger.bytes);
    }
    assert!(ledger.known_from() >= 15 && ledger.entries >= 2);
    let huge: Vec<Entry> = (0..50).map(|number| entry(NOW, &format!("token-{number}"))).collect();
    add(&mut ledger, &mut rows, 21, &huge, NOW);
    assert!(ledger.bytes <= 400 && rows.len() == ledger.rows.len() && ledger.known_from() == 21);
}

#[test]
fn entries_are_found_by_what_they_are_about_in_pages() {
    let mut ledger = small(100, usize::MAX);
    let mut rows = Rows::new();
    for revision in 1..=6 {
        let token = if revision % 2 == 0 { "even" } else { "odd" };
        let at = Timestamp::from_unix(NOW.unix() + revision);
        add(&mut ledger, &mut rows, revision, &[entry(at, token), entry(at, "each")], NOW);
    }
    let found = |filter: &Filter, before, limit| {
        let (places, next) = ledger.newest(filter, before, limit);
        let revisions: Vec<u64> = places.iter().map(|place| place.revision).collect();
        (revisions, next)
    };
    let even = Filter { name: Some("even".to_owned()), ..Filter::default() };
    let (first, next) = found(&even, None, (2, usize::MAX));
    assert_eq!((first, next), (vec![6, 4], Some(Place { revision: 4, number: 0 })));
    assert_eq!(found(&even, next, (2, usize::MAX)), (vec![2], None));
    assert_eq!(found(&even, None, (3, usize::MAX)), (vec![6, 4, 2], None), "no page is empty");
    assert_eq!(found(&even, None, (3, 0)).0, [6], "one at least");
    let since = Filter { since: Timestamp::from_unix(NOW.unix() + 6), ..Filter::default() };
    assert_eq!(found(&since, None, (100, usize::MAX)), (vec![6, 6], None));
    let host = Filter { kind: Some(SubjectKind::Host), ..Filter::default() };
    assert_eq!(found(&host, None, (100, usize::MAX)), (vec![], None));

    let first: Vec<(u64, u32)> =
        ledger.first_after(3, 5).into_iter().map(|place| (place.revision, place.number)).collect();
    assert_eq!(first, [(4, 0), (4, 1), (5, 0)], "of `each` the one of revision 4 alone");
}

#[test]
fn an_entry_that_is_damaged_and_those_before_it_tell_nothing_and_go() {
    let (mut ledger, mut rows) = (Ledger::default(), Rows::new());
    for revision in 1..=4 {
        add(&mut ledger, &mut rows, revision, &[entry(NOW, "a")], NOW);
    }
    rows.insert(Place { revision: 2, number: 0 }.key(), vec![0xff; 4]);
    rows.insert(format!("{HISTORY}unknown"), vec![1]);
    let mut ledger = Ledger::read(&rows, 0);
    assert_eq!((ledger.known_from(), ledger.rows.len(), ledger.entries), (2, 4, 3));
    add(&mut ledger, &mut rows, 5, &[entry(NOW, "a")], NOW);
    assert_eq!(places(&ledger), [(3, 0), (4, 0), (5, 0)]);
    assert!(rows.contains_key(&format!("{HISTORY}unknown")), "a later version's");
}

#[test]
fn many_entries_share_rows_of_bounded_size_and_are_found_in_each() {
    let (mut ledger, mut rows) = (Ledger::default(), Rows::new());
    let many: Vec<Entry> = (0..4_000).map(|number| entry(NOW, &format!("token-{number}"))).collect();
    add(&mut ledger, &mut rows, 7, &many, NOW);
    let messages: Vec<v1::HistoryEntry> = many.iter().map(Into::into).collect();
    assert!(rows.len() > 1 && rows.len() <= super::rows(size(&messages)), "{}", rows.len());
    assert!(rows.values().all(|row| row.len() <= ROW) && size(&messages) >= ledger.bytes);
    assert_eq!(ledger.first_after(6, 7).len(), 4_000);
    let name = Some("token-3999".to_owned());
    let (places, _) = ledger.newest(&Filter { name, ..Filter::default() }, None, (1, 1));
    let (row, place) = ledger.rows_of(places)[0];
    let read = read(rows.get(&row.key()).cloned());
    let found = read.iter().find(|entry| Place::of_entry(entry) == place).unwrap();
    assert_eq!((found.name.as_str(), found.revision), ("token-3999", 7));

    // A store that takes little at once loses its oldest rows little by little.
    let mut tight = small(10, usize::MAX);
    (1..=10).for_each(|revision| add(&mut tight, &mut rows, revision, &[entry(NOW, "a")], NOW));
    let late = Timestamp::from_unix(NOW.unix() + 2_000);
    let page = tight.page((11, late), vec![(&entry(late, "b")).into()], 4);
    assert_eq!((page.writes.len(), page.gone.len(), page.known_from), (4, 3, 3));
}

proptest! {
    #[test]
    fn a_ledger_that_is_read_is_the_one_that_was_kept(
        commits in prop::collection::vec((prop::collection::vec(0_u8..4, 0..6), 0_u64..800), 1..30),
    ) {
        let (mut ledger, mut rows, mut now) = (small(12, 900), Rows::new(), NOW);
        for (revision, (tokens, passed)) in (1..).zip(commits) {
            now = Timestamp::from_unix(now.unix() + passed);
            let entries: Vec<Entry> = tokens.iter().map(|token| entry(now, &token.to_string())).collect();
            if !entries.is_empty() {
                add(&mut ledger, &mut rows, revision, &entries, now);
            }
            let read = Ledger::read(&rows, ledger.known_from());
            prop_assert_eq!(&read.rows, &ledger.rows);
            prop_assert_eq!((read.bytes, read.entries), (ledger.bytes, ledger.entries));
            prop_assert!(ledger.entries <= 12 && ledger.bytes <= 900);
            let sum: usize = rows.iter().map(|(key, row)| key.len() + row.len()).sum();
            prop_assert_eq!(sum, ledger.bytes);
            let keys: BTreeSet<String> = ledger.rows.keys().map(|place| place.key()).collect();
            prop_assert_eq!(keys, rows.keys().cloned().collect());
        }
    }
}
