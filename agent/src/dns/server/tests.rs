//! A real server on loopback, asked by dig, with a stand-in for the host's resolver.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::Command;

use super::super::message::Rcode;
use super::super::shares::{MAX_OF_ASKER, Room, Share};
use super::super::zone::tests::shop;
use super::*;
use crate::dns::{DnsMetrics, ForwardConfig, Zone};

#[tokio::test]
async fn own_names_are_answered_over_udp_and_tcp() {
    let host = Host::start(Upstream::None);
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(host.dig(&["api", "A", "+short", transport]).await, "10.42.255.1\n");
        let missing = host.dig(&["nobody.shop", "A", transport]).await;
        assert!(missing.contains("status: NXDOMAIN") && missing.contains("flags: qr aa rd ra;"), "{missing}");
    }
    assert!(
        host.metrics()
            .contains("sealane_dns_queries_total{kind=\"own\",network=\"shop\",rcode=\"noerror\"} 2")
    );
}

#[tokio::test]
async fn a_change_of_the_view_shows_in_the_next_answer() {
    let host = Host::start(Upstream::None);
    host.view.store(Arc::default());
    assert!(host.dig(&["api"]).await.contains("status: NXDOMAIN"));
}

#[tokio::test]
async fn foreign_names_are_asked_of_the_host_s_resolver() {
    let host = Host::start(Upstream::Answers);
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(host.dig(&["www.example.com", "+short", transport]).await, "192.0.2.80\n");
    }
    let metrics = host.metrics();
    let counted = "sealane_dns_queries_total{kind=\"forwarded\",network=\"shop\",rcode=\"noerror\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(metrics.contains("sealane_dns_forward_duration_seconds_count 2"), "{metrics}");
}

#[tokio::test]
async fn what_an_asker_says_about_dnssec_goes_through_and_so_does_the_answer() {
    let host = Host::start(Upstream::Answers);
    for transport in ["+notcp", "+tcp"] {
        let answer = host.dig(&["www.example.com", "+dnssec", "+adflag", "+cdflag", transport]).await;
        assert!(answer.contains("flags: qr rd ra ad cd;"), "{answer}");
        assert!(answer.contains("version: 0, flags: do; udp: "), "{answer}");
        let answer = host.dig(&["www.example.com", "+noedns", "+noadflag", transport]).await;
        assert!(answer.contains("flags: qr rd ra;") && !answer.contains("OPT"), "{answer}");
    }
}

#[tokio::test]
async fn a_resolver_that_knows_no_tcp_is_asked_by_datagram() {
    let host = Host::start(Upstream::Datagrams);
    assert_eq!(host.dig(&["www.example.com", "+short", "+tcp"]).await, "192.0.2.80\n");
}

#[tokio::test]
async fn an_answer_that_is_there_does_not_wait_for_those_asked_for_before_it() {
    let host = Host::start(Upstream::Silent);
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    let queries = [query(1, b"\x03www\x07example\x03com\x00"), query(2, b"\x03api\x00")];
    for query in &queries {
        stream.write_u16(query.len() as u16).await.unwrap();
        stream.write_all(query).await.unwrap();
    }
    // Closed on this side; what was asked is answered nevertheless.
    stream.shutdown().await.unwrap();
    let mut buffer = [0; 512];
    for (id, rcode) in [(2, Rcode::NoError), (1, Rcode::ServFail)] {
        let len: usize = stream.read_u16().await.unwrap().into();
        stream.read_exact(&mut buffer[..len]).await.unwrap();
        assert_eq!((buffer[1], Rcode::of(&buffer[..len])), (id, rcode));
    }
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 0, "and then the connection ends");
}

#[tokio::test]
async fn thousands_of_queries_in_one_go_are_all_answered() {
    let host = Host::start(Upstream::None);
    let (mut reader, mut writer) = TcpStream::connect(host.address).await.unwrap().into_split();
    let count = 5000_u16;
    let asking = async move {
        for id in 0..count {
            let query = query(id, b"\x03api\x00");
            writer.write_all(&[&[0, query.len() as u8], &query[..]].concat()).await.unwrap();
        }
        writer
    };
    let reading = async {
        let mut buffer = [0; 512];
        for id in 0..count {
            let len: usize = reader.read_u16().await.unwrap().into();
            reader.read_exact(&mut buffer[..len]).await.unwrap();
            assert_eq!(buffer[..2], id.to_be_bytes());
        }
    };
    tokio::join!(asking, reading);
}

#[tokio::test]
async fn forged_answers_are_not_taken() {
    let host = Host::start(Upstream::ForgesFirst);
    assert_eq!(host.dig(&["www.example.com", "+short"]).await, "192.0.2.80\n");
}

#[tokio::test]
async fn without_a_resolver_or_with_a_dead_one_foreign_names_fail_at_once_and_say_why() {
    for (upstream, code) in [(Upstream::None, "22"), (Upstream::Closed, "23")] {
        let host = Host::start(upstream);
        for transport in ["+notcp", "+tcp"] {
            let answer = host.dig(&["www.example.com", transport]).await;
            assert!(
                answer.contains("status: SERVFAIL") && answer.contains(&format!("EDE: {code}")),
                "{answer}"
            );
        }
    }
}

#[tokio::test]
async fn a_silent_resolver_is_given_up_before_the_asker_gives_up() {
    let host = Host::start(Upstream::Silent);
    let started = Instant::now();
    let answer = host.dig(&["www.example.com"]).await;
    assert!(answer.contains("status: SERVFAIL") && answer.contains("EDE: 22"), "{answer}");
    assert!(started.elapsed() >= Duration::from_secs(2), "two attempts of a second each");
    let metrics = host.metrics();
    assert!(metrics.contains("sealane_dns_forward_failures_total{reason=\"timeout\"} 1"), "{metrics}");
    // Meanwhile and after, own names are answered.
    assert_eq!(host.dig(&["api", "+short"]).await, "10.42.255.1\n");
}

#[tokio::test]
async fn own_names_do_not_wait_for_foreign_ones_and_too_many_of_those_are_refused() {
    let host = Host::start(Upstream::Silent);
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(host.address).await.unwrap();
    let mut buffer = [0; 512];
    for id in 0..=u16::try_from(MAX_OF_ASKER).unwrap() {
        client.send(&query(id, b"\x03www\x07example\x03com\x00")).await.unwrap();
    }
    let len = client.recv(&mut buffer).await.unwrap();
    assert_eq!(Rcode::of(&buffer[..len]), Rcode::ServFail);
    client.send(&query(9999, b"\x03api\x00")).await.unwrap();
    let len = client.recv(&mut buffer).await.unwrap();
    assert_eq!((&buffer[..2], Rcode::of(&buffer[..len])), (&9999_u16.to_be_bytes()[..], Rcode::NoError));
    assert!(host.metrics().contains("sealane_dns_forward_failures_total{reason=\"overload\"} 1"));
}

#[tokio::test]
async fn what_is_asked_while_nobody_serves_is_answered_late() {
    let sockets = DnsSockets::on_loopback();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(sockets.udp.local_addr().unwrap()).await.unwrap();
    let mut stream = TcpStream::connect(sockets.tcp.local_addr().unwrap()).await.unwrap();
    client.send(&query(7, b"\x03api\x00")).await.unwrap();
    // Two queries in one go, as RFC 7766 has it.
    for id in [1, 2] {
        let query = query(id, b"\x03api\x00");
        stream.write_u16(query.len() as u16).await.unwrap();
        stream.write_all(&query).await.unwrap();
    }
    let _host = Host::serve(sockets, Upstream::None, Askers::One);
    let mut buffer = [0; 512];
    client.recv(&mut buffer).await.unwrap();
    assert_eq!(buffer[..2], [0, 7]);
    for id in [1, 2] {
        let len = stream.read_u16().await.unwrap();
        stream.read_exact(&mut buffer[..len.into()]).await.unwrap();
        assert_eq!(buffer[..2], [0, id]);
    }
}

#[tokio::test]
async fn names_are_answered_over_tcp_again_when_somebody_has_closed_the_socket() {
    let sockets = DnsSockets::on_loopback();
    let copy = sockets.tcp.try_clone().unwrap();
    let host = Host::serve(sockets, Upstream::None, Askers::One);
    assert_eq!(host.dig(&["api", "+short", "+tcp"]).await, "10.42.255.1\n");
    // As `ss -K` leaves it: bound, and listening no more.
    socket2::SockRef::from(&copy).shutdown(std::net::Shutdown::Both).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(host.address).await.is_err() {
        assert!(Instant::now() < deadline, "nobody listens");
        tokio::task::yield_now().await;
    }
    assert_eq!(host.dig(&["api", "+short", "+tcp"]).await, "10.42.255.1\n");
}

/// A connection to the server from this address of the loopback network.
async fn connect_from(host: &Host, last: u8) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(host.address).await.unwrap()
}

/// Asks for a name of ours; whether there is an answer.
async fn answers_over(stream: &mut TcpStream) -> std::io::Result<()> {
    let query = query(7, b"\x03api\x00");
    stream.write_all(&[&[0, query.len() as u8], &query[..]].concat()).await?;
    let len: usize = stream.read_u16().await?.into();
    stream.read_exact(&mut vec![0; len]).await.map(drop)
}

#[tokio::test]
async fn silent_connections_keep_nobody_from_asking_over_tcp() {
    for askers in [Askers::One, Askers::Many] {
        let host = Host::serve(DnsSockets::on_loopback(), Upstream::None, askers);
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(connect_from(&host, 1).await);
        }
        // Its own, and another's that was there before more of the silent ones came.
        answers_over(&mut connect_from(&host, 1).await).await.unwrap();
        let mut other = connect_from(&host, 2).await;
        answers_over(&mut other).await.unwrap();
        for _ in 0..200 {
            silent.push(connect_from(&host, 1).await);
        }
        answers_over(&mut connect_from(&host, 3).await).await.unwrap();
        answers_over(&mut other).await.unwrap();
        let metrics = host.metrics();
        assert!(metrics.contains("sealane_dns_connections_replaced_total{network=\"shop\"} "), "{metrics}");
        assert!(!metrics.contains("sealane_dns_connections_replaced_total{network=\"shop\"} 0"), "{metrics}");
    }
}

#[tokio::test]
async fn answers_over_tcp_that_nobody_takes_have_a_bound_of_the_host_and_are_counted() {
    let host = Host::start(Upstream::None);
    let message = query(7, b"\x03api\x00");
    let many: Vec<u8> = [&[0, u8::try_from(message.len()).unwrap()], &message[..]].concat().repeat(4096);
    // Others hold all there is.
    let others = std::iter::from_fn(|| Some(Share::default()));
    let rooms = others.map_while(|share| host.forwarder.unread.take(&share, 1 << 10)).take(16 << 10);
    let rooms: Vec<Room> = rooms.collect();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(host.address).await.unwrap();
    while deaf.write_all(&many).await.is_ok() {}
    let counted = "sealane_dns_connections_unread_total{network=\"shop\"} 1";
    assert!(host.metrics().contains(counted), "{}", host.metrics());
    // Whoever takes answers gets them all the same.
    answers_over(&mut connect_from(&host, 2).await).await.unwrap();
    drop(rooms);
}

#[tokio::test]
async fn one_asker_at_the_gateway_leaves_room_for_the_others_foreign_names() {
    let host = Host::serve(DnsSockets::on_loopback(), Upstream::Silent, Askers::Many);
    let client = |last: u8| async move {
        let client = UdpSocket::bind((std::net::Ipv4Addr::new(127, 0, 0, last), 0)).await.unwrap();
        client.connect(host.address).await.unwrap();
        client
    };
    let (greedy, other) = (client(1).await, client(2).await);
    let mut buffer = [0; 512];
    for id in 0..=u16::try_from(MAX_OF_ASKER).unwrap() {
        greedy.send(&query(id, b"\x03www\x07example\x03com\x00")).await.unwrap();
    }
    let len = greedy.recv(&mut buffer).await.unwrap();
    assert_eq!(Rcode::of(&buffer[..len]), Rcode::ServFail, "too many");
    other.send(&query(1, b"\x03www\x07example\x03com\x00")).await.unwrap();
    other.send(&query(2, b"\x03api\x00")).await.unwrap();
    other.recv(&mut buffer).await.unwrap();
    assert_eq!(buffer[..2], [0, 2], "the first one is asked");
    assert!(host.metrics().contains("sealane_dns_forward_failures_total{reason=\"overload\"} 1"));
}

/// Server at the address in the host's resolv.conf.
#[derive(Clone, Copy, PartialEq)]
enum Upstream {
    /// There is no address.
    None,
    /// Nothing: the kernel refuses.
    Closed,
    /// A socket that nobody reads.
    Silent,
    /// A server that answers 192.0.2.80.
    Answers,
    /// The same, over UDP only.
    Datagrams,
    /// The same, but answers with another id and another question come before its own.
    ForgesFirst,
}

struct Host {
    address: SocketAddr,
    view: Arc<ArcSwap<NameView>>,
    forwarder: Arc<Forwarder>,
    registry: Registry,
    _server: DnsServer,
    _upstream: Option<Task>,
    _dir: tempfile::TempDir,
}

impl Host {
    fn start(upstream: Upstream) -> Self {
        Self::serve(DnsSockets::on_loopback(), upstream, Askers::One)
    }

    fn serve(sockets: DnsSockets, upstream: Upstream, askers: Askers) -> Self {
        let address = sockets.udp.local_addr().unwrap();
        // Its own socket pair, so that both transports have one port.
        let below = DnsSockets::on_loopback();
        let port = below.udp.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let resolv_conf: PathBuf = dir.path().join("resolv.conf");
        let server = if upstream == Upstream::None { "" } else { "nameserver 127.0.0.1\n" };
        std::fs::write(&resolv_conf, format!("{server}options timeout:1\n")).unwrap();
        let task = match upstream {
            Upstream::None | Upstream::Closed => None,
            Upstream::Silent => Some(task::spawn("silent", async move {
                let _below = below;
                std::future::pending::<()>().await;
            })),
            Upstream::Datagrams => {
                drop(below.tcp);
                let udp = UdpSocket::from_std(below.udp).unwrap();
                Some(task::spawn("upstream", answer_udp(udp, upstream)))
            }
            Upstream::Answers | Upstream::ForgesFirst => Some(task::spawn("upstream", async move {
                let tcp = TcpListener::from_std(below.tcp).unwrap();
                let udp = UdpSocket::from_std(below.udp).unwrap();
                tokio::join!(answer_udp(udp, upstream), answer_tcp(tcp));
            })),
        };
        let registry = Registry::new();
        let metrics = DnsMetrics::register(&registry).unwrap();
        let view = NameView { zones: vec![Arc::new(Zone::build(&shop()))], own: vec![], balanced: true };
        let view = Arc::new(ArcSwap::from_pointee(view));
        let config = ForwardConfig { port, ..ForwardConfig::new(resolv_conf) };
        let network = metrics.network(&"shop".parse().unwrap());
        let forwarder = Arc::new(Forwarder::new(config, metrics));
        let server = super::serve(sockets, view.clone(), forwarder.clone(), network, askers, None).unwrap();
        Self { address, view, forwarder, registry, _server: server, _upstream: task, _dir: dir }
    }

    async fn dig(&self, arguments: &[&str]) -> String {
        let port = self.address.port().to_string();
        let output = Command::new("dig")
            .args(["@127.0.0.1", "-p", &port, "+tries=1", "+time=20", "+nocookie"])
            .args(arguments)
            .output()
            .await
            .expect("dig (Debian's bind9-dnsutils) is needed");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn metrics(&self) -> String {
        sealane_base::metrics::encode(&sealane_base::metrics::gather(&self.registry))
    }
}

fn query(id: u16, name: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name, &[0, 1, 0, 1]].concat()
}

async fn answer_udp(socket: UdpSocket, upstream: Upstream) {
    let mut buffer = [0; 512];
    loop {
        let (len, asker) = socket.recv_from(&mut buffer).await.unwrap();
        let right = upstream_answer(&buffer[..len], 80);
        if upstream == Upstream::ForgesFirst {
            let mut wrong_id = upstream_answer(&buffer[..len], 66);
            wrong_id[0] ^= 1;
            let mut wrong_name = upstream_answer(&buffer[..len], 66);
            wrong_name[13] = b'x';
            socket.send_to(&wrong_id, asker).await.unwrap();
            socket.send_to(&wrong_name, asker).await.unwrap();
        }
        socket.send_to(&right, asker).await.unwrap();
    }
}

async fn answer_tcp(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut query = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut query).await.unwrap();
        let answer = upstream_answer(&query, 80);
        stream.write_u16(answer.len() as u16).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    }
}

/// The query as an answer with one address, and with the query's own bits and additional records.
fn upstream_answer(query: &[u8], last: u8) -> Vec<u8> {
    let name_len = query[12..].iter().position(|&byte| byte == 0).unwrap() + 1;
    let (question, additional) = query.split_at(12 + name_len + 4);
    let mut answer = question.to_vec();
    answer[2..10].copy_from_slice(&[0x81, 0x80 | query[3], 0, 1, 0, 1, 0, 0]);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
    answer.extend(additional);
    answer
}
