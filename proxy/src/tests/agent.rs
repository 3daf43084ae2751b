//! The process with an agent that comes and goes.

use std::time::Duration;

use sealane_proto::sidecar::{Channel, Down, Hello, Up};
use tokio::net::{TcpStream, UnixListener};

use super::mesh::{Mesh, PORTS, listeners, loopback, within};
use crate::Settings;

async fn accept(listener: &UnixListener) -> (Channel<Down, Up>, Hello) {
    let (stream, _) = within(listener.accept()).await.unwrap();
    let mut channel = Channel::<Down, Up>::from(stream);
    let Up::Hello(hello) = within(channel.receiver.recv()).await.unwrap() else { panic!() };
    (channel, hello)
}

#[tokio::test]
async fn a_sidecar_is_told_works_on_without_its_agent_and_drains() {
    let mesh = Mesh::new("8080", 1);
    let own = mesh.client_workload();
    let directory = tempfile::tempdir().unwrap();
    let agent_socket = directory.path().join("sidecar.sock");
    let listener = UnixListener::bind(&agent_socket).unwrap();
    let settings = Settings {
        agent_socket,
        network: own.network.clone(),
        workload: own.name.clone(),
        ports: PORTS,
        workers: 1,
        memory: 128 << 20,
        drain_deadline: Duration::from_secs(1),
    };
    let sidecar = std::thread::spawn(move || crate::run(settings));

    let (mut agent, hello) = accept(&listener).await;
    assert!(!hello.has_listeners);
    assert_eq!(hello.workload, own.name);
    let address = loopback(1).into();
    agent.sender.send(Down::Listeners(listeners(address))).await.unwrap();
    agent.sender.send(Down::Identity(mesh.identity(own))).await.unwrap();
    agent.sender.send(Down::Config(Box::new(mesh.config(own, &[0])))).await.unwrap();
    let applied = within(agent.receiver.recv()).await.unwrap();
    assert!(matches!(applied, Up::Applied { sequence: 1 }), "{applied:?}");
    assert!(hello.answers);
    agent.sender.send(Down::Ping).await.unwrap();
    assert!(matches!(within(agent.receiver.recv()).await.unwrap(), Up::Pong));
    agent.sender.send(Down::Collect).await.unwrap();
    let Up::Metrics(measured) = within(agent.receiver.recv()).await.unwrap() else { panic!() };
    let expiry = "sealane_certificate_expiry_timestamp_seconds";
    assert!(measured.families.iter().any(|family| family.name == expiry));

    drop(agent);
    let (mut agent, hello) = accept(&listener).await;
    assert!(hello.has_listeners);
    // Nothing was redirected, so the sidecar resets the connection: but it is there.
    if let Err(error) = TcpStream::connect((address, PORTS.outbound)).await {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    agent.sender.send(Down::Drain { deadline: Duration::from_secs(60) }).await.unwrap();
    // What was counted to the last is not lost.
    assert!(matches!(within(agent.receiver.recv()).await.unwrap(), Up::Metrics(_)));
    assert!(matches!(within(agent.receiver.recv()).await.unwrap(), Up::Drained));
    let ended = tokio::task::spawn_blocking(|| sidecar.join().unwrap());
    within(ended).await.unwrap().unwrap();
}
