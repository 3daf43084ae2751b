//! Identities at both ends of a tunnel.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sealane_proxy::Protocol;
use sealane_proxy::tls::TlsSource;
use sealane_proxy::tunnel::{AcceptError, OpenError, Settings};
use tokio::sync::mpsc;

use crate::mesh::{Mesh, service};
use crate::site::{Client, Server, echo, local, round_trip};

#[test]
fn another_identity_than_the_one_called_is_refused_by_name() {
    local(async {
        let mesh = Mesh::new();
        let server = Server::echo(mesh.tls("thief")).await;
        let error = Client::new(mesh.tls("web"), &server).fail().await;
        assert!(matches!(error, OpenError::Identity { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("svc/thief") && text.contains("svc/api"), "{text}");
    });
}

#[test]
fn foreign_and_expired_certificates_are_refused_in_both_directions() {
    local(async {
        let mesh = Mesh::new();
        let expired = |name: &str| {
            let tls = TlsSource::new();
            let ended = SystemTime::now() - Duration::from_secs(60);
            tls.set(mesh.identity(service(name), ended)).unwrap();
            tls
        };
        for (bad, word) in [(Mesh::new().tls("api"), "not of this mesh"), (expired("api"), "expired")] {
            let server = Server::echo(bad).await;
            let error = Client::new(mesh.tls("web"), &server).fail().await;
            assert!(matches!(error, OpenError::Identity { .. }), "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
        let foreigner = TlsSource::new();
        let mut identity = Mesh::new().identity(service("web"), SystemTime::now() + Duration::from_secs(60));
        identity.roots = mesh.identity(service("web"), SystemTime::now()).roots;
        foreigner.set(identity).unwrap();
        for bad in [foreigner, expired("web")] {
            let mut server = Server::echo(mesh.tls("api")).await;
            let error = Client::new(bad, &server).fail().await;
            assert!(matches!(error, OpenError::Handshake { .. }), "{error}");
            let refused = server.ended.recv().await.unwrap().unwrap_err();
            assert!(matches!(refused, AcceptError::Handshake { .. }), "{refused}");
        }
    });
}

#[test]
fn new_tunnels_use_a_renewed_identity_and_old_ones_go_on() {
    local(async {
        let mesh = Mesh::new();
        let (seen, mut peers) = mpsc::unbounded_channel();
        let server = Server::start(mesh.tls("api"), Settings::default(), move |incoming| {
            seen.send(incoming.peer.to_string()).unwrap();
            echo(incoming);
        });
        let server = server.await;
        let tls = mesh.tls("web");
        let client = Client::new(tls.clone(), &server);
        let (mut send, mut recv) = client.open(Protocol::Opaque, Bytes::new()).await.unwrap().split();
        let later = SystemTime::now() + Duration::from_secs(3600);
        tls.set(mesh.identity(service("shop-web"), later)).unwrap();
        let renewed = Client::new(tls, &server);
        round_trip(&renewed, Bytes::from_static(b"new"), false).await;
        send.write_all(b"old").await.unwrap();
        assert_eq!(recv.recv().await.unwrap().unwrap(), "old");
        assert_eq!(peers.recv().await.unwrap(), "spiffe://sealane/net/shop/svc/web");
        assert_eq!(peers.recv().await.unwrap(), "spiffe://sealane/net/shop/svc/shop-web");
    });
}
