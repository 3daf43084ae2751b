//! Expressions that only scripts have.

use super::super::expression::{Family, META_NFPROTO, Rule};

impl Rule {
    /// `meta nfproto FAMILY`
    pub(super) fn of(self, family: Family) -> Self {
        self.meta(META_NFPROTO, 1).is(&[family.nfproto])
    }

    /// The first register without the bits that the mask has not.
    pub(super) fn masked(self, mask: &[u8]) -> Self {
        let (length, zero) = (u32::try_from(mask.len()).unwrap_or_default(), vec![0; mask.len()]);
        self.expression("bitwise", |data| {
            for (kind, value) in [(1, 1), (2, 1), (3, length)] {
                data.number(kind, value);
            }
            data.nested(4, |data| data.bytes(1, mask));
            data.nested(5, |data| data.bytes(1, &zero));
        })
    }

    /// `ct KEY`, or `ct original KEY` with direction 0: into the first register.
    pub(super) fn tracked(self, key: u32, direction: Option<u8>) -> Self {
        self.expression("ct", |data| {
            data.number(2, key);
            data.number(1, 1);
            if let Some(direction) = direction {
                data.bytes(3, &[direction]);
            }
        })
    }

    /// Looks up the first register in a set, by its name or, of the same transaction, its number.
    pub(super) fn found_in(self, set: &str, id: Option<u32>, flags: u32) -> Self {
        self.expression("lookup", |data| {
            data.number(2, 1);
            data.text(1, set);
            if let Some(id) = id {
                data.number(4, id);
            }
            if flags != 0 {
                data.number(5, flags);
            }
        })
    }

    /// Puts a value into a register.
    pub(super) fn constant(self, register: u32, value: &[u8]) -> Self {
        self.expression("immediate", |data| {
            data.number(1, register);
            data.nested(2, |data| data.bytes(1, value));
        })
    }

    /// `dnat` and the like, by these attributes.
    pub(super) fn translate(self, attributes: &[(u16, u32)]) -> Self {
        self.expression("nat", |data| {
            attributes.iter().for_each(|(kind, value)| data.number(*kind, *value));
        })
    }

    /// `redirect` to the port in a register.
    pub(super) fn redirect_by(self, register: u32, flags: u32) -> Self {
        self.expression("redir", |data| {
            data.number(1, register);
            data.number(3, flags);
        })
    }

    /// `counter`
    pub(super) fn count_here(self) -> Self {
        self.expression("counter", |data| {
            data.bytes(1, &[0; 8]);
            data.bytes(2, &[0; 8]);
        })
    }
}
