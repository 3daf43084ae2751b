//! A real etcd for tests: one member with a folder of its own, at an address that no other process has.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use std::{net, thread};

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::{Etcd, EtcdPlace, EtcdTls, EtcdUrl};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running etcd, which ends with this.
pub(in crate::kv) struct Server {
    process: Child,
    host: String,
    scheme: &'static str,
    _directory: TempDir,
    pub(in crate::kv) runtime: Runtime,
}

impl Server {
    /// Starts one with these further arguments.
    pub(in crate::kv) fn start<A: AsRef<OsStr>>(further: &[A]) -> Self {
        Self::started("http", further)
    }

    /// Starts one that speaks TLS: its certificate and key, and the authority of its clients.
    pub(super) fn secured(certificate: &Path, key: &Path, authority: &Path) -> Self {
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let files =
            [flag("cert-file", certificate), flag("key-file", key), flag("trusted-ca-file", authority)];
        Self::started("https", &[files.as_slice(), &["--client-cert-auth".to_owned()]].concat())
    }

    fn started<A: AsRef<OsStr>>(scheme: &'static str, further: &[A]) -> Self {
        static LAST: AtomicU8 = AtomicU8::new(1);
        // All of 127.0.0.0/8 is this machine: the process's number makes the address its own.
        let [.., high, low] = std::process::id().to_be_bytes();
        let host = format!("127.{}.{low}.{}", 128 | high, LAST.fetch_add(1, Ordering::Relaxed));
        let directory = TempDir::new().unwrap();
        let (clients, peers) = (format!("{scheme}://{host}:2379"), format!("http://{host}:2380"));
        // It ends with the test, however that ends.
        let process = Command::new("/usr/bin/setpriv")
            .args(["--pdeathsig", "KILL", "/usr/bin/etcd"])
            .args(["--name", "one", "--log-level", "error", "--data-dir"])
            .arg(directory.path())
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("one={peers}")])
            .args(further)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("etcd, of Debian's package etcd-server, starts");
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let server = Self { process, host, scheme, _directory: directory, runtime };
        let deadline = Instant::now() + PATIENCE;
        while net::TcpStream::connect((server.host.as_str(), 2379)).is_err() {
            assert!(Instant::now() < deadline, "etcd does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub(in crate::kv) fn url(&self) -> EtcdUrl {
        format!("{}://{}:2379", self.scheme, self.host).parse().unwrap()
    }

    /// A store in it.
    pub(in crate::kv) fn open(&self, prefix: &str) -> Etcd {
        self.open_by(vec![self.url()], prefix, EtcdTls::default())
    }

    pub(super) fn open_by(&self, urls: Vec<EtcdUrl>, prefix: &str, tls: EtcdTls) -> Etcd {
        let place = EtcdPlace { urls, prefix: prefix.to_owned(), tls };
        let deadline = Instant::now() + PATIENCE;
        loop {
            // It listens a little before it has a leader.
            match Etcd::open(place.clone(), self.runtime.handle().clone()) {
                Ok(etcd) => return etcd,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal to the process.
    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
