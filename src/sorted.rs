//! One sort for all lists that are sorted by a number, and maps that are sorted lists: std's own sort and its trees stand in
//! the library once for each kind of element, with kilobytes each.

use std::borrow::Borrow;

/// A map in the order of its keys. It is found in as fast as in a tree. What is inserted before the end moves all that is
/// behind it, microseconds for some thousands of entries.
#[derive(Debug)]
pub(crate) struct SortedMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> SortedMap<K, V> {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub(crate) fn into_keys(self) -> Vec<K> {
        self.0.into_iter().map(|(key, _)| key).collect()
    }

    /// Removes what is not to be kept, and returns it.
    pub(crate) fn keep(&mut self, is_kept: impl Fn(&V) -> bool) -> Vec<(K, V)> {
        self.0.extract_if(.., |(_, value)| !is_kept(value)).collect()
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    /// The value of `key`.
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.place(key).ok().map(|place| &self.0[place].1)
    }

    /// The same, to be changed.
    pub(crate) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.place(key).ok().map(|place| &mut self.0[place].1)
    }

    pub(crate) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.place(key).is_ok()
    }

    /// The first entry whose key comes after `key`.
    pub(crate) fn next_after<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&(K, V)>
    where
        K: Borrow<Q>,
    {
        let next = self.place(key).map_or_else(|place| place, |place| place + 1);
        self.0.get(next)
    }

    /// Gives `key` the value, and returns the one that it had.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => Some(std::mem::replace(&mut self.0[place].1, value)),
            Err(place) => {
                self.0.insert(place, (key, value));
                None
            }
        }
    }

    /// Removes `key`, and returns its value.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.place(key).ok().map(|place| self.0.remove(place).1)
    }

    /// Where `key` is, or where it belongs.
    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(known, _)| known.borrow().cmp(key))
    }
}

/// `list` in the order of its elements' numbers.
pub(crate) fn sorted_by<T>(list: Vec<T>, number: impl Fn(&T) -> u64) -> Vec<T> {
    let mut order = list.iter().map(number).zip(0..).collect::<Vec<_>>();
    sort(&mut order);
    let mut elements = list.into_iter().map(Some).collect::<Vec<_>>();
    order.iter().filter_map(|(_, place)| elements.get_mut(*place)?.take()).collect()
}

#[inline(never)]
fn sort(order: &mut [(u64, usize)]) {
    order.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn elements_of_one_number_stay_as_they_were() {
        let sorted = sorted_by(vec![(2, "b"), (1, "c"), (2, "a"), (0, "d")], |(number, _)| *number);
        assert_eq!(sorted, [(0, "d"), (1, "c"), (2, "b"), (2, "a")]);
    }

    proptest! {
        #[test]
        fn a_sorted_map_is_what_a_tree_is(steps in proptest::collection::vec((0_u8..20, 0_u8..4), 0..60)) {
            let (mut map, mut tree) = (SortedMap::new(), BTreeMap::new());
            for (step, (key, what)) in steps.into_iter().enumerate() {
                match what {
                    0 => prop_assert_eq!(map.remove(&key), tree.remove(&key)),
                    1 => {
                        let removed = map.keep(|value| value % 3 != 0);
                        prop_assert_eq!(removed, tree.extract_if(.., |_, value| *value % 3 == 0).collect::<Vec<_>>());
                    }
                    _ => prop_assert_eq!(map.insert(key, step), tree.insert(key, step)),
                }
                prop_assert!(map.iter().eq(tree.iter()) && map.values().eq(tree.values()) && map.len() == tree.len());
                prop_assert_eq!((map.get(&key), map.contains_key(&key)), (tree.get(&key), tree.contains_key(&key)));
                prop_assert_eq!(map.get_mut(&key), tree.get_mut(&key));
                prop_assert_eq!(map.next_after(&key).map(|(key, _)| key), tree.range(key + 1..).next().map(|(key, _)| key));
            }
        }
    }
}
