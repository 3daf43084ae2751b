//! Readiness by family of addresses. Pure.

/// The addresses of a workload at which its ports take what comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// At its IPv4 address.
    pub v4: bool,
    /// At its IPv6 address; where the network has none, as at the other.
    pub v6: bool,
}

impl Families {
    /// At both, or at neither.
    #[must_use]
    pub const fn both(take: bool) -> Self {
        Self { v4: take, v6: take }
    }

    /// Returns true if there is one at which they do.
    #[must_use]
    pub const fn any(self) -> bool {
        self.v4 || self.v6
    }

    /// Joins the families of two ports: those of both or, if `any_port` is enough, of either.
    pub(super) const fn with(self, other: Self, any_port: bool) -> Self {
        if any_port {
            Self { v4: self.v4 || other.v4, v6: self.v6 || other.v6 }
        } else {
            Self { v4: self.v4 && other.v4, v6: self.v6 && other.v6 }
        }
    }
}
