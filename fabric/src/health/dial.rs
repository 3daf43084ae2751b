//! Readiness of virtual machines, whose sockets nobody outside sees: found out by connecting.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sealane_base::task::{self, Task};
use sealane_proto::types::{ServicePort, Transport};
use tokio::net::TcpSocket;
use tokio::sync::watch;

use super::families::Families;
use super::idle;
use super::watch::ProbeTarget;

/// Interval of looks at a machine that is not ready, and at one that is.
const STARTING: Duration = Duration::from_millis(250);
const READY: Duration = Duration::from_secs(1);
/// Time for an answer: a packet that is lost is sent again after a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches at which addresses `target` takes connections of sockets that `open` makes for them, which are closed at once. A port of UDP
/// counts while the machine answers at all: with a refusal, too.
///
/// # Panics
/// Outside a tokio runtime.
pub fn dial(
    target: ProbeTarget,
    open: impl Fn(IpAddr) -> io::Result<TcpSocket> + Send + Sync + 'static,
) -> (watch::Receiver<Families>, Task) {
    let (ready, seen) = watch::channel(Families::default());
    let watch = async move {
        let (v4, v6) = (IpAddr::from(target.address), target.ipv6.map(IpAddr::from));
        // Silence at one of them, which takes its time, keeps no news of the other.
        let first = follow(&target, v4, &open, &ready, |known, takes| match v6 {
            Some(_) => Families { v4: takes, ..known },
            None => Families::both(takes),
        });
        let second = async {
            if let Some(v6) = v6 {
                follow(&target, v6, &open, &ready, |known, takes| Families { v6: takes, ..known }).await;
            }
        };
        tokio::join!(first, second);
    };
    (seen, task::spawn("health", watch))
}

/// Tells `ready` whether connections are taken at `address`, which `with` notes, as long as somebody listens.
async fn follow(
    target: &ProbeTarget,
    address: IpAddr,
    open: &impl Fn(IpAddr) -> io::Result<TcpSocket>,
    ready: &watch::Sender<Families>,
    with: impl Fn(Families, bool) -> Families,
) {
    loop {
        let takes = closed(target, address, open).await.is_none();
        ready.send_if_modified(|known| {
            let now_ready = with(*known, takes);
            std::mem::replace(known, now_ready) != now_ready
        });
        tokio::select! {
            () = tokio::time::sleep(if takes { READY } else { STARTING }) => {}
            () = ready.closed() => return,
        }
    }
}

/// Says in words which port keeps a machine from being ready; empty when none does any more.
pub async fn silence(target: &ProbeTarget, open: impl Fn(IpAddr) -> io::Result<TcpSocket>) -> String {
    let Some(closed) = closed(target, target.address.into(), &open).await else { return String::new() };
    format!(
        "not ready: it takes no connections from the network's own address at its port {}",
        idle::list(&[closed])
    )
}

/// Finds the first port at which nothing answers: further ones say nothing more.
async fn closed<'a>(
    target: &'a ProbeTarget,
    address: IpAddr,
    open: &impl Fn(IpAddr) -> io::Result<TcpSocket>,
) -> Option<&'a ServicePort> {
    for port in &target.ports {
        let place = SocketAddr::new(address, port.port.get());
        let connected = async { open(address)?.connect(place).await };
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
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_machine_is_ready_while_it_takes_connections_and_its_udp_ports_while_it_answers_at_all() {
        let open = |to: IpAddr| if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
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
        assert_eq!(silence(&both, open).await, "");
        let (mut seen, _task) = dial(both.clone(), open);
        seen.wait_for(|ready| *ready == Families::both(true)).await.unwrap();
        let with_ipv6 = ProbeTarget { ipv6: Some(Ipv6Addr::LOCALHOST), ..both.clone() };
        let (mut by_family, _task) = dial(with_ipv6, open);
        by_family.wait_for(|ready| *ready == Families { v4: true, v6: false }).await.unwrap();
        drop(listener);
        seen.wait_for(|ready| !ready.any()).await.unwrap();
        let said = silence(&both, open).await;
        assert!(said.ends_with(&format!("at its port {port}")), "{said}");
        assert_eq!(silence(&target(&[format!("{port}/udp")]), open).await, "");
    }
}
