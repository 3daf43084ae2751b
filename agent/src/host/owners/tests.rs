mod ages;
mod namesakes;

use proptest::prelude::*;
use sealane_proto::resource::{Edition, NetworkSnapshot, Node};

use super::*;
use crate::testing;

fn name(host: u8) -> NodeName {
    format!("host-{host}").parse().unwrap()
}

/// A workload of a host, named `wl-<number>`, at an address of its block.
fn workload(host: u8, number: u8) -> Workload {
    at(host, number, &format!("10.42.{host}.{}", number + 2))
}

fn at(host: u8, number: u8, address: &str) -> Workload {
    Workload { node: name(host), ..testing::workload(&format!("wl-{number}"), address) }
}

fn facts(incarnation: u64, revision: u64, workloads: &[Workload]) -> OwnerFacts {
    let workloads = workloads.to_vec();
    OwnerFacts { network: "shop".parse().unwrap(), incarnation, revision, workloads }
}

/// A network of these hosts, each with a block, in which control has heard these words.
fn told(hosts: &[u8], heard: &[(u8, OwnerFacts)]) -> NetworkSnapshot {
    let mut snapshot = testing::snapshot();
    let node = |host: &u8| Node { name: name(*host), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
    snapshot.nodes = hosts.iter().map(node).collect();
    let block = |host: &u8| testing::block(Some(&format!("host-{host}")), &format!("10.42.{host}.0/24"));
    snapshot.blocks = hosts.iter().map(block).collect();
    let mut workloads: Vec<_> = heard.iter().flat_map(|(_, facts)| facts.workloads.clone()).collect();
    workloads.sort_by(|a, b| a.name.cmp(&b.name));
    snapshot.workloads = workloads.into();
    snapshot.reported = Some(heard.iter().map(|(host, facts)| (name(*host), facts.edition())).collect());
    snapshot
}

/// The workloads that host 0 goes by, as `<name>@<owner>`.
fn merged(snapshot: &NetworkSnapshot, local: Vec<Workload>, words: &Words) -> Vec<String> {
    let mut content = snapshot.content.clone();
    merge(&mut content, &name(0), local, words.of(&"shop".parse().unwrap()));
    assert_eq!(content.reported, None);
    content.workloads.iter().map(|workload| format!("{}@{}", workload.name, workload.node)).collect()
}

fn heard(words: &[(u8, OwnerFacts)]) -> Words {
    let mut heard = Words::default();
    for (host, facts) in words {
        let _ = heard.hear(name(*host), facts.clone(), (true, u64::MAX));
    }
    heard
}

#[test]
fn the_newer_word_of_an_owner_counts_be_it_controls_or_its_own() {
    let old = facts(3, 7, &[workload(1, 1)]);
    let new = facts(3, 8, &[workload(1, 2)]);
    let again = facts(4, 1, &[workload(1, 3)]);
    let check = |control: &OwnerFacts, words: &[(u8, OwnerFacts)], expected: &[&str]| {
        let snapshot = told(&[0, 1], &[(1, control.clone())]);
        assert_eq!(merged(&snapshot, vec![], &heard(words)), expected);
    };
    check(&old, &[], &["wl-1@host-1"]);
    check(&old, &[(1, new.clone())], &["wl-2@host-1"]);
    check(&new, &[(1, old.clone())], &["wl-2@host-1"]);
    check(&new, &[(1, new.clone()), (1, old.clone())], &["wl-2@host-1"]);
    check(&new, &[(1, again.clone()), (1, new.clone())], &["wl-3@host-1"]);
    check(&old, &[(1, facts(3, 9, &[]))], &[]);
    let silent = told(&[0, 1], &[]);
    assert_eq!(merged(&silent, vec![], &heard(&[(1, old)])), ["wl-1@host-1"], "control has heard nothing");
}

#[test]
fn an_older_control_plane_is_behind_who_is_heard_and_ahead_of_who_is_not() {
    let mut snapshot = told(&[0, 1], &[(1, facts(1, 1, &[workload(1, 1)]))]);
    snapshot.reported = None;
    let mut words = heard(&[(1, facts(1, 2, &[workload(1, 2)]))]);
    assert_eq!(merged(&snapshot, vec![], &words), ["wl-2@host-1"]);
    assert_eq!(words.fall_silent(&name(1)).len(), 1);
    assert_eq!(merged(&snapshot, vec![], &words), ["wl-1@host-1"]);
    assert!(words.hear(name(1), facts(1, 2, &[workload(1, 2)]), (true, u64::MAX)), "it is heard again");
    assert_eq!(merged(&snapshot, vec![], &words), ["wl-2@host-1"]);
}

#[test]
fn an_owner_has_no_say_in_what_is_not_its_own() {
    let snapshot = told(&[0, 1, 2], &[(2, facts(1, 1, &[workload(2, 9)]))]);
    let check = |workload: Workload, expected: &[&str]| {
        let words = heard(&[(1, facts(1, 1, &[workload]))]);
        assert_eq!(merged(&snapshot, vec![], &words), expected);
    };
    check(workload(1, 1), &["wl-1@host-1", "wl-9@host-2"]);
    check(workload(2, 1), &["wl-9@host-2"]);
    check(at(1, 1, "10.42.2.3"), &["wl-9@host-2"]);
    check(at(1, 1, "10.42.9.3"), &["wl-9@host-2"]);
    check(at(1, 9, "10.42.1.3"), &["wl-9@host-2"]);
    check(Workload { network: "other".parse().unwrap(), ..workload(1, 1) }, &["wl-9@host-2"]);
    check(Workload { mac: workload(2, 9).mac, ..workload(1, 1) }, &["wl-9@host-2"]);
    // Of a service that is for other hosts it has those instances that control knows.
    let of_api = || Workload { service: Some("api".parse().unwrap()), ..workload(1, 1) };
    let known = [(2, facts(1, 1, &[workload(2, 9)])), (1, facts(1, 1, &[of_api()]))];
    for (hosts, by_control, by_itself) in
        [(&["host-2"][..], true, false), (&["host-1", "host-2"], true, true), (&[], true, true)]
    {
        for (control, expected) in [(&known[..], by_control), (&known[..1], by_itself)] {
            let mut snapshot = told(&[0, 1, 2], control);
            let mut service = testing::service("api", "10.42.255.9", std::iter::empty());
            service.hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
            snapshot.services = [service].into();
            let words = heard(&[(1, facts(1, 2, &[of_api()]))]);
            let is_there = merged(&snapshot, vec![], &words).contains(&"wl-1@host-1".to_owned());
            assert_eq!(is_there, expected, "{hosts:?}");
        }
    }
    let stranger = heard(&[(7, facts(1, 1, &[workload(7, 1)]))]);
    assert_eq!(merged(&snapshot, vec![], &stranger), ["wl-9@host-2"], "control has no such host");
}

#[test]
fn an_address_outside_the_blocks_is_the_owners_where_control_has_it_so() {
    let known = facts(1, 1, &[at(1, 1, "10.42.99.9")]);
    let snapshot = told(&[0, 1], &[(1, known.clone())]);
    let words = heard(&[(1, OwnerFacts { revision: 2, ..known })]);
    assert_eq!(merged(&snapshot, vec![], &words), ["wl-1@host-1"]);
}

#[test]
fn of_two_workloads_of_one_owner_at_one_address_there_is_one() {
    let twin = Workload { mac: "06:11:22:33:44:55".parse().unwrap(), ..at(1, 2, "10.42.1.3") };
    let words = heard(&[(1, facts(1, 1, &[workload(1, 1), twin]))]);
    assert_eq!(merged(&told(&[0, 1], &[]), vec![], &words), ["wl-1@host-1"]);
}

#[test]
fn of_two_owners_the_one_that_control_knows_has_a_name_else_the_smaller_one() {
    let two = [(1, facts(1, 2, &[workload(1, 5)])), (2, facts(1, 2, &[workload(2, 5)]))];
    let check = |snapshot: &NetworkSnapshot, local: Vec<Workload>, expected: &[&str]| {
        assert_eq!(merged(snapshot, local.clone(), &heard(&two)), expected);
        let turned: Vec<_> = two.iter().rev().cloned().collect();
        assert_eq!(merged(snapshot, local, &heard(&turned)), expected, "whatever is heard first");
    };
    check(&told(&[0, 1, 2], &[]), vec![], &["wl-5@host-1"]);
    let known = told(&[0, 1, 2], &[(2, facts(1, 1, &[workload(2, 5)]))]);
    check(&known, vec![], &["wl-5@host-2"]);
    check(&known, vec![workload(0, 5)], &["wl-5@host-0"]);
    let moved = heard(&[(1, facts(1, 2, &[workload(1, 5)])), (2, facts(1, 2, &[]))]);
    assert_eq!(merged(&known, vec![], &moved), ["wl-5@host-1"], "its owner has let go of it");
}

#[test]
fn what_backs_a_claim_decides_before_the_names_of_owners() {
    let check = |told: &NetworkSnapshot, words: [Workload; 2], expected: &str| {
        let words = words.map(|workload| {
            let host = if workload.node == name(1) { 1 } else { 2 };
            (host, facts(1, 2, &[workload]))
        });
        assert_eq!(merged(told, vec![], &heard(&words)), [expected]);
    };
    // A name that control knows so, at whatever address, against one that nobody knows.
    let named = told(&[0, 1, 2], &[(2, facts(1, 1, &[workload(2, 5)]))]);
    check(&named, [workload(1, 5), at(2, 5, "10.42.2.99")], "wl-5@host-2");
    // An address that control has so, against one that a known name moves to.
    let known = [(1, facts(1, 1, &[at(1, 5, "10.42.1.7")])), (2, facts(1, 1, &[at(2, 6, "10.42.1.9")]))];
    let known = told(&[0, 1, 2], &known);
    check(&known, [at(1, 5, "10.42.1.9"), at(2, 6, "10.42.1.9")], "wl-6@host-2");
    // An Ethernet address of its owner's choice, against another such one.
    let mac = |workload| Workload { mac: "06:11:22:33:44:55".parse().unwrap(), ..workload };
    check(&told(&[0, 1, 2], &[]), [mac(workload(1, 1)), mac(workload(2, 2))], "wl-1@host-1");
}

#[test]
fn an_owner_is_believed_about_what_it_may_have() {
    let outside = at(1, 7, "10.42.99.9");
    let known = Workload { mac: at(1, 8, "10.42.1.88").mac, ..at(1, 8, "10.42.1.8") };
    let (other, more) = (at(2, 6, "10.42.99.6"), at(1, 9, "10.42.1.9"));
    let told = told(
        &[0, 1, 2],
        &[(1, facts(1, 1, &[outside.clone(), known.clone(), more])), (2, facts(1, 1, &[other]))],
    );
    let service = |count: usize| Workload {
        service: Some("api".parse().unwrap()),
        ports: vec!["80".parse().unwrap(); count],
        ..workload(1, 1)
    };
    for (workload, is_believed, reason) in [
        (outside, true, "control has it at this address outside every block"),
        (known, true, "control has it with this Ethernet address, which goes with another address"),
        (at(1, 1, "10.42.99.6"), false, "control has the address so, but of another host"),
        (at(1, 1, "10.42.99.7"), false, "control has the owner, but not at this address"),
        (
            Workload { mac: at(1, 1, "10.42.1.77").mac, ..workload(1, 1) },
            false,
            "the Ethernet address goes with another",
        ),
        (Workload { mac: "06:11:22:33:44:55".parse().unwrap(), ..workload(1, 1) }, true, "it goes with none"),
        (service(1), true, "an instance has ports"),
        (Workload { service: None, ..service(1) }, false, "what is of no service has none"),
        (service(Workload::MOST_PORTS), true, "so many ports"),
        (service(Workload::MOST_PORTS + 1), false, "too many ports"),
    ] {
        let words = heard(&[(1, facts(1, 2, std::slice::from_ref(&workload)))]);
        let expected = format!("{}@host-1", workload.name);
        let believed = merged(&told, vec![], &words).contains(&expected);
        assert_eq!(believed, is_believed, "{reason}");
    }
}

#[test]
fn what_a_host_is_said_to_have_itself_is_not_what_it_has() {
    let told = told(&[0, 1], &[]);
    let words = heard(&[(0, facts(1, 9, &[workload(0, 3)])), (1, facts(1, 1, &[workload(1, 1)]))]);
    assert_eq!(merged(&told, vec![workload(0, 2)], &words), ["wl-1@host-1", "wl-2@host-0"]);
}

#[test]
fn words_are_handed_on_that_say_more_than_control_does() {
    let (two, three) = (facts(1, 2, &[workload(1, 1)]), facts(1, 3, &[workload(1, 2)]));
    let mut words = Words::default();
    words.recall(name(1), three.clone());
    words.recall(name(7), three.clone());
    let newer = |words: &Words, heard: &OwnerFacts| {
        let told = told(&[0, 1], &[(1, heard.clone())]);
        let newer: Vec<NodeName> = words.newer(&told.content).into_keys().collect();
        assert_eq!(words.newest(&told.content, &name(1)).is_some(), newer == [name(1)]);
        newer
    };
    assert_eq!(newer(&words, &two), [name(1)], "and none of who is no member");
    assert_eq!(newer(&words, &three), []);
    assert!(words.fall_silent(&name(1)).is_empty(), "who was not heard since the start");
}

#[test]
fn instances_of_a_drained_host_are_not_ready_by_its_own_word_either() {
    let ready = |workload| Workload { ready: true, ready6: true, ..workload };
    let service = ready(Workload { service: Some("api".parse().unwrap()), ..workload(1, 1) });
    let mut snapshot = told(&[0, 1], &[]);
    snapshot.drained = vec![name(1)];
    let words = heard(&[(1, facts(1, 1, &[service, ready(workload(1, 2))]))]);
    merge(&mut snapshot.content, &name(0), vec![], words.of(&"shop".parse().unwrap()));
    let ready = snapshot.workloads.iter().map(|one| (one.ready, one.ready6));
    assert_eq!(ready.collect::<Vec<_>>(), [(false, false), (true, true)]);
}

#[test]
fn words_ahead_of_control_wait_and_those_of_hosts_that_left_are_forgotten() {
    let word = |host| facts(1, 1, &[workload(host, 1)]);
    let mut words = Words::default();
    assert!(words.hear(name(1), word(1), (false, u64::MAX)), "control tells of it soon");
    assert!(!words.hear(name(1), word(1), (false, u64::MAX)), "it has said so already");
    let [without, with] = [told(&[0], &[]), told(&[0, 1], &[])];
    words.dismiss(None, &without.content);
    words.dismiss(Some(&without.content), &with.content);
    assert_eq!(merged(&with, vec![], &words), ["wl-1@host-1"]);
    words.dismiss(Some(&with.content), &without.content);
    words.dismiss(Some(&without.content), &with.content);
    assert_eq!(merged(&with, vec![], &words), [""; 0], "another host may have the name by now");
}

#[test]
fn words_are_bounded_and_counted() {
    let mut words = Words::default();
    let many: Vec<Workload> = vec![workload(1, 1); MOST_WORKLOADS + 1];
    assert!(!words.hear(name(1), facts(1, 1, &many), (true, u64::MAX)));
    for number in 0..=MOST_AHEAD {
        words.hear(format!("host-{number}").parse().unwrap(), facts(1, 1, &[]), (false, u64::MAX));
    }
    assert_eq!((words.poll_refused(), words.poll_refused()), (2, 0));
    assert!(words.hear("member".parse().unwrap(), facts(1, 1, &[]), (true, u64::MAX)), "control tells of it");
}

/// A host of the model: what it runs, and all that it has ever said.
#[derive(Clone, Debug, Default)]
struct Owner {
    incarnation: u64,
    running: BTreeSet<u8>,
    said: Vec<OwnerFacts>,
}

impl Owner {
    fn say(&mut self, host: u8) {
        let workloads: Vec<Workload> = self.running.iter().map(|&number| workload(host, number)).collect();
        let revision = self.said.len() as u64 + 1;
        self.said.push(facts(self.incarnation, revision, &workloads));
    }
}

/// Something that happens; hosts are 1 to 3.
#[derive(Clone, Debug)]
enum Event {
    Start(u8, u8),
    End(u8, u8),
    /// The agent starts anew; what ran runs on but for what ended meanwhile.
    Restart(u8, u8),
    /// Control hears the newest word of a host.
    Report(u8),
    /// The observer hears a word of a host, the n-th before the newest.
    Hear(u8, usize),
    Silent(u8),
    /// The observer is told what control knows.
    Tell,
    Backup,
    Restore,
    Remove(u8),
    Join(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let host = || 1_u8..4;
    prop_oneof![
        6 => (host(), 0_u8..5).prop_map(|(host, number)| Event::Start(host, number)),
        4 => (host(), 0_u8..5).prop_map(|(host, number)| Event::End(host, number)),
        2 => (host(), 0_u8..5).prop_map(|(host, number)| Event::Restart(host, number)),
        4 => host().prop_map(Event::Report),
        6 => (host(), 0_usize..4).prop_map(|(host, before)| Event::Hear(host, before)),
        1 => host().prop_map(Event::Silent),
        4 => Just(Event::Tell),
        1 => Just(Event::Backup),
        1 => Just(Event::Restore),
        1 => host().prop_map(Event::Remove),
        2 => host().prop_map(Event::Join),
    ]
}

/// Control as the model has it: the hosts, and the newest word of each with its age.
#[derive(Clone, Debug, Default)]
struct Control {
    members: BTreeSet<u8>,
    heard: BTreeMap<u8, (Edition, Vec<Workload>)>,
}

impl Control {
    fn snapshot(&self) -> NetworkSnapshot {
        let hosts: Vec<u8> = [0].into_iter().chain(self.members.iter().copied()).collect();
        let of = |(&host, (edition, workloads)): (&u8, &(Edition, Vec<Workload>))| {
            (host, facts(edition.incarnation, edition.revision, workloads))
        };
        told(
            &hosts,
            &self.heard.iter().filter(|(host, _)| self.members.contains(host)).map(of).collect::<Vec<_>>(),
        )
    }

    fn hear(&mut self, host: u8, word: &OwnerFacts) {
        let known = self.heard.get(&host).map(|(edition, _)| *edition);
        let edition = Some(word.edition()).max(known).unwrap_or_default();
        self.heard.insert(host, (edition, word.workloads.clone()));
    }
}

/// Everything of the model.
#[derive(Debug, Default)]
struct Model {
    owners: BTreeMap<u8, Owner>,
    control: Control,
    backup: Control,
    told: Option<NetworkSnapshot>,
    words: Words,
    clock: u64,
}

impl Model {
    fn apply(&mut self, event: &Event) {
        self.clock += 1;
        let clock = self.clock;
        match *event {
            Event::Start(host, number) => {
                let free = self.owners.values().all(|owner| !owner.running.contains(&number));
                if let Some(owner) = self.owners.get_mut(&host).filter(|_| free) {
                    owner.running.insert(number);
                    owner.say(host);
                }
            }
            Event::End(host, number) => {
                if let Some(owner) = self.owners.get_mut(&host)
                    && owner.running.remove(&number)
                {
                    owner.say(host);
                }
            }
            Event::Restart(host, gone) => {
                if let Some(owner) = self.owners.get_mut(&host) {
                    owner.incarnation = (owner.incarnation + 1).max(clock);
                    owner.running.remove(&gone);
                    owner.say(host);
                }
            }
            Event::Report(host) => self.report(host),
            Event::Hear(host, before) => {
                let said = self.owners.get(&host).map(|owner| &owner.said);
                let word = said.and_then(|said| said.iter().rev().nth(before));
                if let Some(word) = word.cloned() {
                    let is_member =
                        self.told.as_ref().is_some_and(|told| is_member(&told.content, &name(host)));
                    self.words.hear(name(host), word, (is_member, u64::MAX));
                }
            }
            Event::Silent(host) => drop(self.words.fall_silent(&name(host))),
            Event::Tell => self.tell(),
            Event::Backup => self.backup = self.control.clone(),
            Event::Restore => {
                // A host that joined since proves itself, and one that was removed since is taken from the list.
                let members = std::mem::take(&mut self.control.members);
                self.control = Control { members, ..self.backup.clone() };
            }
            Event::Remove(host) => self.remove(host),
            Event::Join(host) => self.join(host, clock),
        }
    }

    fn remove(&mut self, host: u8) {
        if self.control.members.remove(&host)
            && let Some((edition, workloads)) = self.control.heard.get_mut(&host)
        {
            *edition = edition.closed();
            workloads.clear();
        }
        self.owners.remove(&host);
    }

    fn join(&mut self, host: u8, clock: u64) {
        if self.control.members.insert(host) {
            let known = self.control.heard.get_mut(&host).map_or(0, |(edition, _)| {
                *edition = edition.reopened();
                edition.incarnation
            });
            let mut owner = Owner { incarnation: (known + 1).max(clock), ..Owner::default() };
            owner.say(host);
            self.owners.insert(host, owner);
        }
    }

    fn report(&mut self, host: u8) {
        if let Some(owner) = self.owners.get(&host)
            && let Some(word) = owner.said.last()
        {
            self.control.hear(host, word);
        }
    }

    fn tell(&mut self) {
        let next = self.control.snapshot();
        self.words.dismiss(self.told.as_ref().map(|told| &told.content), &next.content);
        self.told = Some(next);
    }

    /// Workloads that the observer goes by; nothing is there twice, and nothing is a stranger's.
    fn observed(&self) -> BTreeSet<(String, NodeName)> {
        let Some(told) = &self.told else { return BTreeSet::new() };
        let mut content = told.content.clone();
        merge(&mut content, &name(0), vec![], self.words.of(&"shop".parse().unwrap()));
        let names: BTreeSet<_> = content.workloads.iter().map(|one| &one.name).collect();
        let addresses: BTreeSet<_> = content.workloads.iter().map(|one| one.address).collect();
        assert_eq!([names.len(), addresses.len()], [content.workloads.len(); 2], "{:?}", content.workloads);
        assert!(content.workloads.iter().all(|one| is_member(&told.content, &one.node)));
        content.workloads.iter().map(|one| (one.name.to_string(), one.node.clone())).collect()
    }

    fn running(&self) -> BTreeSet<(String, NodeName)> {
        let of = |(&host, owner): (&u8, &Owner)| {
            owner.running.iter().map(move |number| (format!("wl-{number}"), name(host))).collect::<Vec<_>>()
        };
        self.owners.iter().flat_map(of).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn whatever_is_heard_in_whatever_order_ends_with_the_owners_newest_words(
        events in prop::collection::vec(event(), 1..60),
        heard in prop::sample::subsequence(vec![1_u8, 2, 3], 0..=3),
    ) {
        let mut model = Model::default();
        (1..4).for_each(|host| model.apply(&Event::Join(host)));
        for event in &events {
            model.apply(event);
            model.observed();
        }
        // Each owner is heard: by its own word, while control is as it is, or by control's.
        model.tell();
        for host in 1..4 {
            if heard.contains(&host) {
                model.apply(&Event::Hear(host, 0));
            } else {
                model.report(host);
            }
        }
        model.tell();
        prop_assert_eq!(model.observed(), model.running());
        (1..4).for_each(|host| model.report(host));
        model.tell();
        prop_assert_eq!(model.observed(), model.running(), "control is as new");
    }
}
