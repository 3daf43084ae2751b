//! Documents from anywhere.

use super::{parse, understand};

/// Reads a text: what is a document in it is printed as JSON, which is YAML too, and read again; what is none is refused in a
/// bounded sentence.
pub(crate) fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let nodes = match parse(text) {
        Ok(nodes) => nodes,
        Err(flaw) => {
            assert!(flaw.said("-").len() <= 1024 + 10 * text.len(), "{}", flaw.said("-"));
            return;
        }
    };
    for node in nodes {
        match understand(&node) {
            Ok(document) => {
                let written = document.to_json().unwrap_or_default();
                let again = parse(&written).ok().and_then(|nodes| understand(nodes.first()?).ok());
                assert_eq!(again.as_ref(), Some(&document), "{written}");
            }
            Err(flaw) => assert!(flaw.said("-").len() <= 1024 + 10 * text.len(), "{}", flaw.said("-")),
        }
    }
}
