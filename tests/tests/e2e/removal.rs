//! Hosts and services that leave, and what nobody can do with what is left of them.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use sealane_lab::isolated;
use sealane_proto::identity::{Expected, PeerVerifier, Principal, Trust};
use sealane_proto::wire::v1;
use sealane_tests::{Mesh, PATIENCE, Running, eventually};
use serde_json::Value;

use crate::identity::{Intruder, report, request};

fn blocks(mesh: &Mesh, node: &str) -> Vec<String> {
    let network = mesh.json(&["network", "inspect", "shop"]);
    let blocks = network["blocks"].as_array().unwrap().iter().filter(|block| block["node"] == node);
    blocks.map(|block| block["range"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_removed_host_is_out_of_names_balancing_and_reach_until_it_joins_anew() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(2);
    let _first = mesh.site(1).serve("api", "api-1");
    let second = mesh.site(2).serve("api", "api-2");
    let lost = mesh.site(2).load("lost", &["http://api:8080/"]);
    mesh.await_instances("api", 2);
    eventually(PATIENCE, "control has told the agent that it has lost no host", || {
        let hosts = mesh.site(2).json(&["node", "ls"]);
        let hosts = hosts.as_array().unwrap();
        (hosts.len() == 2 && hosts.iter().all(|host| host["connected"] == Value::Bool(true))).then_some(())
    });
    let held = blocks(&mesh, "host-2");
    assert_eq!(held.len(), 1);
    let address = mesh.site(1).workload("api-1").unwrap()["address"].as_str().unwrap().to_owned();

    let refused = mesh.sealane(&["node", "rm", "host-2"]);
    assert_eq!(refused.code(), 1, "{refused}");
    for word in ["runs 2 workloads", "shop/api-2", "--force", "node drain host-2"] {
        assert!(refused.stderr.contains(word), "{refused}");
    }
    let unknown = mesh.sealane(&["node", "rm", "host-9"]);
    assert!(unknown.code() == 1 && unknown.stderr.contains("there is no node host-9"), "{unknown}");

    let _ = mesh.sealane(&["node", "rm", "host-2", "--force"]).ok();
    let nodes = mesh.json(&["node", "ls"]);
    assert_eq!(nodes.as_array().unwrap().len(), 1, "{nodes}");
    assert!(blocks(&mesh, "host-2").is_empty());
    mesh.site(1).await_instances("api", 1);
    let load = mesh.site(1).load("web", &["http://api:8080/", "--requests", "200"]);
    assert_eq!(load.stop().ok().answers.keys().collect::<Vec<_>>(), ["api-1"]);
    eventually(PATIENCE, "the removed host says so", || {
        let status = mesh.site(2).json(&["status"]);
        let told = &status["problems"];
        let says = |words: &str| told[0].as_str().is_some_and(|told| told.contains(words));
        (says("was removed from the mesh") && says("sealane clean")).then(|| {
            assert_eq!(told.as_array().unwrap().len(), 1, "all else follows from that: {told}");
        })
    });
    let late = mesh.site(2).shop(&["true"]).wait();
    assert!(late.code() == 125 && late.stderr.contains("was removed from the mesh"), "{late}");
    // By name, which it still has, and by address.
    for url in [format!("http://{address}:8080/"), "http://api-1:8080/".to_owned()] {
        let call = mesh.site(2).exec("lost", &["curl", "-sS", "--fail", "--max-time", "3", &url]);
        assert!(!call.status.success(), "{call}");
    }

    // Control knows it after kill -9, too.
    mesh.control.kill9();
    mesh.control.start();
    mesh.await_control();
    assert_eq!(mesh.json(&["node", "ls"]).as_array().unwrap().len(), 1);

    drop((second, lost));
    let cleaned = mesh.site(2).sealane(&["clean", "--yes"]).ok();
    assert!(!cleaned.stderr.contains("hint:"), "it was removed already, as its agent knows: {cleaned}");
    mesh.join(2);
    mesh.site_mut(2).await_ready();
    let _second = mesh.site(2).serve("api", "api-2");
    mesh.await_instances("api", 2);
    let again = blocks(&mesh, "host-2");
    assert!(again.iter().all(|block| !held.contains(block)), "{again:?} is given again before its rest");
}

/// A workload `thief` of the intruder's, with a certificate that control has signed.
async fn thief(intruder: &Intruder) -> (KeyPair, Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>) {
    let carried = v1::CarryRequest { network: "shop".into(), blocks_held: 0, ahead: false };
    let carried = intruder.client().await.carry(carried).await.unwrap().into_inner();
    let first: Ipv4Addr = carried.blocks[0].range.split('/').next().unwrap().parse().unwrap();
    let workload = v1::Workload {
        name: "thief".into(),
        network: "shop".into(),
        node: "intruder".into(),
        address: Ipv4Addr::from_bits(first.to_bits() + 9).to_string(),
        mac: "02:00:5e:00:53:66".into(),
        sidecar: true,
        ready: true,
        ..Default::default()
    };
    assert_eq!(report(intruder, vec![workload]).await, Some(0));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let (network, workload, csr) = ("shop".to_owned(), "thief".to_owned(), request(&key));
    let sign = v1::SignRequest { network, workload, csr, ..Default::default() };
    let signed = intruder.client().await.sign(sign).await.unwrap().into_inner();
    let (chain, roots) = signed.certificate.unwrap().into_parts();
    (key, chain, roots)
}

/// Waits for what the other end says first, or for its refusal.
fn greeting(tunnel: &mut StreamOwned<ClientConnection, TcpStream>) -> std::io::Result<usize> {
    tunnel.read(&mut [0; 64])
}

#[test]
fn a_removed_hosts_workload_certificates_are_refused_by_sidecars_and_their_tunnels_end() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(1, 1);
    let address = mesh.site(1).workload("api-1").unwrap()["address"].as_str().unwrap().to_owned();
    let bare: Running = mesh
        .site(1)
        .run(&["--network", "shop", "--no-sidecar", "--name", "bare"], &["sleep", "1000"])
        .entered();
    eventually(PATIENCE, "the caller is there", || mesh.site(1).workload("bare").map(drop));
    let token = mesh.token();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (key, chain, roots) =
        runtime.block_on(async { thief(&Intruder::join(&token, "intruder").await).await });

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trust = Trust::new("sealane".parse().unwrap(), &roots).unwrap();
    let expected = Expected::Exactly(Principal::Service("shop".parse().unwrap(), "api".parse().unwrap()));
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(PeerVerifier::new(trust, expected, &provider))
        .with_client_auth_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    config.alpn_protocols = vec![b"sealane/1".to_vec()];
    // The second call would resume the first one's session.
    let config = Arc::new(config);
    let open = || {
        let tcp = bare.within(|| TcpStream::connect(format!("{address}:15008"))).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("sealane").unwrap();
        StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), tcp)
    };
    let mut tunnel = open();
    assert!(greeting(&mut tunnel).unwrap() > 0, "the certificate is good");

    let _ = mesh.sealane(&["node", "rm", "intruder"]).ok();
    // Whatever pings come before: in the end the tunnel is closed.
    eventually(PATIENCE, "the open tunnel ends", || match greeting(&mut tunnel) {
        Ok(0) => Some(()),
        Ok(_) => None,
        Err(error) => {
            assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
            Some(())
        }
    });
    let refused = greeting(&mut open()).unwrap_err().to_string();
    assert!(refused.to_lowercase().contains("revoked"), "{refused}");
}

#[test]
fn a_drained_hosts_instances_get_no_new_calls_until_it_is_taken_back() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(2, 2);
    let loads: Vec<_> =
        (1..=2).map(|n| mesh.site(n).load(&format!("web-{n}"), &["http://api:8080/"])).collect();
    loads.iter().for_each(|load| load.await_further(100));
    let _ = mesh.sealane(&["node", "drain", "host-2"]).ok();
    mesh.await_instances("api", 1);
    assert_eq!(mesh.json(&["node", "inspect", "host-2"])["drained"], true);
    let endpoints = mesh.json(&["service", "endpoints", "api"]);
    let problem =
        endpoints.as_array().unwrap().iter().find(|one| one["name"] == "api-2").unwrap()["problem"].clone();
    assert!(problem.to_string().contains("host-2 is drained"), "{problem}");
    for number in 1..=2 {
        let load =
            mesh.site(number).load(&format!("late-{number}"), &["http://api:8080/", "--requests", "200"]);
        assert_eq!(load.stop().ok().answers.keys().collect::<Vec<_>>(), ["api-1"], "from host-{number}");
    }
    let _ = mesh.sealane(&["node", "undrain", "host-2"]).ok();
    mesh.await_instances("api", 2);
    for load in loads {
        load.await_further(100);
        let _ = load.stop().ok();
    }
}

#[test]
fn a_service_is_removed_when_its_last_instance_has_ended_and_its_address_rests() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let before = mesh.json(&["service", "inspect", "api"]);
    assert_eq!(before["endpoints"][0]["name"], "api-1");
    let refused = mesh.sealane(&["service", "rm", "api"]);
    assert!(refused.code() == 1 && refused.stderr.contains("1 instance, api-1 on host-1"), "{refused}");
    drop(server);
    eventually(PATIENCE, "the service can be removed", || {
        mesh.sealane(&["service", "rm", "api", "--network", "shop"]).status.success().then_some(())
    });
    assert_eq!(mesh.json(&["service", "ls"]).as_array().unwrap().len(), 0);
    let unknown = mesh.sealane(&["service", "rm", "api", "--network", "shop"]);
    assert!(unknown.code() == 1 && unknown.stderr.contains("there is no service api"), "{unknown}");
    let _server = mesh.site(1).serve("api", "api-1");
    mesh.await_instances("api", 1);
    assert_ne!(mesh.json(&["service", "inspect", "api"])["vip"], before["vip"]);
    let sheet = mesh.sealane(&["workload", "inspect", "api-1"]).ok().stdout;
    assert!(sheet.contains("host-1") && sheet.contains("problem"), "{sheet}");
}
