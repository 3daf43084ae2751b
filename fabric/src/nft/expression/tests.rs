use super::*;

/// An expression of the kernel's list with these numbers, and what `more` adds.
fn listed(name: &str, numbers: &[(u16, u32)], more: impl FnOnce(&mut Attributes)) -> Expression {
    let expression = Attributes::of(|expression| {
        expression.text(EXPR_NAME, name);
        expression.nested(EXPR_DATA, |data| {
            numbers.iter().for_each(|(kind, value)| data.number(*kind, *value));
            more(data);
        });
    });
    Expression::decode(expression.as_bytes())
}

fn with_value(kind: u16, value: &'static [u8]) -> impl Fn(&mut Attributes) {
    move |data| data.nested(kind, |data| encode_value(data, value))
}

fn is_other(expression: &Expression) -> bool {
    matches!(expression, Expression::Other(..))
}

#[test]
fn what_is_written_is_read_back() {
    let named = |differs, into| Expression::Lookup { set: SetUse::Named("set".to_owned()), differs, into };
    for expression in [
        Expression::Random { below: 3 },
        Expression::Ordered,
        Expression::Masked { mask: vec![255, 0] },
        Expression::Compare { relation: Relation::AtMost, value: vec![7] },
        named(false, Some(VERDICT)),
        named(true, None),
        Expression::Constant { register: SECOND, value: vec![0, 80] },
        Expression::Verdict(Verdict::Goto("there".to_owned())),
        Expression::CountBy("seen".to_owned()),
        Expression::Destination { family: 2, address: FIRST, port: Some(SECOND) },
        Expression::Destination { family: 2, address: FIRST, port: None },
        Expression::Redirect { port: Some(FIRST) },
        Expression::Redirect { port: None },
        Expression::Masquerade,
        Expression::Forward { device: FIRST },
    ] {
        let mut list = Attributes::default();
        expression.encode(&mut list, None);
        assert_eq!(decode_all(list.as_bytes()), [expression]);
    }
}

#[test]
fn a_number_that_makes_an_expression_another_one_is_noticed() {
    const KNOWN: [(&str, &[(u16, u32)]); 2] = [
        ("numgen", &[(1, FIRST), (3, RANDOM), (4, 0), (2, 3)]),
        ("byteorder", &[(1, FIRST), (2, FIRST), (3, TO_NETWORK_ORDER), (4, 4), (5, 4)]),
    ];
    for (name, numbers) in KNOWN {
        assert!(!is_other(&listed(name, numbers, |_| {})), "{name}");
        for place in 0..numbers.len() - usize::from(name == "numgen") {
            let mut changed = numbers.to_vec();
            changed[place].1 += 1;
            assert!(is_other(&listed(name, &changed, |_| {})), "{name} {changed:?}");
        }
    }
    let other: [(&str, &[(u16, u32)]); 12] = [
        ("nat", &[(1, 0), (2, 2), (3, 1)]),
        ("nat", &[(1, 1), (2, 2), (3, 1), (7, 4)]),
        ("nat", &[(1, 1), (2, 2), (3, 1), (4, 2)]),
        ("nat", &[(1, 1), (2, 2), (3, 1), (5, 2), (6, 3)]),
        ("redir", &[(1, 1), (3, 4)]),
        ("redir", &[(1, 1), (2, 2)]),
        ("masq", &[(1, 4)]),
        ("masq", &[(2, 1)]),
        ("fwd", &[(1, 1), (2, 2)]),
        ("queue", &[]),
        ("notrack at all", &[]),
        ("lookup", &[(2, FIRST)]),
    ];
    for (name, numbers) in other {
        assert!(is_other(&listed(name, numbers, |_| {})), "{name} {numbers:?}");
    }
}

#[test]
fn ranges_of_one_and_flags_that_the_kernel_sets_by_itself_change_nothing() {
    let numbers = [(1, NAT_DESTINATION), (2, 2), (3, FIRST), (4, FIRST), (5, SECOND), (6, SECOND), (7, 3)];
    let expected = Expression::Destination { family: 2, address: FIRST, port: Some(SECOND) };
    assert_eq!(listed("nat", &numbers, |_| {}), expected);
    let expected = Expression::Redirect { port: Some(FIRST) };
    assert_eq!(listed("redir", &[(1, FIRST), (2, FIRST), (3, 2)], |_| {}), expected);
    assert_eq!(listed("masq", &[(1, 0)], |_| {}), Expression::Masquerade);
}

#[test]
fn other_registers_and_other_uses_of_what_is_known_are_noticed() {
    const ELSEWHERE: u32 = 9;
    let bits = |numbers: &[(u16, u32)], flipped: &'static [u8]| {
        listed("bitwise", numbers, |data| {
            with_value(4, &[255, 255])(data);
            with_value(5, flipped)(data);
        })
    };
    let here = [(1, FIRST), (2, FIRST), (6, 0)];
    assert_eq!(bits(&here, &[0, 0]), Expression::Masked { mask: vec![255, 255] });
    assert!(is_other(&bits(&here, &[0, 1])), "bits are flipped");
    assert!(is_other(&bits(&[(1, FIRST), (2, FIRST), (6, 1)], &[0, 0])), "bits are shifted");
    assert!(is_other(&bits(&[(1, FIRST), (2, ELSEWHERE)], &[0, 0])));

    let compared = |register| listed("cmp", &[(1, register), (2, 0)], with_value(3, &[1]));
    assert_eq!(compared(FIRST), Expression::Compare { relation: Relation::Equal, value: vec![1] });
    assert!(is_other(&compared(ELSEWHERE)));

    let looked_up =
        |register, flags| listed("lookup", &[(2, register), (5, flags)], |data| data.text(1, "set"));
    let set = || SetUse::Named("set".to_owned());
    for differs in [false, true] {
        let expected = Expression::Lookup { set: set(), differs, into: None };
        assert_eq!(looked_up(FIRST, u32::from(differs)), expected);
    }
    assert!(is_other(&looked_up(ELSEWHERE, 0)) && is_other(&looked_up(FIRST, 2)));

    let counted = |kind| listed("objref", &[(1, kind)], |data| data.text(2, "seen"));
    assert_eq!(counted(COUNTER), Expression::CountBy("seen".to_owned()));
    assert!(is_other(&counted(2)), "a quota");
}
