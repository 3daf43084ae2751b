//! Docker itself refuses what cannot be, in our words, with the line to type.

use sealane_lab::isolated;
use sealane_tests::{CREATE, Finished, Mesh, PATIENCE, Site, eventually};

const LINE: &str = "docker network create -d sealane --ipam-driver sealane -o sealane.network=";

#[track_caller]
fn refused(what: &Finished, expected: &str) {
    assert!(what.code() != 0 && what.stderr.contains(expected), "{what}");
}

/// Docker refuses what cannot be, and makes what can.
fn refuses(site: &Site) {
    let create = |words: &str| {
        let line = format!("network create -d sealane {words}");
        site.docker(&line.split(' ').collect::<Vec<_>>())
    };
    let ours = "--ipam-driver sealane";
    refused(&create("-o sealane.network=shop shop"), &format!("{LINE}shop shop"));
    refused(&create(&format!("{ours} shop")), &format!("{LINE}NETWORK NETWORK"));
    refused(&create(&format!("{ours} -o sealane.netwrok=shop shop")), "there is no option sealane.netwrok");
    refused(&create(&format!("{ours} -o sealane.network=Shop shop")), "-o sealane.network: ");
    refused(
        &create(&format!("{ours} --ipam-opt sealane.net=shop shop")),
        "there is no IPAM option sealane.net",
    );
    refused(
        &create(&format!("{ours} -o sealane.network=nobody nobody")),
        "there is no network nobody; hint: sealane network create nobody --subnet 10.42.0.0/16",
    );
    refused(
        &create(&format!(
            "{ours} --ipam-opt sealane.network=shop -o sealane.network=shop --subnet 10.9.0.0/16 shop"
        )),
        "network shop has subnet 10.42.0.0/16, not 10.9.0.0/16",
    );
    refused(
        &create(&format!("{ours} -o sealane.network=shop --internal shop")),
        "sealane network create shop --egress deny",
    );
    refused(
        &create(&format!(
            "{ours} -o sealane.network=shop --ip-range 10.42.9.0/24 --subnet 10.42.0.0/16 shop"
        )),
        "leave --ip-range out",
    );
    let _ = site.docker(&CREATE).ok();
    refused(&create(&format!("{ours} -o sealane.network=shop again")), "network shop is Docker's network");
    refused(
        &site.docker(&[
            "run",
            "--rm",
            "--network",
            "shop",
            "--mac-address",
            "ff:ff:ff:ff:ff:ff",
            "bb:1",
            "sh",
        ]),
        "MAC address",
    );
}

#[test]
fn what_cannot_be_is_refused_in_words_that_docker_prints_whole() {
    if !isolated() {
        return;
    }
    let (mut mesh, _engines) = Mesh::shop(1).with_docker(1);
    let site = mesh.site(1);
    refuses(site);
    // What is wrong with a label is named, with the container and what to do.
    let wrong = [
        ("sealane.port=eighty", "label sealane.port"),
        ("sealane.port=8080", "label sealane.port needs label sealane.service=NAME too"),
    ];
    for (label, why) in wrong {
        let run = ["run", "-d", "--network", "shop", "--name", "web", "--label", label];
        let _ = site.docker(&[&run[..], &["bb:1", "sleep", "1000"]].concat()).ok();
        eventually(PATIENCE, "the label is named", || {
            let said = site.problems();
            ["container web", why, "docker rm -f web"].iter().all(|word| said.contains(word)).then_some(())
        });
        let _ = site.docker(&["rm", "-f", "web"]).ok();
        eventually(PATIENCE, "and no more", || (site.problems() == "[]").then_some(()));
    }

    // A host that is cleaned has no plugin any more, also after the agent was killed.
    let plugin = "/run/docker/plugins/sealane.sock";
    mesh.site_mut(1).agent.kill9();
    assert_eq!(mesh.site(1).command("test", &["-S", plugin]).code(), 0, "keep holds it for the next agent");
    let cleaned = mesh.site(1).sealane(&["clean", "--yes"]).ok();
    assert!(cleaned.stderr.contains(plugin), "{cleaned}");
    assert_ne!(mesh.site(1).command("test", &["-e", plugin]).code(), 0);
}
