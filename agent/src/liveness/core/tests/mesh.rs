//! Many hosts that watch each other and give each other hints.

use std::iter;

use super::*;

/// A host of the mesh.
struct Host {
    core: LivenessCore,
    /// Time of its next wake.
    next: Instant,
    /// Answers under way to it.
    answers: Vec<(Instant, usize, u64)>,
    /// First verdict on each host that it has lost.
    lost: BTreeMap<usize, Instant>,
}

/// Fate of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Wake,
    Hint(usize, BTreeSet<NodeName>),
}

/// All of them, and the network between.
struct Mesh {
    hosts: Vec<Host>,
    names: Vec<NodeName>,
    events: BinaryHeap<Reverse<(Instant, usize, Event)>>,
    now: Instant,
    random: StdRng,
    /// Packets in a hundred that are lost, each way.
    loss: u32,
    dead: BTreeSet<usize>,
    /// Hosts whose agents get no processor.
    stopped: BTreeSet<usize>,
    /// Host to which no answer comes.
    deaf: Option<usize>,
    /// Hosts that say at each wake that all others have changed.
    liars: BTreeSet<usize>,
    echoes: u64,
    hints: u64,
}

/// Time of a packet to any host.
const WAY: Duration = Duration::from_micros(500);

impl Mesh {
    fn new(count: usize, seed: u8) -> Self {
        let (began, mut random) = (Instant::now(), StdRng::from_seed([seed; 32]));
        let all = watched(0..count, true);
        let hosts: Vec<Host> = (0..count)
            .map(|host| {
                // Nobody's clock beats as another's.
                let since = began + Duration::from_micros(random.random_range(0..200_000));
                let before = (0..count).map(|other| (name(other), Reach::Unknown)).collect();
                let mut core = LivenessCore::new(SECOND, random.random(), before, since);
                let mut others = all.clone();
                others.remove(&name(host));
                core.handle_peers(&others);
                Host { core, next: since, answers: Vec::new(), lost: BTreeMap::new() }
            })
            .collect();
        let wake = |(host, known): (usize, &Host)| Reverse((known.next, host, Event::Wake));
        let events = hosts.iter().enumerate().map(wake).collect();
        let names = (0..count).map(name).collect();
        let (dead, stopped, liars) = Default::default();
        let (deaf, echoes, hints) = (None, 0, 0);
        Self { hosts, names, events, now: began, random, loss: 0, dead, stopped, deaf, liars, echoes, hints }
    }

    fn number(name: &NodeName) -> usize {
        name.as_str().rsplit('-').next().unwrap().parse().unwrap()
    }

    fn lost(&mut self) -> bool {
        self.loss > 0 && self.random.random_range(0..100) < self.loss
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, host, event))) = self.events.peek().cloned()
            && at <= end
        {
            self.events.pop();
            self.now = at;
            match event {
                Event::Wake if at < self.hosts[host].next => {}
                Event::Wake => {
                    self.wake(host);
                    self.lie(host);
                }
                Event::Hint(from, about) => {
                    self.hosts[host].core.handle_hint(&name(from), &about);
                    self.wake(host);
                }
            }
        }
        self.now = end;
    }

    /// Does what a wake of the shell does, unless the host is dead.
    fn wake(&mut self, host: usize) {
        if self.dead.contains(&host) || self.stopped.contains(&host) {
            return;
        }
        let now = self.now;
        let known = &mut self.hosts[host];
        let (come, under_way): (Vec<_>, Vec<_>) =
            std::mem::take(&mut known.answers).into_iter().partition(|(at, ..)| *at <= now);
        known.answers = under_way;
        for (at, from, token) in come {
            known.core.handle_answer(&self.names[from], token, at);
        }
        known.core.handle_time(now);
        while let Some(Echo { to, token, length }) = self.hosts[host].core.poll_echo(now) {
            self.echoes += u64::from(length.is_none());
            let to = Self::number(&to);
            let lost = self.lost() || self.lost() || self.deaf == Some(host);
            if !(lost || self.dead.contains(&to)) {
                self.hosts[host].answers.push((now + 2 * WAY, to, token));
            }
        }
        while let Some((to, about)) = self.hosts[host].core.poll_hint() {
            self.send_hint(host, &to, about);
        }
        let known = &mut self.hosts[host];
        for lost in known.core.unreachable() {
            known.lost.entry(Self::number(lost)).or_insert(now);
        }
        known.next = known.core.poll_timeout().unwrap();
        self.events.push(Reverse((known.next, host, Event::Wake)));
    }

    /// A liar says of all hosts that they have changed, to everybody.
    fn lie(&mut self, host: usize) {
        if self.liars.contains(&host) {
            let all: BTreeSet<NodeName> = self.names.iter().cloned().collect();
            self.names.clone().iter().for_each(|to| self.send_hint(host, to, all.clone()));
        }
    }

    /// The channel loses nothing as long as both ends live.
    fn send_hint(&mut self, from: usize, to: &NodeName, about: BTreeSet<NodeName>) {
        self.hints += 1;
        self.events.push(Reverse((self.now + WAY, Self::number(to), Event::Hint(from, about))));
    }

    /// Hosts die; returns the time until the last of the others knows of all of them.
    fn kill(&mut self, dead: impl Iterator<Item = usize>, within: Duration) -> Duration {
        let died = self.now;
        let new: BTreeSet<usize> = dead.collect();
        self.dead.extend(&new);
        self.run(within);
        let mut last = Duration::ZERO;
        for (number, host) in self.hosts.iter().enumerate().filter(|(number, _)| !self.dead.contains(number))
        {
            for lost in &new {
                let known = host.lost.get(lost).unwrap_or_else(|| panic!("{number} does not know of {lost}"));
                last = last.max(*known - died);
            }
            assert!(
                host.lost.keys().all(|lost| self.dead.contains(lost)),
                "{number} has accused {:?}",
                host.lost
            );
        }
        last
    }

    /// A host is back; returns the time until the last of the others knows.
    fn revive(&mut self, host: usize, within: Duration) -> Duration {
        let (back, step) = (self.now, Duration::from_millis(5));
        self.dead.remove(&host);
        self.wake(host);
        while self.hosts.iter().any(|other| other.core.unreachable().any(|lost| *lost == self.names[host])) {
            assert!(self.now < back + within, "somebody does not know yet");
            self.run(step);
        }
        self.now - back
    }

    /// Stopped ones go on.
    fn resume(&mut self) {
        for host in std::mem::take(&mut self.stopped) {
            self.wake(host);
        }
    }

    /// Echoes and hints that each living host sends in a second.
    fn costs(&mut self) -> (f64, f64) {
        let (echoes, hints, time) = (self.echoes, self.hints, 2 * SECOND);
        self.run(time);
        let living = (self.hosts.len() - self.dead.len()) as f64 * time.as_secs_f64();
        ((self.echoes - echoes) as f64 / living, (self.hints - hints) as f64 / living)
    }
}

#[test]
fn a_dead_host_among_two_hundred_is_known_to_all_within_a_second_whatever_is_lost() {
    for (seed, loss) in [(1, 0), (2, 5)] {
        let mut mesh = Mesh::new(200, seed);
        mesh.loss = loss;
        mesh.run(SECOND);
        let one = mesh.kill(iter::once(77), SECOND);
        let many = mesh.kill(100..120, SECOND * 5 / 4);
        println!("{loss} % lost: one host is known dead after {one:?}, twenty after {many:?}");
        assert!(one < SECOND && many < SECOND * 5 / 4);
    }
}

#[test]
fn a_dead_host_among_a_thousand_is_known_to_all_within_a_second_and_again_when_it_is_back() {
    let mut mesh = Mesh::new(1_000, 3);
    mesh.run(SECOND * 33 / 10);
    let died = mesh.kill(iter::once(77), SECOND);
    let returned = mesh.revive(77, SECOND);
    println!("known dead after {died:?}, known back after {returned:?}");
    assert!(died < SECOND && returned < SECOND);
}

#[test]
fn one_packet_in_five_that_is_lost_each_way_accuses_nobody_among_many_and_hints_stay_few() {
    let mut mesh = Mesh::new(70, 4);
    mesh.loss = 20;
    mesh.run(10 * SECOND);
    assert!(mesh.hosts.iter().all(|host| host.lost.is_empty()));
    let (echoes, hints) = mesh.costs();
    println!("{echoes:.0} echoes and {hints:.0} hints a second and host");
    // Hasty ones are among them: of three echoes, one is owed.
    assert!(echoes < 1_000.0 && hints < 1_000.0);
    mesh.loss = 0;
    mesh.run(SECOND);
    let (echoes, hints) = mesh.costs();
    assert!(echoes <= 5.0 * SAMPLE as f64 + 5.0 && hints < 0.01, "{echoes} {hints}");
}

#[test]
fn liars_remove_nobody_and_cost_each_host_a_bounded_number_of_echoes() {
    let mut mesh = Mesh::new(70, 5);
    mesh.run(SECOND);
    // In two seconds are eleven intervals, some not whole.
    for (liars, bound) in [(1, 5.5 * 8.0), (10, 5.5 * SAMPLE as f64)] {
        let (before, _) = mesh.costs();
        mesh.liars = (0..liars).collect();
        let (echoes, hints) = mesh.costs();
        println!(
            "{liars} liars: {echoes:.0} echoes a second and host, {before:.0} without, for {hints:.0} hints"
        );
        assert!(echoes <= before + bound + 1.0, "{echoes} {before}");
        assert!(mesh.hosts.iter().all(|host| host.lost.is_empty()));
        // Nor do they keep others from finding out.
        let took = mesh.kill(iter::once(50 + liars), SECOND);
        assert!(took < SECOND, "{took:?}");
        mesh.dead.clear();
        mesh.liars.clear();
        mesh.run(2 * SECOND);
        mesh.hosts.iter_mut().for_each(|host| host.lost.clear());
    }
}

#[test]
fn hosts_that_are_stopped_or_hear_nobody_give_no_hints_and_accuse_nobody_when_they_go_on() {
    let mut mesh = Mesh::new(80, 6);
    mesh.run(SECOND);
    let hints = mesh.hints;
    // Half of them get no processor for 10 s. Their kernels answer, and what they had asked was answered.
    let stopped: BTreeSet<usize> = (0..40).collect();
    mesh.stopped = stopped.clone();
    mesh.run(10 * SECOND);
    mesh.resume();
    mesh.run(2 * SECOND);
    assert!(mesh.hosts.iter().all(|host| host.lost.is_empty()));
    assert_eq!(mesh.hints, hints);
    // The same, and what came for them meanwhile is gone.
    mesh.stopped = stopped;
    mesh.run(SECOND);
    mesh.hosts.iter_mut().take(40).for_each(|host| host.answers.clear());
    mesh.resume();
    mesh.run(2 * SECOND);
    assert!(mesh.hosts.iter().all(|host| host.lost.is_empty()));
    assert_eq!(mesh.hints, hints);
    // One that hears nobody any more finds all others unreachable, and tells nobody.
    mesh.deaf = Some(7);
    mesh.run(3 * SECOND);
    let (of_it, of_others): (Vec<_>, Vec<_>) =
        mesh.hosts.iter().enumerate().partition(|(host, _)| *host == 7);
    assert_eq!((of_it[0].1.lost.len(), mesh.hints), (79, hints));
    assert!(of_others.iter().all(|(_, host)| host.lost.is_empty()));
}
