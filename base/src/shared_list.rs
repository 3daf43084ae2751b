//! Lists whose copies share: a copy costs as much as a pointer, and a change of a copy as much as a small part of the list.

use std::cmp::Ordering;
use std::fmt;
use std::iter;
use std::mem;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

/// The most items of a part.
const MOST: usize = 64;
/// Items of a part of a list that is made as a whole: it has room for some more.
const FILL: usize = 48;

/// A list that shares with its copies everything but what has changed since, so that two of them are compared by what is other.
///
/// Items lie in parts of some dozens. A change copies one part, and the list of the parts. Whoever looks an item up has sorted the list.
pub struct SharedList<T> {
    /// None of them is empty.
    parts: Arc<Vec<Arc<Vec<T>>>>,
    len: usize,
}

impl<T> SharedList<T> {
    /// Returns the number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The items in their order.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { parts: self.parts.iter(), part: [].iter(), left: self.len }
    }

    /// Returns the item at a place. Looking for it takes as long as there are parts.
    #[must_use]
    pub fn get(&self, mut at: usize) -> Option<&T> {
        for part in self.parts.iter() {
            match part.get(at) {
                Some(item) => return Some(item),
                None => at -= part.len(),
            }
        }
        None
    }

    /// Returns the first item.
    #[must_use]
    pub fn first(&self) -> Option<&T> {
        self.parts.first()?.first()
    }

    /// Returns the last item.
    #[must_use]
    pub fn last(&self) -> Option<&T> {
        self.parts.last()?.last()
    }

    /// Returns true if an item is in it.
    pub fn contains(&self, item: &T) -> bool
    where
        T: PartialEq,
    {
        self.iter().any(|known| known == item)
    }

    /// Finds an item of a sorted list by its order to what is looked for.
    pub fn find_by(&self, order: impl Fn(&T) -> Ordering) -> Option<&T> {
        let (at, found) = self.place(&order);
        self.parts.get(at)?.get(found.ok()?)
    }

    /// The part of a sorted list in which an item lies or would, and its place there.
    fn place(&self, order: &impl Fn(&T) -> Ordering) -> (usize, Result<usize, usize>) {
        let begins_before = |part: &Arc<Vec<T>>| part.first().is_some_and(|first| order(first).is_le());
        let at = self.parts.partition_point(begins_before).saturating_sub(1);
        (at, self.parts.get(at).map_or(Err(0), |part| part.binary_search_by(order)))
    }

    /// The pairs in which this sorted list differs from a newer one: what was, and what is. Parts that they share are passed over.
    pub fn differences<'a>(
        &'a self,
        newer: &'a Self,
        order: impl Fn(&T, &T) -> Ordering,
    ) -> impl Iterator<Item = (Option<&'a T>, Option<&'a T>)>
    where
        T: PartialEq,
    {
        let (mut old, mut new) = (Cursor::of(self), Cursor::of(newer));
        let pairs = iter::from_fn(move || {
            Cursor::skip_shared(&mut old, &mut new);
            let order = match (old.item(), new.item()) {
                (Some(old), Some(new)) => order(old, new),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            // What is in order before the other side's next is on its own side alone.
            let one = if order.is_le() { old.next() } else { None };
            let other = if order.is_ge() { new.next() } else { None };
            Some((one, other))
        });
        pairs.filter(|(one, other)| one != other)
    }
}

impl<T: Clone> SharedList<T> {
    /// Sets what is in the place of a sorted list that `order` leads to: the item, or nothing. Returns what was there.
    pub fn set_by(&mut self, order: impl Fn(&T) -> Ordering, item: Option<T>) -> Option<T> {
        let (at, found) = self.place(&order);
        match (found, item) {
            (Ok(place), Some(item)) => Some(mem::replace(&mut self.part(at)[place], item)),
            (Ok(place), None) => {
                let before = self.part(at).remove(place);
                self.len -= 1;
                self.shrink(at);
                Some(before)
            }
            (Err(place), Some(item)) => {
                self.insert(at, place, item);
                None
            }
            (Err(_), None) => None,
        }
    }

    /// Adds an item behind all others.
    pub fn push(&mut self, item: T) {
        let at = self.parts.len().saturating_sub(1);
        let place = self.parts.last().map_or(0, |part| part.len());
        self.insert(at, place, item);
    }

    /// Removes the last item and returns it.
    pub fn pop(&mut self) -> Option<T> {
        let at = self.parts.len().checked_sub(1)?;
        let last = self.part(at).pop();
        self.len -= usize::from(last.is_some());
        self.shrink(at);
        last
    }

    /// Keeps the items for which `keeps` says so.
    pub fn retain(&mut self, keeps: impl Fn(&T) -> bool) {
        if !self.iter().all(&keeps) {
            *self = self.iter().filter(|item| keeps(item)).cloned().collect();
        }
    }

    /// The items in their order, to be changed. That makes the whole list its own.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        Arc::make_mut(&mut self.parts).iter_mut().flat_map(|part| Arc::make_mut(part).iter_mut())
    }

    /// A part of our own.
    fn part(&mut self, at: usize) -> &mut Vec<T> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.parts)[at])
    }

    fn insert(&mut self, at: usize, place: usize, item: T) {
        self.len += 1;
        if self.parts.is_empty() {
            Arc::make_mut(&mut self.parts).push(Arc::new(vec![item]));
            return;
        }
        let part = self.part(at);
        part.reserve_exact(1);
        part.insert(place, item);
        if part.len() > MOST {
            let rest = part.split_off(MOST / 2);
            part.shrink_to_fit();
            Arc::make_mut(&mut self.parts).insert(at + 1, Arc::new(rest));
        }
    }

    /// Joins a part that has become small with the one behind it, and takes an empty one away.
    fn shrink(&mut self, at: usize) {
        let parts = Arc::make_mut(&mut self.parts);
        let len = parts[at].len();
        if len == 0 {
            parts.remove(at);
        } else if parts.get(at + 1).is_some_and(|next| len + next.len() <= MOST / 2) {
            let next = parts.remove(at + 1);
            Arc::make_mut(&mut parts[at]).extend(next.iter().cloned());
        }
    }
}

/// A place in a list.
struct Cursor<'a, T> {
    parts: &'a [Arc<Vec<T>>],
    within: usize,
}

impl<'a, T> Cursor<'a, T> {
    fn of(list: &'a SharedList<T>) -> Self {
        Self { parts: &list.parts, within: 0 }
    }

    fn item(&self) -> Option<&'a T> {
        self.parts.first()?.get(self.within)
    }

    fn next(&mut self) -> Option<&'a T> {
        let part = self.parts.first()?;
        let item = part.get(self.within);
        self.within += 1;
        if self.within >= part.len() {
            (self.parts, self.within) = (&self.parts[1..], 0);
        }
        item
    }

    /// Passes over the parts that both have where both begin one.
    fn skip_shared(one: &mut Self, other: &mut Self) {
        while one.within == 0
            && other.within == 0
            && let ([first, rest @ ..], [second, others @ ..]) = (one.parts, other.parts)
            && Arc::ptr_eq(first, second)
        {
            (one.parts, other.parts) = (rest, others);
        }
    }
}

/// The items of a list in their order.
#[derive(Debug)]
pub struct Iter<'a, T> {
    parts: std::slice::Iter<'a, Arc<Vec<T>>>,
    part: std::slice::Iter<'a, T>,
    left: usize,
}

impl<T> Clone for Iter<'_, T> {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone(), part: self.part.clone(), left: self.left }
    }
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        let item = match self.part.next() {
            Some(item) => item,
            None => {
                self.part = self.parts.next()?.iter();
                self.part.next()?
            }
        };
        self.left -= 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}

impl<'a, T> IntoIterator for &'a SharedList<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for SharedList<T> {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone(), len: self.len }
    }
}

impl<T> Default for SharedList<T> {
    fn default() -> Self {
        Self { parts: Arc::default(), len: 0 }
    }
}

impl<T: fmt::Debug> fmt::Debug for SharedList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T> From<Vec<T>> for SharedList<T> {
    fn from(items: Vec<T>) -> Self {
        items.into_iter().collect()
    }
}

impl<T, const N: usize> From<[T; N]> for SharedList<T> {
    fn from(items: [T; N]) -> Self {
        items.into_iter().collect()
    }
}

impl<T> FromIterator<T> for SharedList<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let (mut items, mut parts, mut len) = (items.into_iter(), Vec::new(), 0);
        loop {
            let mut part: Vec<T> = items.by_ref().take(FILL).collect();
            if part.is_empty() {
                break;
            }
            part.shrink_to_fit();
            len += part.len();
            parts.push(Arc::new(part));
        }
        parts.shrink_to_fit();
        Self { parts: Arc::new(parts), len }
    }
}

impl<T: Clone> Extend<T> for SharedList<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.push(item));
    }
}

impl<T: PartialEq> PartialEq for SharedList<T> {
    fn eq(&self, other: &Self) -> bool {
        if self.len != other.len {
            return false;
        }
        let (mut one, mut two) = (Cursor::of(self), Cursor::of(other));
        loop {
            Cursor::skip_shared(&mut one, &mut two);
            match (one.next(), two.next()) {
                (None, None) => return true,
                (item, other) if item != other => return false,
                _ => {}
            }
        }
    }
}

impl<T: Eq> Eq for SharedList<T> {}

impl<T> Index<usize> for SharedList<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        match self.get(at) {
            Some(item) => item,
            None => panic!("item {at} of a list of {}", self.len),
        }
    }
}

impl<T: Clone> IndexMut<usize> for SharedList<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        let len = self.len;
        match self.iter_mut().nth(at) {
            Some(item) => item,
            None => panic!("item {at} of a list of {len}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A number from a generator whose histories can be had again.
    fn chance(seed: &mut u64, below: u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % below
    }

    fn set(list: &mut SharedList<(u64, u64)>, key: u64, value: Option<u64>) -> Option<u64> {
        list.set_by(|item| item.0.cmp(&key), value.map(|value| (key, value))).map(|(_, value)| value)
    }

    fn well_formed(list: &SharedList<(u64, u64)>) -> bool {
        list.parts.iter().all(|part| (1..=MOST).contains(&part.len()))
            && list.parts.iter().map(|part| part.len()).sum::<usize>() == list.len
    }

    #[test]
    fn a_list_is_a_sorted_map_whatever_its_history_and_its_copies_stay_as_they_were() {
        let mut seed = 1;
        for keys in [3, 60, 500] {
            let (mut list, mut model) = (SharedList::default(), BTreeMap::new());
            for round in 0..1_000_u64 {
                let (copy, before) = (list.clone(), model.clone());
                let mostly = if (round / 250) % 2 == 0 { 3 } else { 1 };
                for _ in 0..=chance(&mut seed, 3) {
                    let key = chance(&mut seed, keys);
                    let value = (chance(&mut seed, 4) < mostly).then(|| chance(&mut seed, 3));
                    let known = match value {
                        Some(value) => model.insert(key, value),
                        None => model.remove(&key),
                    };
                    assert_eq!(set(&mut list, key, value), known);
                }
                assert!(well_formed(&list));
                assert_eq!(list.len(), model.len());
                assert!(list.iter().copied().eq(model.clone()));
                assert!(copy.iter().copied().eq(before.clone()));
                assert_eq!(list == copy, before == model);
                let key = chance(&mut seed, keys);
                assert_eq!(
                    list.find_by(|item| item.0.cmp(&key)).map(|item| item.1),
                    model.get(&key).copied()
                );
                let keys = before.keys().chain(model.keys()).collect::<std::collections::BTreeSet<_>>();
                let expected: Vec<_> = keys
                    .into_iter()
                    .map(|key| (before.get(key).copied(), model.get(key).copied()))
                    .filter(|(old, new)| old != new)
                    .collect();
                let pairs = copy.differences(&list, |a, b| a.0.cmp(&b.0));
                let pairs: Vec<_> =
                    pairs.map(|(old, new)| (old.map(|it| it.1), new.map(|it| it.1))).collect();
                assert_eq!(pairs, expected);
            }
        }
    }

    #[test]
    fn a_comparison_looks_at_the_parts_that_are_not_shared_alone() {
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        static COMPARED: AtomicUsize = AtomicUsize::new(0);
        #[derive(Clone, Debug)]
        struct Counted(u64);
        impl PartialEq for Counted {
            fn eq(&self, other: &Self) -> bool {
                COMPARED.fetch_add(1, Relaxed);
                self.0 == other.0
            }
        }
        let before: SharedList<Counted> = (0..100_000).map(|at| Counted(2 * at)).collect();
        let mut after = before.clone();
        after.set_by(|item| item.0.cmp(&101), Some(Counted(101)));
        after.set_by(|item| item.0.cmp(&50_000), None);
        let pairs = before.differences(&after, |a, b| a.0.cmp(&b.0));
        let pairs: Vec<_> = pairs.map(|(old, new)| (old.map(|it| it.0), new.map(|it| it.0))).collect();
        assert_eq!(pairs, [(None, Some(101)), (Some(50_000), None)]);
        assert!(COMPARED.load(Relaxed) < 4 * MOST, "{COMPARED:?}");
    }

    #[test]
    fn items_are_found_by_their_places_and_what_is_behind_the_last_is_none() {
        let mut list: SharedList<usize> = (0..1_000).collect();
        assert!((0..1_000).all(|at| list[at] == at && list.get(at) == Some(&at)));
        assert_eq!((list.get(1_000), list.first(), list.last()), (None, Some(&0), Some(&999)));
        list.push(1_000);
        list[0] = 7;
        assert_eq!((list.pop(), list[0], list.len()), (Some(1_000), 7, 1_000));
        list.retain(|item| item % 2 == 0);
        assert_eq!((list.len(), list.iter().len()), (499, 499));
        list.iter_mut().for_each(|item| *item += 1);
        assert!(list.iter().all(|item| item % 2 == 1));
        assert_eq!(SharedList::<u8>::default().iter().next(), None);
    }
}
