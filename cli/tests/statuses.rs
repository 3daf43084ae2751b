//! Contract with scripts of a `sealane` that talks to nobody: exit statuses, and the streams that words go to.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::path::Path;
use std::process::{Command, Output};

fn sealane(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealane"));
    for variable in ["SEALANE_SOCKET", "SEALANE_CONTROL", "SEALANE_TOKEN", "SEALANE_DATA_DIR"] {
        command.env_remove(variable);
    }
    command.env("SEALANE_RUN_DIR", "/nonexistent/sealane").args(line.split(' ')).output().unwrap()
}

fn check(line: &str, status: i32, said: &str) {
    let output = sealane(line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "sealane {line}: {stderr}");
    assert!(stderr.contains(said), "sealane {line}: {stderr}");
    assert!(output.stdout.is_empty(), "an error is no data: sealane {line}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for line in
        ["network create", "status --nonsense", "token create --ttl never", "agent", "demo --hosts 77"]
    {
        check(line, 2, "error: ");
    }
    check("token create --ttl 1000d", 2, "longer than a year");
    check("network create shop --subnet 10.42.0.0/16 --subnet 10.43.0.0/16", 2, "several IPv4 subnets");
    check("clean --yes --run-dir /usr --data-dir /nonexistent/data", 2, "does not look like");
}

#[test]
fn a_socket_where_nobody_answers_exits_with_3_and_says_how_to_start_one() {
    for line in ["status", "node ls", "service ls -o json", "network ls", "network inspect shop"] {
        check(line, 3, "hint: `sealane up`");
    }
    for line in ["network create shop --subnet 10.42.0.0/16", "token create", "token ls", "network rm shop"] {
        check(line, 3, "control.sock");
    }
    check("status --socket /nonexistent/other.sock", 3, "/nonexistent/other.sock");
}

#[test]
fn run_and_exec_leave_low_statuses_to_the_command() {
    for line in ["run --network shop -- true", "exec web -- true", "run --network", "exec", "run -- true"] {
        check(line, 125, "error: ");
    }
}

#[test]
fn help_and_version_are_data() {
    for line in ["--help", "run --help", "--version", "network create --help"] {
        let output = sealane(line);
        assert!(output.status.success() && !output.stdout.is_empty(), "sealane {line}");
    }
}

#[test]
fn what_the_kernel_refuses_is_said_in_words_alone() {
    for (line, said) in [
        ("apply -f /nonexistent.yaml", "no such file or directory"),
        ("apply -f /proc/self/mem", ""),
        ("man --out /proc/nowhere", ""),
        ("agent --control 192.0.2.1:7443 --token-file /nonexistent/token", ""),
        ("restore /nonexistent/backup", ""),
        ("attach /nonexistent/netns --network shop", ""),
        ("detach --unit nothing", ""),
    ] {
        let output = sealane(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains("error: "), "sealane {line}: {stderr}");
        assert!(!stderr.contains("os error"), "sealane {line}: {stderr}");
        assert!(stderr.contains(said), "sealane {line}: {stderr}");
    }
}

#[test]
fn a_folder_with_something_else_in_it_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["node", "networks", "control.redb", "control.redb.before-restore-7", "letters"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let line = format!("clean --yes --run-dir /nonexistent/run --data-dir {}", folder.path().display());
    check(&line, 2, "a folder of Sealane's alone: there is letters in it");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
}

#[test]
fn nothing_is_removed_when_there_is_nobody_to_ask() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("sealane");
    std::fs::create_dir(&data).unwrap();
    let line = format!("clean --run-dir {0}/run/sealane --data-dir {0}/sealane", folder.path().display());
    let output = sealane(&line);
    assert_eq!(output.status.code(), Some(2));
    assert!(Path::new(&data).exists());
}
