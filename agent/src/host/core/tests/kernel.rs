//! Jobs for the kernel, views of what it has, and complaints.

use sealane_proto::resource::Node;

use super::*;

/// Sequence, revision and hindrance of what has been published.
fn published(core: &mut HostCore) -> Vec<(u64, u64, Option<String>)> {
    let of = |news| match news {
        News::Network(_, shown) => {
            (shown.sequence, shown.snapshot.generation.revision, shown.hindrance.clone())
        }
        News::Gone(network) => panic!("{network}"),
    };
    core.poll_news().into_iter().map(of).collect()
}

#[test]
fn networks_that_this_host_carries_are_looked_at_when_somebody_doubts_them() {
    let now = Instant::now();
    let mut core = programmed(now);
    core.handle_doubt([name("other"), name("shop")]);
    let pass = begin(&mut core, now);
    assert_eq!((pass.snapshot.network.name.as_str(), pass.reason), ("shop", Reason::Audit));
    assert!(core.poll_job(now).is_none());
}

#[test]
fn a_hindrance_is_published_once_and_gone_once_the_kernel_has_the_same_state() {
    let (mut core, now) = (core(), Instant::now());
    core.handle_state(state("shop", 1));
    let no_memory = || Err("no memory".to_owned());
    let pass = begin(&mut core, now);
    done(&mut core, &pass, no_memory(), now);
    let hindrance = || Some("no memory".to_owned());
    assert_eq!(published(&mut core), [(1, 1, hindrance())], "also where nothing was published before");
    let due = core.due().unwrap();
    let pass = begin(&mut core, due);
    done(&mut core, &pass, no_memory(), due);
    assert_eq!(published(&mut core), []);
    let due = core.due().unwrap();
    end(&mut core, "shop", due);
    assert_eq!(published(&mut core), [(2, 1, None)]);
    core.handle_change(name("shop"));
    end(&mut core, "shop", due);
    assert_eq!(published(&mut core), [], "nothing is other than before");
    core.handle_state(state("shop", 2));
    let pass = begin(&mut core, due);
    done(&mut core, &pass, no_memory(), due);
    let due = core.due().unwrap();
    end(&mut core, "shop", due);
    assert_eq!(published(&mut core), [(3, 1, hindrance()), (4, 2, None)]);
}

#[test]
fn each_lack_of_a_pass_is_complained_of_until_a_pass_is_without_it() {
    let (mut core, now) = (core(), Instant::now());
    let mut served = state("shop", 1);
    let remote = Workload { node: "host-2".parse().unwrap(), ..testing::workload("web-1", "10.42.1.2") };
    served.workloads = [Workload { service: Some("web".parse().unwrap()), ..remote }].into();
    let node = Node { name: "host-2".parse().unwrap(), underlay: "192.0.2.2".parse().unwrap(), mtu: None };
    served.nodes = vec![node];
    core.handle_state(served);
    let id = admit(&mut core, "api", now);
    end(&mut core, "shop", now);
    core.mesh.set_applied(&id, DataPlane::Rules, Some(1));
    core.handle_unreachable(["host-2".parse().unwrap()].into());
    let pass = begin(&mut core, now);
    let mut lacking = Applied::default();
    lacking.egress_problem = Some("no uplink".to_owned());
    lacking.refused_rows = Some("no such host".to_owned());
    lacking.too_long = Some("1500 is too much".to_owned());
    lacking.unattached = vec![id.workload.clone()];
    done(&mut core, &pass, Ok(lacking), now);
    let complaints = core.complaints();
    let expected =
        ["outside: no uplink", ": no such host;", ": 1500 is too much", "namespaces: api;", ": web;"];
    assert_eq!(complaints.len(), expected.len(), "{complaints:?}");
    for (complaint, part) in complaints.iter().zip(expected) {
        assert!(complaint.contains(part), "{complaint} should have {part:?}");
    }
    core.handle_unreachable(BTreeSet::new());
    end(&mut core, "shop", now);
    assert_eq!(core.complaints(), [""; 0]);
}

#[test]
fn workloads_are_named_where_their_network_cannot_be_set_up_and_only_there() {
    let now = Instant::now();
    let mut core = programmed(now);
    admit(&mut core, "api", now);
    core.handle_saved(name("shop"), Err("disk full".to_owned()));
    assert!(core.complaints()[0].ends_with(": disk full"), "{:?}", core.complaints());
    core.handle_saved(name("shop"), Ok(()));
    let pass = begin(&mut core, now);
    done(&mut core, &pass, Err("no memory".to_owned()), now);
    assert!(core.complaints()[0].ends_with("hears of no change: api"), "{:?}", core.complaints());
}

#[test]
fn nobody_waits_for_a_network_that_is_gone() {
    let now = Instant::now();
    let mut mesh = core().mesh;
    mesh.accept(state("shop", 1));
    let mut core = HostCore::new(mesh);
    core.handle_state(state("shop", 2));
    assert!(!core.has_begun() && !core.has_all() && core.is_unsaved());
    core.handle_gone(&name("shop"));
    assert!(core.has_begun() && core.has_all() && !core.is_unsaved());
    assert_eq!(core.poll_job(now), Some(Job::Remove(name("shop"))));
}

#[test]
fn a_network_that_comes_back_as_it_was_is_published_and_one_that_goes_meanwhile_stays_away() {
    let now = Instant::now();
    let mut core = programmed(now);
    let leave = |core: &mut HostCore, meanwhile: &dyn Fn(&mut HostCore)| {
        core.handle_gone(&name("shop"));
        assert_eq!(core.poll_job(now), Some(Job::Remove(name("shop"))));
        meanwhile(core);
        core.handle_done(&name("shop"), Outcome::Removed(Ok(())), now);
    };
    leave(&mut core, &|core| core.handle_state(state("shop", 1)));
    end(&mut core, "shop", now);
    assert_eq!(shown(&mut core), ["-shop", "shop@1"]);
    leave(&mut core, &|core| {
        core.handle_state(state("shop", 2));
        core.handle_gone(&name("shop"));
    });
    assert!(core.poll_job(now).is_none() && core.mesh.snapshot(&name("shop")).is_none());
    assert_eq!(shown(&mut core), ["-shop"]);
}

#[test]
fn a_network_that_is_to_be_taken_off_goes_whatever_is_said_of_it_meanwhile() {
    let now = Instant::now();
    let mut core = programmed(now);
    core.handle_gone(&name("shop"));
    core.handle_doubt([name("shop")]);
    core.handle_change(name("shop"));
    assert_eq!(core.poll_job(now), Some(Job::Remove(name("shop"))));
    core.handle_done(&name("shop"), Outcome::Removed(Ok(())), now);
    assert_eq!((core.poll_job(now), shown(&mut core)), (None, vec!["-shop".to_owned()]));
}
