//! Isolation for one test function.

use std::env;
use std::process::Command;
use std::thread;

/// Runs the calling test in namespaces of its own: `if !sealane_lab::isolated() { return; }` as its first line.
///
/// Outside, the test's program is started again inside for this test alone, and `false` is returned when it
/// passed there; inside, `true` is.
///
/// # Panics
/// Without root, and when the test failed inside.
#[must_use]
#[track_caller]
#[allow(clippy::panic, reason = "how a test fails")]
pub fn isolated() -> bool {
    let Some(name) = test_name(thread::current().name(), env::args()) else {
        panic!("cannot tell the name of this test: it must run on a thread named after it, or with --exact");
    };
    if super::label().as_deref() == Some(name.as_str()) {
        return true;
    }
    let inside = || -> Result<std::process::ExitStatus, String> {
        let mut command = Command::new(env::current_exe().map_err(|error| error.to_string())?);
        command.args([&name, "--exact", "--nocapture", "--include-ignored"]);
        let isolated = super::start(command, &name).map_err(|error| error.to_string())?;
        isolated.wait().map_err(|error| error.to_string())
    };
    match inside() {
        Ok(status) if status.success() => false,
        Ok(status) => panic!("test {name} failed in its namespaces ({status}); its output stands above"),
        Err(error) => panic!("test {name} cannot be isolated: {error}"),
    }
}

/// The test's full name: its thread's, or, on the main thread, the one that was asked for by `--exact`.
fn test_name(thread: Option<&str>, mut arguments: impl Iterator<Item = String>) -> Option<String> {
    match thread {
        Some("main") | None => {
            let rest: Vec<String> = arguments.by_ref().skip(1).collect();
            let exact = rest.iter().any(|argument| argument == "--exact");
            rest.into_iter().find(|argument| !argument.starts_with('-')).filter(|_| exact)
        }
        Some(name) => Some(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_by_its_thread_or_by_the_exact_name_asked_for() {
        let table: [(Option<&str>, &str, Option<&str>); 4] = [
            (Some("a::b"), "bin", Some("a::b")),
            (Some("main"), "bin --exact a::b --nocapture", Some("a::b")),
            (Some("main"), "bin --nocapture a::b --exact", Some("a::b")),
            (Some("main"), "bin a::b", None),
        ];
        for (thread, line, expected) in table {
            let arguments = line.split(' ').map(str::to_owned);
            assert_eq!(test_name(thread, arguments).as_deref(), expected, "{line}");
        }
    }
}
