//! Messages of the kernel's lists from anywhere.

use super::content::{TableContent, decode_chain, decode_counter, decode_rule, decode_set};
use super::expression::{Expression, decode_all};
use super::rows;
use crate::netlink::netfilter::{Attributes, attribute, text};

/// More may become longer than an attribute is when it is written again.
const LONGEST: usize = 8 << 10;

/// Reads a message as one of each list. What is known of it is written as it was read.
pub(crate) fn listed(data: &[u8]) {
    if data.len() > LONGEST {
        return;
    }
    let table = attribute(data, 1).map(text).unwrap_or_default();
    let rule = decode_rule(data, &table);
    let expressions = rule.iter().flat_map(|rule| &rule.expressions).cloned().chain(decode_all(data));
    for expression in expressions.filter(|expression| !matches!(expression, Expression::Other(..))) {
        let written = Attributes::of(|list| expression.encode(list, None));
        assert_eq!(decode_all(written.as_bytes()), [expression]);
    }
    let mut set = decode_set(data, &table);
    if let Some(set) = &mut set {
        set.content.fill(rows::decode(data));
        let ends = |(key, row): (&Vec<u8>, &rows::Row)| row.until.as_ref().is_none_or(|until| key < until);
        assert!(set.content.rows.iter().all(ends), "{:?}", set.content);
    }
    let counters = decode_counter(data, &table).into_iter().map(|(name, _)| name).collect();
    let chains = decode_chain(data, &table).into_iter().collect();
    let content =
        TableContent::assemble(counters, set.into_iter().collect(), chains, rule.into_iter().collect());
    assert!(content.chains.len() <= 2 && content.sets.len() <= 1, "{content:?}");
}
