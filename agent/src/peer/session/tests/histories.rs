//! Random histories: facts change, frames arrive late or never, connections break, either host starts again.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const NETWORKS: [&str; 3] = ["blog", "dev", "shop"];
const NAMES: [&str; 4] = ["api-1", "api-2", "web-1", "web-2"];

#[derive(Clone, Debug)]
enum Step {
    /// A host's workloads in a network are others from now on: those of the bits.
    Change { host: bool, network: usize, workloads: u8 },
    /// A host carries a network, or does not.
    Carry { host: bool, network: usize, carried: bool },
    /// The next frame of a host arrives.
    Deliver { to: bool },
    /// A host sends a frame, if it has one.
    Send { from: bool },
    /// The connection breaks, and what was under way is lost.
    Lose,
    /// A host's agent starts again.
    Restart { host: bool },
    /// Time passes.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), 0..NETWORKS.len(), 0_u8..16)
            .prop_map(|(host, network, workloads)| Step::Change { host, network, workloads }),
        1 => (any::<bool>(), 0..NETWORKS.len(), any::<bool>())
            .prop_map(|(host, network, carried)| Step::Carry { host, network, carried }),
        6 => any::<bool>().prop_map(|from| Step::Send { from }),
        6 => any::<bool>().prop_map(|to| Step::Deliver { to }),
        1 => Just(Step::Lose),
        1 => any::<bool>().prop_map(|host| Step::Restart { host }),
        1 => (0_u64..4_000).prop_map(Step::Wait),
    ]
}

/// One host.
struct Host {
    name: &'static str,
    incarnation: u64,
    revisions: [u64; NETWORKS.len()],
    workloads: [u8; NETWORKS.len()],
    carried: [bool; NETWORKS.len()],
    session: Session,
    /// Frames on their way here.
    inbox: VecDeque<PeerFrame>,
    /// Words about the other host that the rest of the agent was told.
    told: BTreeMap<NetworkName, OwnerFacts>,
}

impl Host {
    fn new(name: &'static str, other: &'static str, now: Instant) -> Self {
        let session = Session::new("1", heard_of(other), now);
        let (inbox, told) = Default::default();
        let (revisions, workloads, carried) = ([1; 3], [0; 3], [true; 3]);
        Self { name, incarnation: 1, revisions, workloads, carried, session, inbox, told }
    }

    fn facts(&self) -> Vec<OwnerFacts> {
        let of = |(index, network): (usize, &&str)| {
            let here = |bit: &usize| self.workloads[index] & 1 << bit > 0;
            let names: Vec<&str> = (0..NAMES.len()).filter(here).map(|bit| NAMES[bit]).collect();
            facts_of(self.name, network, (self.incarnation, self.revisions[index]), &names)
        };
        NETWORKS.iter().enumerate().map(of).collect()
    }

    fn look(&mut self, shared: &BTreeSet<NetworkName>) {
        self.session.handle_facts(said(&self.facts()), shared);
        self.listen();
    }

    fn listen(&mut self) {
        while let Some(facts) = self.session.poll_heard() {
            let before = self.told.insert(facts.network.clone(), facts.clone());
            assert!(before.is_none_or(|before| before.edition() <= facts.edition()), "{facts:?} is older");
        }
    }
}

struct World {
    hosts: [Host; 2],
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self { hosts: [Host::new("a", "b", now), Host::new("b", "a", now)], now }
    }

    fn shared(&self) -> BTreeSet<NetworkName> {
        let both = |index: &usize| self.hosts.iter().all(|host| host.carried[*index]);
        (0..NETWORKS.len()).filter(both).map(|index| network(NETWORKS[index])).collect()
    }

    fn lose(&mut self) {
        for (index, owner) in [(0, "b"), (1, "a")] {
            let host = &mut self.hosts[index];
            let before = std::mem::replace(&mut host.session, Session::new("1", heard_of(owner), self.now));
            host.session = Session::new("1", before.into_heard(), self.now);
            host.inbox.clear();
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Change { host, network, workloads } => {
                let host = &mut self.hosts[usize::from(host)];
                host.workloads[network] = workloads;
                host.revisions[network] += 1;
            }
            Step::Carry { host, network, carried } => {
                self.hosts[usize::from(host)].carried[network] = carried;
            }
            Step::Send { from } => self.send(usize::from(from)),
            Step::Deliver { to } => self.deliver(usize::from(to)),
            Step::Lose => self.lose(),
            Step::Restart { host } => {
                self.lose();
                let owner = if host { "a" } else { "b" };
                let host = &mut self.hosts[usize::from(host)];
                host.incarnation += 1;
                host.revisions = [1; 3];
                host.session = Session::new("1", heard_of(owner), self.now);
                host.told.clear();
            }
            Step::Wait(milliseconds) => self.now += Duration::from_millis(milliseconds),
        }
        let shared = self.shared();
        self.hosts.iter_mut().for_each(|host| host.look(&shared));
    }

    fn send(&mut self, from: usize) {
        if let Some(frame) = self.hosts[from].session.poll_frame(self.now) {
            self.hosts[1 - from].inbox.push_back(frame);
        }
    }

    fn deliver(&mut self, to: usize) {
        if let Some(frame) = self.hosts[to].inbox.pop_front() {
            self.hosts[to].session.handle_frame(frame, self.now).expect("an honest peer is understood");
        }
    }

    /// Nothing is lost any more.
    fn come_to_rest(&mut self) {
        let shared = self.shared();
        self.hosts.iter_mut().for_each(|host| host.look(&shared));
        for _ in 0..300 {
            for host in [0, 1] {
                self.send(host);
                self.deliver(host);
                self.hosts[host].listen();
            }
        }
        assert!(self.hosts.iter().all(|host| host.inbox.is_empty()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_is_lost_the_receiver_ends_with_the_owners_newest_facts(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.take(step));
        world.come_to_rest();
        let shared = world.shared();
        for (host, other) in [(0, 1), (1, 0)] {
            for facts in world.hosts[other].facts().into_iter().filter(|facts| shared.contains(&facts.network)) {
                prop_assert_eq!(world.hosts[host].told.get(&facts.network), Some(&facts));
            }
        }
    }
}
