//! Requests and answers of keep, for fuzzing: each function panics where an invariant does not hold.

use crate::protocol::{Answer, MAX_DESCRIPTORS, MAX_KEY_LEN, Request};

/// Reads a request and an answer: what is understood is within the bounds, and written so that it is read again.
pub fn keep_protocol(data: &[u8]) {
    if let Ok(request) = Request::parse(data) {
        match request {
            Request::Put { count, key } => assert!((1..=MAX_DESCRIPTORS).contains(&count) && fits(key)),
            Request::Get { key } | Request::Delete { key } | Request::DeletePrefix { prefix: key } => {
                assert!(fits(key));
            }
            Request::List { after } => assert!(after.is_empty() || fits(after)),
        }
        assert_eq!(Request::parse(request.to_string().as_bytes()), Ok(request));
    }
    if let Some(answer) = Answer::parse(data) {
        assert_eq!(Answer::parse(answer.to_string().as_bytes()).as_ref(), Some(&answer));
    }
}

fn fits(key: &str) -> bool {
    (1..=MAX_KEY_LEN).contains(&key.len()) && key.is_ascii()
}
