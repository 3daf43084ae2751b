use std::time::SystemTime;

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use sealane_proto::identity::{Expected, PeerVerifier, Trust};

use super::*;

fn authority() -> Authority {
    let domain: TrustDomain = "mesh.example".parse().unwrap();
    let record = Authority::generate(&domain, SystemTime::now().into()).unwrap();
    Authority::load(domain, record).unwrap()
}

/// A request that asks for more than it gets.
fn greedy_request() -> Vec<u8> {
    let mut params = CertificateParams::new(vec!["evil.example".into()]).unwrap();
    let uri = "spiffe://mesh.example/control".to_owned().try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

#[test]
fn of_a_request_only_the_key_is_taken() {
    let authority = authority();
    let key = ProvenKey::of_request(&greedy_request()).unwrap();
    let principal = Principal::Service("shop".parse().unwrap(), "api".parse().unwrap());
    let now = SystemTime::now().into();
    let host = SerialPrefix::of_key(&[9; 32]);
    let signed = authority.sign(&key, principal.clone(), host, now).unwrap();
    assert_eq!(SerialPrefix::of(&signed.chain[0]), Some(host));
    assert_eq!(signed.expires, now.after(WORKLOAD_LIFETIME));
    let (_, leaf) = x509_parser::parse_x509_certificate(&signed.chain[0]).unwrap();
    assert!(!leaf.is_ca());
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    let names: Vec<String> = names.value.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["URI(spiffe://mesh.example/net/shop/svc/api)"]);

    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let trust = Trust::new("mesh.example".parse().unwrap(), &[authority.root().clone()]).unwrap();
    let verifier = PeerVerifier::new(trust.clone(), Expected::Exactly(principal), &provider);
    let name = ServerName::try_from("anything").unwrap();
    let (leaf, rest) = signed.chain.split_first().unwrap();
    verifier.verify_server_cert(leaf, rest, &name, &[], UnixTime::now()).unwrap();
    verifier.verify_client_cert(leaf, rest, UnixTime::now()).unwrap();

    let revoking = |host| std::sync::Arc::new([SerialPrefix::of_key(&[host; 32])].into());
    for (host, refused) in [(8, false), (9, true)] {
        let principal = Principal::Service("shop".parse().unwrap(), "api".parse().unwrap());
        let trust = trust.revoking(revoking(host));
        let verifier = PeerVerifier::new(trust, Expected::SameNetwork(principal), &provider);
        let server = verifier.verify_server_cert(leaf, rest, &name, &[], UnixTime::now());
        let client = verifier.verify_client_cert(leaf, rest, UnixTime::now());
        assert_eq!((server.is_err(), client.is_err()), (refused, refused));
    }
}

#[test]
fn a_request_that_does_not_prove_its_key_is_refused() {
    let mut csr = greedy_request();
    *csr.last_mut().unwrap() ^= 1;
    for bad in [csr, vec![], b"csr".to_vec()] {
        assert!(ProvenKey::of_request(&bad).unwrap_err().to_string().contains("csr is not a PKCS #10"));
    }
}

#[test]
fn the_key_decides_the_fingerprint_and_the_root_the_pin() {
    let (one, other) = (greedy_request(), greedy_request());
    let print = |csr: &[u8]| ProvenKey::of_request(csr).unwrap().fingerprint();
    assert_eq!(print(&one), print(&one));
    assert_ne!(print(&one), print(&other));
    let authority = authority();
    assert_eq!(authority.pin(), Pin::of(authority.root()));
}
