//! Queue of containers to be looked at: each is asked about once at a time, and again when something happened meanwhile. Pure.

use std::collections::{BTreeMap, VecDeque};

/// Number of containers that are asked about at once.
const AT_ONCE: usize = 8;

/// The containers to look at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Containers that are asked about; true for those that are to be asked about again.
    asked: BTreeMap<String, bool>,
    waiting: VecDeque<String>,
}

impl Looks {
    /// Something happened to a container.
    pub(super) fn want(&mut self, id: &str) {
        match self.asked.get_mut(id) {
            Some(again) => *again = true,
            None if self.waiting.iter().any(|waiting| waiting == id) => {}
            None => self.waiting.push_back(id.to_owned()),
        }
    }

    /// The next one to ask about.
    pub(super) fn next(&mut self) -> Option<String> {
        if self.asked.len() >= AT_ONCE {
            return None;
        }
        let id = self.waiting.pop_front()?;
        self.asked.insert(id.clone(), false);
        Some(id)
    }

    /// There is an answer. Whether it is the newest that can be had; otherwise the container is asked about again.
    pub(super) fn done(&mut self, id: &str) -> bool {
        let newest = self.asked.remove(id) != Some(true);
        if !newest {
            self.waiting.push_back(id.to_owned());
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_asked_about_once_at_a_time_and_again_when_something_happened_meanwhile() {
        let mut looks = Looks::default();
        looks.want("a");
        looks.want("a");
        assert_eq!((looks.next().as_deref(), looks.next()), (Some("a"), None));
        looks.want("a");
        assert!(!looks.done("a"), "something happened after the question");
        assert_eq!(looks.next().as_deref(), Some("a"));
        assert!(looks.done("a") && looks.next().is_none());
    }

    #[test]
    fn a_bounded_number_is_asked_about_at_once() {
        let mut looks = Looks::default();
        (0..20).for_each(|id| looks.want(&id.to_string()));
        let asked = std::iter::from_fn(|| looks.next()).count();
        assert_eq!(asked, AT_ONCE);
        assert!(looks.done("0") && looks.next().is_some());
    }
}
