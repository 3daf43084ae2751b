//! Protocols in which the client speaks first and that are not HTTP.

use std::path::PathBuf;

use sealane_lab::isolated;
use sealane_tests::Mesh;

use super::Folder;

/// Returns the folder in which Debian keeps the programs of PostgreSQL's newest version that is installed.
fn postgres() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    versions.map(|version| version.unwrap().path().join("bin")).max().unwrap()
}

#[test]
fn postgresql_answers_large_queries() {
    if !isolated() {
        return;
    }
    let (mesh, folder) = (Mesh::shop(2), Folder::new("postgres"));
    let (data, programs) = (folder.path("data"), postgres());
    let of = |name: &str| programs.join(name).to_str().unwrap().to_owned();
    let _ = mesh.site(1).command("chown", &["postgres", &folder.path("")]).ok();
    // PostgreSQL does not run as root.
    let user = ["runuser", "-u", "postgres", "--"];
    let (initdb, server) = (of("initdb"), of("postgres"));
    let init =
        [&user[1..], &[&initdb, "-D", &data, "-A", "trust", "--no-sync", "--no-instructions"]].concat();
    let _ = mesh.site(1).command(user[0], &init).ok();
    std::fs::write(format!("{data}/pg_hba.conf"), "host all all 0.0.0.0/0 trust\n").unwrap();
    let flags = ["--network", "shop", "--service", "db", "--port", "5432"];
    let socket = format!("unix_socket_directories={}", folder.path(""));
    let serve = [&server, "-D", &data, "-h", "0.0.0.0", "-c", &socket, "-c", "fsync=off"];
    let mut postgres = mesh.site(1).run(&flags, &[&user[..], &serve].concat());
    postgres.wait_for("ready to accept connections");
    mesh.await_instances("db", 1);
    let query = "select 6*7, length(string_agg(n::text, ',')) from generate_series(1, 200000) n";
    let psql = of("psql");
    let psql = [psql.as_str(), "-h", "db", "-U", "postgres", "-At", "-c", query];
    assert_eq!(mesh.site(2).shop(&psql).wait().ok().stdout, "42|1288894\n");
}
