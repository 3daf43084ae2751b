use h2::Reason;
use proptest::prelude::*;

use super::*;

fn literal(mark: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![mark];
    string(&mut out, name);
    string(&mut out, value);
    out
}

#[test]
fn names_and_values_that_may_not_stand_in_a_message_are_found() {
    let table: [(&[u8], &[u8], bool); 14] = [
        (b"x-name", b"value", true),
        (b"x-name", b"", true),
        (b"x-name", b"a\tb \xff", true),
        (b"x-name", b"a\nb", false),
        (b"x-name", b"a\rb", false),
        (b"x-name", b"a\0b", false),
        (b"x-name", b"\x7f", false),
        (b"X-Name", b"value", false),
        (b"a b", b"value", false),
        (b"", b"value", false),
        (b":status", b"200", true),
        (b":status", b"OK", false),
        (b":path", b"/\xff", false),
        (b":unknown", b"x", false),
    ];
    for (name, value, sound) in table {
        let size = name.len() + value.len() + OVERHEAD;
        for mark in [0, 0x10, 0x40] {
            let found = Fields::new().read(&literal(mark, name, value)).unwrap();
            assert_eq!(found, Found { sound, size }, "{name:?} {value:?}");
        }
    }
}

#[test]
fn an_entry_that_was_unsound_is_so_whenever_it_is_referred_to_and_its_name_is_not() {
    let mut fields = Fields::new();
    assert!(!fields.read(&literal(0x40, b"x-name", b"a\nb")).unwrap().sound);
    assert_eq!(fields.read(&[0x80 | 62]).unwrap(), Found { sound: false, size: 6 + 3 + OVERHEAD });
    // Its name with another value.
    let mut block = vec![0x0f, 62 - 15];
    string(&mut block, b"good");
    assert_eq!(fields.read(&block).unwrap(), Found { sound: true, size: 6 + 4 + OVERHEAD });
}

#[test]
fn a_block_that_changes_the_tables_size_again_and_again_is_condemned_in_a_few_bytes() {
    let mut block = Vec::new();
    for size in (0..4000).rev().chain([100, 7, 3000]) {
        integer(&mut block, 0x20, 5, size);
    }
    let length = block.len();
    block.push(0x88);
    let (mut fields, mut peer) = (Fields::new(), Fields::new());
    for fields in [&mut fields, &mut peer] {
        fields.read(&literal(0x40, b"x-name", b"value")).unwrap();
    }
    assert!(!fields.read(&block).unwrap().sound);
    let condemned = fields.condemned(&block);
    assert!(condemned.len() < 20, "{} of {length} bytes", condemned.len());
    peer.read(&condemned).unwrap();
    assert_eq!((peer.table.len(), peer.limit), (0, 3000));
    assert_eq!((fields.table.len(), fields.limit), (0, 3000));
    let mut twice = Vec::new();
    integer(&mut twice, 0x20, 5, 0);
    integer(&mut twice, 0x20, 5, 4096);
    twice.push(0x88);
    assert!(Fields::new().read(&twice).unwrap().sound);
}

#[test]
fn what_cannot_be_read_is_said() {
    for block in
        [&[0x80_u8][..], &[0x80 | 62], &[0x40], &[0x40, 5, b'a'], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]]
    {
        assert!(Fields::new().read(block).is_none(), "{block:?}");
    }
}

/// A step of a peer that indexes what it says.
#[derive(Clone, Debug)]
enum Said {
    Literal(u8, Vec<u8>, Vec<u8>),
    Named(u8, usize, Vec<u8>),
    Indexed(usize),
}

fn said() -> impl Strategy<Value = Said> {
    let mark = prop_oneof![Just(0_u8), Just(0x40)];
    let name = prop_oneof![
        Just(b"x-a".to_vec()),
        Just(b"x-b".to_vec()),
        Just(b"X-C".to_vec()),
        Just(b"a b".to_vec()),
        Just(vec![b'n'; 900])
    ];
    let value = prop_oneof![
        Just(b"fine".to_vec()),
        Just(b"a\nb".to_vec()),
        Just(vec![b'v'; 1500]),
        Just(vec![b'v'; 5000])
    ];
    prop_oneof![
        (mark.clone(), name, value.clone()).prop_map(|(mark, name, value)| Said::Literal(mark, name, value)),
        (mark, 0_usize..4, value).prop_map(|(mark, index, value)| Said::Named(mark, index, value)),
        (0_usize..4).prop_map(Said::Indexed),
    ]
}

/// The block that says it; references to entries that are not there are left out.
fn block(fields: &mut Fields, says: &[Said]) -> Vec<u8> {
    let mut block = vec![0x88];
    fields.read(&block).unwrap();
    for said in says {
        let mut one = Vec::new();
        match said {
            Said::Literal(mark, name, value) => one = literal(*mark, name, value),
            Said::Named(mark, index, value) => {
                integer(&mut one, *mark, if *mark == 0 { 4 } else { 6 }, STATIC.len() + 1 + index);
                string(&mut one, value);
            }
            Said::Indexed(index) => integer(&mut one, 0x80, 7, STATIC.len() + 1 + index),
        }
        if fields.read(&one).is_some() {
            block.extend(one);
        }
    }
    block
}

proptest! {
    /// Crate h2 is what decodes behind this: unsound messages must cost it a stream each, and sound ones arrive whole.
    #[test]
    fn a_decoder_stays_in_step_whatever_was_condemned(
        blocks in proptest::collection::vec(proptest::collection::vec(said(), 0..5), 1..12),
    ) {
        let (mut encoder, mut fields) = (Fields::new(), Fields::new());
        let mut sent = Vec::new();
        for says in &blocks {
            let block = block(&mut encoder, says);
            let found = fields.read(&block).unwrap();
            let passed = if found.sound { block } else { fields.condemned(&block) };
            sent.push((found.sound, passed));
        }
        let answers = super::super::tests::answers(sent.iter().map(|(_, block)| block.clone()).collect());
        for ((sound, _), answer) in sent.iter().zip(answers) {
            prop_assert_eq!(*sound, answer.is_ok(), "{:?}", answer);
            if let Err(error) = answer {
                prop_assert!(error.is_reset() && error.is_library(), "{:?}", error);
                prop_assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR));
            }
        }
    }
}
