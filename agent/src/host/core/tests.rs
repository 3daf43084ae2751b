mod control;
mod deltas;
mod kernel;

use sealane_fabric::health::Families;
use sealane_proto::resource::{Node, Workload};
use sealane_proto::types::Generation;

use super::*;
use crate::host::DataPlane;
use crate::testing;

fn name(text: &str) -> NetworkName {
    text.parse().unwrap()
}

/// The state of a network at a revision, with a block of this host.
fn state(network: &str, revision: u64) -> NetworkSnapshot {
    let mut snapshot = testing::snapshot();
    snapshot.generation.revision = revision;
    snapshot.network.name = name(network);
    snapshot.blocks = vec![testing::block(Some("host-1"), "10.42.0.0/24")];
    snapshot
}

fn core() -> HostCore {
    let node = Node { name: "host-1".parse().unwrap(), underlay: "192.0.2.1".parse().unwrap(), mtu: None };
    HostCore::new(Mesh::new(node, 1))
}

/// A host that has programmed the first state of `shop`.
fn programmed(now: Instant) -> HostCore {
    let mut core = core();
    core.handle_state(state("shop", 1));
    end(&mut core, "shop", now);
    core.poll_news();
    core
}

/// Begins the next job of a network and ends it well; the generation that it had.
fn end(core: &mut HostCore, network: &str, now: Instant) -> Generation {
    let pass = begin(core, now);
    assert_eq!(pass.snapshot.network.name, name(network));
    done(core, &pass, Ok(Applied::default()), now);
    pass.snapshot.generation
}

fn begin(core: &mut HostCore, now: Instant) -> Pass {
    match core.poll_job(now) {
        Some(Job::Program(pass)) => pass,
        other => panic!("{other:?}"),
    }
}

fn done(core: &mut HostCore, pass: &Pass, applied: Result<Applied, String>, now: Instant) {
    let outcome = Outcome::Programmed(pass.snapshot.clone(), applied);
    core.handle_done(&pass.snapshot.network.name, outcome, now);
}

fn shown(core: &mut HostCore) -> Vec<String> {
    let news = core.poll_news().into_iter().map(|news| match news {
        News::Network(network, host_network) => {
            let hindrance = host_network.hindrance.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{network}@{}{hindrance}", host_network.snapshot.generation.revision)
        }
        News::Gone(network) => format!("-{network}"),
    });
    news.collect()
}

fn admit(core: &mut HostCore, workload: &str, now: Instant) -> AttachmentId {
    let spec = AttachmentSpec::plain(name("shop"), workload.parse().unwrap());
    let admitted: Workload = core.mesh.admit(&spec, now).unwrap();
    core.handle_admitted(&[spec]);
    AttachmentId::of(&admitted)
}

#[test]
fn a_network_whose_pass_does_not_end_holds_up_no_other() {
    let (mut core, now) = (core(), Instant::now());
    core.handle_state(state("slow", 1));
    let slow = begin(&mut core, now);
    core.handle_state(state("shop", 1));
    let id = admit(&mut core, "api", now);
    end(&mut core, "shop", now);
    core.handle_ready(&id, Families::both(true));
    end(&mut core, "shop", now);
    assert_eq!(shown(&mut core), ["shop@1", "shop@1"]);
    assert_eq!(core.mesh.applied().len(), 1, "the slow one alone is not acknowledged");
    done(&mut core, &slow, Ok(Applied::default()), now);
    assert_eq!(core.mesh.applied().len(), 2);
}

#[test]
fn a_generation_that_comes_while_another_is_programmed_is_not_acknowledged_with_that() {
    let (mut core, now) = (core(), Instant::now());
    core.handle_state(state("shop", 1));
    let first = begin(&mut core, now);
    core.handle_state(state("shop", 2));
    assert!(core.poll_job(now).is_none(), "one pass of a network at a time");
    done(&mut core, &first, Ok(Applied::default()), now);
    assert_eq!(core.mesh.applied()[&name("shop")].revision, 1);
    assert_eq!(end(&mut core, "shop", now).revision, 2);
    assert_eq!(core.mesh.applied()[&name("shop")].revision, 2);
}

#[test]
fn who_is_attached_while_a_job_looks_is_not_called_cut_off() {
    let now = Instant::now();
    let mut core = programmed(now);
    let id = admit(&mut core, "api", now);
    let nowhere = || {
        let mut applied = Applied::default();
        applied.unattached.push(id.workload.clone());
        applied
    };
    let look = |core: &mut HostCore, attach: bool| {
        core.handle_change(id.network.clone());
        let pass = begin(core, now);
        if attach {
            core.mesh.set_applied(&id, DataPlane::Rules, Some(1));
        }
        done(core, &pass, Ok(nowhere()), now);
        core.complaints().iter().filter(|said| said.contains("are cut off")).count()
    };
    assert_eq!([look(&mut core, false), look(&mut core, true), look(&mut core, false)], [0, 0, 1]);
}

#[test]
fn who_comes_or_lets_go_of_a_port_waits_for_a_pass_that_knows_nothing_of_it() {
    let now = Instant::now();
    let mut core = programmed(now);
    core.handle_state(state("shop", 2));
    let pass = begin(&mut core, now);
    let id = admit(&mut core, "api", now);
    assert!(pass.attachments.is_empty());
    let wanted = [id.network.clone(), name("other")];
    assert_eq!(core.under_way(wanted.clone()), BTreeSet::from([name("shop")]));
    done(&mut core, &pass, Ok(Applied::default()), now);
    assert!(core.under_way(wanted).is_empty());
    assert_eq!(begin(&mut core, now).attachments.len(), 1);
}

#[test]
fn what_the_kernel_does_not_take_is_shown_and_tried_again_in_a_while() {
    let now = Instant::now();
    let mut core = programmed(now);
    core.handle_state(state("shop", 2));
    let pass = begin(&mut core, now);
    done(&mut core, &pass, Err("no memory".to_owned()), now);
    assert_eq!(shown(&mut core), ["shop@1: no memory"], "what runs goes on by what was there");
    assert_eq!(core.complaints(), ["network shop cannot be set up: no memory"]);
    assert!(core.poll_job(now).is_none());
    let later = core.due().unwrap();
    assert_eq!(end(&mut core, "shop", later).revision, 2);
    assert_eq!((shown(&mut core), core.complaints().len()), (vec!["shop@2".to_owned()], 0));
}

#[test]
fn a_network_that_comes_back_while_it_is_taken_off_is_made_anew_afterwards() {
    let now = Instant::now();
    let mut core = programmed(now);
    core.handle_gone(&name("shop"));
    assert_eq!(core.poll_job(now), Some(Job::Remove(name("shop"))));
    core.handle_state(state("shop", 5));
    assert!(core.mesh.snapshot(&name("shop")).is_none() && core.poll_job(now).is_none());
    core.handle_done(&name("shop"), Outcome::Removed(Ok(())), now);
    assert_eq!(end(&mut core, "shop", now).revision, 5);
    assert_eq!(shown(&mut core), ["-shop", "shop@5"]);
}

#[test]
fn a_network_is_taken_off_after_the_pass_that_is_under_way() {
    let now = Instant::now();
    let mut core = programmed(now);
    core.handle_state(state("shop", 2));
    let pass = begin(&mut core, now);
    core.handle_gone(&name("shop"));
    assert!(core.poll_job(now).is_none());
    done(&mut core, &pass, Ok(Applied::default()), now);
    assert_eq!(core.poll_job(now), Some(Job::Remove(name("shop"))));
    core.handle_done(&name("shop"), Outcome::Removed(Ok(())), now);
    assert_eq!(shown(&mut core), ["-shop"]);
    assert!(core.mesh.applied().is_empty());
}

#[test]
fn a_network_that_control_does_not_know_stays_until_nothing_runs_in_it() {
    let now = Instant::now();
    let mut core = programmed(now);
    let id = admit(&mut core, "api", now);
    core.handle_gone(&id.network);
    assert!(core.complaints()[0].contains("control knows no network shop"), "{:?}", core.complaints());
    end(&mut core, "shop", now);
    core.handle_remove(&id, now);
    assert_eq!(core.poll_job(now), Some(Job::Remove(name("shop"))), "the last one takes it along");
    assert!(core.complaints().is_empty());
}

#[test]
fn everything_of_the_start_has_been_tried_once_before_it_has_begun_and_stands_before_it_is_ready() {
    let now = Instant::now();
    let mut mesh = core().mesh;
    mesh.accept(state("blog", 1));
    mesh.accept(state("shop", 1));
    let mut core = HostCore::new(mesh);
    let [blog, shop] = [begin(&mut core, now), begin(&mut core, now)];
    done(&mut core, &blog, Ok(Applied::default()), now);
    assert!(!core.has_begun());
    done(&mut core, &shop, Err("no memory".to_owned()), now);
    assert!(core.has_begun() && !core.has_all());
    let due = core.due().unwrap();
    end(&mut core, "shop", due);
    assert!(core.has_all());
}

#[test]
fn what_is_published_is_kept_on_disk_until_the_disk_has_it() {
    let now = Instant::now();
    let mut core = programmed(now);
    let unsaved = core.poll_unsaved();
    assert_eq!(unsaved.iter().map(|(network, ..)| network.as_str()).collect::<Vec<_>>(), ["shop"]);
    core.handle_saved(name("shop"), Err("disk full".to_owned()));
    assert!(core.is_unsaved() && core.complaints()[0].contains("disk full"));
    assert_eq!(core.poll_unsaved().len(), 1);
    core.handle_saved(name("shop"), Ok(()));
    assert!(!core.is_unsaved() && core.complaints().is_empty());
}

#[test]
fn a_control_plane_that_is_new_on_the_stream_has_heard_no_report() {
    let mut core = core();
    core.handle_reported(4, vec![]);
    core.handle_settled(4);
    core.handle_up(true);
    assert_eq!((core.reported().version, core.reported().settled), (0, 4));
    core.handle_reported(3, vec![]);
    core.handle_reported(2, vec![]);
    assert_eq!(core.reported().version, 3);
}

#[test]
fn a_workload_follows_before_its_host_acknowledges() {
    let now = Instant::now();
    let mut core = programmed(now);
    let id = admit(&mut core, "api", now);
    core.mesh.set_applied(&id, DataPlane::Rules, Some(0));
    end(&mut core, "shop", now);
    assert!(core.mesh.applied().is_empty());
    core.mesh.set_applied(&id, DataPlane::Rules, Some(2));
    assert_eq!(core.mesh.applied().len(), 1);
}
