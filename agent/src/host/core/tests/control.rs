//! Reports and questions to control, and words of this host about itself.

use std::time::Duration;

use sealane_proto::resource::Edition;

use super::*;
use crate::host::{Acknowledgement, DataPlane};

const SPARE: [&str; 2] = ["10.42.0.16/28", "10.42.0.32/28"];

fn host(number: u8) -> NodeName {
    format!("host-{number}").parse().unwrap()
}

/// A state of `shop` with two hosts, in which control has heard so much of them.
fn heard(revision: u64, reported: &[(u8, Edition)]) -> NetworkSnapshot {
    let mut state = state("shop", revision);
    let node = |number| Node {
        name: host(number),
        underlay: format!("192.0.2.{number}").parse().unwrap(),
        mtu: None,
    };
    state.nodes = [1, 2].map(node).to_vec();
    state.reported = Some(reported.iter().map(|(number, edition)| (host(*number), *edition)).collect());
    state
}

/// A state of `shop` in which this host has these blocks.
fn leased(revision: u64, blocks: &[&str]) -> NetworkSnapshot {
    let mut state = state("shop", revision);
    state.blocks = blocks.iter().map(|block| testing::block(Some("host-1"), block)).collect();
    state
}

fn refusal(workload: &str) -> Rejection {
    let (network, workload) = (name("shop"), workload.parse().unwrap());
    Rejection { network, workload, reason: "for a test".to_owned(), not_carried: false }
}

fn word(revision: u64) -> OwnerFacts {
    OwnerFacts { network: name("shop"), incarnation: 1, revision, workloads: vec![] }
}

/// The revision of this host's word about `shop`, and the workloads in it.
fn said(core: &mut HostCore) -> (u64, Vec<String>) {
    core.refresh_facts();
    let facts = &core.mesh.facts()[&name("shop")];
    (facts.revision, facts.workloads.iter().map(|workload| workload.name.to_string()).collect())
}

/// The owners of the words that are to be written to the record of `shop`; `None` when it is as it should be.
fn to_keep(core: &mut HostCore) -> Option<Vec<String>> {
    let mut words = core.poll_words();
    assert!(words.len() <= 1, "{words:?}");
    words.pop().map(|(_, words)| words.keys().map(ToString::to_string).collect())
}

#[test]
fn each_change_of_a_workload_is_told_by_a_report_of_its_own_and_made_in_the_kernel() {
    let now = Instant::now();
    let mut core = programmed(now);
    let id = admit(&mut core, "api", now);
    end(&mut core, "shop", now);
    let before = core.mesh.version();
    let half = [(id.clone(), "50".parse().unwrap())];
    assert_eq!(core.handle_weighed(&half), before + 1);
    let pass = begin(&mut core, now);
    assert_eq!(pass.snapshot.workloads[0].weight, half[0].1);
    done(&mut core, &pass, Ok(Applied::default()), now);
    assert_eq!(core.handle_weighed(&half), before + 1, "it has that weight");
    assert!(core.poll_job(now).is_none());
    assert_eq!(core.handle_end(&id), before + 2);
    let pass = begin(&mut core, now);
    assert!(pass.attachments[0].ending && !pass.snapshot.workloads[0].ready);
    done(&mut core, &pass, Ok(Applied::default()), now);
    assert_eq!(core.handle_remove(&id, now), before + 3);
    let pass = begin(&mut core, now);
    assert!(pass.attachments.is_empty() && pass.snapshot.workloads.is_empty());
}

#[test]
fn a_word_of_this_host_is_made_anew_when_it_would_say_anything_else() {
    let now = Instant::now();
    let mut core = programmed(now);
    let api = || vec!["api".to_owned()];
    assert_eq!(said(&mut core), (1, vec![]));
    admit(&mut core, "api", now);
    assert_eq!((said(&mut core), said(&mut core)), ((2, api()), (2, api())));
    core.handle_reported(9, vec![refusal("api")]);
    assert_eq!(said(&mut core), (3, vec![]), "nobody else hears of what control does not accept");
    core.handle_reported(10, vec![refusal("api")]);
    assert_eq!(said(&mut core), (3, vec![]));
    core.handle_reported(11, vec![]);
    assert_eq!(said(&mut core), (4, api()));
    core.handle_state(state("blog", 1));
    core.refresh_facts();
    assert_eq!(core.mesh.facts().len(), 2, "of a network that came, that nothing is there");
    core.handle_gone(&name("blog"));
    core.refresh_facts();
    assert_eq!(core.mesh.facts().len(), 1);
}

#[test]
fn words_that_are_newer_than_control_s_are_on_disk_until_control_has_them_or_the_network_goes() {
    let (mut core, now) = (core(), Instant::now());
    assert!(!core.is_unkept());
    core.handle_state(heard(1, &[]));
    core.refresh_facts();
    assert!(core.is_unkept());
    let words = core.poll_words();
    let (shop, own) = words.into_iter().next().unwrap();
    assert!(own.keys().eq(&[host(1)]) && !core.is_unkept());
    core.handle_kept(shop.clone(), &own, false);
    assert!(core.is_unkept(), "the disk did not take it");
    assert_eq!(to_keep(&mut core).unwrap(), ["host-1"]);
    core.handle_kept(shop.clone(), &own, true);
    assert!(!core.is_unkept());
    end(&mut core, "shop", now);

    core.handle_facts(host(2), word(1), SystemTime::UNIX_EPOCH);
    end(&mut core, "shop", now);
    let both = core.poll_words().remove(0).1;
    assert!(both.keys().eq(&[host(1), host(2)]));
    core.handle_kept(shop.clone(), &both, true);
    core.handle_facts(host(2), word(1), SystemTime::UNIX_EPOCH);
    assert!(!core.is_unkept() && core.poll_job(now).is_none(), "it has been heard before");

    core.handle_state(heard(2, &[(2, Edition { incarnation: 1, revision: 1 })]));
    assert_eq!(to_keep(&mut core).unwrap(), ["host-1"], "control has heard the other one");
    core.handle_kept(shop.clone(), &own, true);
    core.handle_state(heard(3, &[]));
    core.handle_kept(shop.clone(), &both, true);
    core.poll_words();
    core.handle_gone(&shop);
    assert_eq!(to_keep(&mut core).unwrap(), [""; 0], "the record goes with the network");
}

/// A host that works by what it has heard.
fn both(edition: Edition) -> Acknowledgement {
    Acknowledgement { heard: edition, works_by: edition }
}

#[test]
fn a_host_says_by_which_words_it_works_once_its_kernel_and_its_workloads_do() {
    let (mut core, now) = (core(), Instant::now());
    core.handle_state(heard(1, &[]));
    let web = admit(&mut core, "web", now);
    end(&mut core, "shop", now);
    let works = |core: &mut HostCore| {
        core.refresh_facts();
        let works = core.works().0.get(&host(2)).cloned().unwrap_or_default();
        works.get(&name("shop")).map(|edition| edition.revision)
    };
    core.mesh.set_applied(&web, DataPlane::Sidecar, Some(0));
    core.handle_facts(host(2), word(1), SystemTime::UNIX_EPOCH);
    assert_eq!(works(&mut core), None);
    end(&mut core, "shop", now);
    assert_eq!(works(&mut core), None, "a sidecar is behind");
    core.mesh.set_applied(&web, DataPlane::Sidecar, Some(core.published[&name("shop")].sequence));
    assert_eq!(works(&mut core), Some(1));
    core.handle_silence(&host(2));
    assert_eq!(works(&mut core), None, "who is silent is heard anew");
    end(&mut core, "shop", now);
    core.handle_facts(host(2), word(1), SystemTime::UNIX_EPOCH);
    end(&mut core, "shop", now);
    core.mesh.set_applied(&web, DataPlane::Sidecar, Some(core.published[&name("shop")].sequence));
    assert_eq!(works(&mut core), Some(1));
}

#[test]
fn a_host_that_falls_silent_is_not_counted_on_and_its_networks_are_made_anew() {
    let (mut core, now) = (core(), Instant::now());
    core.handle_state(heard(1, &[]));
    core.handle_facts(host(2), word(1), SystemTime::UNIX_EPOCH);
    core.refresh_facts();
    end(&mut core, "shop", now);
    let edition = core.mesh.facts()[&name("shop")].edition();
    core.handle_acknowledged(host(2), [(name("shop"), both(edition))].into());
    assert!(core.told()[&name("shop")].deaf.is_empty());
    core.handle_silence(&host(2));
    let told = core.told()[&name("shop")].clone();
    assert_eq!((told.deaf, told.silent), ([host(2)].into(), [].into()), "nobody says that it has channels");
    let mute = |revision, mute: Vec<NodeName>| {
        let mut state = heard(revision, &[]);
        state.content.mute = Some(mute);
        state
    };
    core.handle_state(mute(2, vec![]));
    assert_eq!(core.told()[&name("shop")].silent, [host(2)].into());
    core.handle_state(mute(3, vec![host(2)]));
    assert_eq!(core.told()[&name("shop")].silent, [].into(), "its version has none");
    end(&mut core, "shop", now);
    core.handle_silence(&host(2));
    assert!(core.poll_job(now).is_none(), "it was silent");
}

#[test]
fn a_host_has_heard_of_the_changes_that_its_edition_tells_and_what_is_newer_is_to_be_kept() {
    let (mut core, now) = (core(), Instant::now());
    core.handle_state(heard(1, &[]));
    admit(&mut core, "web", now);
    core.refresh_facts();
    core.poll_words();
    let (first, before) = (core.mesh.facts()[&name("shop")].edition(), core.mesh.version());
    core.handle_acknowledged(host(2), [(name("shop"), both(first))].into());
    assert_eq!(core.told()[&name("shop")].version, before);
    admit(&mut core, "api", now);
    core.refresh_facts();
    assert!(
        core.mesh.version() > before && before > 0 && core.is_unkept(),
        "the next agent is to know of it"
    );
    assert_eq!(to_keep(&mut core).unwrap(), ["host-1"]);
    assert_eq!(core.told()[&name("shop")].version, before, "of the workload it has not heard");
    assert_eq!(core.told()[&name("shop")].late, [host(2)].into());
    let second = core.mesh.facts()[&name("shop")].edition();
    let on_its_way = Acknowledgement { heard: second, works_by: first };
    core.handle_acknowledged(host(2), [(name("shop"), on_its_way)].into());
    let told = core.told()[&name("shop")].clone();
    assert_eq!((told.version, told.late, told.behind), (before, [].into(), [host(2)].into()));
    core.handle_acknowledged(host(2), [(name("shop"), both(second))].into());
    assert_eq!(core.told()[&name("shop")].version, core.mesh.version());
}

#[test]
fn a_report_is_told_anew_while_control_does_not_accept_it() {
    let now = Instant::now();
    let later = |seconds| now + Duration::from_secs(seconds);
    let mut core = programmed(now);
    admit(&mut core, "api", now);
    assert!(!core.is_refused() && core.poll_carry(true, now).is_empty());
    core.handle_reported(1, vec![refusal("api")]);
    assert!(core.is_refused() && core.poll_carry(false, now).is_empty(), "it cannot be asked");
    assert_eq!(core.poll_carry(true, now), [name("shop")]);
    assert!(core.poll_carry(true, later(5)).is_empty());

    let version = core.mesh.version();
    for (revision, told) in [(2, version + 1), (3, version + 1)] {
        core.handle_state(state("shop", revision));
        assert_eq!(core.mesh.version(), told, "the first state after the question leads to a report");
    }
    for (seconds, told) in [(0, version + 2), (29, version + 2), (30, version + 3)] {
        core.handle_refused_still(later(seconds));
        assert_eq!(core.mesh.version(), told, "{seconds}");
    }

    core.handle_gone(&name("shop"));
    assert_eq!(core.poll_carry(true, later(6)), [name("shop")], "somebody may be creating it again");
    assert_eq!(core.complaints().len(), 1);
    core.handle_state(state("shop", 4));
    assert!(core.complaints().is_empty() && core.poll_carry(true, later(12)).is_empty());
    core.handle_reported(2, vec![]);
    assert!(!core.is_refused() && core.poll_carry(true, later(99)).is_empty());
}

#[test]
fn one_more_block_is_asked_for_when_addresses_are_taken_or_kept_or_the_state_comes() {
    let (mut core, now) = (core(), Instant::now());
    let later = |minutes: u64| now + Duration::from_secs(60 * minutes);
    core.handle_state(leased(1, &["10.42.0.8/29"]));
    assert_eq!(core.poll_ahead(now), []);
    ["a", "b", "c", "d", "e"].iter().for_each(|workload| drop(admit(&mut core, workload, now)));
    let asked = [(name("shop"), 1)];
    assert_eq!(core.poll_ahead(now), asked);
    assert_eq!(core.poll_ahead(later(1)), [], "nothing has changed");
    core.handle_state(leased(2, &["10.42.0.8/29"]));
    assert_eq!(core.poll_ahead(later(2)), asked);
    core.handle_reserved(name("shop"));
    assert_eq!(core.poll_ahead(later(3)), asked);
}

#[test]
fn blocks_are_given_back_to_a_control_plane_that_takes_them_and_only_while_it_is_there() {
    let (mut core, now) = (core(), Instant::now());
    let later = |seconds| now + Duration::from_secs(seconds);
    let ranges =
        |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<ipnet::Ipv4Net>>();
    core.handle_state(leased(1, &["10.42.0.0/28", SPARE[0], SPARE[1]]));
    let [_, id] = ["10.42.0.5", "10.42.0.17"].map(|address| {
        let spec = AttachmentSpec::plain(name("shop"), format!("at-{}", &address[8..]).parse().unwrap());
        let inside = AttachmentSpec { address: Some(address.parse().unwrap()), ..spec };
        AttachmentId::of(&core.mesh.admit(&inside, now).unwrap())
    });
    for (seconds, takes_blocks, expected) in [(0, false, None), (20, false, None), (20, true, None)] {
        core.handle_up(takes_blocks);
        assert_eq!(core.poll_offers(later(seconds)).pop(), expected, "{seconds} {takes_blocks}");
    }
    let given = core.poll_offers(later(30));
    assert_eq!(given, [(name("shop"), ranges(&SPARE[1..]))]);
    core.handle_offered(&given[0].0, &given[0].1);
    assert_eq!(core.mesh.report().offers, given.into_iter().collect());

    core.handle_remove(&id, later(31));
    assert_eq!(core.poll_offers(later(31)), []);
    core.handle_down();
    assert_eq!(core.poll_offers(later(41)), [], "this host may need what it has");
    core.handle_up(true);
    let all = ranges(&SPARE);
    assert_eq!(core.poll_offers(later(41)), [(name("shop"), all)], "with those of before, for the record");
}

#[test]
fn a_workload_of_an_earlier_agent_whose_address_is_anothers_is_cut_off_once_control_has_told_all() {
    let (mut core, now) = (core(), Instant::now());
    let mut state = leased(1, &["10.42.0.0/28"]);
    state.blocks.push(testing::block(Some("host-2"), "10.42.0.16/28"));
    core.handle_state(state);
    let workload = Workload { node: host(1), ..testing::workload("late", "10.42.0.18") };
    let mut attachment = Attachment { workload, seat: Default::default(), ending: false };
    core.mesh.recall(&mut attachment, false);
    let ports = |core: &mut HostCore| {
        core.handle_change(name("shop"));
        let pass = begin(core, now);
        done(core, &pass, Ok(Applied::default()), now);
        pass.attachments.len()
    };
    assert_eq!(ports(&mut core), 1, "the state on disk may be an old one");
    core.handle_settled(1);
    assert_eq!(ports(&mut core), 0);
    let said = core.complaints();
    let sentence =
        "late (10.42.0.18 lies in a block of host host-2); they are cut off: end them and start them again";
    assert!(said.iter().any(|said| said.ends_with(sentence)), "{said:?}");
    core.handle_remove(&AttachmentId::of(&attachment.workload), now);
    ports(&mut core);
    assert_eq!(core.complaints(), Vec::<String>::new());
}
