//! Answers as messages: headers, EDNS, refusals, and any bytes.

use super::*;

#[test]
fn the_header_says_what_it_should() {
    let mut query = query("api", Kind::A);
    query.metadata.recursion_desired = true;
    query.metadata.checking_disabled = true;
    let answer = reply(&NameView::default(), &query);
    assert_eq!(answer.metadata.id, query.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
    assert!(answer.metadata.authoritative && answer.metadata.checking_disabled);
    assert_eq!(answer.queries, query.queries);
    assert!(answer.edns.is_none(), "not asked by EDNS");
}

#[test]
fn edns_is_answered_by_edns_and_a_later_version_by_badvers() {
    let mut query = query("api", Kind::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    query.edns = Some(edns);
    let answer = reply(&NameView::default(), &query).edns.unwrap();
    assert_eq!((answer.max_payload(), answer.version(), answer.rcode_high()), (1232, 0, 0));
    assert!(answer.flags().dnssec_ok);
    query.edns.as_mut().unwrap().set_version(1);
    let answer = reply(&NameView::default(), &query);
    assert_eq!(answer.edns.unwrap().rcode_high(), 1);
    assert_eq!(answer.metadata.response_code.low(), 0);
}

#[test]
fn what_is_not_served_is_refused_and_answers_are_never_answered() {
    let plain = query("api", Kind::A);
    let mut chaos = plain.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut notify = plain.clone();
    notify.metadata.op_code = OpCode::Notify;
    let mut twice = plain.clone();
    twice.queries.push(plain.queries[0].clone());
    let mut none = plain.clone();
    none.queries.clear();
    let mut response = plain.clone();
    response.metadata.message_type = MessageType::Response;
    for (query, expected) in [
        (&chaos, "Refused"),
        (&notify, "NotImp"),
        (&twice, "FormErr"),
        (&none, "FormErr"),
        (&response, "drop"),
    ] {
        assert_eq!(summary(&NameView::default(), query), expected);
    }
    // A pointer in the question.
    let mut pointer = plain.to_vec().unwrap();
    pointer.truncate(12);
    pointer.extend([0xc0, 12, 0, 1, 0, 1]);
    let mut out = Vec::new();
    let outcome = answer(&NameView::default(), &pointer, Transport::Udp, 0, &mut out);
    assert_eq!(outcome, Outcome::Answered { rcode: Rcode::FormErr });
}

#[test]
fn a_failure_says_why_to_who_speaks_edns() {
    let mut query = query("example.com", Kind::A);
    let mut out = Vec::new();
    assert!(fail(&query.to_vec().unwrap(), (22, "no resolver"), &mut out));
    assert_eq!(Message::from_vec(&out).unwrap().metadata.response_code.low(), 2);
    query.edns = Some(Edns::new());
    assert!(fail(&query.to_vec().unwrap(), (22, "no resolver"), &mut out));
    assert!(out.ends_with(b"\x00\x0f\x00\x0d\x00\x16no resolver"));
    assert!(Message::from_vec(&out).unwrap().edns.is_some());
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_dropped(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), header: bool) {
        if let (true, Some(start)) = (header, bytes.get_mut(..12)) {
            start.copy_from_slice(&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        }
        check_any(&bytes);
    }

    #[test]
    fn any_change_of_a_query_is_answered_or_dropped(at in 0..45_usize, byte: u8, cut in 0..45_usize) {
        let mut query = query("api.shop", Kind::A);
        query.edns = Some(Edns::new());
        let mut bytes = query.to_vec().unwrap();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        check_any(&bytes);
        bytes.truncate(cut);
        check_any(&bytes);
    }
}

fn check_any(bytes: &[u8]) {
    let view = NameView { zones: vec![Arc::new(Zone::build(&shop()))], own: vec![], balanced: false };
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut out = Vec::new();
        if let Outcome::Answered { .. } = answer(&view, bytes, transport, 1, &mut out) {
            assert_eq!(out[..2], bytes[..2], "the id");
            let message = Message::from_vec(&out).unwrap();
            assert_eq!(message.metadata.message_type, MessageType::Response);
            if let Some(question) = message.queries.first() {
                assert_eq!(
                    &Message::from_vec(bytes).map_or(question.clone(), |m| m.queries[0].clone()),
                    question
                );
            }
        }
    }
}
