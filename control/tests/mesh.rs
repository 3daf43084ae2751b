//! A control plane in this process, and hosts that talk to it over TLS as agents do.

#![allow(clippy::unwrap_used, reason = "a test helper fails by panicking")]

#[path = "mesh/bounds.rs"]
mod bounds;
#[path = "mesh/deltas.rs"]
mod deltas;
#[path = "mesh/host.rs"]
mod host;
#[path = "mesh/restored.rs"]
mod restored;

use std::path::Path;
use std::time::Duration;

use host::{Host, admin, join, join_with, read, request};
use sealane_control::{Config, Control, start};
use sealane_proto::token::{JoinToken, TokenSecret};
use sealane_proto::wire::v1;
use tempfile::TempDir;
use tonic::Code;
use v1::agent_message::Message as Up;
use v1::control_message::Message as Down;

/// The words and the code of the refusal, and what leads to it.
type Edit = (&'static str, Code, fn(&mut v1::JoinRequest));

const HOUR: Duration = Duration::from_secs(3_600);

fn config(directory: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: directory.join("data"),
        run_dir: directory.join("run").into(),
        trust_domain: None,
        certificate_lifetime: None,
    }
}

async fn control(directory: &Path) -> Control {
    let control = start(config(directory)).await.unwrap();
    control.readiness().ready().await;
    control
}

/// A control plane of its own folder, and a token.
struct Mesh {
    directory: TempDir,
    control: Control,
    token: JoinToken,
}

async fn mesh() -> Mesh {
    let directory = TempDir::new().unwrap();
    let control = control(directory.path()).await;
    let token = control.create_token(HOUR, None).await.unwrap();
    Mesh { directory, control, token }
}

/// The same, with the network `shop`.
async fn shop() -> Mesh {
    let mesh = mesh().await;
    create_network(mesh.directory.path(), "shop", "10.42.0.0/16").await.unwrap();
    mesh
}

async fn create_network(directory: &Path, name: &str, subnet: &str) -> Result<v1::Network, tonic::Status> {
    let request = v1::CreateNetworkRequest {
        name: name.into(),
        subnet: subnet.into(),
        mtu: 0,
        deny_egress: false,
        ..Default::default()
    };
    admin(directory).await.create_network(request).await.map(tonic::Response::into_inner)
}

fn workload(node: &str, name: &str, address: &str, service: &str) -> v1::Workload {
    let ports = match service {
        "" => vec![],
        _ => vec![v1::ServicePort {
            name: String::new(),
            port: 8080,
            protocol: "auto".into(),
            ..Default::default()
        }],
    };
    let last: u8 = address.rsplit('.').next().unwrap().parse().unwrap();
    let third: u8 = address.rsplit('.').nth(1).unwrap().parse().unwrap();
    v1::Workload {
        name: name.into(),
        network: "shop".into(),
        node: node.into(),
        address: address.into(),
        mac: format!("02:00:0a:2a:{third:02x}:{last:02x}"),
        service: service.into(),
        ports,
        sidecar: true,
        ready: true,
        ready6: None,
        weight: Default::default(),
        kept_weight: None,
        aliases: vec![],
        called: String::new(),
        group: String::new(),
        finding: String::new(),
    }
}

#[tokio::test]
async fn a_change_walks_from_one_host_to_the_other_and_settles_when_both_have_it() {
    let Mesh { directory: _directory, control, token } = shop().await;
    let one = join(&control, &token, "host-1", "192.0.2.1").await.unwrap();
    let two = join(&control, &token, "host-2", "192.0.2.2").await.unwrap();
    assert_eq!(one.carry("shop", 0).await.unwrap(), ["10.42.0.0/28"]);
    assert_eq!(one.carry("shop", 0).await.unwrap(), ["10.42.0.0/28"]);
    assert_eq!(two.carry("shop", 0).await.unwrap(), ["10.42.0.16/28"]);

    let (mut first, mut second) = (one.sync(vec![]).await, two.sync(vec![]).await);
    for stream in [&mut first, &mut second] {
        let state = stream.state().await;
        assert_eq!(state.nodes.len(), 2);
        stream.ack(&state).await;
    }
    first.report(7, vec![workload("host-1", "api-1", "10.42.0.2", "api")]).await;
    assert_eq!(first.reported().await, v1::Reported { sequence: 7, refused: vec![] });
    let (mine, theirs) = (first.state().await, second.state().await);
    assert_eq!(mine, theirs);
    assert_eq!(theirs.services[0].vip, "10.42.255.0");
    first.ack(&mine).await;
    // Not settled until the other host has it too; a heartbeat may come, nothing else.
    assert!(matches!(first.next().await, Down::Heartbeat(_)));
    second.ack(&theirs).await;
    assert_eq!(first.settled().await, 7);

    second.report(1, vec![workload("host-2", "api-1", "10.42.0.18", "api")]).await;
    let refused = second.reported().await.refused;
    assert!(
        refused[0].reason.contains("workload name api-1 in network shop is in use on host-1"),
        "{refused:?}"
    );
    assert_eq!(second.settled().await, 1);
    control.shutdown().await;
}

#[tokio::test]
async fn a_host_that_went_away_is_not_waited_for_and_its_workloads_stay() {
    let Mesh { directory, control, token } = shop().await;
    let one = join(&control, &token, "host-1", "192.0.2.1").await.unwrap();
    let two = join(&control, &token, "host-2", "192.0.2.2").await.unwrap();
    one.carry("shop", 0).await.unwrap();
    two.carry("shop", 0).await.unwrap();
    let (mut first, mut second) = (one.sync(vec![]).await, two.sync(vec![]).await);
    second.report(1, vec![workload("host-2", "db", "10.42.0.18", "")]).await;
    second.reported().await;
    first.report(1, vec![workload("host-1", "web", "10.42.0.2", "")]).await;
    first.reported().await;
    let mut state = first.state().await;
    while state.workloads.len() < 2 {
        state = first.state().await;
    }
    first.ack(&state).await;
    drop(second);
    assert_eq!(first.settled().await, 1);
    let views =
        read(directory.path()).await.list_workloads(v1::ListWorkloadsRequest::default()).await.unwrap();
    let problems: Vec<(String, String)> = views
        .into_inner()
        .workloads
        .into_iter()
        .map(|view| (view.workload.unwrap().name, view.problem))
        .collect();
    assert!(problems[0].0 == "db" && problems[0].1.contains("host-2 has been disconnected"), "{problems:?}");
    assert_eq!(problems[1], ("web".into(), String::new()));
    let status = read(directory.path()).await.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.nodes, status.nodes_connected, status.workloads), (2, 1, 2));
    assert!(status.problems.iter().any(|problem| problem.contains("node host-2 has been disconnected")));
    control.shutdown().await;
}

#[tokio::test]
async fn each_reason_not_to_join_has_its_code_and_its_words() {
    let Mesh { directory: _directory, control, token } = mesh().await;
    join(&control, &token, "host-1", "192.0.2.1").await.unwrap();
    let unknown = JoinToken { id: "aaaaaaaa".into(), ..token.clone() };
    let wrong = JoinToken { secret: TokenSecret::new([1; 20]), ..token.clone() };
    let table = [
        (&unknown, "host-2", "192.0.2.2", Code::Unauthenticated, "token aaaaaaaa is not known"),
        (&wrong, "host-2", "192.0.2.2", Code::Unauthenticated, "secret of token"),
        (&token, "host-1", "192.0.2.2", Code::AlreadyExists, "node name host-1 is in use"),
        (&token, "host-2", "192.0.2.1", Code::AlreadyExists, "192.0.2.1 is in use by node host-1"),
        (&token, "Host", "192.0.2.2", Code::InvalidArgument, "may hold lower-case letters"),
    ];
    for (token, name, underlay, code, words) in table {
        let status = join(&control, token, name, underlay).await.unwrap_err();
        assert!(status.code() == code && status.message().contains(words), "{status:?}");
    }
    let edits: [Edit; 4] = [
        ("speaks protocol 99", Code::FailedPrecondition, |request| request.protocol = 99),
        ("behind (it says ", Code::FailedPrecondition, |request| request.unix_seconds -= 600),
        ("ahead (it says ", Code::FailedPrecondition, |request| request.unix_seconds += 7_300),
        ("csr is not a PKCS #10", Code::InvalidArgument, |request| request.csr.truncate(40)),
    ];
    for (words, code, edit) in edits {
        let mut request = request(&token, "host-3", "192.0.2.3", &host::key());
        edit(&mut request);
        let status = join_with(&control, &token, request).await.unwrap_err();
        assert!(status.code() == code && status.message().contains(words), "{status:?}");
    }
    control.shutdown().await;
}

#[tokio::test]
async fn the_same_key_may_join_again() {
    let Mesh { directory: _directory, control, token } = mesh().await;
    let key = host::key();
    for _ in 0..2 {
        join_with(&control, &token, request(&token, "host-1", "192.0.2.1", &key)).await.unwrap();
    }
    control.shutdown().await;
}

#[tokio::test]
async fn a_host_finds_out_that_a_token_is_of_another_mesh_before_it_says_anything() {
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (control, foreign) = (control(one.path()).await, control_at(other.path()).await);
    let token = foreign.create_token(HOUR, None).await.unwrap();
    let error = Host::anonymous(control.local_addr(), token.pin).await.unwrap_err();
    assert!(error.contains("pinned"), "{error}");

    // And a certificate of another mesh is nothing here.
    let stranger = join(&foreign, &token, "host-1", "192.0.2.1").await.unwrap();
    let refused = stranger.elsewhere(control.local_addr()).await;
    assert!(refused.carry("shop", 0).await.is_err());
    control.shutdown().await;
    foreign.shutdown().await;
}

async fn control_at(directory: &Path) -> Control {
    control(directory).await
}

#[tokio::test]
async fn only_joining_is_for_anonymous_hosts() {
    let Mesh { directory: _directory, control, token } = mesh().await;
    let anonymous = Host::anonymous(control.local_addr(), token.pin).await.unwrap();
    let status = anonymous.carry("shop", 0).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    control.shutdown().await;
}

#[tokio::test]
async fn identities_are_signed_for_what_runs_on_the_asking_host_alone() {
    let Mesh { directory: _directory, control, token } = shop().await;
    let one = join(&control, &token, "host-1", "192.0.2.1").await.unwrap();
    let two = join(&control, &token, "host-2", "192.0.2.2").await.unwrap();
    one.carry("shop", 0).await.unwrap();
    let status = one.sign("shop", "api", "").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);

    let mut stream = one.sync(vec![]).await;
    let both = [("api-1", "10.42.0.2", "api"), ("web-1", "10.42.0.3", "")];
    let both = both.map(|(name, address, service)| workload("host-1", name, address, service));
    stream.report(1, both.to_vec()).await;
    assert_eq!(stream.reported().await.refused, []);
    // The request asks for control's identity as well; it gets what is registered.
    let certificate = one.sign("shop", "api", "").await.unwrap();
    assert_eq!(host::identity(&certificate), "spiffe://sealane/net/shop/svc/api");
    let certificate = one.sign("shop", "", "web-1").await.unwrap();
    assert_eq!(host::identity(&certificate), "spiffe://sealane/net/shop/wl/web-1");
    for (service, workload) in [("", "api-1"), ("web", ""), ("", "")] {
        assert!(one.sign("shop", service, workload).await.is_err(), "{service} {workload}");
    }
    let status = two.sign("shop", "api", "").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("api of network shop is registered on node host-2"), "{status:?}");
    control.shutdown().await;
}

#[tokio::test]
async fn a_restart_keeps_everything_and_sends_nothing_that_the_host_has() {
    let Mesh { directory, control: first, token } = shop().await;
    let host = join(&first, &token, "host-1", "192.0.2.1").await.unwrap();
    host.carry("shop", 0).await.unwrap();
    let mut stream = host.sync(vec![]).await;
    stream.report(1, vec![workload("host-1", "web", "10.42.0.2", "")]).await;
    stream.reported().await;
    let state = stream.state().await;
    let state = if state.workloads.is_empty() { stream.state().await } else { state };
    first.shutdown().await;
    assert!(!directory.path().join("run/control.sock").exists());

    let second = control(directory.path()).await;
    let host = host.elsewhere(second.local_addr()).await;
    let applied =
        |network: &str| v1::Ack { network: network.into(), generation: state.generation, voucher: None };
    let mut stream = host.sync(vec![applied("shop"), applied("gone")]).await;
    // Neither the state again nor anything else but what is gone.
    assert_eq!(stream.next().await, Down::Gone(v1::NetworkGone { network: "gone".into() }));
    assert!(matches!(stream.next().await, Down::Heartbeat(_)));
    stream.report(1, vec![workload("host-1", "web", "10.42.0.2", "")]).await;
    stream.reported().await;
    assert_eq!(stream.settled().await, 1);
    join(&second, &token, "host-2", "192.0.2.2").await.unwrap();
    second.shutdown().await;
}

#[tokio::test]
async fn a_network_goes_when_nothing_is_attached_and_its_carriers_hear_it() {
    let Mesh { directory, control, token } = shop().await;
    let host = join(&control, &token, "host-1", "192.0.2.1").await.unwrap();
    let underlay = create_network(directory.path(), "blog", "192.0.2.0/24").await.unwrap_err();
    let words = "subnet 192.0.2.0/24 contains the address 192.0.2.1 of host host-1; 10.0.0.0/24 is free";
    assert_eq!(underlay.message(), words, "{underlay:?}");
    host.carry("shop", 0).await.unwrap();
    let mut stream = host.sync(vec![]).await;
    stream.report(1, vec![workload("host-1", "web", "10.42.0.2", "")]).await;
    stream.reported().await;
    let remove = || v1::RemoveNetworkRequest { name: "shop".into() };
    let status = admin(directory.path()).await.remove_network(remove()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("1 workload is attached, web on host-1;"), "{status:?}");
    stream.report(2, vec![]).await;
    stream.reported().await;
    admin(directory.path()).await.remove_network(remove()).await.unwrap();
    loop {
        let message = stream.next().await;
        if let Down::Gone(gone) = message {
            break assert_eq!(gone.network, "shop");
        }
        assert!(!matches!(message, Down::Welcome(_) | Down::Reported(_)), "{message:?}");
    }
    control.shutdown().await;
}

#[tokio::test]
async fn streams_begin_with_hello_of_the_same_protocol_and_a_second_one_takes_over() {
    let Mesh { directory: _directory, control, token } = mesh().await;
    let host = join(&control, &token, "host-1", "192.0.2.1").await.unwrap();
    let hello = v1::Hello { protocol: 9, version: "9.9.9".into(), ..v1::Hello::default() };
    let status = host.open(Up::Hello(hello)).await.end().await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("the agent is Sealane 9.9.9"), "{status:?}");
    let status = host.open(Up::Heartbeat(v1::Heartbeat::default())).await.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);

    let mut first = host.sync(vec![]).await;
    let _second = host.sync(vec![]).await;
    let status = first.end().await;
    assert!(status.message().contains("another stream of node host-1"), "{status:?}");
    control.shutdown().await;
}

#[tokio::test]
async fn a_client_that_never_ends_its_handshake_stops_nobody() {
    let directory = TempDir::new().unwrap();
    let control = control(directory.path()).await;
    let mut idle = vec![];
    for _ in 0..20 {
        idle.push(tokio::net::TcpStream::connect(control.local_addr()).await.unwrap());
    }
    let token = control.create_token(HOUR, None).await.unwrap();
    join(&control, &token, "host-1", "192.0.2.1").await.unwrap();
    control.shutdown().await;
}

#[tokio::test]
async fn a_second_control_another_mesh_and_open_modes_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let control = control(directory.path()).await;
    let error = start(config(directory.path())).await.unwrap_err().to_string();
    assert!(error.contains("in use by another"), "{error}");
    let beside = Config { data_dir: directory.path().join("other"), ..config(directory.path()) };
    let error = start(beside).await.unwrap_err().to_string();
    assert!(error.contains("another control plane answers on"), "{error}");
    for (path, mode) in
        [("data", 0o700), ("run", 0o700), ("run/control.sock", 0o600), ("data/control.redb", 0o600)]
    {
        let found = std::fs::metadata(directory.path().join(path)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
    control.shutdown().await;
    let other = Config { trust_domain: Some("other".parse().unwrap()), ..config(directory.path()) };
    let error = start(other).await.unwrap_err().to_string();
    assert!(error.contains("is of trust domain sealane, not other"), "{error}");
}

#[tokio::test]
async fn tokens_are_listed_without_their_secrets_and_metrics_count() {
    let directory = TempDir::new().unwrap();
    let control = control(directory.path()).await;
    let mut admin = admin(directory.path()).await;
    let made = admin
        .create_token(v1::CreateTokenRequest { ttl_seconds: 3_600, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    let token: JoinToken = made.token.parse().unwrap();
    let listed = admin.list_tokens(v1::ListTokensRequest {}).await.unwrap().into_inner().tokens;
    assert_eq!(
        (listed[0].id.as_str(), listed[0].expires_unix_seconds),
        (token.id.as_str(), made.expires_unix_seconds)
    );
    let status = admin
        .create_token(v1::CreateTokenRequest { ttl_seconds: 0, ..Default::default() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    join(&control, &token, "host-1", "192.0.2.1").await.unwrap();
    let text = sealane_base::metrics::encode(&control.gather()());
    for line in [
        "sealane_control_commits_total 2",
        "sealane_control_generation 2",
        "sealane_control_certificates_signed_total{kind=\"node\"} 1",
        "sealane_control_agents_connected 0",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
    control.shutdown().await;
}
