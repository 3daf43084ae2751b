//! Maps whose copies share: a copy costs as much as a pointer, and a change of a copy as much as a small part of the map.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::mem;
use std::sync::Arc;

/// The most entries in a part on average, for each part that there is: a change copies one part and the list of parts.
const ENTRIES: usize = 4;

/// A map that shares with its copies everything but what has changed since.
///
/// Entries lie in parts by the hashes of their keys. Both the number of parts and their size grow with the square root of the number of
/// entries, and so does the cost of a change.
#[derive(Clone, Debug)]
pub struct SharedMap<K, V> {
    /// A power of two of them.
    parts: Arc<[Arc<Part<K, V>>]>,
    hasher: RandomState,
    len: usize,
}

type Part<K, V> = HashMap<K, V>;

impl<K, V> SharedMap<K, V> {
    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// The values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Eq + Hash + Clone, V: Clone> SharedMap<K, V> {
    /// Finds the value of a key.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.parts[self.place(key)].get(key)
    }

    /// Puts a value in the place of the one that the key had, and returns that.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let place = self.place(&key);
        let before = self.part(place).insert(key, value);
        if before.is_none() {
            self.len += 1;
            self.grow();
        }
        before
    }

    /// Removes an entry and returns it. A key that is not there costs a look.
    pub fn remove_entry<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        self.get(key)?;
        let place = self.place(key);
        let removed = self.part(place).remove_entry(key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Removes the value of a key and returns it. A key that is not there costs a look.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.remove_entry(key).map(|(_, value)| value)
    }

    /// Index of the part in which a key lies. Within a part the hash table takes other bits of another hash.
    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        self.hasher.hash_one(key) as usize & (self.parts.len() - 1)
    }

    /// A part of our own.
    fn part(&mut self, place: usize) -> &mut Part<K, V> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.parts)[place])
    }

    /// Makes twice as many parts where the present ones have become too large.
    fn grow(&mut self) {
        let count = self.parts.len();
        if self.len <= ENTRIES * count * count {
            return;
        }
        let mut parts = vec![Part::new(); 2 * count];
        let before = mem::take(&mut self.parts);
        for part in before.iter() {
            for (key, value) in part.iter() {
                let place = self.hasher.hash_one(key) as usize & (2 * count - 1);
                parts[place].insert(key.clone(), value.clone());
            }
        }
        self.parts = parts.into_iter().map(Arc::new).collect();
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { parts: Arc::new([Arc::default()]), hasher: RandomState::new(), len: 0 }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

impl<K: Eq + Hash + Clone, V: Clone + PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl<K: Eq + Hash + Clone, V: Clone + Eq> Eq for SharedMap<K, V> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers by chance, the same each time.
    fn numbers(mut seed: u64) -> impl Iterator<Item = usize> {
        std::iter::repeat_with(move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize
        })
    }

    fn assert_same(map: &SharedMap<usize, usize>, expected: &HashMap<usize, usize>) {
        assert_eq!(map.len(), expected.len());
        assert_eq!(map.is_empty(), expected.is_empty());
        assert!(map.iter().all(|(key, value)| expected.get(key) == Some(value)));
        assert_eq!(map.values().count(), expected.len());
    }

    #[test]
    fn it_has_what_a_hash_map_has_and_copies_stay_as_they_were() {
        let (mut map, mut expected, mut copies) = (SharedMap::default(), HashMap::new(), Vec::new());
        for (step, number) in numbers(7).take(20_000).enumerate() {
            let key = number / 8 % 700;
            if number % 8 < 5 {
                assert_eq!(map.insert(key, step), expected.insert(key, step));
            } else {
                assert_eq!(map.remove(&key), expected.remove(&key));
            }
            assert_eq!(map.get(&key), expected.get(&key));
            if step % 1_000 == 0 {
                copies.push((map.clone(), expected.clone()));
            }
        }
        copies.push((map, expected));
        copies.iter().for_each(|(map, expected)| assert_same(map, expected));
    }

    #[test]
    fn a_change_copies_one_part_and_nothing_that_is_not_there() {
        let before: SharedMap<usize, usize> = (0..10_000).map(|key| (key, key)).collect();
        let shared = |after: &SharedMap<usize, usize>| {
            let pairs = before.parts.iter().zip(after.parts.iter());
            pairs.filter(|(one, other)| Arc::ptr_eq(one, other)).count()
        };
        let mut after = before.clone();
        assert_eq!(after.remove(&10_000), None);
        assert!(Arc::ptr_eq(&before.parts, &after.parts));
        after.insert(17, 0);
        assert_eq!(shared(&after), before.parts.len() - 1);
        assert_eq!((before.get(&17), after.get(&17)), (Some(&17), Some(&0)));
        let (count, largest) = (before.parts.len(), before.parts.iter().map(|part| part.len()).max());
        assert!(count <= 100 && largest.is_some_and(|largest| largest <= 4 * count), "{count}, {largest:?}");
    }

    #[test]
    fn maps_are_equal_by_their_entries() {
        let map = |keys: std::ops::Range<usize>| keys.map(|key| (key, key)).collect::<SharedMap<_, _>>();
        let mut more = map(0..100);
        assert_ne!(more, map(0..10));
        (10..100).for_each(|key| assert_eq!(more.remove(&key), Some(key)));
        assert_eq!(more, map(0..10));
        more.insert(3, 4);
        assert_ne!(more, map(0..10));
    }
}
