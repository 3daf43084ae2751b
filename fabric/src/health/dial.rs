//! Readiness of virtual machines, whose sockets nobody outside sees: found out by connecting.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use sealane_base::task::{self, Task};
use sealane_proto::types::{ServicePort, Transport};
use tokio::net::TcpSocket;
use tokio::sync::watch;

use super::idle;
use super::watch::ProbeTarget;

/// Interval of looks at a machine that is not ready, and at one that is.
const STARTING: Duration = Duration::from_millis(250);
const READY: Duration = Duration::from_secs(1);
/// Time for an answer: a packet that is lost is sent again after a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches whether `target` takes connections of sockets that `open` makes, which are closed at once. A port of UDP counts while
/// the machine answers at all: with a refusal, too.
///
/// # Panics
/// Outside a tokio runtime.
pub fn dial(
    target: ProbeTarget,
    open: impl Fn() -> io::Result<TcpSocket> + Send + Sync + 'static,
) -> (watch::Receiver<bool>, Task) {
    let (ready, seen) = watch::channel(false);
    let watch = async move {
        loop {
            let now_ready = closed(&target, &open).await.is_none();
            ready.send_if_modified(|known| std::mem::replace(known, now_ready) != now_ready);
            tokio::select! {
                () = tokio::time::sleep(if now_ready { READY } else { STARTING }) => {}
                () = ready.closed() => return,
            }
        }
    };
    (seen, task::spawn("health", watch))
}

/// Says in words which port keeps a machine from being ready; empty when none does any more.
pub async fn silence(target: &ProbeTarget, open: impl Fn() -> io::Result<TcpSocket>) -> String {
    let Some(closed) = closed(target, &open).await else { return String::new() };
    format!(
        "not ready: it takes no connections from the network's own address at its port {}",
        idle::list(&[closed])
    )
}

/// Finds the first port at which nothing answers: further ones say nothing more.
async fn closed<'a>(
    target: &'a ProbeTarget,
    open: &impl Fn() -> io::Result<TcpSocket>,
) -> Option<&'a ServicePort> {
    for port in &target.ports {
        let place = SocketAddrV4::new(target.address, port.port.get());
        let connected = async { open()?.connect(place.into()).await };
        let answered = match tokio::time::timeout(PATIENCE, connected).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                port.protocol.transport() == Transport::Udp
                    && error.kind() == io::ErrorKind::ConnectionRefused
            }
            Err(_) => false,
        };
        if !answered {
            return Some(port);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_machine_is_ready_while_it_takes_connections_and_its_udp_ports_while_it_answers_at_all() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = |ports: &[String]| ProbeTarget {
            address: Ipv4Addr::LOCALHOST,
            ipv6: None,
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
            any_port: false,
            sidecar: None,
        };
        let both = target(&[port.to_string(), format!("{port}/udp")]);
        assert_eq!(silence(&both, TcpSocket::new_v4).await, "");
        let (mut seen, _task) = dial(both.clone(), TcpSocket::new_v4);
        seen.wait_for(|ready| *ready).await.unwrap();
        drop(listener);
        seen.wait_for(|ready| !*ready).await.unwrap();
        let said = silence(&both, TcpSocket::new_v4).await;
        assert!(said.ends_with(&format!("at its port {port}")), "{said}");
        assert_eq!(silence(&target(&[format!("{port}/udp")]), TcpSocket::new_v4).await, "");
    }
}
