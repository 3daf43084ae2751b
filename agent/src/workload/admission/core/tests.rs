use proptest::prelude::*;
use sealane_proto::resource::Workload;
use sealane_proto::types::{OverlayIp, WorkloadName};

use super::*;
use crate::attachment::AttachmentSpec;
use crate::testing::{snapshot, workload};

fn shop() -> NetworkName {
    "shop".parse().unwrap()
}

fn id(name: &str) -> AttachmentId {
    AttachmentId { network: shop(), workload: name.parse().unwrap() }
}

fn holder(ready: bool) -> Holder {
    Holder { id: id("api-1"), node: Some("host-2".parse().unwrap()), ready }
}

fn name_in_use() -> AdmitError {
    AdmitError::NameInUse { name: "api-1".parse().unwrap(), network: shop(), node: "host-2".parse().unwrap() }
}

fn refused(error: AdmitError, holder: Option<Holder>) -> Setback {
    Setback::Refused { error: error.into(), named: true, holder, blocks: blocks() }
}

fn blocks() -> BTreeSet<Ipv4Net> {
    ["10.42.0.0/28", "10.42.0.32/28"].map(|block| block.parse().unwrap()).into()
}

fn exhausted() -> AdmitError {
    AdmitError::Address { network: shop(), source: IpamError::Exhausted { used: 5, resting: 1 } }
}

#[test]
fn each_setback_has_its_way_out() {
    let hindered = Setback::Hindered(shop(), "no address".to_owned());
    let made =
        Setback::Refused { error: name_in_use().into(), named: false, holder: None, blocks: BTreeSet::new() };
    let elsewhere = |ready| refused(name_in_use(), Some(holder(ready)));
    let change = |limit: Option<u64>| Wait::Change(shop(), limit.map(Duration::from_secs));
    let table: [(Setback, Wait, Option<&str>); 8] = [
        (Setback::Absent(shop()), Wait::Carry(shop(), BTreeSet::new()), None),
        (hindered, change(None), Some("network shop, which this host cannot set up now: no address")),
        (refused(AdmitError::UnknownNetwork(shop()), None), Wait::Carry(shop(), BTreeSet::new()), None),
        (refused(exhausted(), None), Wait::Carry(shop(), blocks()), None),
        (
            refused(AdmitError::Ending(id("api-1")), None),
            change(None),
            Some("workload shop/api-1, which is still ending"),
        ),
        (made, Wait::Nothing, None),
        (elsewhere(true), change(Some(1)), None),
        (
            elsewhere(false),
            change(Some(15)),
            Some("workload shop/api-1 on host-2 to end, for 15 s at the longest"),
        ),
    ];
    for (setback, wait, words) in table {
        let said = format!("{setback:?}");
        let obstacle = AdmissionCore::default().handle_setback(setback, Instant::now()).unwrap();
        assert_eq!((obstacle.wait(), obstacle.words().as_deref()), (wait, words), "{said}");
    }
}

#[test]
fn refusals_that_no_waiting_changes_are_told_at_once() {
    let wrong = AdmitError::ForeignBlock {
        address: "10.9.0.9".parse().unwrap(),
        network: shop(),
        owner: "host-2".to_owned(),
        of_services: false,
    };
    for error in [wrong, name_in_use()] {
        let said = error.to_string();
        let outcome = AdmissionCore::default().handle_setback(refused(error, None), Instant::now());
        assert_eq!(outcome.unwrap_err().to_string(), said, "nobody is known to hold it");
    }
}

#[test]
fn one_that_ends_elsewhere_has_fifteen_seconds_to_go_and_one_that_works_has_one() {
    for (ready, seconds) in [(true, 1), (false, 15)] {
        let (mut core, began) = (AdmissionCore::default(), Instant::now());
        let mut at = |millis| {
            let now = began + Duration::from_millis(millis);
            core.handle_setback(refused(name_in_use(), Some(holder(ready))), now)
                .map_err(|error| error.to_string())
        };
        assert_eq!(at(0), Ok(Obstacle::Elsewhere(holder(ready))));
        assert_eq!(at(seconds * 1000 - 1), Ok(Obstacle::Elsewhere(holder(ready))));
        assert_eq!(at(seconds * 1000), Err(name_in_use().to_string()));
    }
    // It was ready, then it ends: its time is counted from the first try.
    let (mut core, began) = (AdmissionCore::default(), Instant::now());
    let mut at = |seconds, ready| {
        core.handle_setback(refused(name_in_use(), Some(holder(ready))), began + Duration::from_secs(seconds))
    };
    assert!(at(0, true).is_ok() && at(2, false).is_ok() && at(15, false).is_err());
}

#[test]
fn a_holder_of_this_host_has_a_second_to_be_known_as_ended_and_nothing_is_said_of_it() {
    let began = Instant::now();
    for ready in [true, false] {
        let (mut core, own) = (AdmissionCore::default(), Holder { node: None, ..holder(ready) });
        let mut at = |millis| {
            let setback = refused(name_in_use(), Some(own.clone()));
            core.handle_setback(setback, began + Duration::from_millis(millis))
                .map(|obstacle| obstacle.words())
        };
        assert_eq!([at(0), at(999)].map(Result::ok), [Some(None), Some(None)]);
        assert!(at(1_000).is_err());
    }
}

#[test]
fn the_holder_is_a_workload_with_the_name_or_the_address() {
    let of = |name: &str, node: &str, address: &str| Workload {
        node: node.parse().unwrap(),
        ..workload(name, address)
    };
    let mut snapshot = snapshot();
    snapshot.workloads = [of("own", "host-1", "10.42.0.9"), of("far", "host-2", "10.42.1.9")].into();
    let address: OverlayIp = "10.42.1.9".parse().unwrap();
    let find = |name: &str, address: Option<OverlayIp>| {
        let plain =
            AttachmentSpec::plain(snapshot.network.name.clone(), name.parse::<WorkloadName>().unwrap());
        let spec = AttachmentSpec { address, ..plain };
        let holder = Holder::of(&spec, &snapshot, &"host-1".parse().unwrap());
        holder.map(|holder| {
            (holder.id.workload.to_string(), holder.node.map(|node| node.to_string()), holder.ready)
        })
    };
    let far = Some(("far".to_owned(), Some("host-2".to_owned()), true));
    assert_eq!(find("far", None), far);
    assert_eq!(find("new", Some(address)), far, "by its address");
    assert_eq!(find("own", None), Some(("own".to_owned(), None, true)), "this host's own");
    assert_eq!(find("new", None), None);
}

proptest! {
    /// Whatever other hosts say of the name meanwhile, nobody waits for it without end.
    #[test]
    fn a_name_that_another_host_keeps_is_waited_for_fifteen_seconds_at_the_longest(
        tries in prop::collection::vec((0_u64..4000, any::<bool>()), 1..40),
    ) {
        let mut core = AdmissionCore::default();
        let (began, mut refusal) = (Instant::now(), None);
        core.handle_setback(refused(name_in_use(), Some(holder(true))), began).unwrap();
        let mut now = began;
        for (after, ready) in tries {
            now += Duration::from_millis(after);
            let outcome = core.handle_setback(refused(name_in_use(), Some(holder(ready))), now);
            let waited = now - began;
            prop_assert_eq!(outcome.is_err(), waited >= if ready { HEARSAY } else { MOVING }, "{:?}", waited);
            if outcome.is_err() {
                refusal = Some(waited);
                break;
            }
        }
        prop_assert!(refusal.is_some() || now - began < MOVING);
    }
}
