//! Attachments that a runtime holds by a name of its own, over agent.sock as a plugin of it does.

use std::path::PathBuf;

use sealane_lab::isolated;
use sealane_proto::client::unix_channel;
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;
use sealane_proto::wire::v1::run_event::Event;
use sealane_tests::{Mesh, Site};
use tonic::transport::Channel;
use tonic::{Code, Status};

const HOLDER: &str = "cni/4f1c/net1";

/// Speaks with a site's agent.
fn talk<T>(
    site: &Site,
    words: impl AsyncFnOnce(AgentClient<Channel>) -> Result<T, Status>,
) -> Result<T, Status> {
    let socket = PathBuf::from(format!("/proc/{}/root/run/sealane/agent.sock", site.agent.pid()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { words(AgentClient::new(unix_channel(&socket).await.unwrap())).await })
}

fn request(holder: &str, interface: &str) -> v1::AttachRequest {
    let shop =
        v1::NetworkChoice { network: "shop".into(), interface: interface.into(), ..Default::default() };
    let workload =
        v1::RunRequest { networks: vec![shop], preferred: "Demo_web_1".into(), ..Default::default() };
    v1::AttachRequest {
        workload: Some(workload),
        netns: "/run/netns/pod".into(),
        holder: holder.into(),
        ..Default::default()
    }
}

fn attach(site: &Site, request: v1::AttachRequest) -> Result<v1::Location, Status> {
    talk(site, async |mut client| {
        let mut events = client.attach(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            if let Some(Event::Attached(location)) = event.event {
                return Ok(location);
            }
        }
        Err(Status::unavailable("the agent ended"))
    })
}

fn detach(site: &Site, holder: &str) -> bool {
    let request = v1::DetachRequest { holder: holder.into(), ..Default::default() };
    talk(site, async |mut client| client.detach(request).await).unwrap().into_inner().ending
}

fn holders(site: &Site) -> Vec<String> {
    let request = v1::HeldRequest { prefix: "cni/".into() };
    let held = talk(site, async |mut client| client.held(request).await).unwrap().into_inner().held;
    held.into_iter().map(|held| held.holder).collect()
}

#[test]
fn what_a_runtime_holds_has_its_interface_s_name_and_stays_until_it_is_dismissed() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(1);
    let _ = mesh.site(1).command("ip", &["netns", "add", "pod"]).ok();
    let location = attach(mesh.site(1), request(HOLDER, "net1")).unwrap();
    assert_eq!(location.workload, "demo-web-1");
    let seat = &location.attachments[0];
    assert_eq!((seat.interface.as_str(), seat.gateway.as_str(), seat.prefix_len), ("net1", "10.42.0.1", 16));
    let inside = mesh.site(1).command("ip", &["-n", "pod", "-o", "link", "show", "net1"]).ok().stdout;
    assert!(inside.contains(&seat.mac), "{inside} has {}", seat.mac);

    let twice = attach(mesh.site(1), request(HOLDER, "net2")).unwrap_err();
    assert_eq!(twice.code(), Code::AlreadyExists, "{twice}");
    assert!(twice.message().contains("holds workload shop/demo-web-1 already"), "{twice}");
    let by_name = mesh.site(1).sealane(&["detach", "demo-web-1"]);
    assert!(by_name.stderr.contains("is attached by CNI"), "{by_name}");
    assert_eq!(holders(mesh.site(1)), [HOLDER]);

    // Neither an agent's end nor that of the namespace's name is its end.
    mesh.site_mut(1).agent.kill9();
    let _ = mesh.site(1).command("ip", &["netns", "del", "pod"]).ok();
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    let locate = v1::LocateRequest { holder: HOLDER.into(), ..Default::default() };
    let found = talk(mesh.site(1), async |mut client| client.locate(locate).await).unwrap().into_inner();
    assert_eq!(found, location);

    assert!(!detach(mesh.site(1), HOLDER), "nothing of it is left");
    assert!(!detach(mesh.site(1), HOLDER), "nor is that an error");
    assert!(holders(mesh.site(1)).is_empty());
    mesh.site(1).await_gone("demo-web-1");
}
