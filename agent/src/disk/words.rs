//! The stored form of other hosts' words.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use sealane_proto::resource::OwnerFacts;
use sealane_proto::types::NodeName;
use sealane_proto::wire::v1;

use super::records::{RecordError, unreadable};

#[derive(Clone, PartialEq, Message)]
struct WordsMessage {
    #[prost(message, repeated, tag = "1")]
    words: Vec<WordMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct WordMessage {
    #[prost(string, tag = "1")]
    owner: String,
    #[prost(message, optional, tag = "2")]
    facts: Option<v1::OwnerFacts>,
}

/// For [`super::Folder::write`].
#[must_use]
pub(crate) fn words_to_bytes(words: &BTreeMap<NodeName, Arc<OwnerFacts>>) -> Vec<u8> {
    let word = |(owner, facts): (&NodeName, &Arc<OwnerFacts>)| WordMessage {
        owner: owner.to_string(),
        facts: Some(facts.as_ref().into()),
    };
    WordsMessage { words: words.iter().map(word).collect() }.encode_to_vec()
}

/// From [`super::Folder::read`].
///
/// # Errors
/// When another version wrote it.
pub(crate) fn words_from_bytes(bytes: &[u8]) -> Result<Vec<(NodeName, OwnerFacts)>, RecordError> {
    let fail = unreadable("words of other hosts");
    let message = WordsMessage::decode(bytes).map_err(|error| fail(&error))?;
    let word = |word: WordMessage| {
        let owner = word.owner.parse().map_err(|error| fail(&error))?;
        let facts = word.facts.ok_or_else(|| fail(&"a word without facts"))?;
        Ok((owner, facts.try_into().map_err(|error| fail(&error))?))
    };
    message.words.into_iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn words_are_read_back_as_they_were_written() {
        let facts = OwnerFacts {
            network: "shop".parse().unwrap(),
            incarnation: 7,
            revision: 3,
            workloads: vec![testing::workload("web", "10.42.1.2")],
        };
        let words = BTreeMap::from([("host-2".parse().unwrap(), Arc::new(facts.clone()))]);
        let read = words_from_bytes(&words_to_bytes(&words)).unwrap();
        assert_eq!(read, [("host-2".parse().unwrap(), facts)]);
        assert!(words_from_bytes(b"other").is_err());
    }
}
