//! One sort for all lists that are sorted by a number: another one for each kind of element takes kilobytes.

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

    #[test]
    fn elements_of_one_number_stay_as_they_were() {
        let sorted = sorted_by(vec![(2, "b"), (1, "c"), (2, "a"), (0, "d")], |(number, _)| *number);
        assert_eq!(sorted, [(0, "d"), (1, "c"), (2, "b"), (2, "a")]);
    }
}
