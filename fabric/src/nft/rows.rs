//! Sets and maps as the kernel keeps them: keys, ranges of keys, and what they lead to. Pure.

use std::collections::BTreeMap;

use super::datum::KeyType;
use super::expression::{Verdict, encode_value, value};
use crate::netlink::netfilter::{Attributes, attribute, attributes};

/// NFT_SET_ELEM_INTERVAL_END.
const INTERVAL_END: u32 = 1;
/// Mark that nft keeps beside an element: a type, the length, SET_ELEM_F_INTERVAL_OPEN.
const OPEN: [&[u8]; 2] = [&[1, 4], &1_u32.to_ne_bytes()];
/// Number of bits by which nft shifts the types of a key's parts.
pub(crate) const TYPE_BITS: u32 = 6;
/// nft's number for verdicts, where a map leads to such.
pub(crate) const VERDICTS: u32 = 0xffff_ff00;

/// A set or a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetContent {
    /// nft's number for the type of keys, and their length.
    pub(crate) key: [u32; 2],
    /// The same of what a map's keys lead to.
    pub(crate) data: Option<[u32; 2]>,
    /// True if keys may be ranges.
    pub(crate) interval: bool,
    /// Keys, or the first ones of ranges.
    pub(crate) rows: BTreeMap<Vec<u8>, Row>,
    /// True if a range ends by the element that begins the next one: such do not go one by one.
    pub(crate) shared_ends: bool,
}

/// Content of a row beside its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// The first key behind the range; `None` behind the last one of all.
    pub(crate) until: Option<Vec<u8>>,
    /// Value or verdict that it leads to.
    pub(crate) data: Option<RowData>,
}

/// Value or verdict that a key of a map leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowData {
    Verdict(Verdict),
    Value(Vec<u8>),
}

/// Element of the kernel's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    key: Vec<u8>,
    ends: bool,
    data: Option<RowData>,
}

impl SetContent {
    /// A set of single keys, without any yet.
    pub(crate) fn of(key: KeyType) -> Self {
        Self {
            key: [key.number, key.length],
            data: None,
            interval: false,
            rows: BTreeMap::new(),
            shared_ends: false,
        }
    }

    /// The name of a set for one rule alone, of which the kernel makes one with a number.
    pub(crate) fn placeholder(&self) -> &'static str {
        if self.data.is_some() { "__map%d" } else { "__set%d" }
    }

    /// The byte order of a set's keys of one part as nft keeps it: a type, the length, the number.
    pub(crate) fn byte_order(&self) -> Option<Vec<u8>> {
        let order: u32 = if KeyType::OF_HOST.contains(&self.key[0]) { 1 } else { 2 };
        let is_single = self.data.is_none() && self.key[0] < 1 << TYPE_BITS;
        is_single.then(|| [&[0, 4], &order.to_ne_bytes()[..]].concat())
    }

    /// Takes over what the kernel lists.
    pub(crate) fn fill(&mut self, mut elements: Vec<Element>) {
        if !self.interval {
            let rows = elements.into_iter();
            self.rows = rows.map(|row| (row.key, Row { until: None, data: row.data })).collect();
            return;
        }
        // One range ends before the next begins.
        elements.sort_by(|a, b| (&a.key, !a.ends).cmp(&(&b.key, !b.ends)));
        let mut open: Option<Element> = None;
        for Element { key, ends, data } in elements {
            let begun = open.take();
            self.shared_ends |= begun.is_some() && !ends;
            if let Some(begun) = begun {
                self.rows.insert(begun.key, Row { until: Some(key.clone()), data: begun.data });
            }
            open = (!ends).then_some(Element { key, ends, data });
        }
        if let Some(begun) = open {
            self.rows.insert(begun.key, Row { until: None, data: begun.data });
        }
    }

    /// The elements of a set for one rule alone, laid out as nft does: what is before the first range ends at its begin, and a
    /// range ends by the element that begins the next one.
    pub(crate) fn elements(&self) -> Vec<Attributes> {
        let first = self.rows.keys().next().filter(|key| self.interval && key.iter().any(|byte| *byte != 0));
        let mut elements: Vec<Attributes> = first.map(|key| end(&vec![0; key.len()])).into_iter().collect();
        for (key, row) in &self.rows {
            elements.push(row.begin(key, self.interval && row.until.is_none()));
            let until = row.until.as_ref().filter(|until| !self.rows.contains_key(*until));
            elements.extend(until.map(|until| end(until)));
        }
        elements
    }
}

impl Row {
    /// The elements of a named set's row, which has both of its ends.
    pub(crate) fn elements(&self, key: &[u8], interval: bool) -> Vec<Attributes> {
        let begin = self.begin(key, interval && self.until.is_none());
        [Some(begin), self.until.as_ref().map(|until| end(until))].into_iter().flatten().collect()
    }

    fn begin(&self, key: &[u8], open: bool) -> Attributes {
        Attributes::of(|element| {
            element.nested(1, |data| encode_value(data, key));
            match &self.data {
                Some(RowData::Verdict(verdict)) => element.nested(2, |data| verdict.encode(data)),
                Some(RowData::Value(value)) => element.nested(2, |data| encode_value(data, value)),
                None => {}
            }
            if open {
                element.bytes(6, &OPEN.concat());
            }
        })
    }
}

fn end(key: &[u8]) -> Attributes {
    Attributes::of(|element| {
        element.nested(1, |data| encode_value(data, key));
        element.number(3, INTERVAL_END);
    })
}

/// The elements in a message of the kernel's list.
pub(crate) fn decode(message: &[u8]) -> Vec<Element> {
    let list = attribute(message, 3).unwrap_or_default();
    attributes(list).filter_map(|(_, element)| decode_element(element)).collect()
}

fn decode_element(element: &[u8]) -> Option<Element> {
    let flags = attribute(element, 3).and_then(|flags| flags.try_into().ok()).map_or(0, u32::from_be_bytes);
    let data = attribute(element, 2);
    let verdict = data.and_then(Verdict::decode).map(RowData::Verdict);
    let data = verdict.or_else(|| data.and_then(value).map(RowData::Value));
    let key = value(attribute(element, 1)?)?;
    Some(Element { key, ends: flags & INTERVAL_END != 0, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(interval: bool, elements: &[Attributes]) -> SetContent {
        let message = Attributes::of(|message| {
            message.nested(3, |list| {
                elements.iter().for_each(|element| list.nested_bytes(1, element.as_bytes()));
            });
        });
        let mut content = SetContent { interval, ..SetContent::of(KeyType::PORT) };
        content.fill(decode(message.as_bytes()));
        content
    }

    fn ranges(bounds: &[(u8, Option<u8>)]) -> SetContent {
        let row = |until: Option<u8>| Row { until: until.map(|until| vec![0, until]), data: None };
        let rows = bounds.iter().map(|(first, until)| (vec![0, *first], row(*until))).collect();
        SetContent { interval: true, rows, ..SetContent::of(KeyType::PORT) }
    }

    #[test]
    fn ranges_are_read_however_they_end() {
        for bounds in [
            &[][..],
            &[(0, None)],
            &[(3, Some(5))],
            &[(3, Some(5)), (5, Some(6)), (9, None)],
            &[(0, Some(1)), (1, Some(2))],
        ] {
            let content = ranges(bounds);
            let read_back = read(true, &content.elements());
            assert_eq!(read_back.rows, content.rows, "{bounds:?}");
            let named: Vec<_> = content.rows.iter().flat_map(|(key, row)| row.elements(key, true)).collect();
            assert_eq!(read(true, &named), content, "{bounds:?}");
        }
        assert!(read(true, &ranges(&[(3, Some(5)), (5, Some(6))]).elements()).shared_ends);
    }

    #[test]
    fn maps_are_read_with_what_they_lead_to() {
        let data = RowData::Verdict(Verdict::Goto("there".to_owned()));
        let row = Row { until: None, data: Some(data) };
        let content = read(false, &row.elements(&[0, 80], false));
        assert_eq!(content.rows, [(vec![0, 80], row)].into());
    }
    #[test]
    fn ranges_are_read_in_whatever_order_the_kernel_lists_them() {
        let content = ranges(&[(3, Some(5)), (5, Some(6)), (6, Some(7)), (9, None)]);
        let named = || content.rows.iter().flat_map(|(key, row)| row.elements(key, true));
        let mut turned: Vec<_> = named().collect();
        turned.reverse();
        assert_eq!(read(true, &turned), content);
        assert!(read(true, &content.elements()).shared_ends, "of two ends, as of one");
    }

    #[test]
    fn sets_of_one_rule_are_named_and_ordered_as_nft_does() {
        let map = |key| SetContent { data: Some([VERDICTS, 0]), ..SetContent::of(key) };
        assert_eq!(SetContent::of(KeyType::PORT).placeholder(), "__set%d");
        assert_eq!(map(KeyType::PORT).placeholder(), "__map%d");
        let order = |number: u32| Some([&[0, 4], &number.to_ne_bytes()[..]].concat());
        assert_eq!(SetContent::of(KeyType::MARK).byte_order(), order(1));
        assert_eq!(SetContent::of(KeyType::PORT).byte_order(), order(2));
        assert_eq!(map(KeyType::PORT).byte_order(), None);
        let several = SetContent { key: [1 << TYPE_BITS, 8], ..SetContent::of(KeyType::PORT) };
        assert_eq!(several.byte_order(), None);
    }
    #[test]
    fn an_end_before_the_first_range_and_a_mark_of_an_open_one_are_where_nft_has_them() {
        let begins = |first: [u8; 2], until: Option<Vec<u8>>| {
            let rows = [(first.to_vec(), Row { until, data: None })].into();
            SetContent { interval: true, rows, ..SetContent::of(KeyType::PORT) }.elements()
        };
        for (first, elements) in [([0, 0], 2), ([0, 1], 3), ([1, 0], 3), ([1, 1], 3)] {
            assert_eq!(begins(first, Some(vec![2, 0])).len(), elements, "{first:?}");
        }
        let mark = |element: &Attributes| attribute(element.as_bytes(), 6).map(<[u8]>::to_vec);
        let open = Some(OPEN.concat());
        assert_eq!(begins([0, 0], None).iter().map(mark).collect::<Vec<_>>(), std::slice::from_ref(&open));
        assert_eq!(begins([0, 0], Some(vec![2, 0])).iter().map(mark).collect::<Vec<_>>(), [None, None]);
        let row = |until| Row { until, data: None };
        assert_eq!(row(None).elements(&[0, 0], true).iter().map(mark).collect::<Vec<_>>(), [open]);
        assert_eq!(row(None).elements(&[0, 0], false).iter().map(mark).collect::<Vec<_>>(), [None]);
        assert_eq!(row(Some(vec![2, 0])).elements(&[0, 0], true).iter().filter_map(mark).count(), 0);
        let single = SetContent { rows: [(vec![0, 80], row(None))].into(), ..SetContent::of(KeyType::PORT) };
        assert_eq!(single.elements().iter().map(mark).collect::<Vec<_>>(), [None]);
    }
}
