//! How a workload's container is, as its runtime says.

/// What a runtime says of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing so far.
    #[default]
    Unknown,
    /// It runs, and nothing is wrong with it.
    Serves,
    /// It runs, and its health check has not passed yet.
    Starting,
    /// Its health check fails.
    Unhealthy,
    /// It is paused.
    Paused,
    /// It does not run.
    Ended,
}

impl Condition {
    /// What keeps calls from it, in words.
    #[must_use]
    pub(crate) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Unknown | Self::Serves => None,
            Self::Starting => Some("its container's health check has not passed yet"),
            Self::Unhealthy => Some("its container's health check fails"),
            Self::Paused => Some("its container is paused"),
            Self::Ended => Some("its container does not run"),
        }
    }
}

/// What a runtime says of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Its container.
    pub(crate) condition: Condition,
    /// Whether one of its ports is enough for it to be ready: they are those that it may use.
    pub(crate) any_port: bool,
}
