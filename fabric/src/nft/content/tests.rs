use super::*;
use crate::netlink::netfilter::Attributes;
use crate::nft::datum::KeyType;

fn message(table: &str, more: impl FnOnce(&mut Attributes)) -> Attributes {
    Attributes::of(|message| {
        message.text(1, table);
        more(message);
    })
}

#[test]
fn tables_of_others_are_not_read() {
    for (table, is_ours) in [("ours", true), ("others", false)] {
        let chain = message(table, |chain| chain.text(3, "output"));
        assert_eq!(decode_chain(chain.as_bytes(), "ours").is_some(), is_ours);
        let rule = message(table, |rule| rule.text(2, "output"));
        assert_eq!(decode_rule(rule.as_bytes(), "ours").is_some(), is_ours);
        let set = message(table, |set| set.text(2, "hosts"));
        assert_eq!(decode_set(set.as_bytes(), "ours").is_some(), is_ours);
        let counter = message(table, |counter| {
            counter.text(2, "seen");
            counter.nested(4, |data| data.bytes(2, &7_u64.to_be_bytes()));
        });
        let expected = is_ours.then(|| ("seen".to_owned(), 7));
        assert_eq!(decode_counter(counter.as_bytes(), "ours"), expected);
    }
}

#[test]
fn a_rule_has_its_comment_and_one_without_has_none() {
    let comment = |bytes: &[u8]| {
        let rule = message("ours", |rule| rule.bytes(7, bytes));
        decode_rule(rule.as_bytes(), "ours").unwrap().comment
    };
    assert_eq!(comment(b"\0\x05mark\0"), Some("mark".to_owned()));
    assert_eq!(comment(b"\0"), None);
    assert_eq!(decode_rule(message("ours", |_| {}).as_bytes(), "ours").unwrap().comment, None);
}

#[test]
fn values_of_a_map_have_a_length_and_verdicts_have_none() {
    let data = |flags: u32, kind: u32| {
        let set = message("ours", |set| {
            set.text(2, "places");
            [(3, flags), (4, 13), (5, 2), (6, kind), (7, 16)]
                .iter()
                .for_each(|(at, value)| set.number(*at, *value));
        });
        let ListedSet { name, anonymous, content } = decode_set(set.as_bytes(), "ours").unwrap();
        assert_eq!((name.as_str(), content.key), ("places", [13, 2]));
        (anonymous, content.interval, content.data)
    };
    assert_eq!(data(SET_MAP | SET_ANONYMOUS, 8), (true, false, Some([8, 16])));
    assert_eq!(data(SET_MAP | SET_INTERVAL, VERDICTS), (false, true, Some([VERDICTS, 0])));
    assert_eq!(data(0, 8), (false, false, None));
}

#[test]
fn a_set_of_one_rule_is_in_its_place_however_its_ranges_end() {
    let set = |name: &str, anonymous| {
        let content = SetContent { interval: true, shared_ends: true, ..SetContent::of(KeyType::PORT) };
        ListedSet { name: name.to_owned(), anonymous, content }
    };
    let look_up = |set| Expression::Lookup { set, differs: false, into: None };
    let expressions = ["__set0", "hosts"].map(|name| look_up(SetUse::Named(name.to_owned()))).to_vec();
    let rule = ListedRule { chain: "output".to_owned(), expressions, comment: None };
    let sets = vec![set("__set0", true), set("hosts", false)];
    let content = TableContent::assemble(BTreeSet::new(), sets, BTreeMap::new(), vec![rule]);
    assert_eq!(content.sets, [("hosts".to_owned(), set("hosts", false).content)].into());
    let placed = SetContent { shared_ends: false, ..set("", true).content };
    let expected = [SetUse::Anonymous(Box::new(placed)), SetUse::Named("hosts".to_owned())].map(look_up);
    assert_eq!(content.chains["output"].rules, [expected]);
}
