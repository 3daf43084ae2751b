//! Signatures of control, and their subjects.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use sealane_lab::isolated;
use sealane_proto::client::{TlsIdentity, control_channel, join};
use sealane_proto::identity::Trust;
use sealane_proto::resource::{ControlAddr, Node};
use sealane_proto::token::JoinToken;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::control_client::ControlClient;
use sealane_tests::Mesh;
use tonic::{Code, Status};

/// A host that joined like any other and then asks for what it likes.
pub(crate) struct Intruder {
    control: ControlAddr,
    identity: TlsIdentity,
}

pub(crate) fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

impl Intruder {
    pub(crate) async fn join(token: &str, name: &str) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let control: ControlAddr = "192.0.2.11:7443".parse().unwrap();
        let token: JoinToken = token.parse().unwrap();
        let underlay: std::net::IpAddr = "192.0.2.1".parse().unwrap();
        let node = Node { name: name.parse().unwrap(), underlay: underlay.into(), mtu: None };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let joined = join(&control, &token, &node, request(&key), "test", &provider).await.unwrap();
        let trust = Trust::new(joined.trust_domain, &joined.roots).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Self { control, identity: TlsIdentity { chain: joined.chain, key, trust } }
    }

    pub(crate) async fn client(&self) -> ControlClient<tonic::transport::Channel> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ControlClient::new(control_channel(&self.control, &self.identity, &provider).await.unwrap())
    }

    /// A connection to a control plane at an address.
    pub(crate) async fn channel(&self, control: &str) -> tonic::transport::Channel {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        control_channel(&control.parse().unwrap(), &self.identity, &provider).await.unwrap()
    }

    async fn sign(&self, service: &str, workload: &str) -> Result<(), Status> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (network, csr) = ("shop".to_owned(), request(&key));
        let (service, workload) = (service.to_owned(), workload.to_owned());
        self.client().await.sign(v1::SignRequest { network, service, workload, csr }).await.map(drop)
    }
}

#[test]
fn a_host_gets_no_identity_of_what_runs_elsewhere() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(1);
    let _server = mesh.site(1).serve("api", "api-1");
    let _client = mesh.site(1).load("web", &["http://api:8080/"]);
    mesh.await_instances("api", 1);
    let token = mesh.token();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let intruder = Intruder::join(&token, "intruder").await;
        for (service, workload) in
            [("api", ""), ("", "web"), ("", "api-1"), ("nothing", ""), ("api", "api-1")]
        {
            let refused = intruder.sign(service, workload).await.unwrap_err();
            let refusal = [Code::PermissionDenied, Code::InvalidArgument];
            assert!(refusal.contains(&refused.code()), "{service} {workload}: {refused:?}");
        }
        let carried = v1::CarryRequest { network: "shop".into(), blocks_held: 0, ahead: false };
        intruder.client().await.carry(carried).await.unwrap();
        assert_eq!(intruder.sign("api", "").await.unwrap_err().code(), Code::PermissionDenied);
    });
}

#[test]
fn a_report_about_somebody_elses_workload_changes_nothing() {
    if !isolated() {
        return;
    }
    let (mesh, _servers) = Mesh::serving(1, 1);
    let before = mesh.json(&["workload", "ls"]);
    let theirs = &before[0];
    let text = |field: &str| theirs[field].as_str().unwrap().to_owned();
    let claim = v1::Workload {
        name: text("name"),
        network: "shop".into(),
        node: "host-1".into(),
        address: text("address"),
        mac: "02:00:5e:00:53:66".into(),
        service: "api".into(),
        ports: vec![v1::ServicePort { port: 8080, protocol: "auto".into(), ..Default::default() }],
        sidecar: true,
        ready: true,
        ready6: None,
        weight: None,
        kept_weight: None,
        aliases: vec![],
        called: String::new(),
        group: String::new(),
        finding: String::new(),
    };
    let token = mesh.token();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = runtime.block_on(async {
        let intruder = Intruder::join(&token, "intruder").await;
        let renamed = v1::Workload { name: "api-9".into(), node: "intruder".into(), ..claim.clone() };
        report(&intruder, vec![claim, renamed]).await
    });
    assert_eq!(refused, Some(2), "both claims are refused");
    assert_eq!(mesh.json(&["workload", "ls"]), before);
}

/// Reports these workloads; how many of them were refused, `None` when the stream was.
pub(crate) async fn report(intruder: &Intruder, workloads: Vec<v1::Workload>) -> Option<usize> {
    use v1::{agent_message::Message as Up, control_message::Message as Down};
    let hello =
        v1::Hello { protocol: sealane_proto::wire::PROTOCOL, version: "test".into(), ..v1::Hello::default() };
    let report = v1::Report { sequence: 1, workloads, networks: vec![], offers: vec![] };
    let up = [Up::Hello(hello), Up::Report(report)];
    let up = up.map(|message| v1::AgentMessage { message: Some(message) });
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    for message in up {
        sender.send(message).await.unwrap();
    }
    let up = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut down = intruder.client().await.sync(up).await.ok()?.into_inner();
    while let Some(message) = down.message().await.ok()? {
        if let Some(Down::Reported(reported)) = message.message {
            return Some(reported.refused.len());
        }
    }
    None
}
