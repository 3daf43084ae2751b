//! Answers of resolvers from anywhere.

use std::time::Duration;

use super::forward::{Age, CachedAnswer};
use super::message::Query;

/// Keeps an answer and gives it to the asker, whole and cut: the first byte is the length of the query in front of it.
pub(crate) fn answered(data: &[u8]) {
    let Some((&len, rest)) = data.split_first() else { return };
    let Some((query, answer)) = rest.split_at_checked(len.into()) else { return };
    let Ok(parsed) = Query::parse(query) else { return };
    let Some(cached) = CachedAnswer::read(&parsed, answer) else { return };
    let question = 12..12 + parsed.question.len();
    for (age, limit) in [(Age::Fresh(Duration::from_secs(7)), 65_535), (Age::Stale, 512)] {
        let written = cached.write(&parsed, age, limit);
        assert!((question.end..=limit).contains(&written.len()), "{} bytes of {limit}", written.len());
        assert_eq!(written[..2], query[..2], "the id is the asker's");
        assert_eq!(written[question.clone()], query[question.clone()], "and so is the spelling");
        assert!(limit == 512 || CachedAnswer::read(&parsed, &written).is_some(), "it is one again");
    }
}
