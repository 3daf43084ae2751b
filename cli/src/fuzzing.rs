//! Inputs of people and container runtimes, for fuzzing: each function panics where an invariant does not hold.

/// Reads documents in YAML or JSON as `apply` does.
pub fn documents(data: &[u8]) {
    crate::document::fuzzing::read(data);
}

/// Reads a CNI configuration and its environment: `CNI_ARGS` in the first line, the container's id and interface in the next
/// two, standard input behind them.
pub fn cni(data: &[u8]) {
    crate::plugin::cni::fuzzing::called(data);
}

/// Reads what podman gives a plugin of netavark.
pub fn netavark(data: &[u8]) {
    crate::plugin::netavark::fuzzing::called(data);
}
