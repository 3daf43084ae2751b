//! Words of dockerd, machines, resolvers and other hosts, for fuzzing: each function panics where an invariant does not hold.

/// Reads what dockerd asks of a plugin, and decides what it means.
pub fn docker_plugin(data: &[u8]) {
    crate::door::docker::fuzzing::call(data);
}

/// Reads what dockerd answers and tells: the first byte says what it was asked.
pub fn docker_engine(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    if first % 2 == 0 {
        crate::engine::fuzzing::events(bytes);
    } else if let Some(container) = crate::engine::fuzzing::views(bytes) {
        crate::door::docker::fuzzing::instance(&container);
    }
}

/// Keeps a resolver's answer for others.
pub fn dns_answer(data: &[u8]) {
    crate::dns::fuzzing::answered(data);
}

/// Reads frames of machines that ask for an address.
pub fn dhcp(data: &[u8]) {
    crate::tap::fuzzing::asked(data);
}

/// Reads what another host says in its channel.
pub fn peer_channel(data: &[u8]) {
    crate::peer::fuzzing::conversation(data);
}
