//! A real keep on a thread, stopped by closing a pipe.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::thread::JoinHandle;

use rustix::net::{SocketAddrUnix, connect};
use sealane_sys::run_dir::Daemon;

use super::*;
use crate::Keep;

#[test]
fn descriptors_survive_the_client_that_put_them() {
    let host = Host::start(64);
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    host.client().put("pipe", &[writer.as_fd(), reader.as_fd()]).unwrap();
    drop((reader, writer));
    let mut fds = host.client().get("pipe").unwrap().unwrap();
    let (mut reader, mut writer) = (File::from(fds.remove(1)), File::from(fds.remove(0)));
    writer.write_all(b"kept").unwrap();
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
}

#[test]
fn a_replaced_or_deleted_descriptor_is_closed() {
    let host = Host::start(64);
    let client = host.client();
    let null = File::open("/dev/null").unwrap();
    for let_go in [
        (|client, null| client.put("key", &[null]).unwrap()) as fn(&Keep, BorrowedFd<'_>),
        |client, _| assert!(client.delete("key").unwrap()),
        |client, _| assert_eq!(client.delete_prefix("ke").unwrap(), 1),
    ] {
        let (mut reader, writer) = std::io::pipe().unwrap();
        client.put("key", &[writer.as_fd()]).unwrap();
        drop(writer);
        let_go(&client, null.as_fd());
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the writing end is closed everywhere");
    }
    assert!(client.get("key").unwrap().is_none());
}

#[test]
fn a_long_list_comes_whole() {
    let host = Host::start(1000);
    let client = host.client();
    let null = File::open("/dev/null").unwrap();
    let keys: Vec<String> = (0..300).map(|n| format!("{n:0>200}")).collect();
    for key in &keys {
        client.put(key, &[null.as_fd()]).unwrap();
    }
    let listed: Vec<String> = client.list().unwrap().into_iter().map(|kept| kept.key).collect();
    assert_eq!(listed, keys);
}

#[test]
fn limits_are_refusals_and_the_client_goes_on() {
    let host = Host::start(3);
    let client = host.client();
    let null = File::open("/dev/null").unwrap();
    assert!(matches!(client.put("many", &[null.as_fd(); 9]), Err(KeepError::Refused(_))));
    assert!(matches!(client.put("many", &[]), Err(KeepError::Refused(_))));
    assert!(matches!(client.put("a b", &[null.as_fd()]), Err(KeepError::Key(_))));
    client.put("a", &[null.as_fd(); 3]).unwrap();
    assert!(matches!(client.put("b", &[null.as_fd()]), Err(KeepError::Refused(_))));
    assert_eq!(client.get("a").unwrap().unwrap().len(), 3);
}

#[test]
fn malformed_requests_are_answered() {
    let host = Host::start(64);
    let client = host.client();
    let mut buffer = [0; 512];
    for request in ["nonsense".to_owned(), "x".repeat(MAX_REQUEST_LEN + 1)] {
        fdpass::send(&client, request.as_bytes(), &[]).unwrap();
        let len = fdpass::recv(&client, &mut buffer, &mut Vec::new()).unwrap();
        assert!(buffer[..len].starts_with(b"ERROR "));
    }
    assert_eq!(client.list().unwrap(), []);
}

#[test]
fn a_client_that_never_reads_stops_nobody() {
    let host = Host::start(64);
    let greedy = host.client();
    let null = File::open("/dev/null").unwrap();
    greedy.put("key", &[null.as_fd()]).unwrap();
    // Until keep hangs up on it.
    while fdpass::send(&greedy, b"LIST", &[]).is_ok() {}
    assert_eq!(host.client().get("key").unwrap().unwrap().len(), 1);
}

#[test]
fn one_client_too_many_hears_why() {
    let host = Host::start(64);
    let clients: Vec<Keep> = (0..MAX_CLIENTS).map(|_| host.client()).collect();
    let Err(KeepError::Refused(text)) = host.client().list() else { panic!("a client too many") };
    assert!(text.contains("clients are connected"), "{text}");
    clients[0].list().unwrap();
}

#[test]
fn a_second_keep_in_one_directory_is_refused() {
    let host = Host::start(64);
    let Err(KeepError::AlreadyRunning { pid, .. }) = Server::bind(&host.run_dir(), 64) else {
        panic!("two keeps")
    };
    assert_eq!(pid, std::process::id().to_string());
    host.client().list().unwrap();
}

#[test]
fn a_stale_socket_and_pid_file_are_taken_over_and_removed_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = RunDir::from(dir.path());
    fs::write(run_dir.pid_file(Daemon::Keep), "999999\n").unwrap();
    drop(UnixDatagram::bind(run_dir.socket(KEEP_SOCKET)).unwrap());
    let mut host = Host::start_in(dir, 64);
    host.client().list().unwrap();
    let mode = fs::metadata(host.run_dir().socket(KEEP_SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = host.client();
    host.stop();
    assert!(matches!(client.list(), Err(KeepError::Broken(_))));
    assert!(matches!(Keep::connect(&host.run_dir()), Err(KeepError::Connect { .. })));
    assert_eq!(fs::read_dir(host.dir.path()).unwrap().count(), 0);
}

#[test]
fn the_end_of_keep_shows_on_the_clients_descriptor() {
    let mut host = Host::start(64);
    let client = host.client();
    host.stop();
    let mut fds = [PollFd::new(&client, PollFlags::IN)];
    poll(&mut fds, None).unwrap();
    assert!(fds[0].revents().contains(PollFlags::HUP));
}

#[test]
fn a_run_directory_that_cannot_be_written_is_named() {
    let Err(error) = Server::bind(&RunDir::from("/proc/nowhere"), 64) else { panic!("served") };
    assert!(error.to_string().contains("/proc/nowhere/keep.pid"), "{error}");
}

#[test]
fn the_socket_takes_datagrams_in_sequence_only() {
    let host = Host::start(64);
    let stream = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let address = SocketAddrUnix::new(host.run_dir().socket(KEEP_SOCKET)).unwrap();
    assert_eq!(connect(&stream, &address), Err(rustix::io::Errno::PROTOTYPE));
}

#[test]
fn files_that_somebody_removes_are_made_again_and_nothing_is_lost() {
    let host = Host::start(64);
    host.client().put("null", &[File::open("/dev/null").unwrap().as_fd()]).unwrap();
    let [socket, pid] = host.files();
    for removed in [&[&socket][..], &[&pid], &[&socket, &pid]] {
        for path in removed {
            std::fs::remove_file(path).unwrap();
        }
        await_file(&socket);
        await_file(&pid);
        assert_eq!(host.client().get("null").unwrap().unwrap().len(), 1, "{removed:?}");
    }
}

#[test]
fn a_keep_ends_when_another_has_taken_its_directory() {
    let mut host = Host::start(64);
    for path in host.files() {
        std::fs::remove_file(path).unwrap();
    }
    let other = Server::bind(&host.run_dir(), 64).unwrap();
    // It is not told to stop.
    host.thread.take().unwrap().join().unwrap();
    assert!(other.lock.is_named() && inode(&other.path) == Some(other.bound), "what another has made stays");
}

fn await_file(path: &Path) {
    let began = Instant::now();
    while !path.exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "{} is not made again", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Host {
    dir: tempfile::TempDir,
    stop: Option<std::io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    fn start(max_descriptors: usize) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), max_descriptors)
    }

    fn run_dir(&self) -> RunDir {
        RunDir::from(self.dir.path())
    }

    fn files(&self) -> [PathBuf; 2] {
        let run_dir = self.run_dir();
        [run_dir.socket(KEEP_SOCKET), run_dir.pid_file(Daemon::Keep)]
    }

    fn start_in(dir: tempfile::TempDir, max_descriptors: usize) -> Self {
        let mut server = Server::bind(&RunDir::from(dir.path()), max_descriptors).unwrap();
        let (stopped, stop) = std::io::pipe().unwrap();
        let thread = std::thread::spawn(move || server.run(stopped.as_fd()));
        Self { dir, stop: Some(stop), thread: Some(thread) }
    }

    fn client(&self) -> Keep {
        Keep::connect(&self.run_dir()).unwrap()
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}
