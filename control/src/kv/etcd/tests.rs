use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use tempfile::TempDir;

use super::server::Server;
use super::*;

const NO_ARGUMENTS: &[&str] = &[];

fn put(key: &str, value: Vec<u8>) -> Transaction {
    Transaction { when: vec![], then: vec![Write::Put(key.to_owned(), value)] }
}

/// A transaction that can happen once.
fn next(key: &str, modified: u64) -> Transaction {
    Transaction { when: vec![Condition::Modified(key.to_owned(), modified)], ..put(key, b"next".to_vec()) }
}

#[test]
fn who_shares_an_etcd_hears_of_each_other_and_prefixes_are_apart() {
    let server = Server::start(NO_ARGUMENTS);
    let (mut one, mut other, mut third) = (server.open("/a"), server.open("/a"), server.open("/b"));
    let mut news = other.watch("/", 0).unwrap();
    let revision = one.commit(&put("/x", b"1".to_vec())).unwrap();
    let told = news.next(Duration::from_secs(30)).unwrap();
    assert_eq!((told.len(), told[0].key.as_str(), told[0].revision), (1, "/x", revision));
    assert_eq!(other.get("/x").unwrap().1.unwrap().value, b"1");
    assert_eq!(other.commit(&next("/x", revision)).unwrap(), revision + 1);
    assert_eq!(one.commit(&next("/x", revision)), Err(CommitError::Conflict { key: "/x".to_owned() }));
    assert!(third.range("").unwrap().rows.is_empty());
}

#[test]
fn more_rows_than_a_page_are_of_one_moment() {
    let server = Server::start(&["--max-txn-ops=16384"]);
    let mut etcd = server.open("");
    let writes = (0..9_000).map(|number| Write::Put(format!("/{number:05}"), vec![7; 8])).collect();
    let revision = etcd.commit(&Transaction { when: vec![], then: writes }).unwrap();
    let range = etcd.range("/").unwrap();
    assert_eq!((range.rows.len(), range.revision), (9_000, revision));
    assert!(range.rows.values().all(|row| row.modified == revision));
}

#[test]
fn the_limit_of_a_transaction_is_found_out_and_what_is_beyond_is_refused_by_name() {
    let server = Server::start(NO_ARGUMENTS);
    let mut etcd = server.open("");
    assert_eq!(etcd.limits().writes, 128);
    let rows = |many: usize, bytes: usize| {
        let writes = (0..many).map(|number| Write::Put(format!("/{number}"), vec![0; bytes]));
        Transaction { when: vec![], then: writes.collect() }
    };
    etcd.commit(&rows(128, 10)).unwrap();
    for (many, bytes) in [(129, 1), (2, 1 << 20)] {
        let Err(CommitError::TooLarge(reason)) = etcd.commit(&rows(many, bytes)) else { panic!("{many}") };
        assert!(reason.starts_with(&format!("{many} rows")) && reason.contains("--max-txn-ops"), "{reason}");
    }
    assert_eq!(etcd.range("").unwrap().rows.len(), 128);
    let raised = Server::start(&["--max-txn-ops=5000"]);
    assert_eq!(raised.open("").limits().writes, 4_096);
}

#[test]
fn a_quota_that_is_reached_is_missing_space() {
    let server = Server::start(&["--quota-backend-bytes=400000"]);
    let mut etcd = server.open("");
    // etcd compares its size with the quota every 100 ms (its backend's batch interval).
    let began = std::time::Instant::now();
    let failed = (0..)
        .take_while(|_| began.elapsed() < Duration::from_secs(30))
        .find_map(|number| etcd.commit(&put(&format!("/{}", number % 64), vec![1; 60_000])).err());
    let Some(CommitError::Failed(failure)) = failed else { panic!("{failed:?}") };
    assert!(failure.full && failure.to_string().contains("reached its quota"), "{failure}");
    assert!(etcd.get("/0").unwrap().1.is_some(), "it is read all the same");
}

#[test]
fn a_member_that_is_gone_is_left_for_the_next_one() {
    let server = Server::start(NO_ARGUMENTS);
    let (gone, url) = (Server::start(NO_ARGUMENTS), server.url());
    let urls = vec![gone.url(), url.clone()];
    drop(gone);
    let mut etcd = server.open_by(urls, "", EtcdTls::default());
    let revision = etcd.commit(&put("/a", vec![])).unwrap();
    assert_eq!(etcd.get("/a").unwrap().0, revision);
}

#[test]
fn a_lost_answer_may_have_happened_and_what_cannot_happen_twice_is_asked_for_again() {
    let server = Server::start(NO_ARGUMENTS);
    let mut etcd = server.open("");
    let revision = etcd.commit(&put("/a", vec![])).unwrap();
    server.signal(Signal::STOP);
    let lost = etcd.commit(&put("/a", b"lost".to_vec()));
    assert!(matches!(lost, Err(CommitError::Failed(Failure { full: false, lost: true, .. }))), "{lost:?}");
    server.signal(Signal::CONT);
    let (_, now) = etcd.get("/a").unwrap();
    let now = now.unwrap().modified;
    assert!(now >= revision);
    let again = etcd.commit(&next("/a", now));
    assert!(again.is_ok() || matches!(again, Err(CommitError::Conflict { .. })), "{again:?}");
    let mut watch = etcd.watch("/a", 0).unwrap();
    let known = etcd.get("/a").unwrap().1.unwrap().modified;
    etcd.commit(&next("/a", known)).unwrap();
    assert!(!watch.next(Duration::from_secs(30)).unwrap().is_empty(), "the watch is there again");
}

/// An authority, and certificates of it, as files.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let write = |name: &str, pem: String| std::fs::write(directory.path().join(name), pem).unwrap();
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write("ca.pem", params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);
        for name in ["server", "client"] {
            let addresses = (1..=16).map(|last| {
                let [.., high, low] = std::process::id().to_be_bytes();
                format!("127.{}.{low}.{last}", 128 | high)
            });
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(addresses.collect::<Vec<_>>()).unwrap();
            write(&format!("{name}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn tls_knows_both_ends() {
    let files = Certificates::new();
    let file = |name| files.path(name);
    let server = Server::secured(&file("server.pem"), &file("server.key"), &file("ca.pem"));
    let client = Some((file("client.pem"), file("client.key")));
    let known = EtcdTls { authority: Some(file("ca.pem")), client };
    let mut etcd = server.open_by(vec![server.url()], "", known.clone());
    etcd.commit(&put("/a", b"1".to_vec())).unwrap();

    let open = |tls: EtcdTls| {
        let place = EtcdPlace { urls: vec![server.url()], prefix: String::new(), tls };
        Etcd::open(place, server.runtime.handle().clone()).map(drop).unwrap_err().to_string()
    };
    let anonymous = open(EtcdTls { client: None, ..known.clone() });
    assert!(anonymous.starts_with(&format!("etcd at {}: ", server.url())), "{anonymous}");
    let strangers = Certificates::new();
    let stranger = open(EtcdTls { authority: Some(strangers.path("ca.pem")), ..known });
    assert!(stranger.contains("certificate"), "{stranger}");
}
