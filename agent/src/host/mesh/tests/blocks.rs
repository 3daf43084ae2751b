//! Blocks of addresses that this host needs, or gives back.

use ipnet::Ipv4Net;

use super::*;

const SPARE: &str = "10.42.0.16/28";

fn shop() -> NetworkName {
    "shop".parse().unwrap()
}

fn ranges(texts: &[&str]) -> BTreeSet<Ipv4Net> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A state in which this host has these blocks and another one has the next.
fn leased(revision: u64, blocks: &[&str]) -> NetworkSnapshot {
    let mut snapshot = snapshot(revision);
    snapshot.blocks = blocks.iter().map(|block| testing::block(Some("host-1"), block)).collect();
    snapshot.blocks.push(testing::block(Some("host-2"), "10.42.1.0/24"));
    snapshot
}

/// A host with two small blocks, one of which it does not need.
fn roomy() -> Mesh {
    let mut mesh = mesh();
    mesh.accept(leased(2, &["10.42.0.0/28", SPARE]));
    mesh
}

fn remembered(mesh: &Mesh) -> Vec<String> {
    mesh.carried()[&shop()].blocks.iter().map(|block| block.range.to_string()).collect()
}

#[test]
fn what_is_given_back_is_reported_and_remembered_no_more_until_control_has_taken_it() {
    let mut mesh = roomy();
    assert_eq!(remembered(&mesh), ["10.42.0.0/28", SPARE, "10.42.1.0/24"]);
    let version = mesh.version();
    mesh.offer(&shop(), &ranges(&[]));
    assert_eq!((mesh.version(), mesh.report().offers.len()), (version, 0), "nothing is given back");
    assert!(
        std::ptr::eq(mesh.snapshot(&shop()).unwrap(), &*mesh.carried()[&shop()]),
        "what is the same is there once"
    );
    mesh.offer(&shop(), &ranges(&[SPARE]));
    assert_eq!((mesh.version(), mesh.offered(&shop())), (version + 1, ranges(&[SPARE])));
    assert_eq!(mesh.report().offers, BTreeMap::from([(shop(), ranges(&[SPARE]))]));
    assert_eq!(remembered(&mesh), ["10.42.0.0/28", "10.42.1.0/24"]);
    mesh.accept(leased(3, &["10.42.0.0/28", SPARE]));
    assert_eq!((mesh.version(), remembered(&mesh).len()), (version + 1, 2), "control is not so far yet");
    mesh.accept(leased(4, &["10.42.0.0/28"]));
    assert_eq!((mesh.version(), mesh.offered(&shop())), (version + 2, ranges(&[])));
    assert_eq!(mesh.report().offers.len(), 0);
}

#[test]
fn what_was_given_back_before_the_start_is_not_assigned_from() {
    let mut mesh = Mesh::new(mesh().node().clone(), 2);
    mesh.recall_network((leased(2, &["10.42.0.0/28", SPARE]), ranges(&[SPARE])));
    assert_eq!(mesh.offered(&shop()), ranges(&[SPARE]));
    let leaving = AttachmentSpec { address: Some("10.42.0.17".parse().unwrap()), ..spec("api") };
    assert!(mesh.admit(&leaving, Instant::now()).is_err());
}

#[test]
fn a_block_in_which_something_runs_or_is_kept_is_needed() {
    let (now, spare) = (Instant::now(), |mesh: &Mesh| {
        mesh.surplus()[&shop()].iter().map(ToString::to_string).collect::<Vec<_>>()
    });
    let mut mesh = roomy();
    assert_eq!(spare(&mesh), [SPARE]);
    let mut office = leased(1, &["10.42.0.0/28", SPARE]);
    office.network.name = "office".parse().unwrap();
    mesh.accept(office);
    let at = |network: &str| AttachmentSpec {
        network: network.parse().unwrap(),
        address: Some("10.42.0.17".parse().unwrap()),
        ..spec("api")
    };
    mesh.admit(&at("office"), now).unwrap();
    assert_eq!(spare(&mesh), [SPARE], "what is used in another network is another address");
    let id = AttachmentId::of(&mesh.admit(&at("shop"), now).unwrap());
    assert_eq!(spare(&mesh), ["10.42.0.0/28"]);
    mesh.remove(&id, now);
    let claim = Claim {
        hold: "docker/1".parse().unwrap(),
        network: shop(),
        address: Some("10.42.0.18".parse().unwrap()),
        mac: None,
        from: None,
    };
    mesh.reserve(&claim, (now, std::time::SystemTime::UNIX_EPOCH)).unwrap();
    assert_eq!(spare(&mesh), ["10.42.0.0/28"]);
}

#[test]
fn a_host_wants_more_once_less_is_free_than_it_uses() {
    let (mut mesh, now) = (mesh(), Instant::now());
    // 14 addresses for workloads: the network's own, the gateway's and the host's are not among the sixteen.
    mesh.accept(leased(2, &["10.42.0.0/28"]));
    let free = 13;
    for used in 1..=free {
        let kept = Claim {
            hold: format!("docker/{used}").parse().unwrap(),
            network: shop(),
            address: None,
            mac: None,
            from: None,
        };
        if used % 2 == 0 {
            mesh.reserve(&kept, (now, std::time::SystemTime::UNIX_EPOCH)).unwrap();
        } else {
            mesh.admit(&spec(&format!("api-{used}")), now).unwrap();
        }
        let expected = (free - used < used).then_some(1);
        assert_eq!(mesh.wants_more(&shop(), now), expected, "{used} of {free}");
    }
    assert_eq!(mesh.wants_more(&"office".parse().unwrap(), now), None);

    mesh.accept(leased(3, &["10.42.0.0/28", "10.42.4.0/25"]));
    assert_eq!(mesh.wants_more(&shop(), now), None);
    for used in 0..64 {
        mesh.admit(&spec(&format!("more-{used}")), now).unwrap();
    }
    // 77 are used and 64 are free: that is enough for however many.
    assert_eq!(mesh.wants_more(&shop(), now), None);
    mesh.admit(&spec("last"), now).unwrap();
    assert_eq!(mesh.wants_more(&shop(), now), Some(2));
}
