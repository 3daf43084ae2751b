//! Scenes: a number of hosts, and what befalls them while they watch and tell each other.

use proptest::prelude::*;

/// Hosts of a large scene: more than a host asks at a time.
pub(crate) const MANY: u8 = 80;
/// Hosts of the largest one.
pub(crate) const MOST: u8 = 200;

/// Trouble, or its end. The first number is the host that it befalls, counted around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Packets of one host do not reach another one.
    OneWay(u8, u8),
    /// So many hosts from this one on are an island; the flag says whether control is out of their reach.
    Island(u8, u8, bool),
    /// A host is an island for so many tenths of a second, and is not for as long, again and again: so many times.
    Flap(u8, u8, u8),
    /// So many packets in a hundred are lost, each way.
    Loss(u8),
    /// All ways are open again, and nothing is lost.
    Heal,
    /// Control is gone for all hosts from now on, or is back.
    Blackout(bool),
    /// Hours pass in which nothing else happens.
    Hours(u8),
    /// A host loses its power.
    Off(u8),
    /// All hosts without power have it again, and start.
    On,
    /// Kill -9 of a host's agent, and another start.
    Kill(u8),
    /// All processes of a host are stopped for so many tenths of a second, while its kernel works.
    Freeze(u8, u8),
    /// A machine stands still for so many tenths of a second.
    Pause(u8, u8),
    /// The time of day of a host jumps by so many minutes.
    Jump(u8, i32),
    /// A host starts one more instance of a service.
    Start(u8, u8),
    /// An instance of a host, by its place, ends.
    End(u8, u8),
    /// An instance of a host, by its place, ends, and one of the same name starts on another one.
    Move(u8, u8, u8),
}

/// A mesh, and what befalls it, each after so many tenths of a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// Number of hosts.
    pub hosts: u8,
    /// Changes, each with the wait before it.
    pub changes: Vec<(u8, Change)>,
}

fn change(hosts: u8) -> impl Strategy<Value = Change> {
    let host = move || 0..hosts;
    prop_oneof![
        4 => (host(), host()).prop_map(|(from, to)| Change::OneWay(from, to)),
        4 => (host(), 1..=hosts, any::<bool>()).prop_map(|(first, count, control)| Change::Island(first, count, control)),
        3 => (host(), 1_u8..20, 1_u8..8).prop_map(|(host, tenths, times)| Change::Flap(host, tenths, times)),
        3 => prop_oneof![Just(20_u8), 1_u8..20].prop_map(Change::Loss),
        5 => Just(Change::Heal),
        3 => prop::bool::weighted(0.6).prop_map(Change::Blackout),
        1 => (1_u8..20).prop_map(Change::Hours),
        3 => host().prop_map(Change::Off),
        3 => Just(Change::On),
        3 => host().prop_map(Change::Kill),
        2 => (host(), 1_u8..60).prop_map(|(host, tenths)| Change::Freeze(host, tenths)),
        2 => (host(), 1_u8..60).prop_map(|(host, tenths)| Change::Pause(host, tenths)),
        2 => (host(), prop_oneof![-5..5, -600_000..AHEAD]).prop_map(|(host, minutes)| Change::Jump(host, minutes)),
        4 => (host(), any::<u8>()).prop_map(|(host, service)| Change::Start(host, service)),
        3 => (host(), any::<u8>()).prop_map(|(host, place)| Change::End(host, place)),
        3 => (host(), any::<u8>(), host()).prop_map(|(host, place, to)| Change::Move(host, place, to)),
    ]
}

/// Minutes by which a clock may be ahead: less than a day, beyond which hosts believe control alone.
const AHEAD: i32 = 20 * 60;

/// A scene. Waits are such that some changes meet, and that bounds pass between others.
pub(crate) fn scenes(hosts: impl Strategy<Value = u8>, changes: usize) -> impl Strategy<Value = Scene> {
    let wait = || prop_oneof![2 => 0_u8..5, 3 => 5_u8..40, 1 => 40_u8..150];
    hosts.prop_flat_map(move |hosts| {
        let changes = prop::collection::vec((wait(), change(hosts)), 1..changes);
        changes.prop_map(move |changes| Scene { hosts, changes })
    })
}
