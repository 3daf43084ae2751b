use hickory_proto::op::Message;
use proptest::prelude::*;

use super::*;

/// A recursive query for addresses, with EDNS.
pub(crate) fn query(name: &str) -> Vec<u8> {
    let mut query = crate::dns::neighbour::tests::query(name);
    query[11] = 1;
    query.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    query
}

/// An answer to it with these last bytes of addresses, and an OPT record of the resolver's.
pub(crate) fn answer(query: &[u8], ttl: u32, last: &[u8]) -> Vec<u8> {
    let question = query.len() - 11;
    let mut answer = query[..question].to_vec();
    let count = u8::try_from(last.len()).unwrap();
    answer[..12].copy_from_slice(&[9, 9, 0x81, 0xa0, 0, 1, 0, count, 0, 0, 0, 1]);
    for last in last {
        let ttl = ttl.to_be_bytes();
        answer.extend([&[0xc0, 12, 0, 1, 0, 1][..], &ttl, &[0, 4, 192, 0, 2, *last]].concat());
    }
    answer.extend(&query[question..]);
    answer
}

/// An answer that there is nothing, with the SOA of `example.com` where `ttls` says those of the record and of the zone.
fn nothing(query: &[u8], rcode: u8, ttls: Option<(u32, u32)>) -> Vec<u8> {
    let mut answer = query[..query.len() - 11].to_vec();
    answer[..12].copy_from_slice(&[9, 9, 0x81, 0x80 | rcode, 0, 1, 0, 0, 0, u8::from(ttls.is_some()), 0, 0]);
    if let Some((ttl, minimum)) = ttls {
        let numbers = [1, 2, 3, 4, minimum].map(u32::to_be_bytes).concat();
        answer.extend([&[0xc0, 16, 0, 6, 0, 1][..], &ttl.to_be_bytes(), &[0, 22, 0, 0], &numbers].concat());
    }
    answer
}

fn read(query: &[u8], answer: &[u8]) -> Option<CachedAnswer> {
    CachedAnswer::read(&Query::parse(query).unwrap(), answer)
}

/// Shows the marks of an authentic and of a truncated answer, its records with their lifetimes, and its Extended DNS Error.
fn shown(message: &[u8]) -> String {
    let message = Message::from_vec(message).unwrap();
    let records =
        message.answers.iter().map(|record| format!(" {} {} {}", record.name, record.ttl, record.data));
    let edns = message.edns.as_ref().map_or(" plain".to_owned(), |edns| {
        let options = edns.options().as_ref().iter().map(|(_, option)| format!("{option:?}"));
        options.map(|option| format!(" {option}")).collect()
    });
    let (authentic, truncated) = (message.metadata.authentic_data, message.metadata.truncation);
    format!("ad {authentic} tc {truncated}{}{edns}", records.collect::<String>())
}

#[test]
fn an_answer_is_another_asker_s_in_its_spelling_and_older() {
    let (one, mut other) = (query("www.example.com"), query("WWW.example.com"));
    other[1] = 42;
    let cached = read(&one, &answer(&one, 60, &[80, 81])).unwrap();
    assert_eq!(cached.lifetime(), Duration::from_secs(60));
    let parsed = Query::parse(&other).unwrap();
    let bytes = cached.write(&parsed, Age::Fresh(Duration::from_secs(7)), 512);
    assert_eq!(
        shown(&bytes),
        "ad false tc false WWW.example.com. 53 192.0.2.80 WWW.example.com. 53 192.0.2.81"
    );
    assert_eq!((&bytes[..2], Rcode::of(&bytes)), (&[0, 42][..], Rcode::NoError));
    // Who does not speak EDNS gets none; who wants to know whether it is authentic is told.
    let mut plain = one[..one.len() - 11].to_vec();
    plain[11] = 0;
    plain[3] |= 0x20;
    let bytes = cached.write(&Query::parse(&plain).unwrap(), Age::Stale, 512);
    assert!(shown(&bytes).starts_with("ad true tc false www.example.com. 30 "), "{}", shown(&bytes));
    assert!(shown(&bytes).ends_with(" plain"), "{}", shown(&bytes));
}

#[test]
fn flags_are_the_asker_s_and_the_answer_s() {
    let asked = |flags: [u8; 2]| {
        let mut asked = query("www.example.com");
        asked[2..4].copy_from_slice(&flags);
        asked
    };
    let one = query("www.example.com");
    let (authentic, mut plain) = (answer(&one, 60, &[80]), answer(&one, 60, &[80]));
    plain[3] = 0x80;
    let none = nothing(&one, 3, Some((60, 60)));
    let table = [
        (&authentic, [1, 0], [0x81, 0x80]),
        (&authentic, [1, 0x20], [0x81, 0xa0]),
        (&authentic, [0, 0], [0x80, 0x80]),
        (&authentic, [1, 0x10], [0x81, 0x90]),
        (&plain, [1, 0x20], [0x81, 0x80]),
        (&none, [1, 0], [0x81, 0x83]),
    ];
    for (answer, flags, given) in table {
        let (asked, cached) = (asked(flags), read(&one, answer).unwrap());
        let bytes = cached.write(&Query::parse(&asked).unwrap(), Age::Stale, 512);
        assert_eq!(bytes[2..4], given, "{flags:?}");
    }
}

#[test]
fn a_name_that_is_spelled_out_in_a_record_is_spelled_as_it_was_asked() {
    let one = query("www.example.com");
    let right = answer(&one, 60, &[80, 81]);
    let record = one.len() - 11;
    let spelled = [&right[..record], b"\x03WWW\x07ExamplE\x03com\x00", &right[record + 2..]].concat();
    let cached = read(&one, &spelled).unwrap();
    let bytes = cached.write(&Query::parse(&one).unwrap(), Age::Fresh(Duration::ZERO), 512);
    let records = "www.example.com. 60 192.0.2.80 www.example.com. 60 192.0.2.81";
    assert!(shown(&bytes).contains(records), "{}", shown(&bytes));
    let records = 2 * size_of::<Piece>();
    assert_eq!(cached.size(), spelled.len() - 11 + records + size_of::<CachedAnswer>());
}

#[test]
fn a_cut_answer_counts_what_is_left_of_each_section() {
    let one = query("www.example.com");
    let parsed = Query::parse(&one).unwrap();
    let four = answer(&one, 60, &[80, 81, 82, 83]);
    let fits = four.len() - 1;
    for (counts, left, truncated) in
        [([2, 2, 0], [2, 1, 1], true), ([2, 0, 2], [2, 0, 2], false), ([4, 0, 0], [3, 0, 1], true)]
    {
        let mut four = four.clone();
        for (section, count) in counts.into_iter().enumerate() {
            // The resolver's OPT record is the last of the additional ones.
            four[7 + 2 * section] = count + u8::from(section == 2);
        }
        let bytes = read(&one, &four).unwrap().write(&parsed, Age::Fresh(Duration::ZERO), fits);
        assert_eq!([7, 9, 11].map(|at| bytes[at]), left, "{counts:?}");
        assert_eq!(bytes[2] & 2 != 0, truncated, "{counts:?}");
    }
}

#[test]
fn what_does_not_fit_is_cut_between_records_and_marked() {
    let one = query("www.example.com");
    let last: Vec<u8> = (0..100).collect();
    let cached = read(&one, &answer(&one, 60, &last)).unwrap();
    let parsed = Query::parse(&one).unwrap();
    for limit in [60, 512, 1232] {
        let bytes = cached.write(&parsed, Age::Stale, limit);
        let message = Message::from_vec(&bytes).unwrap();
        assert!(bytes.len() <= limit && bytes.len() + 16 > limit, "{} of {limit}", bytes.len());
        assert!(message.metadata.truncation && message.edns.is_some());
    }
    let bytes = cached.write(&parsed, Age::Stale, 65_535);
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!((message.answers.len(), message.metadata.truncation), (100, false));
}

#[test]
fn what_is_not_there_is_believed_for_as_long_as_the_zone_says_and_no_longer_than_five_minutes() {
    let one = query("www.example.com");
    let table = [
        (3, Some((60, 30)), Some(30)),
        (3, Some((30, 60)), Some(30)),
        (0, Some((3600, 3600)), Some(300)),
        (3, None, Some(0)),
        (2, Some((60, 60)), None),
        (5, None, None),
    ];
    for (rcode, ttls, lifetime) in table {
        let kept = read(&one, &nothing(&one, rcode, ttls)).map(|cached| cached.lifetime().as_secs());
        assert_eq!(kept, lifetime, "{rcode} {ttls:?}");
    }
    let mut referral = nothing(&one, 3, Some((60, 30)));
    referral[one.len() - 11 + 3] = 2;
    assert_eq!(read(&one, &referral).unwrap().lifetime(), Duration::ZERO, "no zone says how long");
    let cached = read(&one, &nothing(&one, 3, Some((60, 30)))).unwrap();
    let bytes = cached.write(&Query::parse(&one).unwrap(), Age::Stale, 512);
    assert_eq!(Rcode::of(&bytes), Rcode::NxDomain);
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!((message.authorities.len(), message.authorities[0].ttl), (1, 30));
}

#[test]
fn whoever_keeps_the_answer_behind_this_one_believes_it_no_longer() {
    let one = query("www.example.com");
    let told = |answer: &[u8]| {
        let (parsed, cached) = (Query::parse(&one).unwrap(), read(&one, answer).unwrap());
        let message =
            Message::from_vec(&cached.write(&parsed, Age::Fresh(Duration::from_secs(1)), 512)).unwrap();
        message.answers.iter().chain(&message.authorities).map(|record| record.ttl).collect::<Vec<_>>()
    };
    let day = 24 * 60 * 60;
    for (ttl, expected) in [(60, 59), (i32::MAX.unsigned_abs(), day - 1)] {
        assert_eq!(told(&answer(&one, ttl, &[80])), [expected], "{ttl}");
    }
    assert_eq!(told(&nothing(&one, 3, Some((day, day)))), [299]);
}

#[test]
fn only_a_whole_answer_to_the_question_is_kept() {
    let one = query("www.example.com");
    let whole = answer(&one, 60, &[80]);
    assert!(read(&one, &whole).is_some());
    assert!(read(&query("www.example.org"), &whole).is_none(), "to another question");
    let changed = |at: usize, byte: u8| {
        let mut changed = whole.clone();
        changed[at] = byte;
        read(&one, &changed)
    };
    assert!(changed(2, 0x83).is_none(), "a part of it");
    assert!(changed(2, 0x01).is_none(), "a question");
    assert!(changed(5, 2).is_none(), "to two questions");
    assert!(changed(7, 2).is_none(), "fewer records than it says");
    let lifetime = |ttl| read(&one, &answer(&one, ttl, &[80])).unwrap().lifetime().as_secs();
    assert_eq!([u32::MAX, 1 << 31, u32::MAX >> 1, 90_000].map(lifetime), [0, 0, 86_400, 86_400]);
    assert!(read(&one, &whole[..whole.len() - 12]).is_none(), "cut short");
    let addresses: Vec<u8> = (0..255).collect();
    assert_eq!(read(&one, &answer(&one, 60, &addresses)).unwrap().lifetime(), Duration::ZERO, "it is large");
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer_that_fits_or_none(
        mut bytes in proptest::collection::vec(any::<u8>(), 12..200),
        records in proptest::collection::vec(any::<u8>(), 0..4),
        limit in 60..300_usize,
    ) {
        let one = query("www.example.com");
        let right = answer(&one, 60, &records);
        // Half of them begin as they should.
        if bytes[0] & 1 == 0 {
            let len = right.len().min(bytes.len());
            bytes[..len].copy_from_slice(&right[..len]);
        }
        if let Some(cached) = read(&one, &bytes) {
            let written = cached.write(&Query::parse(&one).unwrap(), Age::Stale, limit);
            prop_assert!(written.len() <= limit);
            prop_assert_eq!(&written[..2], &one[..2]);
            prop_assert_eq!(&written[12..one.len() - 11], &one[12..one.len() - 11]);
        }
    }
}
