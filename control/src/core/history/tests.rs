use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use sealane_proto::document::{Document, DocumentId};
use sealane_proto::token::TokenSecret;
use sealane_proto::wire::v1;

use super::*;
use crate::core::model::{self, Step};
use crate::core::{
    Apply, Change, Command, CreateToken, DrainNode, JoinNode, PurgeTokens, RemoveNode, RevokeToken, Rollback,
    State,
};

const NOW: Timestamp = Timestamp::from_unix(100);

fn ada() -> Actor {
    let (user, login) = (Some("root".to_owned()), Some("ada".to_owned()));
    let operator = Operator { uid: Some(0), user, login_uid: Some(1_000), login, verb: "apply".to_owned() };
    Actor::Operator(operator)
}

/// Makes changes, and returns the entries about them.
fn noted(state: &mut State, changes: &[Change]) -> Vec<Entry> {
    let before = state.clone();
    let entries = entries(state, changes, &ada(), NOW);
    assert_eq!(*state, before, "a look changes nothing");
    changes.iter().for_each(|change| state.apply(change));
    entries
}

/// Runs a command, and returns what became of what.
fn run<C: Command>(state: &mut State, command: C) -> Vec<String> {
    let decision = command.decide(state, NOW).unwrap_or_else(|refusal| panic!("{refusal}"));
    let entries = noted(state, &decision.changes);
    let words =
        |entry: &Entry| format!("{} {} {}", entry.subject.kind(), entry.subject.name(), entry.deed.word());
    entries.iter().map(words).collect()
}

/// An entry as it is kept, at its place.
fn message(entry: &Entry, revision: u64, place: u32) -> v1::HistoryEntry {
    v1::HistoryEntry { revision, place, ..entry.into() }
}

fn documents(state: &State) -> BTreeMap<DocumentId, Former> {
    Declared::everywhere(state).map(|declared| (declared.document.id(), Former::Known(declared))).collect()
}

fn join(state: &mut State, host: &str, last: u8) -> Vec<String> {
    let node = sealane_proto::resource::Node {
        name: host.parse().unwrap(),
        underlay: format!("192.0.2.{last}").parse().unwrap(),
        mtu: None,
    };
    let (token, secret) = ("abcd2345".to_owned(), TokenSecret::new([7; 20]));
    run(state, JoinNode { token, secret, node, key: [last; 32], gone: None })
}

#[test]
fn members_and_tokens_have_a_history_without_what_control_forgets_and_without_secrets() {
    let mut state = State::default();
    let token = CreateToken {
        id: "abcd2345".into(),
        hash: TokenSecret::new([7; 20]).hash(),
        ttl: std::time::Duration::from_secs(3_600),
        uses: None,
        node: None,
        networks: Default::default(),
    };
    let made = token.clone().decide(&state, NOW).unwrap().changes;
    let entries = noted(&mut state, &made);
    assert_eq!((entries.len(), entries[0].deed), (1, Deed::Created));
    let bytes = message(&entries[0], 1, 0).encode_to_vec();
    assert!(!bytes.windows(8).any(|window| token.hash.starts_with(window)), "the secret's hash is kept");

    assert_eq!(join(&mut state, "host-1", 1), ["Host host-1 joined"]);
    assert!(join(&mut state, "host-1", 1).is_empty(), "it is what it was");
    let drain = |drained| DrainNode { name: "host-1".parse().unwrap(), drained };
    assert_eq!(run(&mut state, drain(true)), ["Host host-1 drained"]);
    assert!(run(&mut state, drain(true)).is_empty());
    assert_eq!(run(&mut state, drain(false)), ["Host host-1 undrained"]);
    assert_eq!(run(&mut state, RevokeToken("abcd2345".into())), ["Token abcd2345 revoked"]);
    let remove = RemoveNode { name: "host-1".parse().unwrap(), connected: false, force: false };
    assert_eq!(run(&mut state, remove), ["Host host-1 removed"]);
    let late = Timestamp::from_unix(1_000_000_000);
    let purge = PurgeTokens.decide(&state, late).unwrap().changes;
    assert!(!purge.is_empty() && noted(&mut state, &purge).is_empty());
}

#[test]
fn an_entry_tells_who_came_by_which_token() {
    let mut state = model::beginning();
    let node = sealane_proto::resource::Node {
        name: "host-2".parse().unwrap(),
        underlay: "192.0.2.2".parse().unwrap(),
        mtu: None,
    };
    let (token, secret) = ("abcd2345".to_owned(), TokenSecret::new([7; 20]));
    let joined = JoinNode { token, secret, node, key: [2; 32], gone: None }.decide(&state, NOW).unwrap();
    let entries = noted(&mut state, &joined.changes);
    let v1::HistoryEntry { actor, token, deed, before, after, .. } = message(&entries[0], 7, 0);
    assert_eq!((token.as_str(), deed.as_str(), before, after), ("abcd2345", "joined", None, None));
    assert_eq!(actor.unwrap().words, "root (login ada)");
}

#[test]
fn a_document_that_is_too_long_is_cut_off_and_lost_for_who_goes_back() {
    let hosts: Vec<String> = (0..8_000).map(|number| format!("\"host-{number}\"")).collect();
    let text = format!(
        r#"{{"apiVersion":"sealane.dev/v1","kind":"Network","metadata":{{"name":"shop"}},"spec":{{"subnets":["10.1.0.0/16"],"hosts":[{}]}}}}"#,
        hosts.join(",")
    );
    let mut state = State::default();
    let apply = Apply { documents: vec![Document::from_json(&text).unwrap()], dry_run: false };
    let applied = apply.decide(&state, NOW).unwrap().changes;
    let first = noted(&mut state, &applied);
    let remove = crate::core::RemoveNetwork("shop".parse().unwrap()).decide(&state, NOW).unwrap();
    let second = noted(&mut state, &remove.changes);
    let kept = message(&first[0], 1, 0).after.unwrap();
    assert!(kept.cut && kept.json.len() <= LONGEST_DOCUMENT && text.starts_with(&kept.json[..100]));
    let former = documents_after(Declared::everywhere(&state), [message(&second[0], 2, 0)]);
    let Former::Lost(reason) = &former[&DocumentId::Network("shop".parse().unwrap())] else {
        panic!("{former:?}")
    };
    assert!(reason.contains("longer than the 65536 bytes"), "{reason}");
}

/// True for steps by which nobody decides anything.
fn is_everyday(step: &Step) -> bool {
    match step {
        Step::Carry(..) | Step::Report(..) | Step::EndRests(_) | Step::PurgeIdle | Step::Ahead(..) => true,
        Step::GiveBack(..) | Step::Purge | Step::Relocate(..) => true,
        Step::CreateNetwork(..) | Step::RemoveNetwork(_) | Step::Join(..) | Step::RemoveNode(_) => false,
        Step::Drain(..) | Step::RemoveService(..) | Step::Apply(..) | Step::Withdraw(..) | Step::Grow(..) => {
            false
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn the_documents_of_every_revision_can_be_told_and_are_what_a_rollback_makes(
        steps in prop::collection::vec(model::step(), 1..40),
    ) {
        let mut state = model::beginning();
        let (mut entries, mut recorded) = (vec![], vec![documents(&state)]);
        for step in &steps {
            let changes = model::decide(&state, step);
            let new = noted(&mut state, &changes);
            prop_assert!(new.is_empty() || !is_everyday(step), "{:?} of {:?}", new, step);
            let places = (0..).zip(new);
            entries.extend(places.map(|(place, entry)| message(&entry, recorded.len() as u64, place)));
            recorded.push(documents(&state));
        }
        for (revision, expected) in recorded.iter().enumerate() {
            let since = entries.iter().filter(|entry| entry.revision > revision as u64).cloned();
            let told = documents_after(Declared::everywhere(&state), since);
            prop_assert_eq!(&told, expected, "revision {}", revision);
            let documents = told.into_values().map(|former| match former {
                Former::Known(declared) => declared.document,
                Former::Lost(reason) => panic!("{reason}"),
            });
            let rollback = Rollback { documents: documents.collect(), dry_run: false };
            let decision = rollback.clone().decide(&state, NOW).unwrap();
            if decision.outcome.iter().any(|(_, outcome)| outcome.is_err()) {
                prop_assert!(decision.changes.is_empty());
                continue;
            }
            let mut back = state.clone();
            let noted = noted(&mut back, &decision.changes);
            prop_assert_eq!(&self::documents(&back), expected);
            prop_assert_eq!(noted.len(), decision.outcome.len(), "an entry per object");
            prop_assert!(rollback.decide(&back, NOW).unwrap().outcome.is_empty(), "safe to repeat");
        }
    }
}
