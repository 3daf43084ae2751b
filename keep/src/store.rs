//! Store of descriptors by key, within bounds.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::fd::OwnedFd;

use crate::protocol::{Answer, MAX_ANSWER_LEN, Request};

/// The most keys.
const MAX_KEYS: usize = 8192;

/// Descriptors by key. What is replaced or deleted is closed.
#[derive(Debug)]
pub(crate) struct Store {
    kept: BTreeMap<Box<str>, Vec<OwnedFd>>,
    descriptors: usize,
    max_descriptors: usize,
}

impl Store {
    pub(crate) fn new(max_descriptors: usize) -> Self {
        Self { kept: BTreeMap::new(), descriptors: 0, max_descriptors }
    }

    /// Does what `datagram` asks; returns the answer and the descriptors to attach to it.
    pub(crate) fn handle(&mut self, datagram: &[u8], fds: Vec<OwnedFd>) -> (Answer, &[OwnedFd]) {
        let request = match Request::parse(datagram) {
            Ok(request) => request,
            Err(error) => return (Answer::Error(error.to_string()), &[]),
        };
        match request {
            Request::Put { count, key } => (self.put(count, key, fds), &[]),
            Request::Get { key } => match self.kept.get(key) {
                Some(fds) => (Answer::Done { count: fds.len() }, fds),
                None => (Answer::Nothing, &[]),
            },
            Request::Delete { key } => {
                let removed = self.kept.remove(key);
                self.descriptors -= removed.as_ref().map_or(0, Vec::len);
                (Answer::Done { count: removed.iter().len() }, &[])
            }
            Request::DeletePrefix { prefix } => (self.delete_prefix(prefix), &[]),
            Request::List { after } => (self.list(after), &[]),
        }
    }

    fn put(&mut self, count: usize, key: &str, fds: Vec<OwnedFd>) -> Answer {
        if fds.len() != count {
            let text = format!("{count} descriptors were announced for {key}, {} arrived", fds.len());
            return Answer::Error(text);
        }
        let known = self.kept.get(key).map(Vec::len);
        if known.is_none() && self.kept.len() == MAX_KEYS {
            return Answer::Error(format!("no room for {key}: {MAX_KEYS} keys are kept"));
        }
        let descriptors = self.descriptors - known.unwrap_or(0) + count;
        if descriptors > self.max_descriptors {
            let max = self.max_descriptors;
            return Answer::Error(format!(
                "no room for {key}: {max} descriptors are kept; raise the limit of open files"
            ));
        }
        self.descriptors = descriptors;
        self.kept.insert(key.into(), fds);
        Answer::Done { count }
    }

    fn delete_prefix(&mut self, prefix: &str) -> Answer {
        let before = self.kept.len();
        let descriptors = &mut self.descriptors;
        self.kept.retain(|key, fds| {
            let stays = !key.starts_with(prefix);
            if !stays {
                *descriptors -= fds.len();
            }
            stays
        });
        Answer::Done { count: before - self.kept.len() }
    }

    fn list(&self, after: &str) -> Answer {
        let mut room = MAX_ANSWER_LEN - "KEYS".len();
        let behind = self.kept.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        let keys = behind.map(|(key, fds)| (key.to_string(), fds.len())).take_while(|(key, _)| {
            let line = key.len() + "\n 8".len();
            let fits = line <= room;
            room -= if fits { line } else { 0 };
            fits
        });
        Answer::Keys(keys.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn bounds_are_errors_and_replacing_counts_once() {
        let mut store = Store::new(3);
        assert_eq!(ask(&mut store, "PUT 2 a", 2), Answer::Done { count: 2 });
        let Answer::Error(text) = ask(&mut store, "PUT 2 b", 2) else { panic!("b was kept") };
        assert!(text.contains("no room for b: 3 descriptors"), "{text}");
        assert_eq!(ask(&mut store, "PUT 3 a", 3), Answer::Done { count: 3 });
        assert_eq!(ask(&mut store, "DELETE a", 0), Answer::Done { count: 1 });
        assert_eq!(ask(&mut store, "DELETE a", 0), Answer::Done { count: 0 });
        assert_eq!(ask(&mut store, "PUT 2 b", 2), Answer::Done { count: 2 });
        assert_eq!(store.descriptors, 2);
    }

    #[test]
    fn a_lost_descriptor_is_an_error_and_what_was_kept_stays() {
        let mut store = Store::new(8);
        ask(&mut store, "PUT 1 a", 1);
        assert!(matches!(ask(&mut store, "PUT 2 a", 1), Answer::Error(_)));
        assert_eq!(ask(&mut store, "GET a", 0), Answer::Done { count: 1 });
    }

    #[test]
    fn a_prefix_deletes_what_begins_with_it_and_nothing_else() {
        let mut store = Store::new(8);
        for key in ["dns/a", "dns/b", "dnsx", "ns/a"] {
            ask(&mut store, &format!("PUT 1 {key}"), 1);
        }
        assert_eq!(ask(&mut store, "DELETE-PREFIX dns/", 0), Answer::Done { count: 2 });
        let left = vec![("dnsx".to_owned(), 1), ("ns/a".to_owned(), 1)];
        assert_eq!(ask(&mut store, "LIST", 0), Answer::Keys(left));
        assert_eq!(store.descriptors, 2);
    }

    fn ask(store: &mut Store, request: &str, fds: usize) -> Answer {
        let fds = (0..fds).map(|_| File::open("/dev/null").unwrap().into()).collect();
        store.handle(request.as_bytes(), fds).0
    }
}
