//! Steps of a simulated history, with small numbers for names so that they meet.

use proptest::prelude::*;

/// Number of hosts that may join.
pub(crate) const HOSTS: u8 = 4;
/// Number of networks that may be there.
pub(crate) const NETWORKS: u8 = 3;
/// Number of names for workloads and services.
const WORKLOADS: u8 = 6;
const SERVICES: u8 = 3;

/// Event of a history. The first number is the host or network that it concerns; what is not possible does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Somebody creates a network.
    CreateNetwork(u8),
    /// Somebody removes a network.
    RemoveNetwork(u8),
    /// Somebody gives a network a larger subnet, with a prefix of this length.
    GrowNetwork(u8, u8),
    /// Somebody removes a service of a network.
    RemoveService(u8, u8),
    /// Somebody removes a host, whether or not it works.
    RemoveHost(u8),
    /// Somebody drains a host, or ends that.
    Drain(u8, bool),
    /// A host joins the mesh; one that was removed is cleaned before.
    Join(u8),
    /// Somebody wants a workload on a host: its network, name, service (0: none), and a certain address (0: any).
    Attach(u8, u8, u8, u8, u8),
    /// A workload of a host, by its place, becomes ready or not.
    Ready(u8, u8, bool),
    /// A workload of a host, by its place, ends.
    End(u8, u8),
    /// A host's agent does what it can without the kernel and without waiting.
    Tend(u8),
    /// A host begins work on its kernel, as far as it may.
    Begin(u8),
    /// The kernel of a host ends the work on a network, by its place, or refuses it.
    Finish(u8, u8, bool),
    /// A host connects to control.
    Connect(u8),
    /// So many messages of a host arrive at control.
    Up(u8, u8),
    /// So many messages of control arrive at a host.
    Down(u8, u8),
    /// The stream of a host breaks; the flag says whether control notices.
    Cut(u8, bool),
    /// A host cannot reach control from now on, or can again.
    Partition(u8, bool),
    /// Control is gone for all hosts from now on, or is back.
    Blackout(bool),
    /// A host says to another one what is new of its workloads.
    Say(u8, u8),
    /// So many words of a host arrive at another one.
    Hear(u8, u8, u8),
    /// The channel from a host to another one breaks.
    CutChannel(u8, u8),
    /// Two hosts cannot reach each other from now on, or can again.
    Part(u8, u8, bool),
    /// All hosts that can reach each other hear everything that they have to say.
    Converse,
    /// Kill -9 of a host's agent, and another start; the number says which of its workloads end meanwhile.
    KillAgent(u8, u8),
    /// Kill -9 of control, and another start.
    KillControl,
    /// Somebody takes a backup.
    Backup,
    /// Somebody restores the backup.
    Restore,
    /// Somebody puts the store's file back, as it was when the backup was taken.
    PutBack,
    /// Seconds pass.
    Wait(u8),
    /// Hours pass.
    Hours(u8),
    /// Control looks for what is due, and says that it is there.
    Upkeep,
    /// Everything that is broken is mended, and everything that is under way comes to its end.
    Calm,
}

fn host() -> impl Strategy<Value = u8> {
    0..HOSTS
}

fn network() -> impl Strategy<Value = u8> {
    0..NETWORKS
}

/// Any step.
fn step() -> impl Strategy<Value = Step> {
    let attach = (host(), network(), 0..WORKLOADS, 0..=SERVICES, prop_oneof![4 => Just(0_u8), 1 => 1_u8..40]);
    prop_oneof![
        2 => network().prop_map(Step::CreateNetwork),
        1 => network().prop_map(Step::RemoveNetwork),
        1 => (network(), 24_u8..28).prop_map(|(network, prefix)| Step::GrowNetwork(network, prefix)),
        1 => (network(), 1..=SERVICES).prop_map(|(network, service)| Step::RemoveService(network, service)),
        1 => host().prop_map(Step::RemoveHost),
        1 => (host(), any::<bool>()).prop_map(|(host, drained)| Step::Drain(host, drained)),
        3 => host().prop_map(Step::Join),
        9 => attach.prop_map(|(host, net, workload, service, address)| {
            Step::Attach(host, net, workload, service, address)
        }),
        4 => (host(), any::<u8>(), any::<bool>()).prop_map(|(host, place, ready)| Step::Ready(host, place, ready)),
        4 => (host(), any::<u8>()).prop_map(|(host, place)| Step::End(host, place)),
        10 => host().prop_map(Step::Tend),
        8 => host().prop_map(Step::Begin),
        8 => (host(), any::<u8>(), prop::bool::weighted(0.9)).prop_map(|(host, place, works)| {
            Step::Finish(host, place, works)
        }),
        6 => host().prop_map(Step::Connect),
        10 => (host(), 1_u8..6).prop_map(|(host, messages)| Step::Up(host, messages)),
        10 => (host(), 1_u8..6).prop_map(|(host, messages)| Step::Down(host, messages)),
        2 => (host(), any::<bool>()).prop_map(|(host, noticed)| Step::Cut(host, noticed)),
        1 => (host(), any::<bool>()).prop_map(|(host, cut)| Step::Partition(host, cut)),
        1 => prop::bool::weighted(0.4).prop_map(Step::Blackout),
        10 => (host(), host()).prop_map(|(from, to)| Step::Say(from, to)),
        10 => (host(), host(), 1_u8..6).prop_map(|(from, to, words)| Step::Hear(from, to, words)),
        2 => (host(), host()).prop_map(|(from, to)| Step::CutChannel(from, to)),
        1 => (host(), host(), any::<bool>()).prop_map(|(one, other, apart)| Step::Part(one, other, apart)),
        3 => Just(Step::Converse),
        1 => (host(), any::<u8>()).prop_map(|(host, gone)| Step::KillAgent(host, gone)),
        1 => Just(Step::KillControl),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
        1 => Just(Step::PutBack),
        2 => prop_oneof![1_u8..10, 55_u8..70].prop_map(Step::Wait),
        1 => (1_u8..20).prop_map(Step::Hours),
        2 => Just(Step::Upkeep),
        2 => Just(Step::Calm),
    ]
}

/// A history. It begins with networks and hosts, so that most of what follows is possible.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let beginning =
        [Step::CreateNetwork(0), Step::CreateNetwork(1), Step::Join(0), Step::Join(1), Step::Join(2)];
    let beginning = proptest::sample::subsequence(beginning.to_vec(), 3..=5);
    (beginning, prop::collection::vec(step(), 20..160)).prop_map(|(mut beginning, steps)| {
        beginning.extend(steps);
        beginning
    })
}
