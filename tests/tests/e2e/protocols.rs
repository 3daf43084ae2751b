//! Real programs that speak many protocols, each through a pair of sidecars on two hosts.

mod grpc;
mod http2;
mod nginx;
mod opaque;
mod server_first;
mod websocket;

use std::fs;
use std::path::{Path, PathBuf};

use sealane_tests::{Mesh, Running};

/// Debian's, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

/// Returns the path of a program in tests/programs.
fn program(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    folder.join(name).to_str().unwrap().to_owned()
}

/// A workload `web` on the second host for commands to run in; its metrics outlive theirs.
fn client(mesh: &Mesh) -> Running {
    let mut client = mesh
        .site(2)
        .run(&["--network", "shop", "--name", "web"], &["sh", "-c", "echo ready; exec sleep 600"]);
    client.wait_for("ready");
    client
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sealane-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.0.join(name), content).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What a server is just writing stays behind at worst.
        let _ = fs::remove_dir_all(&self.0);
    }
}
