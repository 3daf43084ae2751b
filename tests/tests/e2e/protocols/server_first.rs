//! Protocols in which the server speaks first (with SSH both at once), on ports of which nothing was declared.

use sealane_lab::isolated;
use sealane_tests::{Mesh, Site};

use super::{Folder, client};

/// The client's sidecar heard the server first.
#[track_caller]
fn assert_server_first(client: &Site) {
    assert!(client.metrics().sum("sealane_detect_total", &[("outcome", "server_first")]) >= 1.0);
}

#[test]
fn mariadb_greets_and_answers() {
    if !isolated() {
        return;
    }
    let (mesh, folder) = (Mesh::shop(2), Folder::new("mariadb"));
    let flags = ["--network", "shop", "--service", "db", "--port", "3306"];
    let server = [
        "/usr/sbin/mariadbd",
        "--no-defaults",
        "--user=root",
        "--skip-grant-tables",
        "--bind-address=0.0.0.0",
        &format!("--datadir={}", folder.path("")),
        &format!("--socket={}", folder.path("socket")),
        &format!("--pid-file={}", folder.path("pid")),
    ];
    let mut mariadb = mesh.site(1).run(&flags, &server);
    mariadb.wait_for("ready for connections");
    mesh.await_instances("db", 1);
    let query = [
        "mariadb",
        "--no-defaults",
        "-h",
        "db",
        "--skip-column-names",
        "-e",
        "select 6*7, repeat('x', 100000)",
    ];
    let _client = client(&mesh);
    let answer = mesh.site(2).exec("web", &query).ok();
    assert_eq!(answer.stdout, format!("42\t{}\n", "x".repeat(100_000)));
    assert_server_first(mesh.site(2));
}

#[test]
fn a_mail_is_sent_by_smtp() {
    if !isolated() {
        return;
    }
    let (mesh, folder) = (Mesh::shop(2), Folder::new("smtp"));
    let flags = ["--network", "shop", "--service", "mail", "--port", "2525"];
    let server =
        ["/usr/bin/aiosmtpd", "-n", "-l", "0.0.0.0:2525", "-c", "aiosmtpd.handlers.Debugging", "stdout"];
    let mail = mesh.site(1).run(&flags, &server);
    mesh.await_instances("mail", 1);
    let letter = folder.write("letter", "Subject: hello\r\n\r\nby a mesh\r\n");
    let send =
        ["curl", "-sS", "--max-time", "20", "smtp://mail:2525", "--mail-from", "web@shop", "--mail-rcpt"];
    let _client = client(&mesh);
    let _ = mesh.site(2).exec("web", &[&send[..], &["mail@shop", "-T", &letter]].concat()).ok();
    mail.signal(nix::sys::signal::Signal::SIGINT);
    let heard = mail.wait().stdout;
    assert!(heard.contains("by a mesh"), "{heard}");
    assert_server_first(mesh.site(2));
}

#[test]
fn ssh_runs_a_command_and_copies_its_streams() {
    if !isolated() {
        return;
    }
    let (mesh, folder) = (Mesh::shop(2), Folder::new("ssh"));
    for key in ["host", "user"] {
        let _ = mesh
            .site(1)
            .command("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &folder.path(key)])
            .ok();
    }
    // Where sshd's processes without privilege live; Debian's unit makes it.
    let _ = mesh.site(1).command("mkdir", &["-p", "/run/sshd"]).ok();
    let config = format!(
        "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\n",
        folder.path("host"),
        folder.path("user.pub")
    );
    let config = folder.write("config", config);
    let flags = ["--network", "shop", "--service", "shell", "--port", "2222"];
    let server = ["/usr/sbin/sshd", "-D", "-e", "-f", &config, "-o", "ListenAddress=0.0.0.0", "-p", "2222"];
    let mut sshd = mesh.site(1).run(&flags, &server);
    sshd.wait_for("Server listening");
    mesh.await_instances("shell", 1);
    let known = format!("UserKnownHostsFile={}", folder.path("known"));
    let user = folder.path("user");
    let options = format!("-i {user} -p 2222 -o StrictHostKeyChecking=no -o {known} -o BatchMode=yes");
    let command = format!("echo desserts | ssh {options} root@shell 'rev; exit 7'");
    let _client = client(&mesh);
    let ended = mesh.site(2).exec("web", &["sh", "-c", &command]);
    assert_eq!((ended.code(), ended.stdout.as_str()), (7, "stressed\n"), "{ended}");
}
