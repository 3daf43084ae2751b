//! A real forwarder, with stand-ins for the host's resolvers.

mod upstream;

use prometheus::Registry;

use super::super::shares::Share;
use super::cached::tests::query;
use super::*;
use upstream::{Fake, Manner};

struct Host {
    forwarder: Forwarder,
    registry: Registry,
    dir: tempfile::TempDir,
}

impl Host {
    /// A host that asks these servers.
    fn asking(servers: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::new();
        let metrics = DnsMetrics::register(&registry).unwrap();
        let config = ForwardConfig {
            authorities: Some(dir.path().join("ca.pem")),
            ..ForwardConfig::new(dir.path().join("resolv.conf"))
        };
        let host = Self { forwarder: Forwarder::new(config, metrics), registry, dir };
        host.name(servers);
        host
    }

    /// Writes resolv.conf.
    fn name(&self, servers: &[String]) {
        let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        let next = self.dir.path().join("next");
        std::fs::write(&next, lines + "options timeout:1 attempts:1\n").unwrap();
        std::fs::rename(next, self.dir.path().join("resolv.conf")).unwrap();
    }

    async fn ask(&self, query: &[u8], transport: Transport) -> Vec<u8> {
        let place = self.forwarder.take(&Share::default()).unwrap();
        self.forwarder.forward(query, transport, place).await.0
    }

    /// Answer to a question for addresses: its code, the last byte of each address with its lifetime, and whether it is cut.
    async fn addresses(&self, name: &str) -> String {
        shown(&self.ask(&query(name), Transport::Udp).await)
    }

    fn counted(&self, series: &str) -> bool {
        let metrics = sealane_base::metrics::encode(&sealane_base::metrics::gather(&self.registry));
        metrics.lines().any(|line| line == series)
    }
}

fn shown(answer: &[u8]) -> String {
    let message = hickory_proto::op::Message::from_vec(answer).unwrap();
    let records = message.answers.iter().map(|record| format!(" {}={}", record.data, record.ttl));
    let cut = if message.metadata.truncation { " cut" } else { "" };
    format!("{}{}{cut}", Rcode::of(answer).as_str(), records.collect::<String>())
}

#[tokio::test]
async fn a_plain_question_is_asked_once_for_all_askers() {
    let server = Fake::start(Manner::answers(&[80]));
    let host = Host::asking(&[server.place()]);
    assert_eq!(host.addresses("www.example.com").await, "noerror 192.0.2.80=60");
    let mut again = query("WWW.example.com");
    again[1] = 99;
    let answer = host.ask(&again, Transport::Tcp).await;
    assert_eq!(answer[..2], again[..2]);
    assert_eq!(answer[12..29], again[12..29], "in its own spelling");
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    assert_ne!(asked[0][..2], again[..2], "the id is chosen here");
    assert!(asked[0][12..29].eq_ignore_ascii_case(&again[12..29]));
    for (result, count) in [("hit", 1), ("miss", 1)] {
        let series = format!("sealane_dns_cache_lookups_total{{result=\"{result}\"}} {count}");
        assert!(host.counted(&series), "{series}");
    }
}

#[tokio::test]
async fn who_asks_for_more_than_records_is_passed_on_byte_for_byte() {
    let server = Fake::start(Manner::answers(&[80]));
    let host = Host::asking(&[server.place()]);
    let plain = query("www.example.com");
    let end = plain.len();
    let changed = |at: usize, byte: u8| {
        let mut changed = plain.clone();
        changed[at] = byte;
        changed
    };
    let subnet = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
    let mut with_subnet = [&plain[..], &subnet].concat();
    with_subnet[end - 1] = 11;
    let questions = [
        changed(end - 4, 0x80),  // DO
        changed(3, 0x10),        // CD
        changed(2, 0),           // no recursion
        changed(end - 14, 43),   // DS
        changed(end - 15, 0xff), // a type that nobody knows
        with_subnet,
    ];
    for question in &questions {
        for _ in 0..2 {
            host.ask(question, Transport::Udp).await;
        }
    }
    let asked = server.asked();
    assert_eq!(asked.len(), 2 * questions.len(), "nothing is kept");
    for (asked, question) in asked.iter().zip(questions.iter().flat_map(|question| [question, question])) {
        assert_eq!(asked[2..], question[2..]);
    }
}

#[tokio::test]
async fn an_answer_out_of_date_is_better_than_none() {
    let server = Fake::start(Manner { ttl: 1, ..Manner::answers(&[80]) });
    let host = Host::asking(&[server.place()]);
    assert_eq!(host.addresses("www.example.com").await, "noerror 192.0.2.80=1");
    server.behave(Manner { rcode: 2, ..Manner::answers(&[]) });
    assert_eq!(host.addresses("other.example.com").await, "servfail", "there is nothing before");
    let stale = loop {
        let answer = host.ask(&query("www.example.com"), Transport::Udp).await;
        if shown(&answer) == "noerror 192.0.2.80=30" {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(stale.ends_with(&[0, 15, 0, 2, 0, 3]), "the asker is told: {stale:?}");
    let before = server.asked().len();
    assert_eq!(host.addresses("www.example.com").await, "noerror 192.0.2.80=30");
    assert_eq!(server.asked().len(), before, "and nobody is asked again at once");
}

#[tokio::test]
async fn who_declines_one_name_is_passed_over_for_that_one_alone() {
    let first = Fake::start(Manner { rcode: 2, ..Manner::answers(&[]) });
    let second = Fake::start(Manner::answers(&[81]));
    let host = Host::asking(&[first.place(), second.place()]);
    for number in 0..20 {
        assert_eq!(host.addresses(&format!("{number}.example.com")).await, "noerror 192.0.2.81=60");
    }
    assert_eq!(first.asked().len(), 20, "it is asked first");
    first.behave(Manner::answers(&[80]));
    assert_eq!(host.addresses("www.example.com").await, "noerror 192.0.2.80=60");
    for server in [&first, &second] {
        server.behave(Manner { rcode: 5, ..Manner::answers(&[]) });
    }
    assert_eq!(host.addresses("other.example.com").await, "refused");
}

#[tokio::test]
async fn a_name_that_a_resolver_is_silent_about_chooses_for_no_other() {
    let first = Fake::start(Manner { silent: Some("slow"), ..Manner::answers(&[80]) });
    let second = Fake::start(Manner::answers(&[81]));
    let host = Host::asking(&[first.place(), second.place()]);
    assert_eq!(host.addresses("slow.example.com").await, "noerror 192.0.2.81=60");
    for number in 0..5 {
        assert_eq!(host.addresses(&format!("{number}.example.com")).await, "noerror 192.0.2.80=60");
    }
}

#[tokio::test]
async fn a_silent_resolver_holds_up_one_question() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let answers = Fake::start(Manner::answers(&[80]));
    let host = Host::asking(&[silent.local_addr().unwrap().to_string(), answers.place()]);
    let started = Instant::now();
    for number in 0..20 {
        assert_eq!(host.addresses(&format!("{number}.example.com")).await, "noerror 192.0.2.80=60");
    }
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_large_answer_comes_by_stream_and_is_cut_for_who_asks_by_datagram() {
    let last: Vec<u8> = (0..100).collect();
    let server = Fake::start(Manner { cuts: true, ..Manner::answers(&last) });
    let host = Host::asking(&[server.place()]);
    let cut = host.addresses("www.example.com").await;
    assert!(cut.starts_with("noerror 192.0.2.0=60 ") && cut.ends_with(" cut"), "{cut}");
    let whole = host.ask(&query("www.example.com"), Transport::Tcp).await;
    assert!(shown(&whole).ends_with(" 192.0.2.99=60"), "{}", shown(&whole));
    assert_eq!(server.asked().len(), 2, "once by datagram, once by stream");
}

#[tokio::test]
async fn whoever_spells_the_question_otherwise_is_asked_by_stream() {
    let server = Fake::start(Manner { lower: true, ..Manner::answers(&[80]) });
    let host = Host::asking(&[server.place()]);
    assert_eq!(host.addresses("a-long-name-with-letters.example.com").await, "noerror 192.0.2.80=60");
    assert!(server.asked().len() >= 2);
}

#[tokio::test]
async fn other_resolvers_may_say_otherwise() {
    let (one, other) = (Fake::start(Manner::answers(&[80])), Fake::start(Manner::answers(&[81])));
    let host = Host::asking(&[one.place()]);
    assert_eq!(host.addresses("www.example.com").await, "noerror 192.0.2.80=60");
    host.name(&[other.place()]);
    let waited = Instant::now();
    while host.addresses("www.example.com").await != "noerror 192.0.2.81=60" {
        assert!(waited.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_resolver_that_is_named_is_asked_over_tls_and_has_to_be_the_one() {
    let plain = Fake::start(Manner::answers(&[66]));
    let (secured, authority) = Fake::secured(Manner::answers(&[80]), "dns.example.net");
    let host = Host::asking(&[]);
    std::fs::write(host.dir.path().join("ca.pem"), authority).unwrap();
    host.name(&[plain.place(), format!("{}#dns.example.net", secured.place())]);
    for number in 0..3 {
        assert_eq!(host.addresses(&format!("{number}.example.com")).await, "noerror 192.0.2.80=60");
    }
    let mut signed = query("www.example.com");
    let end = signed.len();
    signed[end - 4] = 0x80;
    assert_eq!(shown(&host.ask(&signed, Transport::Udp).await), "noerror 192.0.2.80=60");
    assert_eq!(
        secured.connections(),
        2,
        "one for all plain questions, one for the one that passes as it came"
    );
    let host = Host::asking(&[]);
    std::fs::write(host.dir.path().join("ca.pem"), "").unwrap();
    host.name(&[plain.place(), format!("{}#dns.example.org", secured.place())]);
    assert_eq!(host.addresses("www.example.com").await, "servfail");
    assert_eq!(plain.asked().len(), 0, "nothing is said in the clear");
}
