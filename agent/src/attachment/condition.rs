//! Conditions of a workload's container, by its runtime's word.

/// Condition of a container, by its runtime's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ContainerCondition {
    /// Nothing so far.
    #[default]
    Unknown,
    /// The container runs, and nothing is wrong with it.
    Serves,
    /// The container runs, and its health check has not passed yet.
    Starting,
    /// The container's health check fails.
    Unhealthy,
    /// The container is paused.
    Paused,
    /// The container does not run.
    Ended,
}

impl ContainerCondition {
    /// Returns the obstacle that keeps calls from it, in words.
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

/// Statements of a runtime about a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuntimeReport {
    /// Condition of its container.
    pub(crate) condition: ContainerCondition,
    /// True if one of its ports is enough for it to be ready: they are those that it may use.
    pub(crate) any_port: bool,
}
