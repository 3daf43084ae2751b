//! Changes of a running workload's share of new calls. Pure.

use sealane_proto::types::Weight;

/// Change of a weight: drained or not, another number, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WeightChange {
    /// True for drained; `None` leaves that as it is.
    pub(crate) drained: Option<bool>,
    /// Number; `None` leaves it as it is.
    pub(crate) weight: Option<Weight>,
}

impl WeightChange {
    /// Returns the weight that `before` becomes.
    pub(crate) fn of(self, before: Weight) -> Weight {
        let own = self.weight.unwrap_or(before.undrain());
        if self.drained.unwrap_or(before.kept().is_some()) { own.drain() } else { own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_keeps_the_weight_and_a_weight_does_not_end_a_drain() {
        let weight = |number: u32| Weight::try_from(number).unwrap();
        let drain = |drained| WeightChange { drained: Some(drained), weight: None };
        let set = |number| WeightChange { drained: None, weight: Some(weight(number)) };
        let table = [
            (vec![drain(true)], weight(5).drain()),
            (vec![drain(true), drain(false)], weight(5)),
            (vec![drain(true), set(7)], weight(7).drain()),
            (vec![drain(true), set(7), drain(true), drain(false)], weight(7)),
            (vec![set(0)], weight(0)),
            (vec![set(0), drain(false)], weight(0)),
            (vec![WeightChange::default()], weight(5)),
        ];
        for (changes, expected) in table {
            let last = changes.iter().fold(weight(5), |weight, change| change.of(weight));
            assert_eq!(last, expected, "{changes:?}");
        }
    }
}
